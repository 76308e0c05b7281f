//! Calls on names and attributes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{FileAttr, FileType};
use rustix::io::Errno;

use super::file::FileState;
use super::node::{Kind, Meta, Node};
use super::world::World;
use super::{Disk, Entry};
use crate::durable::NodeId;

/// What a new file or directory is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Attributes to change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SystemTime>,
    pub mtime: Option<SystemTime>,
}

impl Disk {
    pub(crate) fn lookup(&self, dir: NodeId, name: &OsStr) -> io::Result<FileAttr> {
        let _on = self.power.read();
        let world = self.world.lock();
        let node = world.find(dir, name)?;
        Self::attributes_of(&world, &node)
    }

    pub(crate) fn attributes(&self, id: NodeId) -> io::Result<FileAttr> {
        let _on = self.power.read();
        let world = self.world.lock();
        let node = world.node(id)?;
        Self::attributes_of(&world, &node)
    }

    pub(crate) fn set_attributes(&self, id: NodeId, changes: Changes) -> io::Result<FileAttr> {
        let _on = self.power.read();
        let world = self.world.lock();
        let node = world.node(id)?;
        match &node.kind {
            Kind::File(state) => change_file(&mut state.lock(), changes)?,
            Kind::Directory(meta) | Kind::Symlink(_, meta) => {
                change_meta(&mut meta.lock(), changes)
            }
        }
        Self::attributes_of(&world, &node)
    }

    pub(crate) fn create_file(
        &self,
        dir: NodeId,
        name: &OsStr,
        wanted: Wanted,
    ) -> io::Result<FileAttr> {
        Ok(self.create(dir, name, |id| self.empty_file(id, wanted))?.0)
    }

    /// As [`Disk::create_file`], and opens it.
    pub(crate) fn create_open(
        &self,
        dir: NodeId,
        name: &OsStr,
        wanted: Wanted,
    ) -> io::Result<(FileAttr, u64)> {
        let make = |id| self.empty_file(id, wanted);
        self.create_then(dir, name, make, |node| self.open_handle(node, Vec::new()))
    }

    fn empty_file(&self, id: NodeId, wanted: Wanted) -> io::Result<Kind> {
        self.backing
            .create(id, wanted.mode, (wanted.uid, wanted.gid))?;
        let state = FileState::durable(self.backing.object(id), 0);
        Ok(Kind::File(state.into()))
    }

    pub(crate) fn create_directory(
        &self,
        dir: NodeId,
        name: &OsStr,
        wanted: Wanted,
    ) -> io::Result<FileAttr> {
        let meta = Meta::new(wanted.mode, wanted.uid, wanted.gid);
        let made = self.create(dir, name, |_| Ok(Kind::Directory(meta.into())))?;
        Ok(made.0)
    }

    pub(crate) fn create_symlink(
        &self,
        dir: NodeId,
        name: &OsStr,
        target: OsString,
        wanted: Wanted,
    ) -> io::Result<FileAttr> {
        let meta = Meta::new(wanted.mode, wanted.uid, wanted.gid);
        let made = self.create(dir, name, |_| Ok(Kind::Symlink(target, meta.into())))?;
        Ok(made.0)
    }

    fn create(
        &self,
        dir: NodeId,
        name: &OsStr,
        make: impl FnOnce(NodeId) -> io::Result<Kind>,
    ) -> io::Result<(FileAttr, ())> {
        self.create_then(dir, name, make, drop)
    }

    /// Makes a node, gives it a name, and does `then` before anybody else can know of it.
    fn create_then<T>(
        &self,
        dir: NodeId,
        name: &OsStr,
        make: impl FnOnce(NodeId) -> io::Result<Kind>,
        then: impl FnOnce(Arc<Node>) -> T,
    ) -> io::Result<(FileAttr, T)> {
        let _on = self.power.read();
        let mut world = self.world.lock();
        world.is_free(dir, name)?;
        self.has_room_for(&world, dir, name)?;
        let id = world.next_id();
        let kind = make(id)?;
        if matches!(kind, Kind::Directory(_)) {
            world.names.enter_directory(dir, name, id);
        } else {
            world.names.enter(dir, name, id);
        }
        let node = world.insert(Node::new(id, kind));
        touch(&world, dir);
        Ok((Self::attributes_of(&world, &node)?, then(node)))
    }

    pub(crate) fn link(&self, id: NodeId, dir: NodeId, name: &OsStr) -> io::Result<FileAttr> {
        let _on = self.power.read();
        let mut world = self.world.lock();
        world.is_free(dir, name)?;
        self.has_room_for(&world, dir, name)?;
        let node = world.node(id)?;
        world.names.enter(dir, name, id);
        touch(&world, dir);
        Self::attributes_of(&world, &node)
    }

    pub(crate) fn unlink(&self, dir: NodeId, name: &OsStr) -> io::Result<()> {
        let _on = self.power.read();
        let mut world = self.world.lock();
        let node = world.find(dir, name)?;
        if matches!(node.kind, Kind::Directory(_)) {
            return Err(Errno::ISDIR.into());
        }
        world.names.leave(dir, name);
        touch(&world, dir);
        self.tidy(&mut world, None)
    }

