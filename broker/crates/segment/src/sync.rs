//! Making durable what a checkpoint names: the dirty files and directories of its shard.

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
    pub(crate) fn sync_file(&self, file: &OpenFile<D>) -> Result<(), Arc<SegmentFault>> {
        file.dirty.store(false, Ordering::SeqCst);
        file.file
            .sync_data()
            .map_err(|e| self.faults.raise("sync", file.path.clone(), e))
    }

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
        let (files, dirs, any_path) = self.collect_dirty(&wanted);
        let mut report = SyncReport {
            files: files.len(),
            directories: dirs.len(),
            whole_file_system: false,
        };
        let work = files.len() + dirs.len();
        if work >= self.config.sync_file_system_from.max(1)
            && let Some(any) = any_path
        {
            report.whole_file_system = true;
            for file in &files {
                file.dirty.store(false, Ordering::SeqCst);
            }
            self.disk
                .sync_file_system(&any)
                .map_err(|e| self.faults.raise("sync of the file system", any.clone(), e))?;
            return Ok(report);
        }
        for file in &files {
            self.sync_file(file)?;
        }
        for dir in dirs {
            self.disk
                .sync_dir(&dir)
                .map_err(|e| self.faults.raise("sync of directory", dir.clone(), e))?;
        }
        Ok(report)
    }
    /// Dirty files (held, so that none is closed before the sync), directories, and a path on the
    /// file system. Waits for a dirty file that is just being evicted.
    #[allow(clippy::type_complexity)] // three lists of one walk under one lock
    fn collect_dirty(
        &self,
        wanted: &impl Fn(&LogIdentity) -> bool,
    ) -> (Vec<Arc<OpenFile<D>>>, Vec<PathBuf>, Option<PathBuf>) {
        let _no_eviction_under_way = self.evicting.lock();
        let mut state = self.state.lock();
        let files: Vec<_> = state
            .by_use
            .values()
            .filter_map(|id| state.open.get(id))
            .filter(|slot| slot.file.is_dirty() && wanted(&slot.file.owner))
            .map(|slot| slot.file.clone())
            .collect();
        let dirs: Vec<_> = state
            .dirty_dirs
            .iter()
            .filter(|(_, owners)| owners.iter().any(wanted))
            .map(|(dir, _)| dir.clone())
            .collect();
        for dir in &dirs {
            state.dirty_dirs.remove(dir);
        }
        let any = dirs.first().cloned().or_else(|| {
            files
                .first()
                .and_then(|f| f.path.parent().map(Path::to_owned))
        });
        (files, dirs, any)
    }
}
