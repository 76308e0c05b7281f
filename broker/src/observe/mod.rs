//! What a broker shows of itself: metrics, health, logs.

mod admin;
mod health;
pub mod logs;
mod metrics;

pub use admin::Admin;
pub use health::{Check, CheckState, Health, REPLICATION_CHECK};
pub use metrics::Metrics;
