//! Compaction as the shard's log decides it: how far, and which records without value may go. The
//! work itself is done later, by each replica on its own; it is a function of what is decided here.
//!
//! A record without value (a tombstone) says that its key is gone. A reader that saw the value must
//! get to see it, so it is kept for `delete_retention_ms` after the first compaction that covered it.

use std::sync::Arc;

use highwater_proto::internal::{ShardCompacted, ShardCompaction};
use highwater_proto::{Offset, TimestampMs, TopicPartition};

use crate::PartitionConfig;
use crate::effect::Effect;
use crate::level::FeatureLevel;
use crate::partition::Phase;
use crate::reply::{CommandRefusal, ShardReply};
use crate::state::{EntryContext, ShardState};

/// Earlier compactions that are remembered. With more, the second newest is forgotten: what it
/// covered then counts as covered by the newest, and its tombstones stay longer.
const REMEMBERED: usize = 32;

/// What one compaction covered, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    upto: Offset,
    time: TimestampMs,
}

/// The newest compaction of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compaction {
    facts: CompactionFacts,
    /// Oldest first; the tombstones below the first are kept for now.
    kept: Vec<Covered>,
}

/// What follows for a partition's records. Everything below `upto` is to be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionFacts {
    /// Place in the shard's log of the command: which compaction it is.
    pub generation: u64,
    /// A segment ends here.
    pub upto: Offset,
    /// What lies below is dropped: the log's start when this was decided.
    pub floor: Offset,
    /// Records without value below are dropped.
    pub tombstones_below: Offset,
    /// The size of the segments that are written, in bytes; 0: no limit.
    pub segment_bytes: u64,
}

impl Compaction {
    pub fn facts(&self) -> CompactionFacts {
        self.facts
    }
    pub fn to_message(&self) -> ShardCompaction {
        let covered = |one: &Covered| ShardCompacted {
            upto: one.upto.0,
            time_ms: one.time.0,
        };
        ShardCompaction {
            generation: self.facts.generation,
            upto: self.facts.upto.0,
            floor: self.facts.floor.0,
            tombstones_below: self.facts.tombstones_below.0,
            segment_bytes: self.facts.segment_bytes,
            kept: self.kept.iter().map(covered).collect(),
        }
    }
    pub fn from_message(message: &ShardCompaction) -> Self {
        let covered = |one: &ShardCompacted| Covered {
            upto: Offset(one.upto),
            time: TimestampMs(one.time_ms),
        };
        Self {
            facts: CompactionFacts {
                generation: message.generation,
                upto: Offset(message.upto),
                floor: Offset(message.floor),
                tombstones_below: Offset(message.tombstones_below),
                segment_bytes: message.segment_bytes,
            },
            kept: message.kept.iter().map(covered).collect(),
        }
    }

    /// The same one in the log of the shard that the partition has come to, where it is an entry at
    /// `position`. Done once more there, it finds its own result.
    pub fn arrived(mut self, position: u64) -> Self {
        self.facts.generation = position;
        self
    }

    /// The compaction that follows `last`.
    fn after(last: Option<&Self>, facts: CompactionFacts, time: TimestampMs, keep_ms: u64) -> Self {
        let mut kept = last.map(|last| last.kept.clone()).unwrap_or_default();
        let mut tombstones_below = last.map_or(Offset(0), |last| last.facts.tombstones_below);
        let keep_ms = i64::try_from(keep_ms).unwrap_or(i64::MAX);
        // A clock that went back covers nothing earlier than what came before.
        let newest = kept.last().map_or(i64::MIN, |last| last.time.0);
        kept.retain(|one| {
            let is_over = one.time.0.saturating_add(keep_ms) <= time.0;
            if is_over {
                tombstones_below = tombstones_below.max(one.upto);
            }
            !is_over
        });
        if kept.len() >= REMEMBERED {
            kept.pop();
        }
        kept.push(Covered {
            upto: facts.upto,
            time: TimestampMs(time.0.max(newest)),
        });
        Self {
            facts: CompactionFacts {
                tombstones_below,
                ..facts
            },
            kept,
        }
    }
}

/// Settings that came with level [`FeatureLevel::COMPACTION`].
pub trait CompactionSettings {
    /// The settings without those about compaction.
    #[must_use]
    fn without_compaction(self) -> Self;
}

impl CompactionSettings for PartitionConfig {
    fn without_compaction(self) -> Self {
        Self {
            compact: false,
            delete_retention_ms: 0,
            min_dirty_ppm: 0,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
            ..self
        }
    }
}

impl ShardState {
    pub(crate) fn compact(
        &mut self,
        at: EntryContext,
        tp: TopicPartition,
        (upto, time, config_version): (Offset, TimestampMs, u64),
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let may = self.rules >= FeatureLevel::COMPACTION;
        let Some(partition) = self.partitions.get_mut(&tp) else {
            return ShardReply::Refused(CommandRefusal::UnknownPartition);
        };
        if partition.phase != Phase::Serving {
            return ShardReply::Refused(CommandRefusal::Moving);
        }
        let config = &partition.config;
        if !may || !config.compact || config.version != config_version {
            return ShardReply::Refused(CommandRefusal::OtherConfiguration);
        }
        // Never what may still grow: the segment being written stays as it is.
        let closed = partition
            .segment
            .map_or(partition.next_offset, |open| open.base_offset);
        let last = partition.compaction.as_deref();
        if upto > closed || upto <= partition.log_start {
            let next_offset = partition.next_offset;
            return ShardReply::Refused(CommandRefusal::OffsetOutOfRange { next_offset });
        }
        // Decided by a leader that did not know of a later one.
        if last.is_some_and(|last| upto <= last.facts.upto) {
            return ShardReply::Done;
        }
        let facts = CompactionFacts {
            generation: at.position,
            upto,
            floor: partition.log_start,
            tombstones_below: Offset(0),
            segment_bytes: config.segment_bytes,
        };
        let compaction = Compaction::after(last, facts, time, config.delete_retention_ms);
        let facts = compaction.facts;
        Arc::make_mut(partition).compaction = Some(Box::new(compaction));
        effects.push(Effect::Compacted {
            tp,
            compaction: facts,
        });
        ShardReply::Done
    }
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;
