//! The syncer: makes a checkpoint's files durable and removes files, beside the writer, so that a
//! slow sync does not hold up appends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_env::{Disk, Worker};

use super::Shared;
use super::job::{Removal, SyncJob};

pub(super) struct SyncWorker<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Worker for SyncWorker<D> {
    type Job = SyncJob;

    fn run(&mut self, jobs: &mut Vec<SyncJob>) -> bool {
        for job in jobs.drain(..) {
            // A caller that no longer waits still gets its work done.
            match job {
                SyncJob::Sync { shard, done } => {
                    let result = match self.shared.files.faults.first() {
                        Some(fault) => Err(fault),
                        None => self.shared.files.sync(|owner| owner.shard == shard),
                    };
                    let _ = done.send(result);
                }
                SyncJob::Remove { removal, done } => {
                    let _ = done.send(self.remove(removal));
                }
                SyncJob::Stop => return false,
            }
        }
        self.shared.files.faults.first().is_none()
    }
}

impl<D: Disk> SyncWorker<D> {
    pub(super) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }
    fn remove(&self, removal: Removal) -> usize {
        let mut removed = removal
            .files
            .iter()
            .filter(|path| self.remove_file(path))
            .count();
        for dir in removal.directories {
            let files = self.list(&dir);
            removed += files.iter().filter(|path| self.remove_file(path)).count();
            if let Err(error) = self.shared.files.disk().remove_dir(&dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %dir.display(), %error, "cannot remove a directory");
            }
        }
        removed
    }
    fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let disk = self.shared.files.disk();
        // A partition that never had a record has no directory.
        if !disk.exists(dir).unwrap_or(false) {
            return Vec::new();
        }
        disk.read_dir(dir).unwrap_or_else(|error| {
            tracing::warn!(dir = %dir.display(), %error, "cannot list a directory");
            Vec::new()
        })
    }
    fn remove_file(&self, path: &Path) -> bool {
        match self.shared.files.disk().remove_file(path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a file");
                false
            }
        }
    }
}
