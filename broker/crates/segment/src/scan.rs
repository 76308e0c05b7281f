//! A walk over the batch headers of a segment: what finds a batch behind an index entry, and what
//! rebuilds an index.

#![deny(clippy::indexing_slicing)]

use std::io;

use highwater_env::DiskFile;

use crate::header::{BatchHead, HEADER_LEN};

/// Bytes read at once. Headers of small batches come many at a time; a batch larger than this is
/// stepped over without being read.
const CHUNK: usize = 16 * 1024;

/// Where a batch lies and what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundBatch {
    /// Bytes from the segment's start.
    pub position: u64,
    pub head: BatchHead,
}

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    Bad { position: u64, reason: &'static str },
}

/// Walks from a batch start to the end of what counts.
pub(crate) struct Scanner<'a, F: DiskFile> {
    file: &'a F,
    position: u64,
    end: u64,
    next_offset: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a, F: DiskFile> Scanner<'a, F> {
    /// From the batch at `position` up to `end` (both in bytes); no batch may start below
    /// `least_offset`.
    pub(crate) fn new(file: &'a F, position: u64, end: u64, least_offset: u64) -> Self {
        Self {
            file,
            position,
            end,
            next_offset: least_offset,
            buffer: Vec::new(),
            buffer_at: 0,
        }
    }
    /// The next batch, or `None` at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<FoundBatch>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let (left, least) = (self.end - position, self.next_offset);
        let header = self.header().map_err(ScanError::Io)?;
        let head = BatchHead::parse_stored(header, left, least)
            .map_err(|reason| ScanError::Bad { position, reason })?;
        self.position = position + head.total_len;
        self.next_offset = head.next_offset;
        Ok(Some(FoundBatch { position, head }))
    }
    /// The bytes of the next header; fewer only at the end.
    fn header(&mut self) -> io::Result<&[u8]> {
        let left = self.end - self.position;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(HEADER_LEN);
        if self.buffered(wanted).is_none() {
            let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            self.buffer.resize(chunk, 0);
            self.buffer_at = self.position;
            self.file.read_exact_at(&mut self.buffer, self.position)?;
        }
        Ok(self.buffered(wanted).unwrap_or_default())
    }
    fn buffered(&self, count: usize) -> Option<&[u8]> {
        let skip = usize::try_from(self.position.checked_sub(self.buffer_at)?).ok()?;
        self.buffer.get(skip..skip.checked_add(count)?)
    }
}
