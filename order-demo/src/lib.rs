//! The order-fulfilment workload: business words over the client.
//!
//! Accounts become orders, orders become events, events are priced; a journal outside the broker
//! remembers what was sent, and an independent checker compares what can be read back with what
//! the input alone says must be there.
//!
//! [`driver::run`] does a whole run over brokers that a [`ClusterControl`] starts and kills.

pub mod account;
pub mod bus;
pub mod catalogue;
mod client_bus;
mod control;
pub mod driver;
pub mod evidence;
mod fault;
pub mod generate;
pub mod journal;
mod journal_file;
mod journal_task;
mod load;
pub mod money;
pub mod order;
pub mod plan;
mod pricer;
pub mod pricing;
pub mod progress;
mod readback;
pub mod report;
pub mod verify;
mod verify_events;

pub use client_bus::ClientBus;
pub use control::ClusterControl;
pub use journal_file::JournalFile;
