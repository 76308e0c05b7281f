//! The shard state machine: partitions, producers, offsets and consumer groups, decided in apply.
//!
//! Pure: an entry and the state give verdicts, effects and the next state. Time comes in entries;
//! there are no files, no threads, no randomness and no order that differs between replicas. What
//! the metadata image says is never looked at: partitions are made, configured and dropped by
//! commands of the shard's own log. Formats: `FORMAT.md`.

mod clock;
mod command;
mod compaction;
mod effect;
pub mod groups;
mod level;
mod lifecycle;
#[cfg(test)]
mod model_tests;
mod move_command;
mod moves;
mod partition;
mod producer;
mod reply;
mod snapshot;
mod state;
#[cfg(test)]
mod test_support;

pub use command::{AppendRequest, DecodeError, ShardCommand};
pub use compaction::{CompactionFacts, CompactionSettings};
pub use effect::{AppendEffect, Effect};
pub use highwater_proto::internal::{GroupCommand, PartitionConfig};
pub use level::FeatureLevel;
pub use move_command::{ImportedBatch, MoveCommand, MoveStep};
pub use partition::{PartitionFacts, Phase};
pub use reply::{CommandRefusal, RejectReason, ReplyError, ShardReply, Verdict};
pub use snapshot::{ImportError, SnapshotError, exported_level};
pub use state::{EntryContext, ShardState};
