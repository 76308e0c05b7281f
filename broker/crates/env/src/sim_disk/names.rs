//! Names of simulated files: as seen, as durable, and the changes between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::Content;
use super::random::Random;

/// A file, whatever its names.
pub(super) type Node = Arc<Mutex<Content>>;

/// A change of a directory.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Node),
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
}

impl Change {
    /// The directories that must be synced for it to be durable.
    fn is_of(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _)
            | Self::Unlink(path)
            | Self::MakeDir(path)
            | Self::RemoveDir(path) => path.parent() == Some(dir),
            Self::Rename(_, to, _) => to.parent() == Some(dir),
        }
    }
}

/// Files and directories by name.
#[derive(Debug, Clone, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Node>,
    dirs: BTreeSet<PathBuf>,
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link(path, node) => {
                self.files.insert(path.clone(), Arc::clone(node));
            }
            Change::Unlink(path) => {
                self.files.remove(path);
            }
            Change::Rename(from, to, node) => {
                self.files.remove(from);
                self.files.insert(to.clone(), Arc::clone(node));
            }
            Change::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            Change::RemoveDir(path) => {
                self.dirs.remove(path);
            }
        }
    }
    fn has_dir(&self, path: &Path) -> bool {
        is_root(path) || self.dirs.contains(path)
    }
    fn reachable(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|dir| self.has_dir(dir))
    }
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none() || path.as_os_str().is_empty()
}

/// All names of a disk.
#[derive(Debug, Default)]
pub(super) struct Names {
    seen: Tree,
    durable: Tree,
    pending: Vec<Change>,
}

impl Names {
    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.pending.push(change);
    }

    pub(super) fn get(&self, path: &Path) -> io::Result<Node> {
        self.seen
            .files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Node> {
        self.parent_exists(path)?;
        let node = Node::default();
        self.change(Change::Link(path.to_owned(), Arc::clone(&node)));
        Ok(node)
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        let known = path
            .parent()
            .is_some_and(|parent| self.seen.has_dir(parent));
        if known && !self.seen.has_dir(path) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.get(from)?;
        self.parent_exists(to)?;
        self.change(Change::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.get(path)?;
        self.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    pub(super) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let ancestors: Vec<_> = path.ancestors().filter(|dir| !is_root(dir)).collect();
        for dir in ancestors.into_iter().rev() {
            if self.seen.files.contains_key(dir) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if !self.seen.has_dir(dir) {
                self.change(Change::MakeDir(dir.to_owned()));
            }
        }
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change(Change::RemoveDir(path.to_owned()));
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.seen.has_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = self.seen.files.keys().chain(&self.seen.dirs);
        let entries: BTreeSet<_> = all
            .filter(|at| at.parent() == Some(path))
            .cloned()
            .collect();
        Ok(entries.into_iter().collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.seen.files.contains_key(path) || self.seen.has_dir(path)
    }

    /// Makes the names in `dir` durable.
    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.seen.has_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let synced = change.is_of(dir);
            if synced {
                durable.apply(change);
            }
            !synced
        });
        Ok(())
    }

    /// A sync that fails: the names stay seen, and never become durable by another sync.
    pub(super) fn drop_pending(&mut self, dir: &Path) {
        self.pending.retain(|change| !change.is_of(dir));
    }

    /// Makes all names and all content durable.
    pub(super) fn sync_all(&mut self) {
        self.pending.clear();
        self.durable = self.seen.clone();
        for node in self.seen.files.values() {
            node.lock().sync();
        }
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        self.seen.files.values().map(|node| node.lock().len()).sum()
    }

    /// The same names and content, apart: what one changes the other does not see. Files that have
    /// no name left are not among it.
    pub(super) fn copy(&self) -> Self {
        let mut copies: HashMap<*const Mutex<Content>, Node> = HashMap::new();
        let mut of = |node: &Node| {
            let copy = copies
                .entry(Arc::as_ptr(node))
                .or_insert_with(|| Arc::new(Mutex::new(node.lock().clone())));
            Arc::clone(copy)
        };
        let pending = self.pending.iter().map(|change| match change {
            Change::Link(path, node) => Change::Link(path.clone(), of(node)),
            Change::Rename(from, to, node) => Change::Rename(from.clone(), to.clone(), of(node)),
            other => other.clone(),
        });
        let pending = pending.collect();
        let mut tree = |tree: &Tree| Tree {
            files: tree
                .files
                .iter()
                .map(|(path, node)| (path.clone(), of(node)))
                .collect(),
            dirs: tree.dirs.clone(),
        };
        Self {
            seen: tree(&self.seen),
            durable: tree(&self.durable),
            pending,
        }
    }

    /// Every file that has a name, with its length in bytes.
    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.seen.files.iter();
        files
            .map(|(path, node)| (path.clone(), node.lock().len()))
            .collect()
    }

    /// What is there after a power loss: any of the changes that were not synced may be lost.
    pub(super) fn after_power_loss(&self, mut random: Option<Random>) -> Self {
        let mut tree = self.durable.clone();
        if let Some(random) = &mut random {
            for change in &self.pending {
                if random.one_in(2) {
                    tree.apply(change);
                }
            }
        }
        let mut after = Tree::default();
        after
            .dirs
            .extend(tree.dirs.iter().filter(|dir| tree.reachable(dir)).cloned());
        for (path, node) in &tree.files {
            if tree.reachable(path) {
                let content = node.lock().after_power_loss(random.as_mut());
                after
                    .files
                    .insert(path.clone(), Arc::new(Mutex::new(content)));
            }
        }
        Self {
            seen: after.clone(),
            durable: after,
            pending: Vec::new(),
        }
    }
}
