//! The writing side of one partition: owned by one worker, appends committed batches.
//!
//! Lengths are those of the last manifest plus what was appended since; what a file holds beyond
//! is written over. Nothing is ever cut off for being unknown.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::{Disk, DiskFile, OpenMode, is_full};
use highwater_proto::Offset;

use crate::append::AppendBatch;
use crate::config::Preallocation;
use crate::error::AppendError;
use crate::fault::SegmentFault;
use crate::file_cache::OpenFile;
use crate::index_file;
use crate::layout::{LogIdentity, SegmentName};
use crate::manifest::PartitionManifest;
use crate::reader::{PartitionReader, PartitionShared};
use crate::segment::Segment;
use crate::sparse_index::SparseIndexes;
use crate::sync::SyncReport;

/// A growing segment is given back to the system in pieces of so many bytes, two pieces behind its end.
const PIECE: u64 = 1 << 20;
/// The most batches in one vectored write.
const BATCHES_PER_WRITE: usize = 256;
/// A growing segment's index is stored again when this many bytes have no stored entries and these
/// are a fourth of those that have: a restart then walks little, and storing costs 2 % at most.
const STORE_INDEX_EVERY: u64 = 16 << 20;

/// What the writer alone knows of the segment that grows.
pub(crate) struct Growing {
    pub(crate) segment: Arc<Segment>,
    pub(crate) checksum: crc32fast::Hasher,
    /// Space reserved for the file, in bytes.
    pub(crate) reserved: u64,
    /// How much of it the stored index covers.
    pub(crate) index_stored: u64,
}

/// A partition's log, for writing.
pub struct PartitionLog<D: Disk> {
    pub(crate) shared: Arc<PartitionShared<D>>,
    pub(crate) growing: Option<Growing>,
    pub(crate) preallocation: Preallocation,
    /// Segments that were trimmed but that a durable manifest may still name.
    pub(crate) retired: Vec<Arc<Segment>>,
    /// Of the segments that are begun: not 0 after the log was begun anew, because files with the
    /// plain names may still count.
    pub(crate) version: u64,
}

/// Keeps what a segment grew by, from `before` to `after`, out of the page cache: the tail cache holds what
/// consumers want, and pages that are free again are what the next writes get (ARCHITECTURE.md). Asked to
/// forget a piece that is not written yet, the system begins to write it; two pieces later it can be dropped. So
/// a checkpoint finds little left to write, too. Nothing becomes durable here.
pub(crate) fn give_back<F: DiskFile>(file: &F, before: u64, after: u64) {
    let (before, after) = (before / PIECE, after / PIECE);
    for behind in [0, 2] {
        let (from, to) = (before.saturating_sub(behind), after.saturating_sub(behind));
        if to > from {
            file.forget_cached(from * PIECE, (to - from) * PIECE);
        }
    }
}

