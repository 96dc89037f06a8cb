"""Adapters to Kafka: consuming partitions, publishing in transactions, and a broker for the demo."""
