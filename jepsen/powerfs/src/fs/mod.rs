//! The file system: what each call does, without the words of FUSE.

mod backing;
mod data;
mod delayed;
mod entries;
mod faults;
mod file;
mod fuse;
mod loss;
mod node;
mod rot;
mod world;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use fuser::{FileAttr, Notifier};
use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use crate::control::{Fault, FaultId, FaultStatus, LossReport, Stats};
use crate::durable::{NodeId, SECTOR};
use backing::Backing;
use delayed::{Delayed, Now};
use faults::Faults;
pub(crate) use fuse::Fuse;
use node::{Kind, Node};
use world::World;

/// Everything a mount knows. Shared by the threads that serve the kernel and by those that serve
/// the control socket.
pub(crate) struct Disk {
    /// Held for reading by every call, for writing by a power loss.
    power: RwLock<()>,
    world: Mutex<World>,
    handles: Mutex<HashMap<u64, Handle>>,
    backing: Backing,
    faults: Faults,
    delayed: Delayed,
    counts: Counts,
    notifier: OnceLock<Notifier>,
    losses: AtomicU64,
    last_loss: Mutex<Option<LossReport>>,
}

/// An open file or directory.
#[derive(Clone)]
struct Handle {
    node: Arc<Node>,
    /// A directory's entries when it was opened.
    listing: Arc<Vec<Entry>>,
}

/// An entry of a directory.
pub(crate) struct Entry {
    pub id: NodeId,
    pub name: std::ffi::OsString,
    pub kind: fuser::FileType,
}

#[derive(Default)]
struct Counts {
    handles: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    file_syncs: AtomicU64,
    directory_syncs: AtomicU64,
    flipped_bits: AtomicU64,
}

impl Disk {
    /// Takes a backing directory into use.
    ///
    /// # Errors
    /// Those of the file system that holds it.
    pub(crate) fn open(backing: &Path) -> io::Result<Self> {
        let (backing, world) = Backing::open(backing)?;
        Ok(Self {
            power: RwLock::new(()),
            world: Mutex::new(world),
            handles: Mutex::new(HashMap::new()),
            backing,
            faults: Faults::default(),
            delayed: Delayed::start()?,
            counts: Counts::default(),
            notifier: OnceLock::new(),
            losses: AtomicU64::new(0),
            last_loss: Mutex::new(None),
        })
    }

    /// Lets this disk tell the kernel what changed behind its back.
    pub(crate) fn set_notifier(&self, notifier: Notifier) {
        // A disk is mounted once.
        drop(self.notifier.set(notifier));
    }

    /// Ends delayed work, and leaves the tree in the backing directory.
    ///
    /// # Errors
    /// Those of the file system that holds it.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.delayed.end();
        let _off = self.power.write();
        self.backing.leave(&self.world.lock())
    }

    pub(crate) fn stats(&self) -> Stats {
        let world = self.world.lock();
        let (files, directories) = world.names.counts();
        let mut stats = Stats {
            files,
            directories,
            open_handles: self.handles.lock().len() as u64,
            unsynced_entries: world.names.unsynced(),
            writes: self.counts.writes.load(Ordering::Relaxed),
            written_bytes: self.counts.written_bytes.load(Ordering::Relaxed),
            file_syncs: self.counts.file_syncs.load(Ordering::Relaxed),
            directory_syncs: self.counts.directory_syncs.load(Ordering::Relaxed),
            flipped_bits: self.counts.flipped_bits.load(Ordering::Relaxed),
            faults: self.faults.all(),
            losses: self.losses.load(Ordering::SeqCst),
            last_loss: self.last_loss.lock().clone(),
            ..Stats::default()
        };
        for node in world.nodes() {
            if let Kind::File(state) = &node.kind {
                let state = state.lock();
                stats.dirty_files += u64::from(state.content().is_dirty());
                stats.dirty_bytes += state.content().unsynced_sectors() * SECTOR;
            }
        }
        stats
    }

    pub(crate) fn add_fault(&self, fault: Fault) -> FaultId {
        self.faults.add(fault)
    }
    pub(crate) fn remove_fault(&self, id: FaultId) -> Option<FaultStatus> {
        self.faults.remove(id)
    }
    /// Also lets stalled syncs finish.
    pub(crate) fn clear_faults(&self) -> Vec<FaultStatus> {
        let cleared = self.faults.clear();
        self.delayed.drain(Now::Due);
        cleared
    }

    fn attributes_of(world: &World, node: &Node) -> io::Result<FileAttr> {
        node.attributes(world.names.links(node.id))
    }
    /// What a handle stands for.
    ///
    /// # Errors
    /// EIO when it is from before a power loss.
    fn handle(&self, handle: u64) -> io::Result<Handle> {
        let found = self.handles.lock().get(&handle).cloned();
        found.ok_or_else(|| Errno::IO.into())
    }
    fn open_handle(&self, node: Arc<Node>, listing: Vec<Entry>) -> u64 {
        node.opens.fetch_add(1, Ordering::SeqCst);
        let handle = self.counts.handles.fetch_add(1, Ordering::Relaxed) + 1;
        let listing = Arc::new(listing);
        self.handles.lock().insert(handle, Handle { node, listing });
        handle
    }
    /// Forgets what nothing refers to, with its object.
    fn tidy(&self, world: &mut World, closed: Option<NodeId>) -> io::Result<()> {
        for id in world.forget_unused(closed) {
            match self.backing.remove(id) {
                // A directory or a symbolic link: these have no object.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
