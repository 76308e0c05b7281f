//! Reading a partition's segments: step "fetch, behind the tail" of the fetch journey. Before it
//! comes the partition's tail in memory, after it the front door.
//!
//! Readers take no lock that a writer holds over I/O: they read up to the length that the writer
//! published after its write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use highwater_env::{Disk, DiskFile};
use highwater_mutant::mutant;
use highwater_proto::{Offset, TopicPartition};
use parking_lot::{Mutex, RwLock};

use crate::config::SegmentConfig;
use crate::error::ReadError;
use crate::file_cache::FileCache;
use crate::header::BatchHead;
use crate::layout::LogIdentity;
use crate::manifest::Compacted;
use crate::scan::{FoundBatch, Scanner};
use crate::segment::{Extent, Segment};

/// The segments of a partition that count, as its writer last published them.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub log_start: Offset,
    /// By base offset.
    pub segments: BTreeMap<u64, Arc<Segment>>,
    pub compacted: Compacted,
    /// How often the log was begun anew.
    pub resets: u64,
}

impl View {
    /// Whether the segment still counts: it was neither trimmed nor replaced.
    pub(crate) fn has(&self, segment: &Segment) -> bool {
        let at = self.segments.get(&segment.name.base.0);
        at.is_some_and(|now| now.name.id == segment.name.id)
    }
}

/// What the writer and the readers of a partition share.
pub(crate) struct PartitionShared<D: Disk> {
    pub files: Arc<FileCache<D>>,
    pub config: SegmentConfig,
    pub owner: LogIdentity,
    pub dir: Arc<Path>,
    pub view: RwLock<View>,
    /// Written up to here.
    pub next_offset: AtomicU64,
    /// Of files that are written besides those that are appended to.
    pub versions: Versions,
    /// Whoever copies compacted segments: they are not replaced meanwhile.
    pub pins: AtomicUsize,
}

impl<D: Disk> PartitionShared<D> {
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }
}

/// Versions of a partition's files.
pub(crate) struct Versions {
    next: AtomicU64,
    /// Whose files no log has yet.
    busy: Mutex<BTreeSet<u64>>,
}

impl Versions {
    /// Above all that a manifest names.
    pub(crate) fn above(newest: u64) -> Self {
        Self {
            next: AtomicU64::new(newest + 1),
            busy: Mutex::default(),
        }
    }
    /// One that no file has.
    pub(crate) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
    /// One that no file has, and whose files are in use before any log has them.
    pub(crate) fn take(&self) -> u64 {
        let version = self.fresh();
        self.busy.lock().insert(version);
        version
    }
    pub(crate) fn give_back(&self, version: u64) {
        self.busy.lock().remove(&version);
    }
    pub(crate) fn is_busy(&self, version: u64) -> bool {
        self.busy.lock().contains(&version)
    }
}

/// Reads one partition, from any number of threads. All calls block on positional file reads.
pub struct PartitionReader<D: Disk> {
    pub(crate) shared: Arc<PartitionShared<D>>,
    verify: bool,
    trimmed_too: bool,
}

impl<D: Disk> Clone for PartitionReader<D> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            verify: self.verify,
            trimmed_too: self.trimmed_too,
        }
    }
}

