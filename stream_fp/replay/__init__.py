"""Replay: recorded sessions through the same engine that runs live, and what came of them.

From topics, partition by partition, or from files, which stand for partitions. Records flow from `worker`, which reads
them, through `follower`, which is pure, into the files of `parts`; `run` hands the parts of a `plan` to processes and
puts together what they wrote. Predictions are the bytes that the live service publishes for the same records.
"""

__all__: list[str] = []
