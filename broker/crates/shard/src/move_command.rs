//! Steps of a partition's move to another shard, as commands of the two shards' logs.
#![deny(clippy::indexing_slicing)]

use bytes::Bytes;
use highwater_proto::internal::shard_move::Step as Wire;
use highwater_proto::internal::{
    ShardMove, ShardMoveAdopt, ShardMoveBatch, ShardMoveBegin, ShardMoveFence, ShardMoveForget,
    ShardMoveHold, ShardMoveImport, ShardMoveRelease,
};
use highwater_proto::{PayloadReader, TimestampMs, TopicPartition};

use crate::PartitionConfig;
use crate::command::{DecodeError, place};

/// A step of a move.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveCommand {
    /// Of which partition.
    pub tp: TopicPartition,
    /// The plan that moves it: its number is never used again.
    pub plan: u64,
    /// The step.
    pub step: MoveStep,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum MoveStep {
    /// Where it goes: makes an empty copy that nobody sees. Repeating it changes nothing.
    Begin {
        /// How it is treated.
        config: PartitionConfig,
    },
    /// Where it goes: batches as they are stored where it leaves, behind those that are here. What is
    /// here already is passed over.
    Import {
        /// The batches.
        batches: Vec<ImportedBatch>,
    },
    /// Where it goes: the copy is whole, and takes the partition's place with its producers and its
    /// leader epoch.
    Adopt {
        /// What [`crate::ShardState::export_partition`] gave after the fence.
        state: Bytes,
    },
    /// Where it leaves: nothing more is compacted, so that what is copied is of one state; from level
    /// [`crate::FeatureLevel::HOLDS`] on.
    Hold,
    /// Where it leaves: nothing changes any more.
    Fence,
    /// Where it leaves: the move was given up, it goes on here.
    Release,
    /// Drops what `plan` brought (0: what was made here), with all its records.
    Forget,
}

/// One batch of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedBatch {
    /// When it counts as appended.
    pub append_time: TimestampMs,
    /// It is the first of a segment where it comes from.
    pub begins_segment: bool,
    /// As it is stored, with its offset and leader epoch.
    pub batch: Bytes,
}

impl MoveCommand {
    /// The batches that follow the header.
    pub(crate) fn batches(&self) -> &[ImportedBatch] {
        match &self.step {
            MoveStep::Import { batches } => batches,
            _ => &[],
        }
    }

    pub(crate) fn to_wire(&self) -> ShardMove {
        let step = match &self.step {
            MoveStep::Begin { config } => Wire::Begin(ShardMoveBegin {
                config: Some(*config),
            }),
            MoveStep::Import { batches } => Wire::Import(ShardMoveImport {
                batches: batches.iter().map(to_item).collect(),
            }),
            MoveStep::Adopt { state } => Wire::Adopt(ShardMoveAdopt {
                state: state.clone(),
            }),
            MoveStep::Hold => Wire::Hold(ShardMoveHold {}),
            MoveStep::Fence => Wire::Fence(ShardMoveFence {}),
            MoveStep::Release => Wire::Release(ShardMoveRelease {}),
            MoveStep::Forget => Wire::Forget(ShardMoveForget {}),
        };
        ShardMove {
            topic: self.tp.topic.0,
            partition: self.tp.partition.0,
            plan: self.plan,
            step: Some(step),
        }
    }

    pub(crate) fn from_wire(
        wire: ShardMove,
        reader: &mut PayloadReader<'_>,
    ) -> Result<Self, DecodeError> {
        let Some(step) = wire.step else {
            let text = "its step of a move is unknown";
            return Err(DecodeError::Newer(text.to_owned()));
        };
        let step = match step {
            Wire::Begin(begin) => MoveStep::Begin {
                config: begin.config.unwrap_or_default(),
            },
            Wire::Import(import) => {
                let batches = import.batches.iter().map(|item| from_item(item, reader));
                MoveStep::Import {
                    batches: batches.collect::<Result<_, _>>()?,
                }
            }
            Wire::Adopt(adopt) => MoveStep::Adopt { state: adopt.state },
            Wire::Hold(_) => MoveStep::Hold,
            Wire::Fence(_) => MoveStep::Fence,
            Wire::Release(_) => MoveStep::Release,
            Wire::Forget(_) => MoveStep::Forget,
        };
        Ok(Self {
            tp: place(wire.topic, wire.partition),
            plan: wire.plan,
            step,
        })
    }
}

fn to_item(imported: &ImportedBatch) -> ShardMoveBatch {
    ShardMoveBatch {
        append_time_ms: imported.append_time.0,
        // A batch is 64 MiB at most.
        length: u32::try_from(imported.batch.len()).unwrap_or(u32::MAX),
        begins_segment: imported.begins_segment,
    }
}

fn from_item(
    item: &ShardMoveBatch,
    reader: &mut PayloadReader<'_>,
) -> Result<ImportedBatch, DecodeError> {
    Ok(ImportedBatch {
        append_time: TimestampMs(item.append_time_ms),
        begins_segment: item.begins_segment,
        batch: reader.take(item.length as usize)?,
    })
}
