//! A segment on its way through compaction: batch by batch, each against its own checksum and all of
//! them against the segment's, so that rot is found and never copied.

use std::sync::Arc;

use bytes::Bytes;
use highwater_env::{Disk, DiskFile, OpenMode};
use highwater_proto::batch::{BatchHeader, RecordBatch};

use crate::error::ReadError;
use crate::file_cache::FileError;
use crate::manifest::SegmentManifest;
use crate::scan::ScanError;
use crate::segment::Segment;

/// Read at once; a longer batch is read as a whole.
const CHUNK: u64 = 1 << 20;

/// A walk over all batches of a sealed segment, with a descriptor of its own.
pub(super) struct Input<D: Disk> {
    segment: Arc<Segment>,
    wanted: SegmentManifest,
    file: D::File,
    position: u64,
    /// What was read of the bytes from `position` on.
    buffer: Bytes,
    sum: crc32fast::Hasher,
    least_offset: u64,
}

impl<D: Disk> Input<D> {
    pub(super) fn open(
        disk: &D,
        segment: &Arc<Segment>,
        wanted: SegmentManifest,
    ) -> Result<Self, ReadError> {
        let path = segment.name.log_path();
        let file = disk
            .open(&path, OpenMode::Read)
            .map_err(|source| ReadError::File(FileError::of_open(path, source)))?;
        Ok(Self {
            segment: Arc::clone(segment),
            wanted,
            file,
            position: 0,
            buffer: Bytes::new(),
            sum: crc32fast::Hasher::new(),
            least_offset: wanted.base_offset.0,
        })
    }
    /// What is known of the segment.
    pub(super) fn wanted(&self) -> &SegmentManifest {
        &self.wanted
    }
    /// The next batch; `None` when there is none left and all of them were what was written.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        if self.position >= self.wanted.len_bytes {
            if self.sum.clone().finalize() != self.wanted.checksum {
                let reason = "the segment does not fit its checksum, though each batch does";
                return Err(self.segment.damage(0, reason));
            }
            return Ok(None);
        }
        let len = loop {
            match BatchHeader::parse(&self.buffer) {
                Ok(header) if header.total_len() <= self.buffer.len() => break header.total_len(),
                Ok(header) => self.fill(header.total_len() as u64)?,
                Err(_) if (self.buffer.len() as u64) < self.left().min(CHUNK) => self.fill(0)?,
                Err(_) => return Err(self.bad("no batch header where one must be")),
            }
        };
        let bytes = self.buffer.split_to(len);
        self.sum.update(&bytes);
        let batch = RecordBatch::validate_stored(bytes)
            .map_err(|_| self.bad("a batch does not fit its checksum"))?;
        let header = batch.header();
        if header.base_offset.0 < self.least_offset {
            return Err(self.bad("a batch lies below the one before it"));
        }
        self.least_offset = header.next_offset().0;
        self.position += len as u64;
        Ok(Some(batch))
    }
    fn left(&self) -> u64 {
        self.wanted.len_bytes - self.position
    }
    /// Reads from the position on, `least` bytes at least.
    fn fill(&mut self, least: u64) -> Result<(), ReadError> {
        if least > self.left() {
            return Err(self.bad("a batch reaches beyond the segment's length"));
        }
        let len = self.left().min(CHUNK.max(least));
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut buffer, self.position)
            .map_err(|error| self.segment.scan_error(ScanError::Io(error)))?;
        self.buffer = Bytes::from(buffer);
        Ok(())
    }
    fn bad(&self, reason: &'static str) -> ReadError {
        self.segment.damage(self.position, reason)
    }
}
