//! What readers see of one partition: its watermarks, its tail and its files.
//!
//! Step 4 of a fetched record, before its subscription pushes what was read (step 5).
//!
//! The shard's state machine alone changes a view, in apply; any number of fetches read it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use highwater_env::{Disk, Workers};
#[cfg(feature = "mutant")]
use highwater_proto::batch::RecordBatch;
use highwater_proto::{LeaderEpoch, Offset, ShardId, TimestampMs, TopicPartition};
#[cfg(feature = "mutant")]
use highwater_segment::AppendBatch;
use highwater_segment::{
    Compacted, PartitionReader, Pin, ReadError, Retention, SegmentManifest, SegmentStore,
};
use highwater_shard::{CompactionFacts, PartitionConfig};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;

use super::standing::Standing;
use super::tail::{PartitionTail, Pieces};

/// One partition, as readers see it.
pub struct PartitionView<D: Disk> {
    shard: ShardId,
    tp: TopicPartition,
    /// The plan whose move brought it to the shard; 0: it was made there.
    arrival: u64,
    standing: RwLock<Standing>,
    /// The first offset that is not yet visible.
    high_watermark: AtomicU64,
    log_start: AtomicU64,
    leader_epoch: AtomicU32,
    deleted: AtomicBool,
    tail: Mutex<PartitionTail>,
    store: SegmentStore<D>,
    /// Taken from the store when it is there: the writer opens a partition in its own time.
    reader: OnceLock<PartitionReader<D>>,
    changed: Notify,
    config: RwLock<PartitionConfig>,
    compaction: RwLock<Option<CompactionFacts>>,
}

