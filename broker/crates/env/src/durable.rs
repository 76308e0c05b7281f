//! The durable replacement of a small file, written once for the whole broker.

use std::io;
use std::path::{Path, PathBuf};

use highwater_mutant::mutant;

use crate::{Disk, DiskFile, OpenMode};

/// A sync failed: nobody knows what of it is durable, and the kernel may say yes when it is asked
/// again. The process must stop.
#[derive(Debug, thiserror::Error)]
#[error("syncing {path} failed: {source}", path = path.display())]
pub struct SyncFailed {
    path: PathBuf,
    source: io::Error,
}

impl SyncFailed {
    fn wrap(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
        let path = path.to_owned();
        |source| io::Error::new(source.kind(), Self { path, source })
    }
    /// Whether this is what an error of [`replace_durably`] says.
    #[must_use]
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Whether an error says that there is no room, on the disk or in a quota: that is waited for, and no reason to
/// stop.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Replaces `path` by a file that holds `content`, atomically and durably: after `Ok`, a power
/// loss leaves the new content; before, the old or the new, never a mixture.
///
/// # Errors
/// Those of the file system. The caller must stop the process when [`SyncFailed::is_in`] it.
pub fn replace_durably<D: Disk>(disk: &D, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_extension("tmp");
    let file = disk.open(&temporary, OpenMode::Truncate)?;
    file.write_at(content, 0)?;
    match file.sync_data() {
        Err(error) if !is_full(&error) => return Err(SyncFailed::wrap(&temporary)(error)),
        synced => synced?,
    }
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir).map_err(SyncFailed::wrap(dir))
}

/// Makes durable what `path` shows, before anything is built on it. A process that ended between
/// the rename and its sync left a name that only the page cache knows, and after a failed sync the
/// cache takes it for clean: so it is replaced by itself. Nothing happens if there is no such file.
///
/// # Errors
/// Those of the file system. The caller must stop the process when [`SyncFailed::is_in`] it.
pub fn settle<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    mutant!(TrustsTheCache => { return Ok(()); });
    let Some(content) = read_if_exists(disk, path)? else {
        return Ok(());
    };
    match replace_durably(disk, path, &content) {
        // There is no room for a second one, so this one is synced where it is.
        Err(error) if is_full(&error) => {
            let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
            let file = disk.open(path, OpenMode::Write)?;
            file.sync_data().map_err(SyncFailed::wrap(path))?;
            disk.sync_dir(dir).map_err(SyncFailed::wrap(dir))
        }
        settled => settled,
    }
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

#[cfg(test)]
#[path = "durable_tests.rs"]
mod tests;
