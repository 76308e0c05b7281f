//! Partitions come, change and go: commands about them applied.

use std::sync::Arc;

use highwater_mutant::mutant;
use highwater_proto::{Offset, TopicPartition};

use crate::PartitionConfig;
use crate::compaction::CompactionSettings as _;
use crate::effect::Effect;
use crate::level::FeatureLevel;
use crate::partition::Partition;
use crate::reply::{CommandRefusal, ShardReply};
use crate::state::{DELETED_REMEMBERED, EntryContext, ShardState};

impl ShardState {
    /// What this level keeps of a configuration: an older release drops the rest, and all replicas
    /// must hold the same.
    pub(crate) fn known(&self, config: PartitionConfig) -> PartitionConfig {
        if self.rules >= FeatureLevel::COMPACTION {
            return config;
        }
        let config = config.without_compaction();
        if self.rules >= FeatureLevel::TOPICS {
            return config;
        }
        PartitionConfig {
            version: 0,
            retention_ms: None,
            retention_bytes: None,
            ..config
        }
    }

    pub(crate) fn create(
        &mut self,
        at: EntryContext,
        tp: TopicPartition,
        config: PartitionConfig,
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let config = self.known(config);
        if let Some(partition) = self.partitions.get(&tp) {
            return if partition.config == config {
                ShardReply::Done
            } else {
                ShardReply::Refused(CommandRefusal::PartitionExists)
            };
        }
        if self.deleted.contains(&tp) {
            return ShardReply::Refused(CommandRefusal::PartitionDeleted);
        }
        self.partitions
            .insert(tp, Arc::new(Partition::new(config, at.leadership)));
        effects.push(Effect::Created {
            tp,
            config,
            arrival: 0,
        });
        ShardReply::Done
    }

    pub(crate) fn delete(&mut self, tp: TopicPartition, effects: &mut Vec<Effect>) -> ShardReply {
        // Also what is not here yet: a command to create it may still be on its way.
        self.remember_deleted(tp);
        self.drop_partition(tp, effects);
        ShardReply::Done
    }

    pub(crate) fn drop_partition(&mut self, tp: TopicPartition, effects: &mut Vec<Effect>) {
        if let Some(gone) = self.partitions.remove(&tp) {
            self.gone_plan = self.gone_plan.max(gone.arrival);
            effects.push(Effect::Deleted { tp });
        }
    }

    pub(crate) fn remember_deleted(&mut self, tp: TopicPartition) {
        if self.deleted.contains(&tp) {
            return;
        }
        if self.deleted.len() == DELETED_REMEMBERED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(tp);
    }

    pub(crate) fn configure(
        &mut self,
        tp: TopicPartition,
        config: PartitionConfig,
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let config = self.known(config);
        let Some(partition) = self.partitions.get_mut(&tp) else {
            return ShardReply::Refused(CommandRefusal::UnknownPartition);
        };
        if !partition.phase.is_served() {
            return ShardReply::Refused(CommandRefusal::Moving);
        }
        // A leader whose image is behind may come late: what is newer stays.
        if config.version < partition.config.version {
            return ShardReply::Done;
        }
        if partition.config != config {
            Arc::make_mut(partition).config = config;
            effects.push(Effect::Configured { tp, config });
        }
        ShardReply::Done
    }

    pub(crate) fn trim(
        &mut self,
        tp: TopicPartition,
        (upto, config_version): (Offset, Option<u64>),
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let knows_versions = self.rules >= FeatureLevel::TOPICS;
        let Some(partition) = self.partitions.get_mut(&tp) else {
            return ShardReply::Refused(CommandRefusal::UnknownPartition);
        };
        if !partition.phase.is_served() {
            return ShardReply::Refused(CommandRefusal::Moving);
        }
        let version = partition.config.version;
        if knows_versions && config_version.is_some_and(|decided| decided != version) {
            return ShardReply::Refused(CommandRefusal::OtherConfiguration);
        }
        let next_offset = partition.next_offset;
        if upto > next_offset {
            return ShardReply::Refused(CommandRefusal::OffsetOutOfRange { next_offset });
        }
        let log_start = mutant!(TrimsTooMuch => next_offset; else upto);
        if log_start > partition.log_start {
            let partition = Arc::make_mut(partition);
            partition.log_start = log_start;
            // Nothing is left of the segment that was open: its file goes, the next batch begins
            // another one.
            if knows_versions && log_start == next_offset {
                partition.segment = None;
            }
            effects.push(Effect::Trimmed { tp, log_start });
        }
        ShardReply::Trimmed {
            log_start: partition.log_start,
        }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
