//! A simulated disk: what was not synced is lost, or torn, when the power fails; calls fail when
//! told to; bits rot where told to. Everything follows from what was called and from seeds.
//!
//! It is as weak as [`Disk`] allows: content is durable after a sync of the file alone, names
//! after a sync of their directory alone, and of several unsynced changes any may survive.

mod content;
mod faults;
mod names;
mod random;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_mutant::mutant;
use parking_lot::{Mutex, MutexGuard};

use crate::{Disk, DiskFile, OpenMode};
pub use faults::{Call, CallKind};
use faults::{Failure, Faults};
use names::{Names, Node};
use random::Random;

/// What a power loss takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Everything that was not synced.
    Everything,
    /// Of what was not synced, what the seed says: sectors of 512 bytes keep any of the versions
    /// they had, or are torn; names are changed or not.
    Random {
        /// Where the choices come from.
        seed: u64,
    },
}

/// A disk in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    faults: Faults,
}

/// An open file of a [`SimDisk`]. It can be read and written after its name is removed.
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    node: Node,
    path: PathBuf,
    writable: bool,
}

impl SimDisk {
    /// An empty disk without bounds or faults. Only the root directory exists.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk after a power loss, without faults. This one stays as it is.
    #[must_use]
    pub fn crash(&self, loss: Loss) -> Self {
        let random = match loss {
            Loss::Everything => None,
            Loss::Random { seed } => Some(Random::new(seed)),
        };
        let names = self.state.lock().names.after_power_loss(random);
        let capacity = self.state.lock().faults.capacity;
        let faults = Faults {
            capacity,
            ..Faults::default()
        };
        Self {
            state: Arc::new(Mutex::new(State { names, faults })),
        }
    }

    /// The disk as the next process finds it when this one is killed: the machine goes on, so what
    /// was not synced is still seen, and still lost when the power fails. Without faults, but for
    /// the bound of its bytes. This one stays as it is, for what the dying process still does.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        let faults = Faults {
            capacity: state.faults.capacity,
            ..Faults::default()
        };
        let names = state.names.copy();
        Self {
            state: Arc::new(Mutex::new(State { names, faults })),
        }
    }

    /// Every file that has a name, with its length in bytes. Not counted as a call.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.state.lock().names.files()
    }
    /// Bytes of all files. Not counted as a call.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().names.used_bytes()
    }
    /// Files that are open now, and the most that were at a time.
    #[must_use]
    pub fn open_files(&self) -> (usize, usize) {
        let faults = &self.state.lock().faults;
        (faults.open, faults.most_open)
    }
    /// Calls made so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.lock().faults.calls
    }
    /// Whether a call of this process has failed so far.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.state.lock().faults.failed
    }
    /// Lets `calls` more calls through; every later one fails and changes nothing.
    pub fn stop_after(&self, calls: u64) {
        let faults = &mut self.state.lock().faults;
        faults.stop_at = Some(faults.calls.saturating_add(calls));
    }
    /// Lets `calls` more calls through and fails the one behind them. A sync that fails drops what
    /// it should have made durable; a write that fails has written half.
    pub fn fail_after(&self, calls: u64, kind: io::ErrorKind) {
        let faults = &mut self.state.lock().faults;
        let at = faults.calls.saturating_add(calls);
        faults.fail_at.push((at, kind));
    }
    /// Fails the next call of a kind.
    pub fn fail_next(&self, call: CallKind, kind: io::ErrorKind) {
        self.state.lock().faults.fail_next.push((call, kind));
    }
    /// Nothing fails any more; what a failed call has done stays. This is a process that ended
    /// and is started again on the same machine.
    pub fn clear_faults(&self) {
        let faults = &mut self.state.lock().faults;
        faults.stop_at = None;
        faults.fail_at.clear();
        faults.fail_next.clear();
    }
    /// Bounds the bytes of all files; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().faults.capacity = bytes;
    }
    /// Starts to note every call, forgetting those noted before.
    pub fn start_trace(&self) {
        self.state.lock().faults.trace = Some(Vec::new());
    }
    /// The calls noted.
    #[must_use]
    pub fn trace(&self) -> Vec<Call> {
        self.state.lock().faults.trace.clone().unwrap_or_default()
    }
    /// The calls noted since this was asked last, without a copy.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Call> {
        let trace = &mut self.state.lock().faults.trace;
        trace.as_mut().map(std::mem::take).unwrap_or_default()
    }
    /// Flips a bit, for good.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.state
            .lock()
            .names
            .get(path)?
            .lock()
            .flip_bit(offset, bit);
        Ok(())
    }
    /// A file's content as it is seen, not counted as a call.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let node = self.state.lock().names.get(path)?;
        let content = node.lock();
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or(0)];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    fn enter(&self, kind: CallKind, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state
            .faults
            .enter(kind, path, 0, 0)
            .map_err(Failure::into_error)?;
        Ok(state)
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let mut state = self.enter(CallKind::Open, path)?;
        let node = match (mode, state.names.get(path)) {
            (OpenMode::Read | OpenMode::Write, found) => found?,
            (OpenMode::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew | OpenMode::Truncate, Err(_)) => state.names.create(path)?,
            (OpenMode::Truncate, Ok(node)) => {
                node.lock().set_len(0);
                node
            }
        };
        state.faults.opened();
        drop(state);
        let writable = mode != OpenMode::Read;
        Ok(SimFile {
            state: Arc::clone(&self.state),
            node,
            path: path.to_owned(),
            writable,
        })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(CallKind::Rename, from)?.names.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.enter(CallKind::RemoveFile, path)?.names.unlink(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(CallKind::RemoveDir, path)?
            .names
            .remove_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.enter(CallKind::CreateDir, path)?.names.make_dirs(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.enter(CallKind::ReadDir, path)?.names.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.enter(CallKind::Exists, path)?.names.exists(path))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let entered = state.faults.enter(CallKind::SyncDir, path, 0, 0);
        if let Err(Failure::Injected(_)) = entered {
            state.names.drop_pending(path);
        }
        entered.map_err(Failure::into_error)?;
        mutant!(SkipDirectoryFsync => { return Ok(()); });
        state.names.sync_dir(path)
    }
    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.enter(CallKind::SyncFileSystem, path)?.names.sync_all();
        Ok(())
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.enter(CallKind::FreeBytes, path)?;
        let free = |capacity: u64| capacity.saturating_sub(state.names.used_bytes());
        Ok(state.faults.capacity.map_or(u64::MAX, free))
    }
}