    pub(crate) fn remove_directory(&self, dir: NodeId, name: &OsStr) -> io::Result<()> {
        let _on = self.power.read();
        let mut world = self.world.lock();
        let node = world.find(dir, name)?;
        must_be_empty(&world, node.id)?;
        world.names.leave(dir, name);
        touch(&world, dir);
        self.tidy(&mut world, None)
    }

    pub(crate) fn rename(
        &self,
        from: (NodeId, &OsStr),
        to: (NodeId, &OsStr),
        replaces: bool,
    ) -> io::Result<()> {
        let _on = self.power.read();
        let mut world = self.world.lock();
        let node = world.find(from.0, from.1)?;
        world.may_hold(to.0, to.1)?;
        if let Some(over) = world.names.lookup(to.0, to.1) {
            if !replaces {
                return Err(Errno::EXIST.into());
            }
            if over == node.id {
                return Ok(()); // two names of one file stay, as POSIX wants it
            }
            match (
                world.names.is_directory(node.id),
                world.names.is_directory(over),
            ) {
                (true, true) => must_be_empty(&world, over)?,
                (true, false) => return Err(Errno::NOTDIR.into()),
                (false, true) => return Err(Errno::ISDIR.into()),
                (false, false) => {}
            }
        }
        world.names.rename(from, to);
        touch(&world, from.0);
        touch(&world, to.0);
        self.tidy(&mut world, None)
    }

    pub(crate) fn target(&self, id: NodeId) -> io::Result<OsString> {
        let _on = self.power.read();
        match &self.world.lock().node(id)?.kind {
            Kind::Symlink(target, _) => Ok(target.clone()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// Opens a directory. What is read by the handle is what is there now.
    pub(crate) fn open_directory(&self, id: NodeId) -> io::Result<u64> {
        let _on = self.power.read();
        let world = self.world.lock();
        world.directory(id)?;
        let entry = |id, name: &OsStr| -> io::Result<Entry> {
            let kind = match world.node(id)?.kind {
                Kind::File(_) => FileType::RegularFile,
                Kind::Directory(_) => FileType::Directory,
                Kind::Symlink(..) => FileType::Symlink,
            };
            let name = name.to_owned();
            Ok(Entry { id, name, kind })
        };
        let mut entries = vec![
            entry(id, OsStr::new("."))?,
            entry(world.names.parent(id), OsStr::new(".."))?,
        ];
        for (name, child) in world.names.list(id).into_iter().flatten() {
            entries.push(entry(*child, name)?);
        }
        Ok(self.open_handle(world.node(id)?, entries))
    }

    pub(crate) fn entries(&self, handle: u64) -> io::Result<Arc<Vec<Entry>>> {
        let _on = self.power.read();
        Ok(self.handle(handle)?.listing)
    }

    fn has_room_for(&self, world: &World, dir: NodeId, name: &OsStr) -> io::Result<()> {
        let path = || {
            let dir = world.names.path(dir);
            let name = name.to_string_lossy();
            if dir.is_empty() {
                name.into_owned()
            } else {
                format!("{dir}/{name}")
            }
        };
        if self.faults.on_growth(path) {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }
}

fn must_be_empty(world: &World, dir: NodeId) -> io::Result<()> {
    match world.names.list(dir) {
        None => Err(Errno::NOTDIR.into()),
        Some(listing) if !listing.is_empty() => Err(Errno::NOTEMPTY.into()),
        Some(_) => Ok(()),
    }
}

/// Marks the time at which a directory changed.
fn touch(world: &World, dir: NodeId) {
    if let Ok(node) = world.node(dir)
        && let Kind::Directory(meta) = &node.kind
    {
        let mut meta = meta.lock();
        meta.mtime = SystemTime::now();
        meta.ctime = meta.mtime;
    }
}

fn change_file(state: &mut FileState, changes: Changes) -> io::Result<()> {
    if let Some(size) = changes.size {
        state.set_len(size)?;
    }
    if changes.uid.is_some() || changes.gid.is_some() {
        std::os::unix::fs::chown(state.path(), changes.uid, changes.gid)?;
    }
    if let Some(mode) = changes.mode {
        fs::set_permissions(state.path(), Permissions::from_mode(mode & 0o7777))?;
    }
    if changes.atime.is_some() || changes.mtime.is_some() {
        let mut times = FileTimes::new();
        if let Some(at) = changes.atime {
            times = times.set_accessed(at);
        }
        if let Some(at) = changes.mtime {
            times = times.set_modified(at);
        }
        File::open(state.path())?.set_times(times)?;
    }
    Ok(())
}

fn change_meta(meta: &mut Meta, changes: Changes) {
    meta.mode = changes.mode.unwrap_or(meta.mode);
    meta.uid = changes.uid.unwrap_or(meta.uid);
    meta.gid = changes.gid.unwrap_or(meta.gid);
    meta.atime = changes.atime.unwrap_or(meta.atime);
    meta.mtime = changes.mtime.unwrap_or(meta.mtime);
    meta.ctime = SystemTime::now();
}
