//! Whole clusters in one process with simulated time, network and disk.
//!
//! One process runs one seed: everything that happens follows from it, and from the code. The
//! brokers are the real ones, from the gRPC door to the log; only their surroundings are ours.

pub mod asides;
pub mod board;
pub mod clients;
pub mod cluster;
pub mod compactions;
pub mod faults;
pub mod leaders;
pub mod marks;
pub mod mutants;
pub mod node;
pub mod rot;
pub mod run;
pub mod seeds;
pub mod settings;
pub mod surroundings;
pub mod trace;
pub mod watermarks;
