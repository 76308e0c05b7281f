//! Step 7 of a produced record, after the log, before front/: apply.
//!
//! The pure state machine decides (offsets, duplicates, rolls); this file carries its effects out:
//! a fresh head for the batch, the tail, the segment writer's queue, and last of all the high
//! watermark, which is what readers wait for.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Env, read_if_exists};
use highwater_proto::{NodeId, Offset, Payload, ShardId, TopicPartition};
use highwater_raft::{Position, StateMachine, StoredCheckpoint};
use highwater_segment::{AppendBatch, SegmentStore};
use highwater_shard::{Effect, EntryContext, ShardCommand, ShardReply, ShardState};

use super::checkpoint::{self, FrozenShard};
use super::install::SnapshotSource;
use super::tail::{ShardTail, TailBudget};
use super::view::{PartitionView, Views};

/// What every shard's state machine of a broker shares.
#[derive(Debug)]
pub struct ShardContext<E: Env> {
    /// Disk, clock, network, workers.
    pub env: E,
    /// Segment files of all partitions.
    pub store: SegmentStore<E::Disk>,
    /// Memory of all tails.
    pub tail: Arc<TailBudget>,
    /// The directory of shard checkpoints.
    pub dir: PathBuf,
    /// Where a replica that is too far behind gets what it lacks.
    pub snapshots: SnapshotSource<E>,
}

/// The state machine of one shard with its effects.
#[derive(Debug)]
pub struct ShardMachine<E: Env> {
    pub(super) id: ShardId,
    pub(super) state: ShardState,
    pub(super) views: Arc<Views<E::Disk>>,
    pub(super) tail: ShardTail<E::Disk>,
    pub(super) context: Arc<ShardContext<E>>,
    leadership: u64,
    effects: Vec<Effect>,
}

impl<E: Env> ShardMachine<E> {
    /// A machine without state; `load` gives it the last checkpoint.
    #[must_use]
    pub fn new(id: ShardId, context: Arc<ShardContext<E>>) -> Self {
        let tail = ShardTail::new(Arc::clone(&context.tail));
        Self {
            id,
            state: ShardState::new(),
            views: Arc::default(),
            tail,
            context,
            leadership: 0,
            effects: Vec::new(),
        }
    }
    /// The partitions, for readers.
    #[must_use]
    pub fn views(&self) -> Arc<Views<E::Disk>> {
        Arc::clone(&self.views)
    }
    /// Where this shard's checkpoint lies.
    pub(super) fn path(&self) -> PathBuf {
        self.context.dir.join(format!("{:06}.checkpoint", self.id.0))
    }

    async fn carry_out(&mut self, effect: Effect) -> io::Result<()> {
        match effect {
            Effect::Append { tp, batch, epoch } => self.append(tp, batch, epoch).await,
            Effect::Created { tp, config } => {
                let files = checkpoint::file_config(&config);
                let reader = self.context.store.create(tp, files).await?;
                let none = (Offset(0), Offset(0));
                self.views.insert(Arc::new(PartitionView::new(tp, reader, none)));
                Ok(())
            }
            Effect::Configured { .. } => Ok(()),
            Effect::Trimmed { tp, log_start } => {
                if let Some(view) = self.views.get(tp) {
                    view.trim(log_start);
                }
                self.context.store.trim(tp, log_start).await
            }
            Effect::Deleted { tp } => {
                if let Some(view) = self.views.remove(tp) {
                    view.delete();
                    self.tail.forget(&view);
                }
                self.context.store.delete(tp).await
            }
        }
    }
}
