//! Step 7 of a produced record, after the log, before front/: apply.
//!
//! The pure state machine decides (offsets, duplicates, rolls); this file carries its effects out:
//! a fresh head for the batch, the tail, the segment writer's queue, and last of all the high
//! watermark, which is what readers wait for.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_env::Env;
use highwater_proto::{LeaderEpoch, NodeId, Offset, Payload, ShardId, TopicPartition};
use highwater_raft::{Position, StateMachine, StoredCheckpoint};
use highwater_segment::{AppendBatch, SegmentStore, ShardSegments};
use highwater_shard::{
    CompactionFacts, Effect, EntryContext, PartitionConfig, PartitionFacts, ShardCommand,
    ShardReply, ShardState,
};

use super::checkpoint::{self, CheckpointFiles, FrozenShard};
use super::compaction::CompactionQueue;
use super::groups::GroupViews;
use super::install::PreparedShard;
use super::pull::SnapshotSource;
use super::standing::Standing;
use super::tail::{ShardTail, TailBudget};
use super::view::{PartitionView, Views};

/// What the state machines of all shards of a broker share.
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
    /// Compactions that were decided and are not done yet.
    pub compactions: CompactionQueue,
}

/// The state machine of one shard, with its effects.
pub struct ShardMachine<E: Env> {
    pub(super) id: ShardId,
    pub(super) state: ShardState,
    pub(super) views: Arc<Views<E::Disk>>,
    groups: Arc<GroupViews>,
    pub(super) tail: ShardTail<E::Disk>,
    pub(super) segments: ShardSegments<E::Disk>,
    pub(super) context: Arc<ShardContext<E>>,
    effects: Vec<Effect>,
}

impl<E: Env> ShardMachine<E> {
    /// A machine without state; `load` gives it the last checkpoint.
    #[must_use]
    pub fn new(id: ShardId, context: Arc<ShardContext<E>>) -> Self {
        Self {
            id,
            state: ShardState::new(),
            views: Arc::default(),
            groups: Arc::default(),
            tail: ShardTail::new(Arc::clone(&context.tail)),
            segments: context.store.shard(id),
            context,
            effects: Vec::new(),
        }
    }
    /// The partitions, for readers.
    #[must_use]
    pub fn views(&self) -> Arc<Views<E::Disk>> {
        Arc::clone(&self.views)
    }
    /// The consumer groups, for readers.
    #[must_use]
    pub fn groups(&self) -> Arc<GroupViews> {
        Arc::clone(&self.groups)
    }
    pub(super) fn files(&self) -> CheckpointFiles<E::Disk> {
        let path = checkpoint::checkpoint_path(&self.context.dir, self.id);
        CheckpointFiles::new(&self.context.env, path, self.context.store.clone())
    }
    /// Replaces the state by that of a checkpoint whose segments are open already.
    pub(super) fn adopt(&mut self, state: ShardState) {
        for tp in self.views.all() {
            if !state.has_partition(tp) {
                self.remove_view(tp);
            }
        }
        for (tp, facts) in state.partitions() {
            let known = self.views.get(tp);
            let (same, other) = match known {
                Some(view) if view.arrival() == facts.arrival => (Some(view), None),
                other => (None, other),
            };
            if other.is_some() {
                // It was here before, has gone, and has come back.
                self.remove_view(tp);
            }
            if let Some(view) = same {
                view.configure(facts.config);
                self.compact(&view, facts.compaction);
                self.views.stand(&view, Standing::of(&state, tp));
                // What the tail holds ends where the old state ended: a gap follows it.
                self.tail.forget(&view);
                view.trim(facts.log_start);
                view.advance(facts.next_offset, facts.leader_epoch);
                continue;
            }
            let visible = (facts.log_start, facts.next_offset);
            let place = (self.id, tp, facts.arrival);
            let view = PartitionView::new(place, self.context.store.clone(), visible);
            view.configure(facts.config);
            self.compact(&view, facts.compaction);
            self.views.stand(&view, Standing::of(&state, tp));
            self.views.insert(Arc::new(view));
        }
        self.groups.adopt(&state);
        self.state = state;
    }
    /// Takes note of what was decided, and of the work that this is for others.
    fn compact(&self, view: &PartitionView<E::Disk>, compaction: Option<CompactionFacts>) {
        view.compact(compaction);
        if let Some(facts) = compaction {
            let work = &self.context.compactions;
            work.add((self.id, view.topic_partition()), facts);
        }
    }
    fn remove_view(&mut self, tp: TopicPartition) {
        self.context.compactions.drop_place((self.id, tp));
        if let Some(view) = self.views.remove(tp) {
            view.delete();
            self.tail.forget(&view);
        }
    }

