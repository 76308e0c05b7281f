//! Names: as they are seen, as they are durable, and the changes between.
//!
//! A change becomes durable by a sync of its directory: a new or removed name by a sync of the
//! directory that holds it, a rename, whole, by a sync of the directory it goes to. Changes of one
//! name become durable in their order, so that a change takes along the earlier ones of its names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};

use super::Choice;

/// Names a file or directory for as long as the machine does not lose power.
pub(crate) type NodeId = u64;

/// The root directory, whatever happens.
pub(crate) const ROOT: NodeId = 1;

/// A place for a name: a directory and the name in it.
type Slot = (NodeId, OsString);
/// The content of a directory.
pub(crate) type Listing = BTreeMap<OsString, NodeId>;

/// All directories, with how often each node is listed in them.
#[derive(Debug, Clone, Default)]
struct Tree {
    listings: HashMap<NodeId, Listing>,
    links: HashMap<NodeId, usize>,
}

impl Tree {
    /// Says which node had the name.
    fn enter(&mut self, slot: &Slot, node: NodeId) -> Option<NodeId> {
        let before = self.leave(slot);
        let listing = self.listings.entry(slot.0).or_default();
        listing.insert(slot.1.clone(), node);
        *self.links.entry(node).or_default() += 1;
        before
    }
    /// Says which node had the name.
    fn leave(&mut self, (dir, name): &Slot) -> Option<NodeId> {
        let node = self.listings.get_mut(dir)?.remove(name)?;
        if let Some(links) = self.links.get_mut(&node) {
            *links -= 1;
            if *links == 0 {
                self.links.remove(&node);
            }
        }
        Some(node)
    }
    fn links(&self, node: NodeId) -> usize {
        self.links.get(&node).copied().unwrap_or(0)
    }
    fn forget(&mut self, node: NodeId) {
        for name in self.listings.remove(&node).unwrap_or_default().into_keys() {
            self.leave(&(node, name));
        }
    }
    /// What can be reached from the root. A directory that is listed twice (possible only where
    /// changes survived without their order, or after a failed sync) stays where it is met first.
    fn reachable(&self) -> Self {
        let mut reached = Self::default();
        let mut next = vec![ROOT];
        while let Some(dir) = next.pop() {
            reached.listings.entry(dir).or_default();
            for (name, node) in self.listings.get(&dir).into_iter().flatten() {
                let is_directory = self.listings.contains_key(node);
                if is_directory && (*node == ROOT || reached.links(*node) > 0) {
                    continue;
                }
                reached.enter(&(dir, name.clone()), *node);
                if is_directory {
                    next.push(*node);
                }
            }
        }
        reached
    }
}

/// A change of one directory, or of two.
#[derive(Debug, Clone)]
enum Change {
    Enter {
        slot: Slot,
        node: NodeId,
    },
    Leave {
        slot: Slot,
    },
    Move {
        from: Slot,
        to: Slot,
        node: NodeId,
        is_directory: bool,
    },
}

impl Change {
    /// The directory whose sync makes it durable.
    fn home(&self) -> NodeId {
        match self {
            Self::Enter { slot, .. } | Self::Leave { slot } => slot.0,
            Self::Move { to, .. } => to.0,
        }
    }
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let (first, second) = match self {
            Self::Enter { slot, .. } | Self::Leave { slot } => (slot, None),
            Self::Move { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
    fn moves_directory(&self) -> bool {
        matches!(
            self,
            Self::Move {
                is_directory: true,
                ..
            }
        )
    }
    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Enter { node, .. } | Self::Move { node, .. } => Some(*node),
            Self::Leave { .. } => None,
        }
    }
    /// Says which node has lost a name by it.
    fn apply(&self, tree: &mut Tree) -> Option<NodeId> {
        match self {
            Self::Enter { slot, node } => tree.enter(slot, *node),
            Self::Leave { slot } => tree.leave(slot),
            Self::Move { from, to, node, .. } => {
                tree.leave(from);
                tree.enter(to, *node)
            }
        }
    }
}

/// All names.
#[derive(Debug)]
pub(crate) struct Names {
    /// Every directory, also one that was just removed and is still open, has a listing.
    seen: Tree,
    durable: Tree,
    /// Changes that no sync has made durable, in their order.
    pending: Vec<Change>,
    /// Where a node was last seen to be.
    places: HashMap<NodeId, Slot>,
    /// Changes that a failed sync dropped: seen, and never to be durable.
    dropped: u64,
    /// Nodes that lost a name or the prospect of one, so that nothing may refer to them any more.
    loose: Vec<NodeId>,
}

impl Names {
    /// Names that are all durable: the content of each directory, the root among them.
    pub(crate) fn new(listings: HashMap<NodeId, Listing>) -> Self {
        let mut tree = Tree::default();
        tree.listings.insert(ROOT, Listing::new());
        let mut places = HashMap::new();
        for (dir, listing) in listings {
            tree.listings.entry(dir).or_default();
            for (name, node) in listing {
                places.insert(node, (dir, name.clone()));
                tree.enter(&(dir, name), node);
            }
        }
        Self {
            seen: tree.clone(),
            durable: tree,
            pending: Vec::new(),
            places,
            dropped: 0,
            loose: Vec::new(),
        }
    }

