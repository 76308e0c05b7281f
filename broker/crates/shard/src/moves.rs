//! Moves applied: a partition leaves one shard and arrives in another.
//!
//! Where it goes an empty copy is begun, and the batches are imported through that shard's log, so
//! that what is adopted lies on a majority of its replicas like everything else. Where it leaves a
//! fence ends all changes; the state behind the fence is adopted with the copy, once the copy ends
//! where the fenced log does. Before it is copied it is held: what is compacted while a copy is made
//! could bring back in the copy what a record that is gone by then had deleted. Which of the two
//! shards counts is decided elsewhere, once, in the metadata group: until then the copy can be
//! forgotten, and the hold or the fence released.
//!
//! Every step may come twice, or late. It names the plan that it is about, and plans are never
//! numbered twice.

use std::sync::Arc;

use bytes::Bytes;
use highwater_mutant::mutant;
use highwater_proto::batch::BatchHeader;
use highwater_proto::{Offset, TopicPartition};

use crate::PartitionConfig;
use crate::effect::Effect;
use crate::level::FeatureLevel;
use crate::move_command::{ImportedBatch, MoveCommand, MoveStep};
use crate::partition::{Partition, Phase};
use crate::reply::{CommandRefusal, ShardReply};
use crate::snapshot::Exported;
use crate::state::{EntryContext, ShardState};

const OTHER: ShardReply = ShardReply::Refused(CommandRefusal::OtherMove);
const UNKNOWN: ShardReply = ShardReply::Refused(CommandRefusal::UnknownPartition);

impl ShardState {
    pub(crate) fn apply_move(
        &mut self,
        at: EntryContext,
        command: MoveCommand,
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let MoveCommand { tp, plan, step } = command;
        if self.rules < FeatureLevel::MOVES {
            return OTHER;
        }
        match step {
            MoveStep::Begin { config } => self.begin_copy((tp, plan), config, effects),
            MoveStep::Import { batches } => self.import((tp, plan), &batches, effects),
            MoveStep::Adopt { state } => self.adopt(at, (tp, plan), &state, effects),
            MoveStep::Hold => self.hold((tp, plan), effects),
            MoveStep::Fence => self.fence((tp, plan), effects),
            MoveStep::Release => self.release((tp, plan), effects),
            MoveStep::Forget => self.forget((tp, plan), effects),
        }
    }

    fn begin_copy(
        &mut self,
        (tp, plan): (TopicPartition, u64),
        config: PartitionConfig,
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        // What comes too late for its plan would begin what nobody goes on with, and write over the files
        // that are on their way out.
        if plan <= self.gone_plan {
            return OTHER;
        }
        if let Some(here) = self.partitions.get(&tp) {
            return match here.arrival == plan {
                true => ShardReply::Done,
                // It was here before, and has not gone yet.
                false => ShardReply::Refused(CommandRefusal::PartitionExists),
            };
        }
        // It may have been here before. If its topic is deleted, the leader sees that and deletes this.
        self.deleted.retain(|gone| *gone != tp);
        let config = self.known(config);
        let copy = Partition {
            arrival: plan,
            phase: Phase::Importing,
            ..Partition::new(config, 0)
        };
        self.partitions.insert(tp, Arc::new(copy));
        effects.push(Effect::Created {
            tp,
            config,
            arrival: plan,
        });
        ShardReply::Done
    }

    fn import(
        &mut self,
        (tp, plan): (TopicPartition, u64),
        batches: &[ImportedBatch],
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let Some(copy) = self.partitions.get_mut(&tp) else {
            return UNKNOWN;
        };
        if copy.arrival != plan || copy.phase != Phase::Importing {
            return OTHER;
        }
        for imported in batches {
            let Some(header) = whole(&imported.batch) else {
                return OTHER;
            };
            if header.last_offset() < copy.next_offset {
                continue;
            }
            if header.base_offset < copy.next_offset {
                let next_offset = copy.next_offset;
                return ShardReply::Refused(CommandRefusal::OffsetOutOfRange { next_offset });
            }
            let effect = Arc::make_mut(copy).import((tp, imported), &header);
            effects.push(Effect::Append(effect));
        }
        ShardReply::Done
    }

    fn adopt(
        &mut self,
        at: EntryContext,
        (tp, plan): (TopicPartition, u64),
        state: &Bytes,
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let exported = self.read_export(state);
        let now_ms = self.clock.elapsed_ms;
        let Some(copy) = self.partitions.get_mut(&tp) else {
            return UNKNOWN;
        };
        if copy.arrival != plan || matches!(copy.phase, Phase::Fenced { .. }) {
            return OTHER;
        }
        if copy.phase.is_served() {
            return ShardReply::Done; // adopted before
        }
        let Ok(exported) = exported else {
            return OTHER;
        };
        // Made before the fence, it would lack what came until then.
        if exported.tp != tp || exported.partition.phase != (Phase::Fenced { plan }) {
            return OTHER;
        }
        let (start, end) = (exported.partition.log_start, exported.partition.next_offset);
        let next_offset = copy.next_offset;
        let is_whole = next_offset == end || (start == end && next_offset < end);
        if !is_whole {
            return ShardReply::Refused(CommandRefusal::OffsetOutOfRange { next_offset });
        }
        let copy = Arc::make_mut(copy);
        copy.take_over(exported, (at.position, now_ms));
        let facts = copy.facts();
        effects.push(Effect::Adopted { tp, facts });
        ShardReply::Done
    }

