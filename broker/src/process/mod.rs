//! Brokers as child processes: started, watched, killed, restarted, and never left behind.
//!
//! `dev` and `demo` run real brokers, each a `server` of this very executable. Whatever happens to
//! the parent, its brokers end with it: on Linux each asks the kernel to be killed when its parent
//! is gone, and a dropped [`Broker`] kills its process.

mod broker;
mod cluster;
mod ports;
mod probe;

pub use broker::{ADDRESS_IN_USE, Broker, BrokerSpec, ProcessError};
pub use cluster::{Cluster, ClusterSpec};