    pub(crate) fn is_directory(&self, node: NodeId) -> bool {
        self.seen.listings.contains_key(&node)
    }
    /// Whether a node has a name; the root needs none.
    pub(crate) fn is_present(&self, node: NodeId) -> bool {
        node == ROOT || self.seen.links(node) > 0
    }
    pub(crate) fn lookup(&self, dir: NodeId, name: &OsStr) -> Option<NodeId> {
        self.list(dir)?.get(name).copied()
    }
    pub(crate) fn list(&self, dir: NodeId) -> Option<&Listing> {
        self.seen.listings.get(&dir)
    }
    /// How many names a file has, or 2 and its subdirectories for a directory.
    pub(crate) fn links(&self, node: NodeId) -> usize {
        match self.list(node) {
            Some(listing) => 2 + listing.values().filter(|n| self.is_directory(**n)).count(),
            None => self.seen.links(node),
        }
    }
    /// The directory that holds a directory; the root holds itself.
    pub(crate) fn parent(&self, dir: NodeId) -> NodeId {
        self.places.get(&dir).map_or(ROOT, |(parent, _)| *parent)
    }
    /// The path from the root at which a node was seen last, without a leading slash.
    pub(crate) fn path(&self, node: NodeId) -> String {
        let mut parts = Vec::new();
        let mut at = node;
        while let Some((dir, name)) = self.places.get(&at) {
            parts.push(name.to_string_lossy());
            at = *dir;
        }
        parts.reverse();
        parts.join("/")
    }
    /// How many files and how many directories have a name, the root among them.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let reached = self.seen.reachable();
        let directories = reached.listings.len();
        let files = (1 + reached.links.len()).saturating_sub(directories);
        (files as u64, directories as u64)
    }
    /// Changes that a power loss would take back.
    pub(crate) fn unsynced(&self) -> u64 {
        self.pending.len() as u64 + self.dropped
    }

    fn change(&mut self, change: Change) {
        self.loose.extend(change.apply(&mut self.seen));
        self.pending.push(change);
    }

    /// Gives a node a name. The name must be free.
    pub(crate) fn enter(&mut self, dir: NodeId, name: &OsStr, node: NodeId) {
        let slot = (dir, name.to_owned());
        self.places.insert(node, slot.clone());
        self.change(Change::Enter { slot, node });
    }
    /// Makes an empty directory. The name must be free.
    pub(crate) fn enter_directory(&mut self, dir: NodeId, name: &OsStr, node: NodeId) {
        self.seen.listings.insert(node, Listing::new());
        self.durable.listings.insert(node, Listing::new());
        self.enter(dir, name, node);
    }
    /// Takes a name away.
    pub(crate) fn leave(&mut self, dir: NodeId, name: &OsStr) {
        let slot = (dir, name.to_owned());
        self.change(Change::Leave { slot });
    }
    /// Moves a name, over whatever has the new one.
    pub(crate) fn rename(&mut self, from: (NodeId, &OsStr), to: (NodeId, &OsStr)) {
        let Some(node) = self.lookup(from.0, from.1) else {
            return;
        };
        let to = (to.0, to.1.to_owned());
        self.places.insert(node, to.clone());
        let is_directory = self.is_directory(node);
        self.change(Change::Move {
            from: (from.0, from.1.to_owned()),
            to,
            node,
            is_directory,
        });
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync(&mut self, dir: NodeId) {
        let mut slots: HashSet<Slot> = HashSet::new();
        let mut directories_moved = false;
        let mut synced = Vec::new();
        // From the last to the first: what is synced takes the earlier changes of its names along,
        // and a moved directory the earlier moves of directories, lest the durable tree had a ring.
        let mut kept = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            let wanted = change.home() == dir
                || change.slots().any(|slot| slots.contains(slot))
                || (directories_moved && change.moves_directory());
            if wanted {
                directories_moved |= change.moves_directory();
                slots.extend(change.slots().cloned());
                synced.push(change);
            } else {
                kept.push(change);
            }
        }
        kept.reverse();
        self.pending = kept;
        for change in synced.iter().rev() {
            self.loose.extend(change.apply(&mut self.durable));
        }
    }
    /// A sync that fails: the names stay seen, and no later sync makes them durable.
    pub(crate) fn drop_pending(&mut self, dir: NodeId) {
        let (dropped, kept) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.home() == dir);
        self.pending = kept;
        let dropped: Vec<Change> = dropped;
        self.dropped += dropped.len() as u64;
        self.loose.extend(dropped.iter().filter_map(Change::node));
    }

    /// Nodes to which nothing refers, perhaps, since this was asked last.
    pub(crate) fn take_loose(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.loose)
    }
    /// Whether a node has a name, or would have one after a power loss, or could get one by a
    /// sync.
    pub(crate) fn refers_to(&self, node: NodeId) -> bool {
        node == ROOT
            || self.seen.links(node) > 0
            || self.durable.links(node) > 0
            || self
                .pending
                .iter()
                .any(|change| change.node() == Some(node))
    }
    /// Forgets a node that nothing refers to.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.places.remove(&node);
        self.seen.forget(node);
        self.durable.forget(node);
    }

    /// The directories that are there after a power loss, with how many changes were discarded
    /// and how many survived.
    pub(crate) fn after_loss(&self, choice: &mut Choice) -> (HashMap<NodeId, Listing>, u64, u64) {
        let mut tree = self.durable.clone();
        let mut survived = 0;
        for change in &self.pending {
            if choice.survives() {
                change.apply(&mut tree);
                survived += 1;
            }
        }
        (
            tree.reachable().listings,
            self.unsynced() - survived,
            survived,
        )
    }
    /// Everything that has a name now.
    pub(crate) fn present(&self) -> HashMap<NodeId, Listing> {
        self.seen.reachable().listings
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
