//! Bits that flip: where one is told, or where chance will have it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Disk;
use super::faults::fits;
use super::node::{Kind, Node};
use crate::control::{Flipped, Place};
use crate::durable::{SECTOR, next};

/// Bytes read at once in search of the last one that counts.
const PIECE: usize = 64 << 10;

impl Disk {
    /// Flips a bit, in what is seen and in what is durable.
    ///
    /// # Errors
    /// When there is no such file or byte.
    pub(crate) fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> io::Result<()> {
        let node = {
            let world = self.world.lock();
            let mut node = world.node(crate::durable::ROOT)?;
            for name in path.split('/').filter(|name| !name.is_empty()) {
                node = world.find(node.id, name.as_ref())?;
            }
            node
        };
        {
            let _on = self.power.read();
            node.file()?.lock().flip_bit(offset, bit)?;
        }
        self.counts.flipped_bits.fetch_add(1, Ordering::Relaxed);
        if let Some(notifier) = self.notifier.get() {
            notifier.inval_inode(fuser::INodeNo(node.id), 0, 0)?;
        }
        Ok(())
    }

    /// Flips a bit of a file that is chosen by the seed.
    ///
    /// # Errors
    /// `NotFound` when no file that matches holds anything.
    pub(crate) fn rot(&self, pattern: &str, place: Place, seed: u64) -> io::Result<Flipped> {
        let mut files: Vec<(String, Arc<Node>)> = {
            let world = self.world.lock();
            let files = world
                .nodes()
                .filter(|node| matches!(node.kind, Kind::File(_)));
            files
                .filter(|node| world.names.is_present(node.id))
                .map(|node| (world.names.path(node.id), Arc::clone(node)))
                .filter(|(path, _)| fits(pattern, path))
                .collect()
        };
        // By name, so that a seed means the same.
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let mut seed = seed;
        while !files.is_empty() {
            let at = usize::try_from(next(&mut seed) % files.len() as u64).unwrap_or(0);
            let (path, node) = files.swap_remove(at);
            let counts = {
                let _on = self.power.read();
                counts(&node)?
            };
            if counts == 0 {
                continue;
            }
            let offset = byte(place, counts, next(&mut seed));
            let bit = u8::try_from(next(&mut seed) % 8).unwrap_or(0);
            self.flip_bit(&path, offset, bit)?;
            return Ok(Flipped { path, offset, bit });
        }
        Err(Errno::NOENT.into())
    }
}

/// How many bytes of a file count: up to the last that is not zero.
fn counts(node: &Node) -> io::Result<u64> {
    let mut file = node.file()?.lock();
    let mut end = file.content().len();
    while end > 0 {
        let from = end.saturating_sub(PIECE as u64);
        let bytes = file.read(from, usize::try_from(end - from).unwrap_or(PIECE))?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// A byte of so many, of which there is one at least.
fn byte(place: Place, counts: u64, random: u64) -> u64 {
    let within = match place {
        Place::Head => 0..counts.min(SECTOR),
        Place::Middle => counts / 3..(counts * 2).div_ceil(3).max(counts / 3 + 1),
        Place::Tail => counts.saturating_sub(SECTOR)..counts,
        Place::Anywhere => 0..counts,
    };
    within.start + random % (within.end - within.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_within_what_counts() {
        for counts in [1_u64, 2, 3, 511, 512, 513, 3_000] {
            for random in [0, 1, 7, u64::MAX] {
                assert!(byte(Place::Head, counts, random) < counts.min(512));
                assert!(byte(Place::Anywhere, counts, random) < counts);
                let tail = byte(Place::Tail, counts, random);
                assert!(tail < counts && tail + 512 >= counts);
                let middle = byte(Place::Middle, counts, random);
                assert!(middle >= counts / 3 && middle < (counts * 2).div_ceil(3));
            }
        }
    }
}