    async fn carry_out(&mut self, effect: Effect) -> io::Result<()> {
        match effect {
            Effect::Append(append) => {
                let tp = append.tp;
                let batch = AppendBatch {
                    head: append.batch.head,
                    body: append.batch.body,
                    base_offset: append.base_offset,
                    last_offset: append.last_offset,
                    max_timestamp: append.max_timestamp,
                    append_time: append.append_time,
                    new_segment: append.new_segment,
                };
                self.append(tp, append.leader_epoch, batch).await
            }
            Effect::Created {
                tp,
                config,
                arrival,
            } => self.create((tp, arrival), config).await,
            Effect::Held { tp, .. } | Effect::Fenced { tp, .. } | Effect::Released { tp } => {
                if let Some(view) = self.views.get(tp) {
                    self.views.stand(&view, Standing::of(&self.state, tp));
                }
                Ok(())
            }
            Effect::Adopted { tp, facts } => self.serve_copy(tp, facts).await,
            Effect::Configured { tp, config } => {
                if let Some(view) = self.views.get(tp) {
                    view.configure(config);
                }
                Ok(())
            }
            Effect::Compacted { tp, compaction } => {
                if let Some(view) = self.views.get(tp) {
                    self.compact(&view, Some(compaction));
                }
                Ok(())
            }
            Effect::GroupChanged { group, news } => {
                let state = self.state.group(&group).cloned();
                self.groups.publish(&group, state, news);
                Ok(())
            }
            Effect::Trimmed { tp, log_start } => {
                if let Some(view) = self.views.get(tp) {
                    view.trim(log_start);
                }
                self.segments
                    .trim(tp, log_start)
                    .await
                    .map_err(checkpoint::store_error)
            }
            Effect::Deleted { tp } => {
                self.remove_view(tp);
                self.segments
                    .delete(tp)
                    .await
                    .map_err(checkpoint::store_error)
            }
        }
    }

    async fn create(
        &mut self,
        (tp, arrival): (TopicPartition, u64),
        config: PartitionConfig,
    ) -> io::Result<()> {
        let created = self.segments.create(tp, arrival).await;
        created.map_err(checkpoint::store_error)?;
        let empty = (Offset(0), Offset(0));
        let place = (self.id, tp, arrival);
        let view = PartitionView::new(place, self.context.store.clone(), empty);
        view.configure(config);
        self.views.stand(&view, Standing::of(&self.state, tp));
        self.views.insert(Arc::new(view));
        Ok(())
    }

    /// The copy is whole: from now on it is what the partition is.
    async fn serve_copy(&mut self, tp: TopicPartition, facts: PartitionFacts) -> io::Result<()> {
        let trimmed = self.segments.trim(tp, facts.log_start).await;
        trimmed.map_err(checkpoint::store_error)?;
        if let Some(view) = self.views.get(tp) {
            view.configure(facts.config);
            view.trim(facts.log_start);
            view.advance(facts.next_offset, facts.leader_epoch);
            self.compact(&view, facts.compaction);
            self.views.stand(&view, Standing::Serving);
        }
        Ok(())
    }

    async fn append(
        &mut self,
        tp: TopicPartition,
        epoch: LeaderEpoch,
        batch: AppendBatch,
    ) -> io::Result<()> {
        let view = self.views.get(tp).ok_or_else(|| {
            io::Error::other(format!(
                "{tp}: the state has the partition, its view is missing"
            ))
        })?;
        let end = batch.last_offset.plus(1);
        self.segments
            .append(tp, vec![batch.clone()])
            .await
            .map_err(checkpoint::store_error)?;
        self.tail.push(&view, batch);
        view.advance(end, epoch);
        Ok(())
    }
}

impl<E: Env> StateMachine for ShardMachine<E> {
    type Frozen = FrozenShard<E::Disk>;
    type Prepared = PreparedShard;

    async fn apply(&mut self, at: Position, command: Payload) -> Bytes {
        let command = match ShardCommand::decode(&command) {
            Ok(command) => command,
            // Other replicas may run the release that knows it: going on would tear them apart.
            Err(error) if error.is_newer() => crate::node::stop_process(&error),
            // Every replica reads the same bytes and comes to the same reply: nothing changes.
            Err(error) => {
                tracing::error!(shard = self.id.0, index = at.index, %error, "not a command");
                return ShardReply::Malformed.encode();
            }
        };
        let context = EntryContext {
            position: at.index,
            leadership: at.term,
        };
        let mut effects = std::mem::take(&mut self.effects);
        let reply = self.state.apply(context, command, &mut effects);
        for effect in effects.drain(..) {
            if let Err(error) = self.carry_out(effect).await {
                // The segment store has failed or is closed, and the process is stopping: nothing
                // of this entry may be answered or made visible.
                tracing::error!(shard = self.id.0, %error, "apply cannot go on");
                return std::future::pending().await;
            }
        }
        self.effects = effects;
        self.groups.follow(&self.state);
        reply.encode()
    }

    fn new_term(&mut self, _at: Position) {
        // A partition's leader epoch rises with its first append under a new leadership.
    }

    fn has_moved(&self) -> bool {
        self.context.compactions.replaced.has(self.id)
    }

    fn freeze(&mut self, _at: Position) -> FrozenShard<E::Disk> {
        let replaced = self.context.compactions.replaced.clone();
        // What is replaced while it is frozen may be in it or not: it is noted after it was.
        replaced.forget(self.id);
        FrozenShard {
            shard: self.id,
            state: self.state.clone(),
            ticket: self.segments.freeze(),
            files: self.files(),
            replaced,
        }
    }

    async fn load(&mut self) -> io::Result<Option<StoredCheckpoint>> {
        let Some(checkpoint) = self.files().read_settled().await? else {
            return Ok(None);
        };
        let state = ShardState::decode_snapshot(&checkpoint.state).map_err(io::Error::other)?;
        let stored = checkpoint::stored(&checkpoint);
        let partitions = checkpoint.partitions;
        self.segments
            .open(partitions, false)
            .await
            .map_err(checkpoint::store_error)?;
        self.adopt(state);
        Ok(Some(stored))
    }

    async fn prepare_install(
        &mut self,
        from: NodeId,
        stored: StoredCheckpoint,
    ) -> io::Result<PreparedShard> {
        self.pull_all(from, stored).await
    }

    async fn finish_install(&mut self, prepared: PreparedShard) -> io::Result<()> {
        self.take_over(prepared).await
    }
}
