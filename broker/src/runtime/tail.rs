//! The tail: the newest batches of every partition, in memory once.
//!
//! Step 7 of a produced record puts them here; step 4 of a fetched record reads them back. A batch
//! leaves only when its segment file has it, oldest of the shard first, as soon as the broker's
//! budget is exceeded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use highwater_env::Disk;
use highwater_mutant::mutant;
use highwater_proto::batch::{BatchHeader, DecodeLimits, RecordBatch};
use highwater_proto::{Offset, TimestampMs};
use highwater_segment::AppendBatch;

use super::view::PartitionView;

/// Memory of all tails of a broker, in bytes.
#[derive(Debug)]
pub struct TailBudget {
    used: AtomicUsize,
    limit: usize,
}

impl TailBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit,
        })
    }
    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
    fn is_exceeded(&self) -> bool {
        self.used() > self.limit
    }
}

/// The batches of one partition that are in memory, oldest first, without gaps but for those of a copy of what
/// was compacted.
#[derive(Debug, Default)]
pub struct PartitionTail {
    batches: VecDeque<AppendBatch>,
}

impl PartitionTail {
    /// Pieces of whole batches from the one that contains `from`, up to about `max_bytes` and below
    /// `end`; at least one batch if there is one. `None`: the tail begins after `from`.
    #[must_use]
    pub fn read(&self, from: Offset, max_bytes: usize, end: Offset) -> Option<Pieces> {
        if self.batches.front()?.base_offset > from {
            return None;
        }
        let first = self
            .batches
            .partition_point(|batch| batch.last_offset < from);
        let mut pieces = Pieces::default();
        for batch in self.batches.iter().skip(first) {
            let len = batch.head.len() + batch.body.len();
            if batch.last_offset >= end || (pieces.bytes > 0 && pieces.bytes + len > max_bytes) {
                break;
            }
            pieces.push(
                Bytes::copy_from_slice(&batch.head),
                batch.body.clone(),
                batch.last_offset,
            );
        }
        Some(pieces)
    }
    /// The first record at or after `timestamp` below `end`, decoded from its batch.
    #[must_use]
    pub fn find_by_timestamp(
        &self,
        timestamp: TimestampMs,
        end: Offset,
    ) -> Option<(Offset, TimestampMs)> {
        let batch = self
            .batches
            .iter()
            .take_while(|batch| batch.last_offset < end)
            .find(|batch| batch.max_timestamp >= timestamp)?;
        let stored = [&batch.head[..], &batch.body[..]].concat();
        let opened = RecordBatch::validate(Bytes::from(stored), usize::MAX).ok();
        let found = opened.and_then(|opened| {
            let records = opened.records(&DecodeLimits::default()).ok()?;
            let mut matching = records
                .flatten()
                .filter(|record| record.timestamp >= timestamp);
            matching
                .next()
                .map(|record| (record.offset, record.timestamp))
        });
        // A batch whose records cannot be decoded was accepted as it is: its first offset is the
        // best answer there is.
        Some(found.unwrap_or((batch.base_offset, batch.max_timestamp)))
    }
    /// Adds a batch that no budget knows of.
    #[cfg(feature = "mutant")]
    pub(super) fn show(&mut self, batch: AppendBatch) {
        self.batches.push_back(batch);
    }
    /// Drops what was shown early from `base` on: the log has its own batch for that place.
    #[cfg(feature = "mutant")]
    fn take_back(&mut self, base: Offset) {
        while self
            .batches
            .back()
            .is_some_and(|batch| batch.base_offset >= base)
        {
            self.batches.pop_back();
        }
    }
    /// Drops everything.
    pub fn clear(&mut self) -> usize {
        let freed = self.batches.iter().map(|batch| batch.body.len()).sum();
        self.batches.clear();
        freed
    }
    fn pop_through(&mut self, last: Offset) -> usize {
        let mut freed = 0;
        while self
            .batches
            .front()
            .is_some_and(|batch| batch.last_offset <= last)
        {
            freed += self.batches.pop_front().map_or(0, |batch| batch.body.len());
        }
        freed
    }
}

/// A run of whole batches, in shared pieces.
#[derive(Debug, Default, Clone)]
pub struct Pieces {
    /// Their concatenation is the batches.
    pub pieces: Vec<Bytes>,
    /// Total length.
    pub bytes: usize,
    /// The offset after the last record, when there is one.
    pub next_offset: Option<Offset>,
}

impl Pieces {
    /// Whole batches as they were read from a file.
    pub(super) fn from_stored(bytes: Bytes) -> Self {
        let mut next_offset = None;
        let mut rest: &[u8] = &bytes;
        while let Ok(header) = BatchHeader::parse(rest) {
            next_offset = Some(header.last_offset().plus(1));
            rest = rest.get(header.total_len()..).unwrap_or_default();
        }
        Self {
            bytes: bytes.len(),
            pieces: vec![bytes],
            next_offset,
        }
    }
    fn push(&mut self, head: Bytes, body: Bytes, last: Offset) {
        self.bytes += head.len() + body.len();
        self.pieces.push(head);
        self.pieces.push(body);
        self.next_offset = Some(last.plus(1));
    }
}

/// The append order of one shard's tails, for eviction. Owned by the shard's state machine.
pub struct ShardTail<D: Disk> {
    order: VecDeque<(Arc<PartitionView<D>>, Offset)>,
    budget: Arc<TailBudget>,
}

impl<D: Disk> ShardTail<D> {
    /// An empty tail.
    #[must_use]
    pub fn new(budget: Arc<TailBudget>) -> Self {
        Self {
            order: VecDeque::new(),
            budget,
        }
    }
    /// Adds a batch behind the last one of its partition and evicts what the budget demands.
    pub fn push(&mut self, view: &Arc<PartitionView<D>>, batch: AppendBatch) {
        self.budget
            .used
            .fetch_add(batch.body.len(), Ordering::Relaxed);
        self.order.push_back((Arc::clone(view), batch.last_offset));
        mutant!(ReadAboveHighWatermark => { view.tail().take_back(batch.base_offset); });
        view.tail().batches.push_back(batch);
        self.evict();
    }
    fn evict(&mut self) {
        while self.budget.is_exceeded() {
            let Some((view, last)) = self.order.front() else {
                return;
            };
            if view.written_end() <= *last && !view.is_deleted() {
                return;
            }
            let freed = view.tail().pop_through(*last);
            self.budget.used.fetch_sub(freed, Ordering::Relaxed);
            self.order.pop_front();
        }
    }
    /// Forgets everything: the replica ends.
    fn clear(&mut self) {
        for (view, _) in std::mem::take(&mut self.order) {
            self.forget(&view);
        }
    }
    /// Forgets a partition that was deleted or replaced.
    pub fn forget(&mut self, view: &PartitionView<D>) {
        let freed = view.tail().clear();
        self.budget.used.fetch_sub(freed, Ordering::Relaxed);
    }
}

impl<D: Disk> Drop for ShardTail<D> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
