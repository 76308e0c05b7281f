//! One process at a time in a data directory. The lock goes with the process, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::identity::IdentityError;

/// Holds the directory until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock(#[allow(dead_code)] File);

/// Takes the directory for this process.
///
/// # Errors
/// When another process has it.
pub fn lock(dir: &Path) -> Result<DirectoryLock, IdentityError> {
    let path = dir.join("lock");
    let io = |source| IdentityError::Io {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(io)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock(file)),
        Err(TryLockError::WouldBlock) => Err(IdentityError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
