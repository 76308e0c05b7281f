//! Whether what lies on the disk is still what was written: a segment's bytes against the checksum
//! that was made while they were written, piece by piece, so that the caller sets the pace.
//!
//! Descriptors are this check's own: a walk over all files must not push out those in use. What is
//! cached is dropped first, so that the medium is read, and afterwards, so that the walk leaves the
//! cache to readers.

use std::io;
use std::sync::Arc;

use highwater_env::{Disk, DiskFile, OpenMode};
use highwater_mutant::mutant;
use highwater_proto::Offset;

use crate::error::ReadError;
use crate::file_cache::FileError;
use crate::layout::MEND;
use crate::manifest::SegmentManifest;
use crate::reader::PartitionReader;
use crate::scan::Scanner;
use crate::segment::Segment;

/// Where a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// So many bytes were read; more are left.
    Some(u64),
    /// So many bytes were read, and all of the segment is as it was written.
    Whole(u64),
}

/// The check of one segment, as far as it reached when the check began.
pub struct SegmentCheck<D: Disk> {
    reader: PartitionReader<D>,
    segment: Arc<Segment>,
    wanted: SegmentManifest,
    file: Option<D::File>,
    position: u64,
    sum: crc32fast::Hasher,
}

impl<D: Disk> PartitionReader<D> {
    /// What was written to each segment, by base offset; those without a batch are left out.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentManifest> {
        let view = self.shared.view.read();
        let segments = view.segments.values();
        segments.filter_map(|s| s.to_manifest()).collect()
    }
    pub(crate) fn segment(&self, base: Offset) -> Option<(Arc<Segment>, SegmentManifest)> {
        let segment = self.shared.view.read().segments.get(&base.0).cloned()?;
        let manifest = segment.to_manifest()?;
        Some((segment, manifest))
    }
    /// Begins the check of a segment; `None` when it is gone or has no batch.
    #[must_use]
    pub fn check(&self, base: Offset) -> Option<SegmentCheck<D>> {
        let (segment, wanted) = self.segment(base)?;
        Some(SegmentCheck {
            reader: self.clone(),
            segment,
            wanted,
            file: None,
            position: 0,
            sum: crc32fast::Hasher::new(),
        })
    }
    /// Removes what a process that died left of a range on its way back. Not to be called while
    /// the range is being put back.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove_leftovers(&self, base: Offset) -> io::Result<()> {
        let Some((segment, _)) = self.segment(base) else {
            return Ok(());
        };
        let (disk, path) = (self.shared.files.disk(), segment.name.path(MEND));
        if disk.exists(&path)? {
            disk.remove_file(&path)?;
        }
        Ok(())
    }
}

impl<D: Disk> SegmentCheck<D> {
    /// Reads on, `max_bytes` at most. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong, with its place; [`ReadError::BelowStart`] when the segment was trimmed.
    pub fn step(&mut self, max_bytes: usize) -> Result<Checked, ReadError> {
        self.try_step(max_bytes)
            .map_err(|error| self.reader.explain(&self.segment, error))
    }
    fn try_step(&mut self, max_bytes: usize) -> Result<Checked, ReadError> {
        let left = self.wanted.len_bytes - self.position;
        let bytes = left.min(max_bytes.max(1) as u64);
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.forget_cached(self.position, bytes);
        file.read_exact_at(&mut buffer, self.position)
            .map_err(|e| self.segment.scan_error(crate::scan::ScanError::Io(e)))?;
        file.forget_cached(self.position, bytes);
        self.sum.update(&buffer);
        self.position += bytes;
        if self.position < self.wanted.len_bytes {
            self.file = Some(file);
            return Ok(Checked::Some(bytes));
        }
        let sum = self.sum.clone().finalize();
        if mutant!(UnverifiedReads => false; else sum != self.wanted.checksum) {
            return Err(self.first_bad(&file));
        }
        Ok(Checked::Whole(bytes))
    }
    fn open(&self) -> Result<D::File, ReadError> {
        let path = self.segment.name.log_path();
        let opened = self.reader.shared.files.disk().open(&path, OpenMode::Read);
        opened.map_err(|source| ReadError::File(FileError::of_open(path, source)))
    }
    /// Names the first batch that is not what it was. The sum covers more than the batches' own
    /// checksums do: their offsets and epochs.
    fn first_bad(&self, file: &D::File) -> ReadError {
        let (base, len) = (self.wanted.base_offset.0, self.wanted.len_bytes);
        let mut scanner = Scanner::new(file, 0, len, base);
        loop {
            let found = match scanner.next_batch() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => return self.segment.scan_error(error),
            };
            let mut batch = vec![0; usize::try_from(found.head.total_len).unwrap_or(usize::MAX)];
            if let Err(error) = file.read_exact_at(&mut batch, found.position) {
                return self.segment.scan_error(crate::scan::ScanError::Io(error));
            }
            if !found.head.checksum_fits(&batch) {
                let reason = "a batch does not fit its checksum";
                return self.segment.damage(found.position, reason);
            }
        }
        let reason = "the segment does not fit its checksum, though each batch does";
        self.segment.damage(0, reason)
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
pub(crate) mod tests;
