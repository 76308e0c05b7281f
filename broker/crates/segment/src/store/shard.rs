//! One shard's side of the store: its order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::{Disk, WorkerHandle};
use highwater_proto::{Offset, ShardId, TopicPartition};
use tokio::sync::oneshot;

use super::barrier::FreezeTicket;
use super::job::{Manifests, ShardJob, Step, WriteJob};
use super::{MAX_QUEUE_BYTES, Shared, StoreError};
use crate::append::AppendBatch;
use crate::manifest::Compacted;

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
    /// The last job handed over.
    sent: u64,
}

impl<D: Disk> ShardSegments<D> {
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        writer: WorkerHandle<WriteJob<D>>,
        shard: ShardId,
    ) -> Self {
        Self {
            shared,
            writer,
            shard,
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
        let weight = batches.iter().map(AppendBatch::len).sum::<usize>() + JOB_WEIGHT;
        self.hand_over(weight, Step::Append { partition, batches })
            .await
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
    /// Empties a partition and continues it at `log_start`, because what another replica has of it is
    /// to take its place. Its files go with [`super::SegmentStore::unlink`].
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn begin_anew(
        &mut self,
        partition: TopicPartition,
        log_start: Offset,
    ) -> Result<(), StoreError> {
        let step = Step::BeginAnew {
            partition,
            log_start,
        };
        self.hand_over(JOB_WEIGHT, step).await
    }
    /// Says how far a partition that was begun anew is compacted, and where it ends.
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
    /// Forgets all partitions of the shard and keeps their files.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        self.hand_over(JOB_WEIGHT, Step::Release).await
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
