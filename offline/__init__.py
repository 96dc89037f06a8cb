"""Everything that is learned before the service starts: training, simulation, the demo."""
