//! The segments that compaction writes: new files beside the old ones, durable before any log has
//! them. Where they end follows from the batches alone, so that all replicas cut alike.

use std::sync::Arc;

use highwater_env::{Disk, DiskFile};
use highwater_proto::TimestampMs;
use highwater_proto::batch::BatchHeader;

use super::CompactError;
use crate::file_cache::OpenFile;
use crate::index_file;
use crate::layout::SegmentName;
use crate::log::give_back;
use crate::manifest::SegmentManifest;
use crate::reader::PartitionShared;
use crate::segment::Segment;
use crate::sparse_index::SparseIndexes;

/// Written at once.
const CHUNK: usize = 1 << 20;
/// Made durable at once: one large sync at the end would hold up those of the write-ahead log.
const SYNC_EVERY: u64 = 16 << 20;
/// Tools that read segments count offsets from the segment's base in signed 32-bit numbers.
const SEGMENT_OFFSETS: u64 = i32::MAX as u64;

/// A segment that is being written.
struct Open<D: Disk> {
    name: SegmentName,
    file: Arc<OpenFile<D>>,
    buffer: Vec<u8>,
    unsynced: u64,
    indexes: SparseIndexes,
    sum: crc32fast::Hasher,
    manifest: SegmentManifest,
}

pub(super) struct Output<D: Disk> {
    shared: Arc<PartitionShared<D>>,
    version: u64,
    segment_bytes: u64,
    open: Option<Open<D>>,
    done: Vec<Arc<Segment>>,
}

impl<D: Disk> Output<D> {
    /// Files get `version`, which nobody else uses.
    pub(super) fn new(shared: &Arc<PartitionShared<D>>, version: u64, segment_bytes: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            version,
            segment_bytes,
            open: None,
            done: Vec::new(),
        }
    }
    /// Adds a batch that was appended at `appended` at the latest.
    pub(super) fn push(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        appended: TimestampMs,
    ) -> Result<(), CompactError> {
        let len = batch.len() as u64;
        let rolls = self.open.as_ref().is_some_and(|open| {
            let grown = open.manifest.len_bytes + len;
            let span = header.last_offset().0 - open.manifest.base_offset.0;
            (self.segment_bytes > 0 && grown > self.segment_bytes) || span > SEGMENT_OFFSETS
        });
        if rolls {
            self.close()?;
        }
        let interval = self.shared.config.index_interval_bytes;
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let begun = self.begin(header)?;
                self.open.insert(begun)
            }
        };
        let manifest = &mut open.manifest;
        let before = (manifest.len_bytes > 0).then_some(manifest.max_timestamp.0);
        open.indexes
            .note(interval, header.base_offset.0, manifest.len_bytes, before);
        open.sum.update(batch);
        manifest.len_bytes += len;
        manifest.next_offset = header.next_offset();
        manifest.max_timestamp = match before {
            Some(_) => manifest.max_timestamp.max(header.max_timestamp),
            None => header.max_timestamp,
        };
        manifest.last_append_time = manifest.last_append_time.max(appended);
        open.buffer.extend_from_slice(batch);
        if open.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }
    fn begin(&self, header: &BatchHeader) -> Result<Open<D>, CompactError> {
        let name = SegmentName {
            id: self.shared.files.new_id(),
            owner: self.shared.owner,
            dir: self.shared.dir.clone(),
            base: header.base_offset,
            version: self.version,
        };
        let file = self.shared.files.create(&name)?;
        let manifest = SegmentManifest {
            base_offset: name.base,
            len_bytes: 0,
            next_offset: name.base,
            max_timestamp: header.max_timestamp,
            last_append_time: TimestampMs(i64::MIN),
            sealed: true,
            checksum: 0,
            version: self.version,
        };
        Ok(Open {
            name,
            file,
            buffer: Vec::with_capacity(CHUNK),
            unsynced: 0,
            indexes: SparseIndexes::default(),
            sum: crc32fast::Hasher::new(),
            manifest,
        })
    }
    /// Writes what was gathered.
    fn flush(&mut self) -> Result<(), CompactError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let at = open.manifest.len_bytes - open.buffer.len() as u64;
        let written = open.file.file.write_at(&open.buffer, at);
        written.map_err(|error| CompactError::write(&open.name, error))?;
        open.file.mark_dirty();
        give_back(&open.file.file, at, open.manifest.len_bytes);
        open.unsynced += open.buffer.len() as u64;
        open.buffer.clear();
        if open.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }
    fn sync(&mut self) -> Result<(), CompactError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.unsynced = 0;
        let path = open.name.log_path();
        let synced = open.file.file.sync_data();
        synced.map_err(|error| self.shared.files.faults.raise("sync", path, error))?;
        Ok(())
    }
    fn close(&mut self) -> Result<(), CompactError> {
        self.flush()?;
        self.sync()?;
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.manifest.checksum = open.sum.finalize();
        let (disk, len) = (self.shared.files.disk(), open.manifest.len_bytes);
        if let Err(error) = index_file::store(disk, &open.name, len, &open.indexes) {
            // Derived data: without it the first reader walks the segment.
            tracing::warn!(segment = %open.name.log_path().display(), %error, "index not stored");
        }
        let segment = Segment::from_manifest(open.name, &open.manifest);
        self.done.push(Arc::new(segment));
        Ok(())
    }
    /// Ends the segment that is being written, if there is one.
    pub(super) fn cut(&mut self) -> Result<(), CompactError> {
        self.close()
    }
    /// Ends the last segment; all of them, by base offset.
    pub(super) fn finish(&mut self) -> Result<Vec<Arc<Segment>>, CompactError> {
        self.close()?;
        Ok(std::mem::take(&mut self.done))
    }
    /// The names of all files begun so far.
    pub(super) fn names(&self) -> impl Iterator<Item = &SegmentName> {
        let done = self.done.iter().map(|segment| &segment.name);
        done.chain(self.open.iter().map(|open| &open.name))
    }
}
