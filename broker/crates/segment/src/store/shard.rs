//! One shard's side of the store: its order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::{Disk, WorkerHandle};
use highwater_proto::{Offset, ShardId, TopicPartition};
use tokio::sync::oneshot;

use super::barrier::FreezeTicket;
use super::job::{Manifests, NewContent, Place, ShardJob, Step, WriteJob};
use super::{MAX_QUEUE_BYTES, Shared, StoreError};
use crate::append::AppendBatch;
use crate::manifest::{Compacted, PartitionManifest};

/// What a job weighs beside its batches, in bytes: jobs without batches are bounded too.
const JOB_WEIGHT: usize = 256;

/// Hands over a shard's steps in the order in which apply decided them.
///
/// Every async call here is cancellation-safe as long as it waits for room: a dropped future has
/// handed over nothing. A step that was handed over is done.
pub struct ShardSegments<D: Disk> {
    shared: Arc<Shared<D>>,
    writer: WorkerHandle<WriteJob<D>>,
    shard: ShardId,
    /// Tells this handle from earlier ones of the shard.
    handle: u64,
    /// The last job handed over.
    sent: u64,
}

impl<D: Disk> ShardSegments<D> {
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        writer: WorkerHandle<WriteJob<D>>,
        shard: ShardId,
    ) -> Self {
        let handle = shared.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        Self {
            shared,
            writer,
            shard,
            handle,
            sent: 0,
        }
    }
    /// The shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.shard
    }
    /// Opens partitions by their manifests; one that is open already is replaced. With `check`,
    /// every file is opened once, so that a missing or short one is found now, not when used.
    ///
    /// # Errors
    /// The first partition that cannot be opened; those before it are open.
    pub async fn open(&mut self, partitions: Manifests, check: bool) -> Result<(), StoreError> {
        let weight = partitions
            .iter()
            .map(|(_, m)| JOB_WEIGHT + 64 * m.segments.len())
            .sum();
        let (done, answer) = oneshot::channel();
        self.hand_over(
            weight,
            Step::Open {
                partitions,
                check,
                done,
            },
        )
        .await?;
        Ok(answer.await.map_err(|_| self.shared.stopped())??)
    }
    /// A new partition without records, brought by the move `arrival` (0: made here); one that is open
    /// already stays as it is. Nothing is made on the disk before its first append.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn create(
        &mut self,
        partition: TopicPartition,
        arrival: u64,
    ) -> Result<(), StoreError> {
        let step = Step::Create { partition, arrival };
        self.hand_over(JOB_WEIGHT, step).await
    }
    /// Batches behind what the partition holds. Returns when they are queued; waits while the
    /// queue is full, by jobs or by bytes.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn append(
        &mut self,
        partition: TopicPartition,
        batches: Vec<AppendBatch>,
    ) -> Result<(), StoreError> {
        self.append_to(Place::Own, partition, batches).await
    }
    async fn append_to(
        &mut self,
        place: Place,
        partition: TopicPartition,
        batches: Vec<AppendBatch>,
    ) -> Result<(), StoreError> {
        let weight = batches.iter().map(AppendBatch::len).sum::<usize>() + JOB_WEIGHT;
        let step = Step::Append {
            partition,
            place,
            batches,
        };
        self.hand_over(weight, step).await
    }
    /// Moves the partition's start up. Files go with [`super::SegmentStore::unlink`].
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn trim(
        &mut self,
        partition: TopicPartition,
        log_start: Offset,
    ) -> Result<(), StoreError> {
        self.hand_over(
            JOB_WEIGHT,
            Step::Trim {
                partition,
                log_start,
            },
        )
        .await
    }
    /// Ends a partition. Its directory goes with [`super::SegmentStore::unlink`].
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn delete(&mut self, partition: TopicPartition) -> Result<(), StoreError> {
        self.hand_over(JOB_WEIGHT, Step::Delete { partition }).await
    }
    /// Begins an empty log beside the partition's own, which need not exist: what another replica has of
    /// it is to take its place. `arrival` is the move that brought it to that replica (0: none).
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn begin_aside(
        &mut self,
        partition: TopicPartition,
        arrival: u64,
    ) -> Result<(), StoreError> {
        let step = Step::BeginAside { partition, arrival };
        self.hand_over(JOB_WEIGHT, step).await
    }
    /// As [`Self::append`], into the log aside.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn append_aside(
        &mut self,
        partition: TopicPartition,
        batches: Vec<AppendBatch>,
    ) -> Result<(), StoreError> {
        self.append_to(Place::Aside, partition, batches).await
    }
    /// Says how far a log aside is compacted, and where it ends.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn set_compacted(
        &mut self,
        partition: TopicPartition,
        compacted: Compacted,
        next_offset: Offset,
    ) -> Result<(), StoreError> {
        let step = Step::SetCompacted {
            partition,
            compacted,
            next_offset,
        };
        self.hand_over(JOB_WEIGHT, step).await
    }
    /// The manifests that the shard will have when what lies aside has taken its place. Not durable before
    /// a sync that begins after this.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn freeze_aside(
        &mut self,
    ) -> Result<Vec<(TopicPartition, PartitionManifest)>, StoreError> {
        let (done, answer) = oneshot::channel();
        self.hand_over(JOB_WEIGHT, Step::FreezeAside { done })
            .await?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    /// What lies aside takes its place, logs move their starts up to `log_starts`, and the partitions
    /// `gone` end: all of it, in one step of the shard's order. To be waited for to its end, and followed
    /// by the state that it belongs to.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn take_aside(
        &mut self,
        log_starts: Vec<(TopicPartition, Offset)>,
        gone: Vec<TopicPartition>,
    ) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let new = NewContent { log_starts, gone };
        let weight = JOB_WEIGHT + 32 * (new.log_starts.len() + new.gone.len());
        self.hand_over(weight, Step::TakeAside { new, done })
            .await?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    /// What lies aside goes. Its files go with [`super::SegmentStore::unlink`].
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn give_up_aside(&mut self) -> Result<(), StoreError> {
        self.hand_over(JOB_WEIGHT, Step::GiveUpAside).await
    }
    /// Ends all partitions of the shard, and what lies aside: a replica that begins here later finds none. So it
    /// does with those that are `named` and not open, each with the move that brought it. What of the shard still
    /// waits to be written is dropped, and nothing is waited for, least of all space. Directories go with
    /// [`super::SegmentStore::unlink`].
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn delete_all(
        &mut self,
        named: Vec<(TopicPartition, u64)>,
    ) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let step = Step::DeleteAll { named, done };
        // Without a permit's weight: what waits for space holds them all.
        self.hand_over(0, step).await?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    /// Promises the shard's manifests as they are after everything handed over so far, and before
    /// anything handed over later. Never blocks.
    pub fn freeze(&mut self) -> FreezeTicket {
        let ticket = self.shared.barriers.set(self.shard, self.sent);
        // A full queue needs no waking: the writer looks at barriers after each round.
        let _ = self.writer.try_send(WriteJob::Wake);
        ticket
    }

    async fn hand_over(&mut self, weight: usize, step: Step) -> Result<(), StoreError> {
        let limit = self.shared.config.queue_bytes.clamp(1, MAX_QUEUE_BYTES);
        let weight = u32::try_from(weight.min(limit)).unwrap_or(u32::MAX);
        let permit = self.shared.permits.clone().acquire_many_owned(weight).await;
        let permit = permit.map_err(|_| self.shared.stopped())?;
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let job = ShardJob {
            shard: self.shard,
            handle: self.handle,
            sequence,
            step,
            permit,
        };
        let sent = self.writer.send(WriteJob::Shard(job)).await;
        sent.map_err(|_| self.shared.stopped())?;
        self.sent = sequence;
        Ok(())
    }
}
