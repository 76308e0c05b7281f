//! Step 7 of a produced record, in its pure half: the entry and the state give the verdicts, the
//! next state and the effects. Before it the log, after it the caller that carries effects out.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use highwater_proto::TopicPartition;

use crate::clock::ShardClock;
use crate::command::{AppendRequest, ShardCommand};
use crate::effect::Effect;
use crate::groups::table::Groups;
use crate::level::FeatureLevel;
use crate::partition::{Moment, Partition, PartitionFacts};
use crate::reply::{RejectReason, ShardReply, Verdict};

/// Deleted partitions remembered, so that a command to create one that was on its way for long
/// does not bring it back.
pub(crate) const DELETED_REMEMBERED: usize = 4096;

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryContext {
    /// Place in the shard's log; rises from entry to entry.
    pub position: u64,
    /// Counts leaderships of the shard, from 1; never falls.
    pub leadership: u64,
}

/// Everything that a shard decides from. Cloning is cheap (partitions are shared until one of the
/// two changes), so a snapshot can be encoded away from apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardState {
    pub(crate) rules: FeatureLevel,
    pub(crate) position: Option<u64>,
    pub(crate) clock: ShardClock,
    pub(crate) partitions: BTreeMap<TopicPartition, Arc<Partition>>,
    /// Oldest first.
    pub(crate) deleted: VecDeque<TopicPartition>,
    /// The newest plan that brought a partition which has gone again: nothing of it begins any more.
    pub(crate) gone_plan: u64,
    /// Whose producers were looked through last.
    pub(crate) swept: TopicPartition,
    pub(crate) groups: Groups,
}

impl ShardState {
    /// A shard without partitions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// All partitions, by topic and number.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, PartitionFacts)> + '_ {
        self.partitions
            .iter()
            .map(|(tp, partition)| (*tp, partition.facts()))
    }
    /// One partition.
    #[must_use]
    pub fn partition(&self, tp: TopicPartition) -> Option<PartitionFacts> {
        self.partitions.get(&tp).map(|partition| partition.facts())
    }
    /// Whether the partition is here.
    #[must_use]
    pub fn has_partition(&self, tp: TopicPartition) -> bool {
        self.partitions.contains_key(&tp)
    }
    /// How many partitions are here.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }
    /// The rules that apply follows.
    #[must_use]
    pub fn rules(&self) -> FeatureLevel {
        self.rules
    }
    /// The place of the last command applied.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// Applies one entry. The same state and the same entry give the same reply, effects and next
    /// state, everywhere and for ever.
    ///
    /// # Panics
    /// When the entry is not behind the last one: it would be applied twice.
    pub fn apply(
        &mut self,
        at: EntryContext,
        command: ShardCommand,
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        assert!(
            self.position.is_none_or(|last| at.position > last),
            "entry {} comes after entry {:?}: it would be applied twice",
            at.position,
            self.position,
        );
        self.position = Some(at.position);
        match command {
            ShardCommand::Append { batches } => {
                let mut verdicts = Vec::with_capacity(batches.len());
                effects.reserve(batches.len());
                for request in batches {
                    verdicts.push(self.append(at, request, effects));
                }
                self.sweep_one();
                ShardReply::Append(verdicts)
            }
            ShardCommand::CreatePartition { tp, config } => self.create(at, tp, config, effects),
            ShardCommand::DeletePartition { tp } => self.delete(tp, effects),
            ShardCommand::ConfigurePartition { tp, config } => self.configure(tp, config, effects),
            ShardCommand::TrimLog {
                tp,
                log_start,
                config_version,
            } => self.trim(tp, (log_start, config_version), effects),
            ShardCommand::CompactLog {
                tp,
                upto,
                time,
                config_version,
            } => self.compact(at, tp, (upto, time, config_version), effects),
            ShardCommand::Move(command) => self.apply_move(at, *command, effects),
            ShardCommand::Group(command) => {
                ShardReply::Group(self.apply_group(at, *command, effects))
            }
            ShardCommand::RaiseFeatureLevel { level } => {
                self.rules = self.rules.max(level);
                ShardReply::Done
            }
        }
    }

    fn append(
        &mut self,
        at: EntryContext,
        request: AppendRequest,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let now_ms = self.clock.observe(request.append_time);
        let rules = self.rules;
        let Some(partition) = self.partitions.get_mut(&request.tp) else {
            return Verdict::Rejected(RejectReason::UnknownPartition);
        };
        match partition.check(&request.batch, now_ms) {
            Ok(accepted) => {
                let moment = Moment {
                    leadership: at.leadership,
                    now_ms,
                    rules,
                };
                let partition = Arc::make_mut(partition);
                let (verdict, effect) = partition.append(&accepted, request, moment);
                effects.push(Effect::Append(effect));
                verdict
            }
            Err(verdict) => verdict,
        }
    }

    /// Looks through the producers of one partition per entry, so that those of partitions that
    /// nobody writes to any more are forgotten too.
    fn sweep_one(&mut self) {
        let next = self
            .partitions
            .range((Bound::Excluded(self.swept), Bound::Unbounded))
            .next();
        let next = next.or_else(|| self.partitions.iter().next());
        let Some((&tp, partition)) = next else { return };
        self.swept = tp;
        let (now_ms, limits) = (self.clock.elapsed_ms, partition.limits());
        if partition.producers.has_expired(now_ms, limits)
            && let Some(partition) = self.partitions.get_mut(&tp)
        {
            Arc::make_mut(partition)
                .producers
                .forget_expired(now_ms, limits);
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
