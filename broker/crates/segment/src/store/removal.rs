//! Removing files and directories that nothing names any more. What cannot be removed is logged and
//! left: it costs space and nothing else.

use std::io;
use std::path::{Path, PathBuf};

use highwater_env::Disk;

use super::job::Removal;

impl Removal {
    /// Removes all of it; how many files are gone.
    pub(super) fn carry_out<D: Disk>(self, disk: &D) -> usize {
        let remove =
            |paths: &[PathBuf]| paths.iter().filter(|path| remove_file(disk, path)).count();
        let mut removed = remove(&self.files);
        for dir in self.directories {
            removed += remove(&list(disk, &dir));
            if let Err(error) = disk.remove_dir(&dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %dir.display(), %error, "cannot remove a directory");
            }
        }
        removed
    }
}

fn list<D: Disk>(disk: &D, dir: &Path) -> Vec<PathBuf> {
    // A partition that never had a record has no directory.
    if !disk.exists(dir).unwrap_or(false) {
        return Vec::new();
    }
    disk.read_dir(dir).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %error, "cannot list a directory");
        Vec::new()
    })
}

fn remove_file<D: Disk>(disk: &D, path: &Path) -> bool {
    match disk.remove_file(path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a file");
            false
        }
    }
}
