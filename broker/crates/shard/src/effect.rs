//! What apply asks its caller to do: nothing here is done by this crate itself.

use std::sync::Arc;

use highwater_proto::batch::StampedBatch;
use highwater_proto::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::compaction::CompactionFacts;
use crate::{PartitionConfig, PartitionFacts};

/// A batch that got its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEffect {
    /// Where.
    pub tp: TopicPartition,
    /// A fresh head, and the rest shared with the log entry.
    pub batch: StampedBatch,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The partition's leader epoch, as the head has it.
    pub leader_epoch: LeaderEpoch,
    /// The greatest timestamp of its records.
    pub max_timestamp: TimestampMs,
    /// When the leader took it.
    pub append_time: TimestampMs,
    /// It begins a new segment.
    pub new_segment: bool,
}

/// A change of a partition, in the order in which apply made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Batch of a partition.
    Append(AppendEffect),
    /// A new, empty partition.
    Created {
        /// Which one.
        tp: TopicPartition,
        /// How it is treated.
        config: PartitionConfig,
        /// The plan whose move brings it here; 0: it is made here.
        arrival: u64,
    },
    /// A copy is whole: its partition is served here from now on.
    Adopted {
        /// Which one.
        tp: TopicPartition,
        /// What it is now.
        facts: PartitionFacts,
    },
    /// A partition is copied, and not compacted meanwhile.
    Held {
        /// Which one.
        tp: TopicPartition,
        /// The plan that moves it.
        plan: u64,
    },
    /// A partition leaves, and nothing of it changes any more.
    Fenced {
        /// Which one.
        tp: TopicPartition,
        /// The plan that moves it.
        plan: u64,
    },
    /// A partition stays after all.
    Released {
        /// Which one.
        tp: TopicPartition,
    },
    /// A partition is gone with all its records.
    Deleted {
        /// Which one.
        tp: TopicPartition,
    },
    /// A partition is treated differently from now on.
    Configured {
        /// Which one.
        tp: TopicPartition,
        /// How it is treated.
        config: PartitionConfig,
    },
    /// Everything below an offset is to be compacted.
    Compacted {
        /// Of which partition.
        tp: TopicPartition,
        /// How.
        compaction: CompactionFacts,
    },
    /// A consumer group was made, changed or forgotten.
    GroupChanged {
        /// Its name.
        group: Arc<str>,
        /// More than offsets and parked keys: members, or what they hold. Also: keys were unparked.
        news: bool,
    },
    /// Records below an offset are gone.
    Trimmed {
        /// Of which partition.
        tp: TopicPartition,
        /// The first offset that stays.
        log_start: Offset,
    },
}
