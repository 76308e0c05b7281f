//! The cluster image and the commands that change it.
//!
//! Pure: no clock, no disk, no randomness. Every broker applies the same commands in the same order
//! and holds the same image. Formats: `FORMAT.md`.

mod apply;
mod command;
mod configs;
mod image;
mod level;
mod lifecycle;
mod moves;
mod placement;
mod plan;
mod planner;
mod snapshot;
mod topic;
mod topics;
mod wire;
mod wire_life;
mod wire_moves;
mod wire_topics;

pub use apply::MOST_SHARDS_PER_BROKER;
pub use command::{DecodeError, MetadataCommand, MetadataReply, NewBroker, Refusal};
pub use configs::{CleanupPolicy, TopicSettings, WriteLimits};
pub use image::{BrokerInfo, Image, ShardInfo, TopicsPage};
pub use level::{MetadataLevel, release};
pub use placement::fewer_shards;
pub use plan::{BrokerState, Floor, Move, MoveState, MoveStep, PartitionMove, Plan, PlanKind};
pub use topic::Topic;

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod tests;
