//! The durable replacement of a small file, written once for the whole broker.

use std::io;
use std::path::Path;

use crate::{Disk, DiskFile, OpenMode};

/// Replaces `path` by a file that holds `content`, atomically and durably: after `Ok`, a power
/// loss leaves the new content; before, the old or the new, never a mixture.
///
/// # Errors
/// Those of the file system. The caller must treat a failed sync as fatal.
pub fn replace_durably<D: Disk>(disk: &D, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_extension("tmp");
    let file = disk.open(&temporary, OpenMode::Truncate)?;
    file.write_at(content, 0)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}

/// The content of `path`, or `None` if nothing has that name.
///
/// # Errors
/// Those of the file system.
pub fn read_if_exists<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut content = vec![0; len];
    file.read_exact_at(&mut content, 0)?;
    Ok(Some(content))
}
