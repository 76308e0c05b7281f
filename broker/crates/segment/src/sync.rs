//! Making durable what a checkpoint names: the dirty files and directories of its shard.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::{Disk, DiskFile};

use crate::fault::SegmentFault;
use crate::file_cache::{FileCache, OpenFile};
use crate::layout::LogIdentity;

/// What a sync did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Files that were dirty.
    pub files: usize,
    /// Directories that had new names.
    pub directories: usize,
    /// Whether one sync of the file system did it all.
    pub whole_file_system: bool,
}

impl<D: Disk> FileCache<D> {
    /// Makes durable everything written so far to files of the logs that `wanted` picks, and
    /// their names.
    ///
    /// # Errors
    /// The fault that stops the process.
    pub fn sync(
        &self,
        wanted: impl Fn(&LogIdentity) -> bool,
    ) -> Result<SyncReport, Arc<SegmentFault>> {
        let _one_at_a_time = self.syncing.lock();
        let (files, dirs) = {
            // A dirty file that is just being evicted is in no list: wait until it is synced.
            let _no_eviction_under_way = self.evicting.lock();
            (self.dirty_files(&wanted), self.take_dirty_dirs(&wanted))
        };
        let mut report = SyncReport {
            files: files.len(),
            directories: dirs.len(),
            whole_file_system: false,
        };
        if self.are_many(files.len() + dirs.len()) {
            let any = dirs.first().cloned().or_else(|| parent_of_first(&files));
            report.whole_file_system = self.sync_whole(&files, any)?;
        }
        if report.whole_file_system {
            return Ok(report);
        }
        self.sync_each(&files)?;
        for dir in dirs {
            self.disk
                .sync_dir(&dir)
                .map_err(|e| self.faults.raise("sync of directory", dir.clone(), e))?;
        }
        Ok(report)
    }
    /// Syncs these files, which the caller holds so that none is closed before.
    pub(crate) fn sync_files(&self, files: &[Arc<OpenFile<D>>]) -> Result<(), Arc<SegmentFault>> {
        if self.are_many(files.len()) && self.sync_whole(files, parent_of_first(files))? {
            return Ok(());
        }
        self.sync_each(files)
    }
    fn sync_each(&self, files: &[Arc<OpenFile<D>>]) -> Result<(), Arc<SegmentFault>> {
        for file in files {
            // Before the sync: what is written during it is dirty again.
            file.dirty.store(false, Ordering::SeqCst);
            file.file
                .sync_data()
                .map_err(|e| self.faults.raise("sync", file.path.clone(), e))?;
        }
        Ok(())
    }
    fn are_many(&self, count: usize) -> bool {
        count > 0 && count >= self.config.sync_file_system_from
    }
    /// Syncs the file system that holds `path`, and with it `files`. `false`: it cannot be synced
    /// as a whole, and nothing was done.
    fn sync_whole(
        &self,
        files: &[Arc<OpenFile<D>>],
        path: Option<PathBuf>,
    ) -> Result<bool, Arc<SegmentFault>> {
        let Some(path) = path else { return Ok(false) };
        for file in files {
            file.dirty.store(false, Ordering::SeqCst);
        }
        match self.disk.sync_file_system(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                for file in files {
                    file.dirty.store(true, Ordering::SeqCst);
                }
                Ok(false)
            }
            Err(e) => Err(self.faults.raise("sync of the file system", path, e)),
        }
    }
    /// Dirty files, the longest unused first. Held by the result, so that none is evicted.
    pub(crate) fn dirty_files(
        &self,
        wanted: impl Fn(&LogIdentity) -> bool,
    ) -> Vec<Arc<OpenFile<D>>> {
        let state = self.state.lock();
        state
            .by_use
            .values()
            .filter_map(|id| state.open.get(id))
            .filter(|slot| slot.file.is_dirty() && wanted(&slot.file.owner))
            .map(|slot| slot.file.clone())
            .collect()
    }
    fn take_dirty_dirs(&self, wanted: impl Fn(&LogIdentity) -> bool) -> Vec<PathBuf> {
        let mut state = self.state.lock();
        let dirs: Vec<_> = state
            .dirty_dirs
            .iter()
            .filter(|(_, owners)| owners.iter().any(&wanted))
            .map(|(dir, _)| dir.clone())
            .collect();
        for dir in &dirs {
            state.dirty_dirs.remove(dir);
        }
        dirs
    }
}

fn parent_of_first<D: Disk>(files: &[Arc<OpenFile<D>>]) -> Option<PathBuf> {
    files
        .first()
        .and_then(|file| file.path.parent())
        .map(Path::to_owned)
}
