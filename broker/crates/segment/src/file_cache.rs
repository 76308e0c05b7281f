//! Open descriptors, bounded over all partitions, and with them the register of what is dirty.
//!
//! A file that was written since its last sync stays open: it is evicted only after a sync, because
//! the kernel forgets a write error with the last descriptor. So every dirty file has an entry
//! here, and a checkpoint's sync is a walk over the entries of its shard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use highwater_env::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;

use crate::fault::{Faults, OnFatal, SegmentFault};
use crate::index_cache::IndexCache;
use crate::layout::{LogIdentity, SegmentName};

/// How many of the longest unused files are asked whether they are clean before the dirty ones are
/// synced to make room.
const CLEAN_SEARCH: usize = 128;

/// Bounds of what stays open.
#[derive(Debug, Clone, Copy)]
pub struct FileCacheConfig {
    /// Open segment files. Threads that read at this very moment may add one each.
    pub max_open_files: usize,
    /// Sealed segments whose indexes stay mapped or in memory.
    pub max_loaded_indexes: usize,
    /// From how many dirty files on one `syncfs` replaces a sync for each.
    pub sync_file_system_from: usize,
}

impl Default for FileCacheConfig {
    fn default() -> Self {
        // One syncfs beats single syncs from a few dozen files on (24 files: 0.76 against 4.7 ms).
        Self {
            max_open_files: 1024,
            max_loaded_indexes: 1024,
            sync_file_system_from: 16,
        }
    }
}

/// A segment file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file that the manifest names is not there.
    #[error("{path} is missing; the manifest names it", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file is shorter than the manifest says.
    #[error("{path} has {found} bytes, the manifest says {expected}", path = path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Bytes that must be there.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The file system refused.
    #[error("{operation} of {path} failed: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A write or sync failed: the process has to stop.
    #[error(transparent)]
    Fault(#[from] Arc<SegmentFault>),
}

impl FileError {
    /// Why a file could not be opened.
    pub(crate) fn of_open(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io {
                operation: "open",
                path,
                source,
            },
        }
    }
}

/// An open segment file.
pub(crate) struct OpenFile<D: Disk> {
    pub file: D::File,
    pub path: PathBuf,
    pub owner: LogIdentity,
    pub dirty: AtomicBool,
}

impl<D: Disk> OpenFile<D> {
    /// To be called after each write, never before: a sync that runs between mark and write would
    /// take the mark away.
    pub(crate) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::SeqCst);
    }
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }
}

pub(crate) struct Slot<D: Disk> {
    pub file: Arc<OpenFile<D>>,
    used: u64,
}

pub(crate) struct State<D: Disk> {
    /// Never iterated: order comes from `by_use`.
    pub open: HashMap<u64, Slot<D>>,
    pub by_use: BTreeMap<u64, u64>,
    tick: u64,
    opening: usize,
    /// Directories with names that are not durable yet, and for whom.
    pub dirty_dirs: BTreeMap<PathBuf, BTreeSet<LogIdentity>>,
}

/// Open files of all partitions of a broker.
pub struct FileCache<D: Disk> {
    pub(crate) disk: D,
    pub(crate) config: FileCacheConfig,
    pub(crate) state: Mutex<State<D>>,
    /// Held from the removal of a dirty file until it is synced.
    pub(crate) evicting: Mutex<()>,
    /// Held over a whole checkpoint sync.
    pub(crate) syncing: Mutex<()>,
    next_id: AtomicU64,
    pub(crate) faults: Faults,
    pub(crate) indexes: IndexCache,
}

impl<D: Disk> FileCache<D> {
    /// An empty cache. `on_fatal` is called once, with the first failed write or sync.
    pub fn new(disk: D, config: FileCacheConfig, on_fatal: OnFatal) -> Arc<Self> {
        Arc::new(Self {
            disk,
            config,
            state: Mutex::new(State {
                open: HashMap::new(),
                by_use: BTreeMap::new(),
                tick: 0,
                opening: 0,
                dirty_dirs: BTreeMap::new(),
            }),
            evicting: Mutex::new(()),
            syncing: Mutex::new(()),
            next_id: AtomicU64::new(0),
            faults: Faults::new(on_fatal),
            indexes: IndexCache::new(config.max_loaded_indexes),
        })
    }
    /// The disk below.
    pub fn disk(&self) -> &D {
        &self.disk
    }
    /// Files open now.
    pub fn open_files(&self) -> usize {
        self.state.lock().open.len()
    }
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The open file of a segment that exists, with at least `min_len` bytes.
    pub(crate) fn get(
        &self,
        name: &SegmentName,
        mode: OpenMode,
        min_len: u64,
    ) -> Result<Arc<OpenFile<D>>, FileError> {
        if let Some(file) = self.state.lock().hit(name.id) {
            return Ok(file);
        }
        self.make_room()?;
        let opened = self.open_checked(name, mode, min_len);
        self.insert(name, opened)
    }
    /// The file of a new segment, empty whatever lay there, and its directory.
    pub(crate) fn create(&self, name: &SegmentName) -> Result<Arc<OpenFile<D>>, FileError> {
        self.make_room()?;
        let opened = self.create_file(name);
        self.insert(name, opened)
    }
    /// Closes a file whose content is no longer wanted; no sync, there is nothing to keep.
    pub(crate) fn forget(&self, id: u64) {
        let closed = self.state.lock().remove(id);
        drop(closed);
        self.indexes.forget(id);
    }
    /// Nobody needs the names in `dir` any more: it is about to be removed.
    pub(crate) fn forget_dir(&self, dir: &Path) {
        self.state.lock().dirty_dirs.remove(dir);
    }
    /// Notes that `dir` has names that a checkpoint of `owner` needs.
    fn mark_dir_dirty(&self, dir: &Path, owner: LogIdentity) {
        let mut state = self.state.lock();
        state
            .dirty_dirs
            .entry(dir.to_owned())
            .or_default()
            .insert(owner);
    }