impl<D: Disk> PartitionView<D> {
    /// A view of a shard's partition whose visible range is `[log_start, high_watermark)`.
    #[must_use]
    pub fn new(
        (shard, tp, arrival): (ShardId, TopicPartition, u64),
        store: SegmentStore<D>,
        visible: (Offset, Offset),
    ) -> Self {
        Self {
            shard,
            tp,
            arrival,
            standing: RwLock::default(),
            high_watermark: AtomicU64::new(visible.1.0),
            log_start: AtomicU64::new(visible.0.0),
            leader_epoch: AtomicU32::new(0),
            deleted: AtomicBool::new(false),
            tail: Mutex::default(),
            store,
            reader: OnceLock::new(),
            changed: Notify::new(),
            config: RwLock::default(),
            compaction: RwLock::default(),
        }
    }
    /// How the partition is treated, as of the last entry applied.
    #[must_use]
    pub fn config(&self) -> PartitionConfig {
        *self.config.read()
    }
    pub(super) fn configure(&self, config: PartitionConfig) {
        *self.config.write() = config;
    }
    /// The newest compaction that the shard's log has decided, done here or not.
    #[must_use]
    pub fn compaction(&self) -> Option<CompactionFacts> {
        *self.compaction.read()
    }
    pub(super) fn compact(&self, compaction: Option<CompactionFacts>) {
        *self.compaction.write() = compaction;
    }
    /// The first offset that has to stay, if that is above the log's start.
    #[must_use]
    pub fn retention_cut(&self, retention: &Retention) -> Option<Offset> {
        self.reader()?.retention_cut(retention)
    }
    /// Which partition this is.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        self.tp
    }
    /// The plan whose move brought it to its shard; 0: it was made there.
    #[must_use]
    pub fn arrival(&self) -> u64 {
        self.arrival
    }
    /// Where it stands between two shards.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.read().clone()
    }
    /// Whether it is served here: it is neither a copy nor fenced.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        matches!(
            *self.standing.read(),
            Standing::Serving | Standing::Held { .. }
        )
    }
    /// Whether no move concerns it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(*self.standing.read(), Standing::Serving)
    }
    fn stand(&self, standing: Standing) {
        *self.standing.write() = standing;
        self.changed.notify_waiters();
    }
    /// The first offset not yet visible.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }
    /// The first offset that may still be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }
    /// The partition's leader epoch as of its last append.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.load(Ordering::Acquire))
    }
    /// Bytes in segment files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.reader().map_or(0, PartitionReader::size_bytes)
    }
    /// Whether the partition is gone; its readers end.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
    /// Waits until something changed after this call was made. Call, then check, then await.
    /// Cancellation-safe.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, PartitionTail> {
        self.tail.lock()
    }
    fn reader(&self) -> Option<&PartitionReader<D>> {
        if self.reader.get().is_none()
            && let Some(reader) = self.store.reader(self.shard, self.tp)
            // The writer may still have the log that was here before.
            && reader.arrival() == self.arrival
        {
            return Some(self.reader.get_or_init(|| reader.verifying()));
        }
        self.reader.get()
    }
    /// The first offset that the segment files do not have yet.
    pub(super) fn written_end(&self) -> Offset {
        self.reader()
            .map_or(self.log_start(), PartitionReader::next_offset)
    }
    pub(super) fn advance(&self, high_watermark: Offset, epoch: LeaderEpoch) {
        self.leader_epoch.store(epoch.0, Ordering::Release);
        self.high_watermark
            .store(high_watermark.0, Ordering::Release);
        self.changed.notify_waiters();
    }
    /// Shows a batch that the log does not have yet, at the place that it may get.
    #[cfg(feature = "mutant")]
    pub(crate) fn show_early(&self, batch: &RecordBatch, append_time: TimestampMs) {
        let mut tail = self.tail();
        let (base_offset, epoch) = (self.high_watermark(), self.leader_epoch());
        let last_offset = base_offset.plus(u64::from(batch.header().last_offset_delta));
        let stamped = batch.stamp(base_offset, epoch);
        tail.show(AppendBatch {
            head: stamped.head,
            body: stamped.body,
            base_offset,
            last_offset,
            max_timestamp: batch.header().max_timestamp,
            append_time,
            new_segment: false,
        });
        self.advance(last_offset.plus(1), epoch);
    }
    pub(super) fn trim(&self, log_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
        self.changed.notify_waiters();
    }
    pub(super) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whole batches from the one that contains `from`, none at or above `end`.
    ///
    /// Fetch step 4: from memory at the tail, from files behind it. Cancellation-safe.
    ///
    /// # Errors
    /// Those of the segment files.
    pub async fn read(
        self: &Arc<Self>,
        range: (Offset, Offset),
        max_bytes: usize,
        workers: Workers,
    ) -> Result<Pieces, ReadError> {
        let reader = self.reader().cloned();
        self.read_by(reader, range, max_bytes, workers).await
    }
    /// The same for another replica: also what lies below the log's start in a segment that is still there.
    ///
    /// # Errors
    /// Those of the segment files.
    pub async fn read_for_replica(
        self: &Arc<Self>,
        range: (Offset, Offset),
        max_bytes: usize,
        workers: Workers,
    ) -> Result<Pieces, ReadError> {
        let reader = self.reader().map(PartitionReader::with_trimmed);
        self.read_by(reader, range, max_bytes, workers).await
    }
    async fn read_by(
        self: &Arc<Self>,
        reader: Option<PartitionReader<D>>,
        range: (Offset, Offset),
        max_bytes: usize,
        workers: Workers,
    ) -> Result<Pieces, ReadError> {
        let (from, end) = range;
        if let Some(pieces) = self.tail().read(from, max_bytes, end) {
            return Ok(pieces);
        }
        let Some(reader) = reader else {
            return Ok(Pieces::default());
        };
        let (resets, written) = (reader.resets(), self.written_end());
        let file_end = end.min(written);
        let of_files = reader.clone();
        let read = move || of_files.read(from, max_bytes, file_end);
        let bytes = match workers {
            Workers::Tasks => read()?,
            Workers::Threads => super::blocking(read).await?,
        };
        if bytes.is_empty() && from < file_end && reader.resets() == resets {
            // All that the files had up to here was compacted away.
            return Ok(self.behind_gap((file_end, end), max_bytes));
        }
        Ok(Pieces::from_stored(bytes))
    }
    /// What follows where the files hold nothing below `from`: batches that only memory has yet, or
    /// nothing, and `from` as the next offset.
    fn behind_gap(&self, (from, end): (Offset, Offset), max_bytes: usize) -> Pieces {
        let held = (from < end)
            .then(|| self.tail().read(from, max_bytes, end))
            .flatten();
        held.filter(|pieces| pieces.next_offset.is_some())
            .unwrap_or(Pieces {
                next_offset: Some(from),
                ..Pieces::default()
            })
    }
    /// A hold on what was compacted, for whoever copies it; `None` before the log is open.
    #[must_use]
    pub fn pin(&self) -> Option<Pin<D>> {
        self.reader().map(PartitionReader::pin)
    }
    /// The written segments, by base offset.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentManifest> {
        self.reader()
            .map_or_else(Vec::new, PartitionReader::segments)
    }
    /// How far the files are compacted.
    #[must_use]
    pub fn compacted(&self) -> Compacted {
        self.reader()
            .map_or_else(Compacted::default, PartitionReader::compacted)
    }

    /// The first visible record at or after `timestamp`, with its own timestamp.
    ///
    /// # Errors
    /// Those of the segment files.
    pub async fn find_by_timestamp(
        self: &Arc<Self>,
        timestamp: TimestampMs,
        end: Offset,
        workers: Workers,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        if let Some(reader) = self.reader().cloned() {
            let find = move || reader.find_by_timestamp(timestamp, end);
            let found = match workers {
                Workers::Tasks => find()?,
                Workers::Threads => super::blocking(find).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(self.tail().find_by_timestamp(timestamp, end))
    }
}

/// All partitions of one shard on this broker.
pub struct Views<D: Disk> {
    all: RwLock<HashMap<TopicPartition, Arc<PartitionView<D>>>>,
    /// Since somebody last looked, one was on its way, or still is: most shards never have one, and may
    /// have many partitions.
    may_move: AtomicBool,
}

impl<D: Disk> Default for Views<D> {
    fn default() -> Self {
        Self {
            all: RwLock::default(),
            may_move: AtomicBool::new(false),
        }
    }
}

impl<D: Disk> Views<D> {
    /// The view of `tp`.
    #[must_use]
    pub fn get(&self, tp: TopicPartition) -> Option<Arc<PartitionView<D>>> {
        self.all.read().get(&tp).cloned()
    }
    /// How many partitions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.read().len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether any partition is on its way from one shard to another.
    #[must_use]
    pub fn are_moving(&self) -> bool {
        if !self.may_move.swap(false, Ordering::AcqRel) {
            return false;
        }
        let moving = self.all.read().values().any(|view| !view.is_settled());
        self.may_move.fetch_or(moving, Ordering::AcqRel);
        moving
    }
    /// Says where a partition stands from now on.
    pub(super) fn stand(&self, view: &PartitionView<D>, standing: Standing) {
        let moves = !matches!(standing, Standing::Serving);
        view.stand(standing);
        self.may_move.fetch_or(moves, Ordering::AcqRel);
    }
    /// The views of all partitions, in order.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<PartitionView<D>>> {
        let mut all: Vec<_> = self.all.read().values().cloned().collect();
        all.sort_unstable_by_key(|view| view.topic_partition());
        all
    }
    /// All partitions, in order.
    #[must_use]
    pub fn all(&self) -> Vec<TopicPartition> {
        let mut all: Vec<_> = self.all.read().keys().copied().collect();
        all.sort_unstable();
        all
    }
    pub(super) fn insert(&self, view: Arc<PartitionView<D>>) -> Option<Arc<PartitionView<D>>> {
        let moves = !view.is_settled();
        let before = self.all.write().insert(view.topic_partition(), view);
        self.may_move.fetch_or(moves, Ordering::AcqRel);
        before
    }
    pub(super) fn remove(&self, tp: TopicPartition) -> Option<Arc<PartitionView<D>>> {
        self.all.write().remove(&tp)
    }
}
