//! The shard state machine: partitions, producers and offsets, decided in apply.