    fn open_checked(
        &self,
        name: &SegmentName,
        mode: OpenMode,
        min_len: u64,
    ) -> Result<D::File, FileError> {
        let path = name.log_path();
        let file = match self.disk.open(&path, mode) {
            Ok(file) => file,
            Err(source) => return Err(FileError::of_open(path, source)),
        };
        match file.len() {
            Ok(found) if found < min_len => Err(FileError::Short {
                path,
                expected: min_len,
                found,
            }),
            Ok(_) => Ok(file),
            Err(source) => Err(FileError::Io {
                operation: "stat",
                path,
                source,
            }),
        }
    }
    fn create_file(&self, name: &SegmentName) -> Result<D::File, FileError> {
        let path = name.log_path();
        let failed = |operation, source| FileError::Io {
            operation,
            path: path.clone(),
            source,
        };
        if !self.disk.exists(&name.dir).map_err(|e| failed("stat", e))? {
            self.disk
                .create_dir_all(&name.dir)
                .map_err(|e| failed("create directory", e))?;
        }
        // Also when the directory was there: a process that was killed may have made it, and no
        // checkpoint has made its name durable since.
        if let Some(parent) = name.dir.parent() {
            self.mark_dir_dirty(parent, name.owner);
        }
        let file = self
            .disk
            .open(&path, OpenMode::Truncate)
            .map_err(|e| failed("create", e))?;
        self.mark_dir_dirty(&name.dir, name.owner);
        Ok(file)
    }
    fn insert(
        &self,
        name: &SegmentName,
        opened: Result<D::File, FileError>,
    ) -> Result<Arc<OpenFile<D>>, FileError> {
        let mut state = self.state.lock();
        state.opening -= 1;
        let file = opened?;
        if let Some(other) = state.hit(name.id) {
            // Another thread was faster. Ours is clean: closing it loses nothing.
            return Ok(other);
        }
        let file = Arc::new(OpenFile {
            file,
            path: name.log_path(),
            owner: name.owner,
            dirty: AtomicBool::new(false),
        });
        state.put(name.id, file.clone());
        Ok(file)
    }

    /// Reserves room for one more file.
    fn make_room(&self) -> Result<(), FileError> {
        loop {
            {
                let mut state = self.state.lock();
                if state.open.len() + state.opening < self.config.max_open_files {
                    state.opening += 1;
                    return Ok(());
                }
                if state.evict(CLEAN_SEARCH, |file| !file.is_dirty()).is_some() {
                    continue;
                }
            }
            return self.make_room_among_dirty();
        }
    }
    /// Every idle file is dirty. All of them are synced, not one, so that the next thousand
    /// evictions need no sync.
    fn make_room_among_dirty(&self) -> Result<(), FileError> {
        let _until_synced = self.evicting.lock();
        self.sync_files(&self.dirty_files(|_| true))?;
        let mut state = self.state.lock();
        if state.open.len() + state.opening >= self.config.max_open_files {
            // If every file is in use at this moment: one too many for as long as that lasts.
            state.evict(usize::MAX, |file| !file.is_dirty());
        }
        state.opening += 1;
        Ok(())
    }
}

impl<D: Disk> State<D> {
    fn hit(&mut self, id: u64) -> Option<Arc<OpenFile<D>>> {
        self.tick += 1;
        let slot = self.open.get_mut(&id)?;
        self.by_use.remove(&slot.used);
        slot.used = self.tick;
        self.by_use.insert(self.tick, id);
        Some(slot.file.clone())
    }
    fn put(&mut self, id: u64, file: Arc<OpenFile<D>>) {
        self.tick += 1;
        self.by_use.insert(self.tick, id);
        self.open.insert(
            id,
            Slot {
                file,
                used: self.tick,
            },
        );
    }
    fn remove(&mut self, id: u64) -> Option<Arc<OpenFile<D>>> {
        let slot = self.open.remove(&id)?;
        self.by_use.remove(&slot.used);
        Some(slot.file)
    }
    /// Takes out the longest unused file that nobody holds and that `pick` accepts, among the
    /// first `search`.
    fn evict(
        &mut self,
        search: usize,
        pick: impl Fn(&OpenFile<D>) -> bool,
    ) -> Option<Arc<OpenFile<D>>> {
        let id = self.by_use.values().take(search).copied().find(|id| {
            self.open
                .get(id)
                .is_some_and(|slot| Arc::strong_count(&slot.file) == 1 && pick(&slot.file))
        })?;
        self.remove(id)
    }
}

#[cfg(test)]
#[path = "file_cache_tests.rs"]
pub(crate) mod tests;
