//! The coordinator of the consumer groups of the shards that this broker leads.
//!
//! It decides nothing that lasts: it hears members, and proposes that one is expelled; it looks at
//! the cluster image, and proposes who should have which partition. What becomes of a proposal is
//! decided in apply. What it remembers itself (who was heard when, what stands still since when) is
//! lost with its leadership, and begins anew.

mod coordinator;
pub mod lag;
mod problem;
mod sessions;
mod survey;

pub use coordinator::{Coordinator, ProposeFailure, coordinate, propose, raise_level};
pub use problem::{compile_pattern, subscribed_topics};
pub use survey::GroupLag;
