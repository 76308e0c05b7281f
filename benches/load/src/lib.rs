//! The load generator, as a library: the binary's verb `bench`, and the comparison with other
//! brokers, are built on it.

pub mod bench;
pub mod cluster;
pub mod stats;
