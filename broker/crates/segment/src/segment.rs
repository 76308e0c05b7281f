//! One segment, shared by its writer and many readers: what counts of its file, and where to look.

use std::io;
use std::sync::Arc;

use highwater_env::{Disk, OpenMode};
use highwater_proto::{Offset, TimestampMs};
use parking_lot::{Mutex, RwLock};

use crate::error::{Damage, ReadError};
use crate::file_cache::{FileCache, OpenFile};
use crate::index_file::{self, SealedIndex};
use crate::layout::SegmentName;
use crate::manifest::SegmentManifest;
use crate::scan::{FoundBatch, ScanError, Scanner};
use crate::sparse_index::SparseIndexes;

/// What counts of a segment. Everything beyond `len` in the file is reserved space or leftovers.
#[derive(Debug)]
pub(crate) struct Tail {
    pub len: u64,
    pub next_offset: Offset,
    /// Of all batches; `None` while there is none.
    pub max_timestamp: Option<TimestampMs>,
    pub last_append_time: TimestampMs,
    /// CRC-32 of the `len` bytes.
    pub checksum: u32,
    pub sealed: bool,
    /// While the segment grows.
    pub growing: Option<SparseIndexes>,
}

/// A segment. Its writer alone changes the tail; the lock is held for moments, never over I/O.
#[derive(Debug)]
pub(crate) struct Segment {
    pub name: SegmentName,
    tail: RwLock<Tail>,
    /// Where the last read ended (offset, position): a consumer that reads on needs no search.
    resume: Mutex<(u64, u64)>,
    /// Held while an index is read or rebuilt, so that it happens once.
    loading: Mutex<()>,
}

/// What a reader needs to know of a tail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub len: u64,
    pub next_offset: Offset,
    pub max_timestamp: Option<TimestampMs>,
    pub sealed: bool,
}

