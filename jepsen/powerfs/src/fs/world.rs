//! All nodes and all names.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::node::Node;
use crate::durable::{Names, NodeId, ROOT};

/// The longest name, as on ext4.
const NAME_MAX: usize = 255;

/// Nodes and names.
#[derive(Debug)]
pub(crate) struct World {
    pub names: Names,
    nodes: HashMap<NodeId, Arc<Node>>,
    /// The last number that was given. Numbers are not given twice, so that nothing that the
    /// kernel remembers of a file can be taken for another file, or for this one before a loss.
    last: NodeId,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            names: Names::new(HashMap::new()),
            nodes: HashMap::new(),
            last: ROOT,
        }
    }
    /// An empty world that gives no number that this one gave.
    pub(crate) fn successor(&self) -> Self {
        Self {
            last: self.last,
            ..Self::new()
        }
    }
    pub(crate) fn next_id(&mut self) -> NodeId {
        self.last += 1;
        self.last
    }
    pub(crate) fn insert(&mut self, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        self.nodes.insert(node.id, Arc::clone(&node));
        node
    }
    /// The node that a number stands for.
    ///
    /// # Errors
    /// ESTALE when there is none (any more).
    pub(crate) fn node(&self, id: NodeId) -> io::Result<Arc<Node>> {
        let node = self.nodes.get(&id).cloned();
        node.ok_or_else(|| Errno::STALE.into())
    }
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }
    /// Takes all nodes out.
    pub(crate) fn take_nodes(&mut self) -> HashMap<NodeId, Arc<Node>> {
        std::mem::take(&mut self.nodes)
    }

    /// # Errors
    /// ENOENT, ENOTDIR, ESTALE.
    pub(crate) fn find(&self, dir: NodeId, name: &OsStr) -> io::Result<Arc<Node>> {
        self.directory(dir)?;
        let found = self.names.lookup(dir, name);
        self.node(found.ok_or(Errno::NOENT)?)
    }
    /// # Errors
    /// ENOTDIR, ESTALE.
    pub(crate) fn directory(&self, dir: NodeId) -> io::Result<()> {
        self.node(dir)?;
        if self.names.is_directory(dir) {
            Ok(())
        } else {
            Err(Errno::NOTDIR.into())
        }
    }
    /// Whether a new name may be put there.
    ///
    /// # Errors
    /// EEXIST, ENAMETOOLONG, ENOENT (the directory was removed), ENOTDIR, ESTALE.
    pub(crate) fn is_free(&self, dir: NodeId, name: &OsStr) -> io::Result<()> {
        self.may_hold(dir, name)?;
        if self.names.lookup(dir, name).is_some() {
            return Err(Errno::EXIST.into());
        }
        Ok(())
    }
    /// # Errors
    /// ENAMETOOLONG, ENOENT (the directory was removed), ENOTDIR, ESTALE.
    pub(crate) fn may_hold(&self, dir: NodeId, name: &OsStr) -> io::Result<()> {
        self.directory(dir)?;
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        if !self.names.is_present(dir) {
            return Err(Errno::NOENT.into());
        }
        Ok(())
    }

    /// Forgets nodes that have no name, can get none, and are not open: `closed`, and those that
    /// lost a name. Says which.
    pub(crate) fn forget_unused(&mut self, closed: Option<NodeId>) -> Vec<NodeId> {
        let mut forgotten = Vec::new();
        for id in self.names.take_loose().into_iter().chain(closed) {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            if node.opens.load(Ordering::SeqCst) > 0 || self.names.refers_to(id) {
                continue;
            }
            self.nodes.remove(&id);
            self.names.forget(id);
            forgotten.push(id);
        }
        forgotten
    }
}
