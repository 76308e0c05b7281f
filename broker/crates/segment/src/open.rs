//! A partition's log as it begins: empty, or as a manifest describes it. No file is touched.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use highwater_env::{Disk, OpenMode};
use highwater_proto::Offset;
use parking_lot::RwLock;

use crate::config::{Preallocation, SegmentConfig};
use crate::error::OpenError;
use crate::file_cache::FileCache;
use crate::layout::{LogIdentity, SegmentName};
use crate::log::{Growing, PartitionLog};
use crate::manifest::PartitionManifest;
use crate::reader::{PartitionShared, Versions, View};
use crate::segment::Segment;

impl<D: Disk> PartitionLog<D> {
    /// A log without records. No file or directory is made before the first append.
    pub fn create(
        files: &Arc<FileCache<D>>,
        owner: LogIdentity,
        dir: &Path,
        config: SegmentConfig,
    ) -> Self {
        let view = View::default();
        Self::with_view(files, owner, (dir.into(), config), (view, Offset(0)))
    }
    /// The log that a manifest describes. Touches no file: a missing or short one is found by
    /// [`Self::check_files`], or named when it is first used.
    ///
    /// # Errors
    /// [`OpenError::Manifest`].
    pub fn open(
        files: &Arc<FileCache<D>>,
        owner: LogIdentity,
        dir: &Path,
        manifest: &PartitionManifest,
        config: SegmentConfig,
    ) -> Result<Self, OpenError> {
        manifest.validate().map_err(|source| OpenError::Manifest {
            partition: owner.partition,
            source,
        })?;
        let dir: Arc<Path> = dir.into();
        let name = |base, version| SegmentName {
            id: files.new_id(),
            owner,
            dir: dir.clone(),
            base,
            version,
        };
        let segments: Vec<_> = manifest
            .segments
            .iter()
            .map(|s| {
                let name = name(s.base_offset, s.version);
                (s, Arc::new(Segment::from_manifest(name, s)))
            })
            .collect();
        let growing = segments
            .last()
            .filter(|(s, _)| !s.sealed)
            .map(|(s, segment)| Growing {
                segment: segment.clone(),
                checksum: crc32fast::Hasher::new_with_initial_len(s.checksum, s.len_bytes),
                reserved: s.len_bytes,
                index_stored: s.len_bytes,
            });
        let view = View {
            log_start: manifest.log_start,
            segments: segments
                .into_iter()
                .map(|(s, segment)| (s.base_offset.0, segment))
                .collect(),
            compacted: manifest.compacted,
            resets: 0,
        };
        let log = Self::with_view(files, owner, (dir, config), (view, manifest.next_offset));
        Ok(Self { growing, ..log })
    }
    pub(crate) fn with_view(
        files: &Arc<FileCache<D>>,
        owner: LogIdentity,
        (dir, config): (Arc<Path>, SegmentConfig),
        (view, next_offset): (View, Offset),
    ) -> Self {
        let versions = view.segments.values().map(|s| s.name.version).max();
        let shared = PartitionShared {
            versions: Versions::above(versions.unwrap_or(0)),
            pins: AtomicUsize::new(0),
            files: files.clone(),
            config,
            owner,
            dir,
            view: RwLock::new(view),
            next_offset: AtomicU64::new(next_offset.0),
        };
        Self {
            shared: Arc::new(shared),
            growing: None,
            preallocation: Preallocation::new(&config),
            retired: Vec::new(),
            version: 0,
        }
    }
    /// Opens every file once: is it there, and long enough?
    ///
    /// # Errors
    /// The first file that is not.
    pub fn check_files(&self) -> Result<(), OpenError> {
        let segments: Vec<_> = self.shared.view.read().segments.values().cloned().collect();
        for segment in segments {
            let extent = segment.extent();
            let mode = if extent.sealed {
                OpenMode::Read
            } else {
                OpenMode::Write
            };
            self.shared
                .files
                .get(&segment.name, mode, extent.len)
                .map_err(|source| OpenError::File {
                    partition: self.shared.owner.partition,
                    source,
                })?;
        }
        Ok(())
    }
}