impl<D: Disk> PartitionLog<D> {
    /// Whose log it is.
    #[must_use]
    pub fn owner(&self) -> LogIdentity {
        self.shared.owner
    }
    /// The partition's directory, which need not exist.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }
    /// A view for other threads.
    #[must_use]
    pub fn reader(&self) -> PartitionReader<D> {
        PartitionReader::new(self.shared.clone())
    }
    /// The offset that the next record gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.shared.next_offset.load(Ordering::Acquire))
    }

    /// Appends one batch. A batch that lies wholly below the log's end is there already: nothing
    /// is written.
    ///
    /// # Errors
    /// See [`AppendError`]; after [`AppendError::StorageFull`] the same append may be repeated.
    pub fn append(&mut self, batch: &AppendBatch) -> Result<(), AppendError> {
        self.append_all(std::slice::from_ref(batch))
    }
    /// Appends batches in order, in as few writes as they need.
    ///
    /// # Errors
    /// As [`Self::append`]; batches before the one that failed are appended.
    pub fn append_all(&mut self, batches: &[AppendBatch]) -> Result<(), AppendError> {
        let mut rest = batches;
        while let Some(first) = rest.first() {
            if first.last_offset < self.next_offset() {
                rest = &rest[1..];
                continue;
            }
            self.check_place(first, self.next_offset())?;
            if first.new_segment || self.growing.is_none() {
                self.roll(first.base_offset)?;
            }
            let mut run = 1;
            while let Some(batch) = rest.get(run)
                && !batch.new_segment
                && run < BATCHES_PER_WRITE
                && self
                    .check_place(batch, rest[run - 1].last_offset.plus(1))
                    .is_ok()
            {
                run += 1;
            }
            self.write(&rest[..run])?;
            rest = &rest[run..];
        }
        Ok(())
    }
    fn check_place(&self, batch: &AppendBatch, next_offset: Offset) -> Result<(), AppendError> {
        let (partition, base) = (self.shared.owner.partition, batch.base_offset);
        if !batch.is_well_formed() {
            return Err(AppendError::Malformed { partition, base });
        }
        if base < next_offset {
            let last = batch.last_offset;
            return Err(AppendError::OutOfPlace {
                partition,
                base,
                last,
                next_offset,
            });
        }
        Ok(())
    }

    /// Ends the segment that grows, if it holds anything, and begins one at `base`.
    fn roll(&mut self, base: Offset) -> Result<(), AppendError> {
        if let Some(growing) = self.growing.take() {
            if growing.segment.extent().len == 0 {
                self.growing = Some(growing);
                return Ok(());
            }
            self.seal(growing)?;
        }
        let name = SegmentName {
            id: self.shared.files.new_id(),
            owner: self.shared.owner,
            dir: self.shared.dir.clone(),
            base,
            version: self.version,
        };
        self.shared.files.create(&name)?;
        let segment = Arc::new(Segment::empty(name));
        self.shared
            .view
            .write()
            .segments
            .insert(base.0, segment.clone());
        self.growing = Some(Growing {
            segment,
            checksum: crc32fast::Hasher::new(),
            reserved: 0,
            index_stored: 0,
        });
        Ok(())
    }
    /// Gives back the reserved space behind the last batch and stores the index.
    fn seal(&mut self, growing: Growing) -> Result<(), AppendError> {
        let segment = growing.segment;
        let extent = segment.extent();
        let file = self
            .shared
            .files
            .get(&segment.name, OpenMode::Write, extent.len)?;
        if growing.reserved > extent.len {
            file.file
                .set_len(extent.len)
                .map_err(|e| self.fault("cutting", &segment, e))?;
            file.mark_dirty();
        }
        let indexes = segment.update(|tail| {
            tail.sealed = true;
            tail.growing.take()
        });
        // An index whose front is unknown since a restart is left to the first reader.
        if let Some(indexes) = indexes.filter(SparseIndexes::is_complete) {
            self.store_index(&segment, extent.len, &indexes);
        }
        Ok(())
    }
    fn store_index(&self, segment: &Segment, covered: u64, indexes: &SparseIndexes) {
        let disk = self.shared.files.disk();
        if let Err(error) = index_file::store(disk, &segment.name, covered, indexes) {
            // Derived data: without it the first reader walks the segment.
            tracing::warn!(segment = %segment.name.log_path().display(), %error, "index not stored");
        }
    }
    fn fault(&self, operation: &'static str, segment: &Segment, e: std::io::Error) -> AppendError {
        let path = segment.name.log_path();
        AppendError::Fault(self.shared.files.faults.raise(operation, path, e))
    }

    /// Writes batches behind the last one, then publishes them.
    fn write(&mut self, batches: &[AppendBatch]) -> Result<(), AppendError> {
        let Some(growing) = &self.growing else {
            return Ok(());
        };
        let segment = growing.segment.clone();
        let extent = segment.extent();
        let bytes: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
        let file = self
            .shared
            .files
            .get(&segment.name, OpenMode::Write, extent.len)?;
        self.reserve(&file, &segment, extent.len + bytes, batches)?;
        let slices: Vec<IoSlice<'_>> = batches
            .iter()
            .flat_map(|batch| [IoSlice::new(&batch.head), IoSlice::new(&batch.body)])
            .collect();
        let written = file.file.write_vectored_at(&slices, extent.len);
        file.mark_dirty();
        match written {
            Err(e) if is_full(&e) => {
                return Err(AppendError::StorageFull {
                    path: segment.name.log_path(),
                });
            }
            Err(e) => return Err(self.fault("writing", &segment, e)),
            Ok(()) => self.publish(&segment, batches),
        }
        give_back(&file.file, extent.len, extent.len + bytes);
        Ok(())
    }
    /// Extends the reserved space when it does not reach.
    fn reserve(
        &mut self,
        file: &OpenFile<D>,
        segment: &Segment,
        needed: u64,
        batches: &[AppendBatch],
    ) -> Result<(), AppendError> {
        let Some(growing) = self.growing.as_mut().filter(|g| g.reserved < needed) else {
            return Ok(());
        };
        let now = batches.last().map_or(0, |batch| batch.append_time.0);
        let target = self.preallocation.extend(needed, now);
        match file.file.allocate(target) {
            Ok(()) => growing.reserved = target,
            // No room for a whole step; the write itself may still find enough.
            Err(e) if is_full(&e) => {}
            Err(e) => return Err(self.fault("reserving space", segment, e)),
        }
        Ok(())
    }
    fn publish(&mut self, segment: &Segment, batches: &[AppendBatch]) {
        let Some(growing) = &mut self.growing else {
            return;
        };
        for batch in batches {
            growing.checksum.update(&batch.head);
            growing.checksum.update(&batch.body);
        }
        let checksum = growing.checksum.clone().finalize();
        let interval = self.shared.config.index_interval_bytes;
        let stored = growing.index_stored;
        let (next_offset, to_store) = segment.update(|tail| {
            for batch in batches {
                let before = tail.max_timestamp.map(|t| t.0);
                if let Some(indexes) = &mut tail.growing {
                    indexes.note(interval, batch.base_offset.0, tail.len, before);
                }
                tail.len += batch.len() as u64;
                tail.next_offset = batch.last_offset.plus(1);
                tail.max_timestamp = tail.max_timestamp.max(Some(batch.max_timestamp));
                // A leader whose clock is behind makes nothing older that is there.
                tail.last_append_time = tail.last_append_time.max(batch.append_time);
            }
            tail.checksum = checksum;
            let fresh = tail.len.saturating_sub(stored);
            let due = fresh >= STORE_INDEX_EVERY.max(stored / 4);
            let indexes = tail
                .growing
                .as_ref()
                .filter(|g| due && g.is_complete())
                .cloned();
            (tail.next_offset, indexes.map(|indexes| (tail.len, indexes)))
        });
        self.shared
            .next_offset
            .store(next_offset.0, Ordering::Release);
        if let Some((covered, indexes)) = to_store {
            growing.index_stored = covered;
            self.store_index(segment, covered, &indexes);
        }
    }

    /// The log as it is now. Durable only after a sync that begins after this call.
    #[must_use]
    pub fn freeze(&self) -> PartitionManifest {
        let view = self.shared.view.read();
        PartitionManifest {
            log_start: view.log_start,
            next_offset: self.next_offset(),
            segments: view
                .segments
                .values()
                .filter_map(|s| s.to_manifest())
                .collect(),
            compacted: view.compacted,
            arrival: self.shared.owner.arrival,
        }
    }
    /// Makes everything appended so far durable, names included.
    ///
    /// # Errors
    /// The fault that stops the process; never to be retried.
    pub fn sync_dirty(&self) -> Result<SyncReport, Arc<SegmentFault>> {
        let partition = self.shared.owner.partition;
        self.shared.files.sync(|owner| owner.partition == partition)
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