impl Segment {
    /// A segment without batches.
    pub(crate) fn empty(name: SegmentName) -> Self {
        let tail = Tail {
            len: 0,
            next_offset: name.base,
            max_timestamp: None,
            last_append_time: TimestampMs(0),
            checksum: 0,
            sealed: false,
            growing: Some(SparseIndexes::default()),
        };
        Self::with_tail(name, tail)
    }
    /// A segment as a manifest describes it. No file is touched.
    pub(crate) fn from_manifest(name: SegmentName, manifest: &SegmentManifest) -> Self {
        let tail = Tail {
            len: manifest.len_bytes,
            next_offset: manifest.next_offset,
            max_timestamp: Some(manifest.max_timestamp),
            last_append_time: manifest.last_append_time,
            checksum: manifest.checksum,
            sealed: manifest.sealed,
            growing: (!manifest.sealed).then(|| SparseIndexes::starting_at(manifest.len_bytes)),
        };
        Self::with_tail(name, tail)
    }
    fn with_tail(name: SegmentName, tail: Tail) -> Self {
        let resume = Mutex::new((name.base.0, 0));
        Self {
            name,
            tail: RwLock::new(tail),
            resume,
            loading: Mutex::new(()),
        }
    }
    /// The description for a manifest; `None` while nothing was written.
    pub(crate) fn to_manifest(&self) -> Option<SegmentManifest> {
        let tail = self.tail.read();
        Some(SegmentManifest {
            base_offset: self.name.base,
            len_bytes: tail.len,
            next_offset: tail.next_offset,
            max_timestamp: tail.max_timestamp?,
            last_append_time: tail.last_append_time,
            sealed: tail.sealed,
            checksum: tail.checksum,
            version: self.name.version,
        })
    }
    pub(crate) fn extent(&self) -> Extent {
        let tail = self.tail.read();
        Extent {
            len: tail.len,
            next_offset: tail.next_offset,
            max_timestamp: tail.max_timestamp,
            sealed: tail.sealed,
        }
    }
    /// Changes the tail. For the writer.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Tail) -> T) -> T {
        change(&mut self.tail.write())
    }
    /// Looks at the tail without changing it.
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&Tail) -> T) -> T {
        look(&self.tail.read())
    }

    /// The segment's open file, with at least `extent.len` bytes.
    pub(crate) fn file<D: Disk>(
        &self,
        files: &FileCache<D>,
        extent: &Extent,
    ) -> Result<Arc<OpenFile<D>>, ReadError> {
        let mode = if extent.sealed {
            OpenMode::Read
        } else {
            OpenMode::Write
        };
        Ok(files.get(&self.name, mode, extent.len)?)
    }
    /// Notes where a read ended.
    pub(crate) fn remember(&self, next_offset: u64, position: u64) {
        *self.resume.lock() = (next_offset, position);
    }
    /// A batch start at or before the batch that holds `offset`.
    pub(crate) fn floor_of_offset<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
        offset: Offset,
    ) -> Result<u64, ReadError> {
        let (resume_offset, resume_position) = *self.resume.lock();
        if resume_offset == offset.0 {
            return Ok(resume_position);
        }
        if let Some(growing) = &self.tail.read().growing
            && let Some(position) = growing.offset_floor(offset.0)
        {
            return Ok(position);
        }
        match self.index(files, interval)? {
            Some(sealed) => Ok(sealed.offset_floor(offset.0)),
            None => Ok(self.growing(|g| g.offset_floor(offset.0))),
        }
    }
    /// A batch start at or before the first batch that reaches `timestamp`.
    pub(crate) fn floor_of_time<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
        timestamp: TimestampMs,
    ) -> Result<u64, ReadError> {
        match self.index(files, interval)? {
            Some(sealed) => Ok(sealed.time_floor(timestamp.0)),
            None => Ok(self.growing(|g| g.time_floor(timestamp.0))),
        }
    }
    fn growing(&self, look: impl Fn(&SparseIndexes) -> Option<u64>) -> u64 {
        // Position 0 is always right, only slower: reached when the segment was sealed just now.
        self.tail
            .read()
            .growing
            .as_ref()
            .and_then(look)
            .unwrap_or(0)
    }

    /// Makes the whole segment's index available: the sealed one is returned, the growing one is
    /// complete afterwards.
    fn index<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
    ) -> Result<Option<Arc<SealedIndex>>, ReadError> {
        if self
            .tail
            .read()
            .growing
            .as_ref()
            .is_some_and(SparseIndexes::is_complete)
        {
            return Ok(None);
        }
        if let Some(index) = files.indexes.get(self.name.id) {
            return Ok(Some(index));
        }
        let _once = self.loading.lock();
        let extent = self.extent();
        if extent.sealed {
            return self.load_sealed(files, interval, &extent).map(Some);
        }
        let Some(known_from) = self.inspect(|t| t.growing.as_ref().map(|g| g.known_from)) else {
            return Ok(None);
        };
        if known_from > 0 {
            let front = self.recover_front(files, interval, known_from, &extent)?;
            self.update(|tail| {
                if let Some(growing) = &mut tail.growing {
                    growing.complete(front);
                }
            });
        }
        Ok(None)
    }
    fn load_sealed<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
        extent: &Extent,
    ) -> Result<Arc<SealedIndex>, ReadError> {
        if let Some(index) = files.indexes.get(self.name.id) {
            return Ok(index);
        }
        let loaded = index_file::load_sealed(files.disk(), &self.name, extent.len);
        let index = match loaded {
            Ok(index) => index,
            Err(reason) => self.rebuild_sealed(files, interval, extent, &reason)?,
        };
        let index = Arc::new(index);
        files.indexes.put(self.name.id, index.clone());
        Ok(index)
    }
    fn rebuild_sealed<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
        extent: &Extent,
        reason: &index_file::IndexError,
    ) -> Result<SealedIndex, ReadError> {
        let segment = self.name.log_path();
        tracing::warn!(segment = %segment.display(), %reason, "rebuilding the index");
        let mut indexes = SparseIndexes::default();
        self.scan_into(files, interval, &mut indexes, extent.len, extent)?;
        let disk = files.disk();
        let stored = index_file::store(disk, &self.name, extent.len, &indexes)
            .map_err(index_file::IndexError::from)
            .and_then(|()| index_file::load_sealed(disk, &self.name, extent.len));
        Ok(stored.unwrap_or_else(|error| {
            tracing::warn!(segment = %segment.display(), %error, "the index stays in memory");
            SealedIndex::in_memory(self.name.base, extent.len, &indexes)
        }))
    }
    /// The entries for the bytes below `until`, from what was stored while the segment grew and
    /// from the segment itself.
    fn recover_front<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
        until: u64,
        extent: &Extent,
    ) -> Result<SparseIndexes, ReadError> {
        let mut front =
            index_file::load_prefix(files.disk(), &self.name, until).unwrap_or_default();
        self.scan_into(files, interval, &mut front, until, extent)?;
        Ok(front)
    }
    /// Adds entries from the last one on, up to `until`.
    fn scan_into<D: Disk>(
        &self,
        files: &FileCache<D>,
        interval: u64,
        indexes: &mut SparseIndexes,
        until: u64,
        extent: &Extent,
    ) -> Result<(), ReadError> {
        let file = self.file(files, extent)?;
        let start = indexes.offsets.last().map_or(0, |entry| entry.position);
        let mut newest = indexes.times.last().map(|entry| entry.key);
        let mut scanner = Scanner::new(&file.file, start, until, self.name.base.0);
        while let Some(FoundBatch { position, head }) =
            scanner.next_batch().map_err(|e| self.scan_error(e))?
        {
            indexes.note(interval, head.base_offset, position, newest);
            newest = newest.max(Some(head.max_timestamp));
        }
        Ok(())
    }

    /// Puts the segment's name to what a walk found.
    pub(crate) fn scan_error(&self, error: ScanError) -> ReadError {
        match error {
            // The file was long enough when it was opened: it was cut behind our back.
            ScanError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.damage(self.extent().len, "the file ends early")
            }
            ScanError::Io(source) => self.io_error(source),
            ScanError::Bad { position, reason } => self.damage(position, reason),
        }
    }
    pub(crate) fn io_error(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            path: self.name.log_path(),
            source,
        }
    }
    pub(crate) fn damage(&self, position: u64, reason: &'static str) -> ReadError {
        ReadError::Damaged(Damage {
            partition: self.name.owner.partition,
            path: self.name.log_path(),
            position,
            reason,
        })
    }
}
