//! The power loss.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Disk;
use super::delayed::Now;
use super::node::{Kind, Node};
use super::world::World;
use crate::control::{Loss, LossReport};
use crate::durable::{Choice, Listing, Names, NodeId, ROOT, Reversal, SECTOR};

impl Disk {
    /// Takes back what was not synced. Every handle is dead afterwards, and everything that
    /// survives has a new number, so that nothing the kernel remembers can be taken for it.
    ///
    /// # Errors
    /// Those of the file system that holds the backing directory. The mount is of no use then.
    pub(crate) fn power_loss(&self, loss: Loss) -> io::Result<LossReport> {
        // Before the lock, because this work takes it; what is delayed from now on until the lock
        // is had belongs to a process that is alive.
        self.delayed.drain(Now::PowerLost);
        let _off = self.power.write();
        let mut choice = Choice::from(loss);
        let mut world = self.world.lock();
        let mut handles = self.handles.lock();
        let mut report = LossReport {
            open_handles: handles.len() as u64,
            ..LossReport::default()
        };
        handles.clear();
        let (listings, discarded, survived) = world.names.after_loss(&mut choice);
        report.discarded_entries = discarded;
        report.survived_entries = survived;
        self.revert(&world, &mut choice, &mut report)?;
        let after = self.renumber(&mut world, listings)?;
        *world = after;
        report.number = self.losses.fetch_add(1, Ordering::SeqCst) + 1;
        *self.last_loss.lock() = Some(report.clone());
        Ok(report)
    }

    /// Puts back bytes and lengths, in the order of the numbers, so that a seed means the same.
    fn revert(
        &self,
        world: &World,
        choice: &mut Choice,
        report: &mut LossReport,
    ) -> io::Result<()> {
        let mut nodes: Vec<&Arc<Node>> = world.nodes().collect();
        nodes.sort_by_key(|node| node.id);
        for node in nodes {
            let Kind::File(state) = &node.kind else {
                continue;
            };
            let Reversal {
                discarded,
                survived,
                length_reverts,
                ..
            } = state.lock().lose(choice)?;
            report.discarded_bytes += discarded * SECTOR;
            report.survived_bytes += survived * SECTOR;
            report.reverted_lengths += u64::from(length_reverts);
            report.discarded_files += u64::from(discarded > 0 || length_reverts);
        }
        Ok(())
    }

    /// What survives, under new numbers; the objects of what does not are removed.
    fn renumber(&self, world: &mut World, listings: HashMap<NodeId, Listing>) -> io::Result<World> {
        let mut old = world.take_nodes();
        let mut after = world.successor();
        let mut numbers = HashMap::from([(ROOT, ROOT)]);
        let listed = listings.values().flat_map(Listing::values);
        for id in std::iter::once(&ROOT).chain(listed) {
            let Some(node) = old.remove(id) else {
                continue; // another name of what has its number already
            };
            let number = *numbers.entry(*id).or_insert_with(|| after.next_id());
            after.insert(Node::new(number, self.carry_over(&node, number)?));
        }
        for node in old.into_values() {
            if let Kind::File(_) = node.kind {
                self.backing.remove(node.id)?;
            }
        }
        let number = |id: NodeId| numbers.get(&id).copied().unwrap_or(id);
        let renamed = |listing: Listing| -> Listing {
            listing
                .into_iter()
                .map(|(name, id)| (name, number(id)))
                .collect()
        };
        let listings = listings
            .into_iter()
            .map(|(dir, listing)| (number(dir), renamed(listing)))
            .collect();
        after.names = Names::new(listings);
        Ok(after)
    }

    fn carry_over(&self, node: &Node, number: NodeId) -> io::Result<Kind> {
        Ok(match &node.kind {
            Kind::File(state) => {
                let object = self.backing.object(number);
                std::fs::rename(self.backing.object(node.id), &object)?;
                Kind::File(state.lock().moved(object).into())
            }
            Kind::Directory(meta) => Kind::Directory((*meta.lock()).into()),
            Kind::Symlink(target, meta) => Kind::Symlink(target.clone(), (*meta.lock()).into()),
        })
    }
}