    fn hold(&mut self, (tp, plan): (TopicPartition, u64), effects: &mut Vec<Effect>) -> ShardReply {
        let rules = self.rules;
        let Some(partition) = self.partitions.get_mut(&tp) else {
            return UNKNOWN;
        };
        let by = match partition.phase {
            Phase::Serving => partition.arrival,
            Phase::Importing => return OTHER,
            Phase::Held { plan: by } | Phase::Fenced { plan: by } if by == plan => {
                return ShardReply::Done;
            }
            // One plan runs at a time: an earlier one was given up.
            Phase::Held { plan: by } | Phase::Fenced { plan: by } => by,
        };
        if plan <= by || rules < FeatureLevel::HOLDS {
            return OTHER;
        }
        mutant!(CopiesUnheld => { return ShardReply::Done; });
        Arc::make_mut(partition).phase = Phase::Held { plan };
        effects.push(Effect::Held { tp, plan });
        ShardReply::Done
    }

    fn fence(
        &mut self,
        (tp, plan): (TopicPartition, u64),
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let Some(partition) = self.partitions.get_mut(&tp) else {
            return UNKNOWN;
        };
        match partition.phase {
            // Nothing kept it from being compacted while it was copied.
            Phase::Serving if needs_hold(partition) || plan <= partition.arrival => {
                return OTHER;
            }
            Phase::Held { plan: by } if by != plan => return OTHER,
            Phase::Serving | Phase::Held { .. } => {}
            Phase::Importing => return OTHER,
            Phase::Fenced { plan: by } if by == plan => return ShardReply::Done,
            // One plan runs at a time: an earlier one was given up.
            Phase::Fenced { plan: by } if by > plan => return OTHER,
            Phase::Fenced { .. } => {}
        }
        Arc::make_mut(partition).phase = Phase::Fenced { plan };
        effects.push(Effect::Fenced { tp, plan });
        ShardReply::Done
    }

    fn release(
        &mut self,
        (tp, plan): (TopicPartition, u64),
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let Some(partition) = self.partitions.get_mut(&tp) else {
            return UNKNOWN;
        };
        let (fenced, held) = (Phase::Fenced { plan }, Phase::Held { plan });
        if partition.phase == fenced || partition.phase == held {
            Arc::make_mut(partition).phase = Phase::Serving;
            effects.push(Effect::Released { tp });
        }
        ShardReply::Done
    }

    fn forget(
        &mut self,
        (tp, plan): (TopicPartition, u64),
        effects: &mut Vec<Effect>,
    ) -> ShardReply {
        let here = self.partitions.get(&tp);
        if here.is_some_and(|partition| partition.arrival == plan) {
            // A command to make it may still be on its way.
            self.remember_deleted(tp);
            self.drop_partition(tp, effects);
        }
        ShardReply::Done
    }
}

impl Partition {
    /// The copy is the partition from now on: what a reader saw and what a producer was told holds
    /// here as it did there.
    fn take_over(&mut self, exported: Exported, (position, now_ms): (u64, u64)) {
        let Exported {
            partition: theirs,
            elapsed_ms,
            ..
        } = exported;
        self.producers = theirs.producers;
        self.producers.shift_times(elapsed_ms, now_ms);
        self.log_start = theirs.log_start;
        self.next_offset = theirs.next_offset;
        // Leaderships of two shards cannot be compared: the next append raises the epoch.
        self.leadership = 0;
        self.leader_epoch = self.leader_epoch.max(theirs.leader_epoch);
        if theirs.config.version >= self.config.version {
            self.config = theirs.config;
        }
        // What lies below its end may be gone since.
        let compaction = theirs.compaction;
        let counts = compaction.filter(|last| last.facts().upto > self.log_start);
        self.compaction = counts.map(|last| Box::new(last.arrived(position)));
        // Nothing is left of the segment that was written.
        if self.log_start == self.next_offset {
            self.segment = None;
        }
        self.phase = Phase::Serving;
    }
}

/// Whether what a copy would be of may be several states.
fn needs_hold(partition: &Partition) -> bool {
    mutant!(CopiesUnheld => false; else partition.compaction.is_some())
}

/// The header of a batch that is all there.
fn whole(batch: &Bytes) -> Option<BatchHeader> {
    let header = BatchHeader::parse(batch).ok()?;
    let in_range = header.last_offset() < Offset(i64::MAX as u64);
    (header.total_len() == batch.len() && in_range).then_some(header)
}

#[cfg(test)]
#[path = "moves_compacted_tests.rs"]
mod compacted_tests;
#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
