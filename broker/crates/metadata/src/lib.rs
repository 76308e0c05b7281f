//! The cluster image and the commands that change it.
//!
//! Pure: no clock, no disk, no randomness. Every broker applies the same commands in the same order
//! and holds the same image. Formats: `FORMAT.md`.

mod apply;
mod command;
mod configs;
mod image;
mod placement;
mod snapshot;
mod topic;
mod wire;

pub use command::{DecodeError, MetadataCommand, MetadataReply, NewBroker, Refusal};
pub use configs::{TopicSettings, WriteLimits};
pub use image::{BrokerInfo, Image, ShardInfo, TopicsPage};
pub use topic::Topic;

#[cfg(test)]
mod tests;
