//! The one memory map of the project: sealed index files.
//!
//! Record data is never mapped: a bad sector under a map is a SIGBUS, not an error.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A whole file, mapped for reading.
#[derive(Debug)]
pub(crate) struct FileMap(memmap2::Mmap);

impl FileMap {
    /// Maps an index file that is in its final form.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes under a map must not change or be cut while it lives. An index file is
        // written under a temporary name and renamed once it is whole; a replacement is a new file
        // under the old name, and removal leaves mapped pages alive. No code opens one for writing.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
