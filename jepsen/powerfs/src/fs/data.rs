//! Calls on open files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::StatVfs;
use rustix::io::Errno;

use super::Disk;
use super::delayed::Now;
use super::faults::SyncVerdict;
use super::node::{Kind, Node};
use crate::durable::NodeId;

impl Disk {
    pub(crate) fn open_file(&self, id: NodeId) -> io::Result<u64> {
        let _on = self.power.read();
        let world = self.world.lock();
        let node = world.node(id)?;
        node.file()?;
        // With the world locked, so that the node is not forgotten in between.
        Ok(self.open_handle(node, Vec::new()))
    }

    pub(crate) fn release(&self, handle: u64) -> io::Result<()> {
        let _on = self.power.read();
        let Some(handle) = self.handles.lock().remove(&handle) else {
            return Ok(()); // from before a power loss
        };
        let mut world = self.world.lock();
        if handle.node.opens.fetch_sub(1, Ordering::SeqCst) == 1 {
            if let Kind::File(state) = &handle.node.kind {
                state.lock().close();
            }
            self.tidy(&mut world, Some(handle.node.id))?;
        }
        Ok(())
    }

    pub(crate) fn read(&self, handle: u64, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let _on = self.power.read();
        let node = self.handle(handle)?.node;
        node.file()?
            .lock()
            .read(offset, usize::try_from(size).unwrap_or(0))
    }

    pub(crate) fn write(
        &self,
        handle: u64,
        offset: u64,
        bytes: &[u8],
        synchronous: bool,
    ) -> io::Result<()> {
        let _on = self.power.read();
        let node = self.handle(handle)?.node;
        self.has_space(&node, offset.saturating_add(bytes.len() as u64))?;
        let mut file = node.file()?.lock();
        file.write(offset, bytes)?;
        let counts = &self.counts;
        counts.writes.fetch_add(1, Ordering::Relaxed);
        counts
            .written_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        drop(file);
        if synchronous {
            self.sync_file(&node, self.verdict(&node).fails)?;
        }
        Ok(())
    }

    pub(crate) fn fallocate(
        &self,
        handle: u64,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> io::Result<()> {
        let _on = self.power.read();
        let node = self.handle(handle)?.node;
        self.has_space(&node, offset.saturating_add(len))?;
        let mode = u32::try_from(mode).map_err(|_| Errno::INVAL)?;
        node.file()?.lock().fallocate(offset, len, mode)
    }

    /// Syncs what a handle stands for, at once or later; then `done` is called with the outcome.
    pub(crate) fn sync(
        self: &Arc<Self>,
        handle: u64,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let on = self.power.read();
        let node = match self.handle(handle) {
            Ok(handle) => handle.node,
            Err(error) => return done(Err(error)),
        };
        let verdict = self.verdict(&node);
        if verdict.delay.is_zero() {
            return done(self.sync_node(&node, verdict.fails));
        }
        let disk = Arc::clone(self);
        let losses = self.losses.load(Ordering::SeqCst);
        drop(on);
        let work = move |now| match now {
            Now::Due => {
                let _on = disk.power.read();
                if disk.losses.load(Ordering::SeqCst) == losses {
                    done(disk.sync_node(&node, verdict.fails));
                } else {
                    done(Err(Errno::IO.into()));
                }
            }
            Now::PowerLost => done(Err(Errno::IO.into())),
        };
        self.delayed.push(verdict.delay, Box::new(work));
    }

    fn sync_node(&self, node: &Node, fails: bool) -> io::Result<()> {
        match node.kind {
            Kind::File(_) => self.sync_file(node, fails),
            Kind::Directory(_) => self.sync_directory(node.id, fails),
            Kind::Symlink(..) => Ok(()),
        }
    }

    fn sync_file(&self, node: &Node, fails: bool) -> io::Result<()> {
        node.file()?.lock().sync(fails)?;
        self.counts.file_syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync_directory(&self, id: NodeId, fails: bool) -> io::Result<()> {
        let mut world = self.world.lock();
        if fails {
            world.names.drop_pending(id);
        } else {
            world.names.sync(id);
        }
        self.tidy(&mut world, None)?;
        if fails {
            return Err(Errno::IO.into());
        }
        self.counts.directory_syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn verdict(&self, node: &Node) -> SyncVerdict {
        self.faults
            .on_sync(|| self.world.lock().names.path(node.id))
    }

    /// Whether the file may reach to `end`. What lies within its length has its space.
    fn has_space(&self, node: &Node, end: u64) -> io::Result<()> {
        if end <= node.file()?.lock().content().len() {
            return Ok(());
        }
        let path = || self.world.lock().names.path(node.id);
        if self.faults.on_growth(path) {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    /// Space of the file system that holds the backing directory, or none of it.
    pub(crate) fn space(&self, id: NodeId) -> io::Result<StatVfs> {
        let mut space = rustix::fs::statvfs(self.backing.root())?;
        if self.faults.tells_full(|| self.world.lock().names.path(id)) {
            space.f_bfree = 0;
            space.f_bavail = 0;
        }
        Ok(space)
    }
}
