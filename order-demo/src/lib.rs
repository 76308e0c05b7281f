//! The order-fulfilment workload: a telecom order pipeline over the client.
//!
//! Orders come in over HTTP, a saga takes each through a dozen services, and a checker that shares
//! no expectation with them compares what was promised with what can be read back. [`services`] runs
//! each service as a process, [`driver`] runs them all over brokers that a [`ClusterControl`] starts
//! and kills, [`checker`] judges.

pub mod account;
pub mod bus;
pub mod catalogue;
pub mod checker;
mod control;
pub mod domain;
pub mod driver;
pub mod evidence;
pub mod gateway;
pub mod generate;
pub mod journal;
pub mod money;
pub mod order;
pub mod plan;
mod readback;
pub mod report;
pub mod series;
pub mod services;
pub mod store;

pub use control::ClusterControl;