impl SimFile {
    fn enter(&self, kind: CallKind, offset: u64, len: u64) -> Result<(), Failure> {
        self.state
            .lock()
            .faults
            .enter(kind, &self.path, offset, len)
    }

    fn may_grow(&self, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut state = self.state.lock();
        let Some(capacity) = state.faults.capacity else {
            return Ok(());
        };
        let growth = len.saturating_sub(self.node.lock().len());
        if growth > 0 && state.names.used_bytes().saturating_add(growth) > capacity {
            state.faults.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().faults.closed();
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.enter(CallKind::Read, offset, buf.len() as u64)
            .map_err(Failure::into_error)?;
        Ok(self.node.lock().read(buf, offset))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_vectored_at(&[IoSlice::new(buf)], offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let parts: Vec<&[u8]> = bufs.iter().map(|slice| &**slice).collect();
        let bytes = parts.concat();
        let entered = self.enter(CallKind::Write, offset, bytes.len() as u64);
        self.may_grow(offset.saturating_add(bytes.len() as u64))?;
        match entered {
            Ok(()) => self.node.lock().write(&bytes, offset),
            Err(Failure::Injected(error)) => {
                self.node.lock().write(&bytes[..bytes.len() / 2], offset);
                return Err(error);
            }
            Err(Failure::Stopped(error)) => return Err(error),
        }
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        match self.enter(CallKind::SyncData, 0, 0) {
            Ok(()) => self.node.lock().sync(),
            Err(Failure::Injected(error)) => {
                self.node.lock().drop_dirty();
                return Err(error);
            }
            Err(Failure::Stopped(error)) => return Err(error),
        }
        Ok(())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.enter(CallKind::Allocate, 0, len)
            .map_err(Failure::into_error)?;
        self.may_grow(len)?;
        let mut content = self.node.lock();
        let len = len.max(content.len());
        content.set_len(len);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.enter(CallKind::SetLen, 0, len)
            .map_err(Failure::into_error)?;
        self.may_grow(len)?;
        self.node.lock().set_len(len);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.enter(CallKind::Len, 0, 0)
            .map_err(Failure::into_error)?;
        Ok(self.node.lock().len())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
