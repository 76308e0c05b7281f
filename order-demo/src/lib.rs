//! The order-fulfilment workload: business words over the client.
//!
//! Accounts become orders, orders become events, events are priced; a journal outside the broker
//! remembers what was sent, and an independent checker compares what can be read back with what
//! the input alone says must be there.

pub mod account;
pub mod catalogue;
pub mod evidence;
pub mod generate;
pub mod journal;
mod journal_file;
pub mod money;
pub mod order;
pub mod plan;
pub mod pricing;
pub mod report;
pub mod verify;
mod verify_events;

pub use journal_file::JournalFile;
