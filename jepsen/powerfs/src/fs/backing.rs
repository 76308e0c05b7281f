//! The backing directory. While there is a mount, each file's content is an object named by its
//! number; names are in memory. Between mounts there is an ordinary tree instead.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file::FileState;
use super::node::{Kind, Meta, Node};
use super::world::World;
use crate::durable::{Listing, Names, NodeId, ROOT};

/// Where contents are.
#[derive(Debug)]
pub(crate) struct Backing {
    root: PathBuf,
}

impl Backing {
    /// Takes a backing directory into use, with the tree that an earlier mount left there.
    ///
    /// # Errors
    /// Those of the file system; also when the server of an earlier mount was killed, so that the
    /// names are lost.
    pub(crate) fn open(root: &Path) -> io::Result<(Self, World)> {
        let backing = Self {
            root: root.to_owned(),
        };
        fs::create_dir_all(root)?;
        remove_all(&backing.leaving())?;
        let objects = backing.objects();
        if backing.tree().exists() {
            remove_all(&objects)?;
        } else if fs::read_dir(&objects).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(io::Error::other(
                "it holds objects without names, left by a server that was killed; empty it",
            ));
        }
        fs::create_dir_all(&objects)?;
        let world = Import::new(&backing).run()?;
        // In one step, so that a tree is either whole or not there.
        if backing.tree().exists() {
            fs::rename(backing.tree(), backing.leaving())?;
            remove_all(&backing.leaving())?;
        }
        Ok((backing, world))
    }

    fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }
    fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }
    fn leaving(&self) -> PathBuf {
        self.root.join("leaving")
    }
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
    pub(crate) fn object(&self, id: NodeId) -> PathBuf {
        self.objects().join(format!("{id:010}"))
    }

    /// Makes an empty object.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn create(&self, id: NodeId, mode: u32, owner: (u32, u32)) -> io::Result<()> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode & 0o7777)
            .open(self.object(id))?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))
    }
    /// # Errors
    /// Those of the file system.
    pub(crate) fn remove(&self, id: NodeId) -> io::Result<()> {
        fs::remove_file(self.object(id))
    }

    /// Puts the tree, as it is seen, in the place of the objects.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn leave(&self, world: &World) -> io::Result<()> {
        remove_all(&self.leaving())?;
        let listings = world.names.present();
        let mut next = vec![(ROOT, self.leaving())];
        while let Some((dir, path)) = next.pop() {
            fs::create_dir(&path)?;
            for (name, id) in listings.get(&dir).into_iter().flatten() {
                let at = path.join(name);
                let node = world.node(*id)?;
                match &node.kind {
                    Kind::File(_) => fs::hard_link(self.object(*id), &at)?,
                    Kind::Directory(_) => next.push((*id, at)),
                    Kind::Symlink(target, _) => std::os::unix::fs::symlink(target, &at)?,
                }
            }
            if let Kind::Directory(meta) = &world.node(dir)?.kind {
                let meta = *meta.lock();
                fs::set_permissions(&path, fs::Permissions::from_mode(meta.mode & 0o7777))?;
                std::os::unix::fs::chown(&path, Some(meta.uid), Some(meta.gid))?;
            }
        }
        fs::rename(self.leaving(), self.tree())?;
        remove_all(&self.objects())
    }
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a tree into objects and names.
struct Import<'a> {
    backing: &'a Backing,
    world: World,
    listings: HashMap<NodeId, Listing>,
    /// Files with several names, by device and inode.
    linked: HashMap<(u64, u64), NodeId>,
}

impl<'a> Import<'a> {
    fn new(backing: &'a Backing) -> Self {
        Self {
            backing,
            world: World::new(),
            listings: HashMap::from([(ROOT, Listing::new())]),
            linked: HashMap::new(),
        }
    }

    fn run(mut self) -> io::Result<World> {
        let root = match fs::metadata(self.backing.tree()) {
            Ok(metadata) => Meta::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Meta::new(0o755, 0, 0),
            Err(error) => return Err(error),
        };
        self.world
            .insert(Node::new(ROOT, Kind::Directory(root.into())));
        let mut next = Vec::new();
        if self.backing.tree().exists() {
            next.push((ROOT, self.backing.tree()));
        }
        while let Some((dir, path)) = next.pop() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let id = self.adopt(&entry.path())?;
                self.listings
                    .entry(dir)
                    .or_default()
                    .insert(entry.file_name(), id);
                if entry.file_type()?.is_dir() {
                    self.listings.entry(id).or_default();
                    next.push((id, entry.path()));
                }
            }
        }
        self.world.names = Names::new(self.listings);
        Ok(self.world)
    }

    fn adopt(&mut self, path: &Path) -> io::Result<NodeId> {
        let metadata = fs::symlink_metadata(path)?;
        let inode = (metadata.dev(), metadata.ino());
        if let Some(id) = self.linked.get(&inode) {
            return Ok(*id);
        }
        let id = self.world.next_id();
        let meta = Meta::of(&metadata);
        let kind = if metadata.is_dir() {
            Kind::Directory(meta.into())
        } else if metadata.is_symlink() {
            Kind::Symlink(fs::read_link(path)?.into_os_string(), meta.into())
        } else if metadata.is_file() {
            let object = self.backing.object(id);
            fs::hard_link(path, &object)?;
            self.linked.insert(inode, id);
            Kind::File(FileState::durable(object, metadata.len()).into())
        } else {
            return Err(io::Error::other(format!(
                "{} is neither a file, a directory nor a symbolic link",
                path.display()
            )));
        };
        self.world.insert(Node::new(id, kind));
        Ok(id)
    }
}
