//! A file read in large pieces through one reused buffer: touching fresh memory costs more than
//! reading.

use std::io;

use highwater_env::DiskFile;

/// Length of a piece, in bytes.
const PIECE: usize = 1 << 20;

/// A piece of a file in memory.
pub(crate) struct Window {
    buffer: Vec<u8>,
    filled: usize,
    start: u64,
    bytes_read: u64,
    /// Reads what lies on the disk, not what the page cache took from there once.
    past_cache: bool,
}

impl Window {
    pub(crate) fn past_cache() -> Self {
        Self {
            past_cache: true,
            ..Self::new()
        }
    }

    pub(crate) fn new() -> Self {
        Self {
            past_cache: false,
            buffer: vec![0; PIECE],
            filled: 0,
            start: 0,
            bytes_read: 0,
        }
    }

    /// Bytes read so far, over all files.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Forgets what is in memory: another file follows.
    pub(crate) fn reset(&mut self) {
        self.filled = 0;
        self.start = 0;
    }

    /// Up to `len` bytes at `offset`, at most a piece, fewer only at the end of the file.
    pub(crate) fn get<F: DiskFile>(
        &mut self,
        file: &F,
        offset: u64,
        len: usize,
    ) -> io::Result<&[u8]> {
        let len = len.min(PIECE);
        let end = offset.saturating_add(len as u64);
        if offset < self.start || end > self.start.saturating_add(self.filled as u64) {
            if self.past_cache {
                file.forget_cached(offset, self.buffer.len() as u64);
            }
            self.filled = file.read_at(&mut self.buffer, offset)?;
            self.start = offset;
            self.bytes_read += self.filled as u64;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.filled);
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }
}
