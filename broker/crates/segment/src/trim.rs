//! What leaves a partition's log: trimmed segments, files that nothing names, whole partitions.
//!
//! A file is removed only when no durable manifest names it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::Disk;
use highwater_proto::Offset;

use crate::layout::parse_segment_file;
use crate::log::PartitionLog;
use crate::manifest::{Compacted, PartitionManifest};
use crate::segment::Segment;

impl<D: Disk> PartitionLog<D> {
    /// Moves the log's start up (never down). Segments that lie wholly below it leave the log, and
    /// their files wait for [`Self::take_unlinkable`]. A start above the log's end empties the log
    /// and continues it there.
    pub fn set_log_start(&mut self, log_start: Offset) {
        let gone = {
            let mut view = self.shared.view.write();
            if log_start <= view.log_start {
                return;
            }
            view.log_start = log_start;
            let mut gone = Vec::new();
            while let Some(first) = view.segments.first_entry() {
                let extent = first.get().extent();
                if extent.len == 0 || extent.next_offset > log_start {
                    break;
                }
                gone.push(first.remove());
            }
            gone
        };
        for segment in gone {
            if self
                .growing
                .as_ref()
                .is_some_and(|g| g.segment.name.id == segment.name.id)
            {
                self.growing = None;
            }
            self.retired.push(segment);
        }
        self.shared
            .next_offset
            .fetch_max(log_start.0, Ordering::AcqRel);
    }
    /// Says how far a log that was filled from another replica is compacted, and where it ends: behind
    /// its last batch there may have been others.
    pub fn set_compacted(&mut self, compacted: Compacted, next_offset: Offset) {
        self.shared.view.write().compacted = compacted;
        self.shared
            .next_offset
            .fetch_max(next_offset.0, Ordering::AcqRel);
    }
    /// Files of trimmed segments that the durable manifest no longer names, closed and ready to be
    /// removed. Each is returned once; some may not exist.
    pub fn take_unlinkable(&mut self, durable: &PartitionManifest) -> Vec<PathBuf> {
        let (kept, gone) = self
            .retired
            .drain(..)
            .partition::<Vec<_>, _>(|s| durable.names(s.name.base, s.name.version));
        self.retired = kept;
        gone.iter()
            .flat_map(|segment| {
                self.shared.files.forget(segment.name.id);
                segment.name.all_paths()
            })
            .collect()
    }
    /// Closes all files of a deleted partition; its directory may then be removed.
    pub fn close_for_removal(self) {
        self.shared.files.forget_dir(&self.shared.dir);
        let view = std::mem::take(&mut *self.shared.view.write());
        for segment in view.segments.into_values().chain(self.retired) {
            self.shared.files.forget(segment.name.id);
        }
    }
    /// Whether the files of this base offset and version are in use, named by a manifest or not.
    pub(crate) fn uses(&self, base: Offset, version: u64) -> bool {
        let is_it = |s: &Arc<Segment>| s.name.base == base && s.name.version == version;
        self.shared
            .view
            .read()
            .segments
            .get(&base.0)
            .is_some_and(is_it)
            || self.retired.iter().any(is_it)
            || self.shared.versions.is_busy(version)
    }
    /// Files in the partition's directory that belong to no segment of the durable manifest nor to
    /// one in use: what a crash left of segments begun after the manifest, or not yet unlinked.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn orphans(&self, durable: &PartitionManifest) -> io::Result<Vec<PathBuf>> {
        let disk = self.shared.files.disk();
        if !disk.exists(&self.shared.dir)? {
            return Ok(Vec::new());
        }
        let mut found = disk.read_dir(&self.shared.dir)?;
        found.retain(|path| {
            parse_segment_file(path).is_some_and(|(base, version)| {
                !durable.names(base, version) && !self.uses(base, version)
            })
        });
        Ok(found)
    }
    /// Removes the [`Self::orphans`]. Returns what was removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove_orphans(&self, durable: &PartitionManifest) -> io::Result<Vec<PathBuf>> {
        let orphans = self.orphans(durable)?;
        for path in &orphans {
            self.shared.files.disk().remove_file(path)?;
        }
        Ok(orphans)
    }
}
