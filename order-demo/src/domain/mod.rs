//! The business logic: pure functions over a key-value view. No clock, no network, no files.
//!
//! Every mode of running it (services over the broker, services over HTTP, one process) uses this
//! code and no other.

pub mod audit;
pub mod billing;
pub mod catalogue;
pub mod context;
pub mod deviation;
pub mod eligibility;
pub mod inventory;
pub mod message;
pub mod notify;
pub mod payment;
pub mod processor;
pub mod provisioning;
pub mod request;
pub mod role;
pub mod saga;
pub mod saga_undo;
pub mod state;
pub mod status;
pub mod topics;
pub mod validator;