impl<D: Disk> PartitionReader<D> {
    pub(crate) fn new(shared: Arc<PartitionShared<D>>) -> Self {
        Self {
            shared,
            verify: false,
            trimmed_too: false,
        }
    }
    /// Which move brought the partition to its shard; 0: none.
    #[must_use]
    pub fn arrival(&self) -> u64 {
        self.shared.owner.arrival
    }
    /// A reader that checks the CRC-32C of every batch it returns.
    #[must_use]
    pub fn verifying(&self) -> Self {
        Self {
            verify: true,
            ..self.clone()
        }
    }
    /// A reader for other replicas: it also returns what lies below the log's start in a segment that is
    /// still there, because a segment of theirs is made whole only as a whole.
    #[must_use]
    pub fn with_trimmed(&self) -> Self {
        Self {
            trimmed_too: true,
            ..self.clone()
        }
    }
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> TopicPartition {
        self.shared.owner.partition
    }
    /// The first offset that can be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.shared.view.read().log_start
    }
    /// The offset after the last record written. Everything below it may leave the tail in memory.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.shared.next_offset.load(Ordering::Acquire))
    }
    /// Bytes of all segments that count.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared
            .view
            .read()
            .segments
            .values()
            .map(|segment| segment.extent().len)
            .sum()
    }

    /// Whole batches, the first of which contains `from` (or is the first one behind it where
    /// offsets are missing), all of them below `end`. At most `max_bytes`, except that the first
    /// batch always comes whole. Fewer where a segment ends; empty when nothing below `end` is
    /// written at or behind `from`.
    ///
    /// # Errors
    /// [`ReadError::BelowStart`], and whatever is wrong with the files.
    pub fn read(&self, from: Offset, max_bytes: usize, end: Offset) -> Result<Bytes, ReadError> {
        let (bytes, _) = self.read_with_segment(from, max_bytes, end)?;
        Ok(bytes)
    }
    /// The same, with the segment that was read.
    pub(crate) fn read_with_segment(
        &self,
        from: Offset,
        max_bytes: usize,
        end: Offset,
    ) -> Result<(Bytes, Option<Arc<Segment>>), ReadError> {
        let nothing = Ok((Bytes::new(), None));
        let mut from = from;
        loop {
            let Some(segment) = self.segment_at(from)? else {
                return nothing;
            };
            let extent = segment.extent();
            // A gap between segments, or one that was rolled at this moment.
            if from >= extent.next_offset {
                match self.base_after(segment.name.base) {
                    Some(next) => from = from.max(next),
                    None => return nothing,
                }
                continue;
            }
            if from.max(segment.name.base) >= end {
                return nothing;
            }
            match self.try_read_segment(&segment, &extent, from, (max_bytes, end)) {
                // Replaced by compaction since we looked: what lies there now is read.
                Err(_) if self.was_replaced(&segment) => {}
                Ok(bytes) => return Ok((bytes, Some(segment))),
                Err(error) => return Err(self.explain(&segment, error)),
            }
        }
    }

    /// The segment that covers `from`, or the first one behind it.
    fn segment_at(&self, from: Offset) -> Result<Option<Arc<Segment>>, ReadError> {
        let view = self.shared.view.read();
        let first = view.segments.first_key_value();
        let kept = self.trimmed_too && first.is_some_and(|(base, _)| *base <= from.0);
        if from < view.log_start && !kept {
            return Err(ReadError::BelowStart {
                log_start: view.log_start,
            });
        }
        let at = view.segments.range(..=from.0).next_back();
        Ok(at
            .or_else(|| view.segments.first_key_value())
            .map(|(_, segment)| segment.clone()))
    }
    fn base_after(&self, base: Offset) -> Option<Offset> {
        let view = self.shared.view.read();
        view.segments
            .range(base.0 + 1..)
            .next()
            .map(|(base, _)| Offset(*base))
    }
    /// How often the log was begun anew.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.shared.view.read().resets
    }
    /// Whether compaction has put something else into the place of a segment.
    pub(crate) fn was_replaced(&self, segment: &Segment) -> bool {
        let view = self.shared.view.read();
        !view.has(segment) && segment.extent().next_offset > view.log_start
    }
    /// Puts the right word to an error: files of a segment that was trimmed or replaced meanwhile may
    /// be gone.
    pub(crate) fn explain(&self, segment: &Segment, error: ReadError) -> ReadError {
        let view = self.shared.view.read();
        if view.has(segment) {
            error
        } else {
            ReadError::BelowStart {
                log_start: view.log_start,
            }
        }
    }

    fn try_read_segment(
        &self,
        segment: &Segment,
        extent: &Extent,
        from: Offset,
        (max_bytes, end): (usize, Offset),
    ) -> Result<Bytes, ReadError> {
        let Some(first) = self.find(segment, extent, from)? else {
            return Ok(Bytes::new());
        };
        if first.head.next_offset > end.0 {
            return Ok(Bytes::new());
        }
        let files = &*self.shared.files;
        let wanted = (max_bytes as u64)
            .max(first.head.total_len)
            .min(extent.len - first.position);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut buffer = vec![0; wanted];
        let file = segment.file(files, extent)?;
        file.file
            .read_exact_at(&mut buffer, first.position)
            .map_err(|e| segment.scan_error(crate::scan::ScanError::Io(e)))?;
        drop(file);
        let (len, next_offset) = self.whole_batches(segment, extent, &first, (&buffer, end))?;
        segment.remember(next_offset, first.position + len as u64);
        buffer.truncate(len);
        Ok(buffer.into())
    }
    /// The batch that contains `from`, or the next one.
    fn find(
        &self,
        segment: &Segment,
        extent: &Extent,
        from: Offset,
    ) -> Result<Option<FoundBatch>, ReadError> {
        let (files, interval) = (&*self.shared.files, self.shared.config.index_interval_bytes);
        let start = segment.floor_of_offset(files, interval, from)?;
        let file = segment.file(files, extent)?;
        let mut scanner = Scanner::new(&file.file, start, extent.len, segment.name.base.0);
        while let Some(found) = scanner.next_batch().map_err(|e| segment.scan_error(e))? {
            ends_within(segment, extent, &found.head, found.position)?;
            if found.head.next_offset > from.0 {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
    /// How many bytes of `buffer` are whole batches below `end`, and the offset behind them.
    fn whole_batches(
        &self,
        segment: &Segment,
        extent: &Extent,
        first: &FoundBatch,
        (buffer, end): (&[u8], Offset),
    ) -> Result<(usize, u64), ReadError> {
        let mut taken = 0;
        let mut least = first.head.base_offset;
        loop {
            let rest = buffer.get(taken..).unwrap_or_default();
            if rest.len() < crate::header::HEADER_LEN {
                break;
            }
            let position = first.position + taken as u64;
            let head = BatchHead::parse_stored(rest, extent.len - position, least)
                .map_err(|reason| segment.damage(position, reason))?;
            ends_within(segment, extent, &head, position)?;
            let Some(batch) = usize::try_from(head.total_len)
                .ok()
                .and_then(|n| rest.get(..n))
            else {
                break;
            };
            if head.next_offset > end.0 {
                break;
            }
            let fits = mutant!(UnverifiedReads => true; else head.checksum_fits(batch));
            if self.verify && !fits {
                return Err(segment.damage(position, "a batch does not fit its checksum"));
            }
            taken += batch.len();
            least = head.next_offset;
        }
        Ok((taken, least))
    }
}

/// A batch that claims offsets behind the segment's last is bad. Were it taken for one that nobody may
/// see yet, its reader would be told that nothing is there, and go on behind it.
fn ends_within(
    segment: &Segment,
    extent: &Extent,
    head: &BatchHead,
    position: u64,
) -> Result<(), ReadError> {
    if head.next_offset > extent.next_offset.0 {
        return Err(segment.damage(position, "a batch ends behind the segment's last offset"));
    }
    Ok(())
}
