//! Whole clusters in one process with simulated time, network and disk.
