//! The one trait through which every file call goes.
//!
//! Calls are blocking: they run on workers (`Worker`), not on the async runtime, except short
//! positional reads. Nothing here retries: a failed sync must reach the caller exactly once.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

/// How a file is opened. All files are opened for reading and, except with `Read`, for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reading only.
    Read,
    /// Existing file, reading and writing.
    Write,
    /// New file, reading and writing; an error if the name exists.
    CreateNew,
    /// File made empty, or created, for reading and writing.
    Truncate,
}

/// A file system.
///
/// Durability rules are those of POSIX at their weakest: file content is durable after
/// [`DiskFile::sync_data`], a name (created, renamed or removed) after [`Disk::sync_dir`] of its
/// directory. Nothing else makes anything durable.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens `path`.
    ///
    /// # Errors
    /// Those of the file system.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    /// Renames a file over whatever `to` named.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its missing parents. Their names are not yet durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether `path` names something.
    ///
    /// # Errors
    /// Those of the file system.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Those of the file system. Never retried by callers.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system that holds `path` durable (`syncfs`).
    ///
    /// # Errors
    /// Those of the file system. Never retried by callers. `Unsupported` where the file system is
    /// not told of it: nothing was made durable, and nothing has failed; files and directories
    /// can be synced one by one.
    fn sync_file_system(&self, path: &Path) -> io::Result<()>;
    /// Bytes that are free for this process on the file system that holds `path`.
    ///
    /// # Errors
    /// Those of the file system.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file, read and written by position.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads into `buf` from `offset`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// Those of the file system; part may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all slices, one behind the other, at `offset`.
    ///
    /// # Errors
    /// Those of the file system; part may have been written.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes content (and a length needed to read it) durable (`fdatasync`).
    ///
    /// # Errors
    /// Those of the file system. Never retried by callers.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space for `[0, len)` and sets the length to at least `len`, reading as zeroes.
    ///
    /// # Errors
    /// Those of the file system (`StorageFull` when there is no room).
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file to `len` bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads exactly `buf.len()` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before that.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buf, offset)? == buf.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
    /// Has what is cached of `[offset, offset + len)` dropped, so that the next read comes from the
    /// medium. A wish: what cannot be dropped (written and not yet on the medium) stays.
    fn forget_cached(&self, _offset: u64, _len: u64) {}
    /// The file as the operating system's own handle, where it has one (for memory maps of sealed
    /// index files). A simulated file has none, and its reader falls back to positional reads.
    fn os_file(&self) -> Option<&std::fs::File> {
        None
    }
}
