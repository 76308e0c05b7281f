//! One file's content: which of its sectors and which length are durable, and what the others
//! were when they last were.
//!
//! The file itself holds what is seen. What a power loss takes back is kept here: before a sector
//! changes for the first time since it was durable, its durable bytes are read and put aside.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::Choice;

/// Bytes that a disk writes whole, or leaves as they were.
pub(crate) const SECTOR: u64 = 512;
/// Sectors are remembered in blocks of eight.
const BLOCK: u64 = 8 * SECTOR;

type Bytes = Box<[u8; BLOCK as usize]>;

/// Eight sectors of which some are not durable as they are seen.
#[derive(Debug, Default)]
struct Block {
    /// The durable bytes; none are zeroes.
    durable: Option<Bytes>,
    /// Bit by bit: sectors that the next sync makes durable.
    dirty: u8,
    /// Sectors that a failed sync left: seen, and not durable until they are written again.
    lost: u8,
}

/// What to do to a file after a power loss.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reversal {
    /// First: the length to cut or extend the file to.
    pub len: u64,
    /// Then: bytes to put back, by offset. They may reach beyond the length, and are cut there.
    pub writes: Vec<(u64, Vec<u8>)>,
    /// Whether the length goes back.
    pub length_reverts: bool,
    /// Sectors that go back.
    pub discarded: u64,
    /// Sectors that stay although they were not synced.
    pub survived: u64,
}

/// What is durable of one file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    len: u64,
    durable_len: u64,
    blocks: BTreeMap<u64, Block>,
}

/// Reads bytes of the file as it is seen, zeroes beyond its end.
pub(crate) type Reader<'a> = &'a mut dyn FnMut(&mut [u8], u64) -> io::Result<()>;

impl Content {
    /// A file that is durable as it is.
    pub(crate) fn durable(len: u64) -> Self {
        Self {
            len,
            durable_len: len,
            blocks: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
    pub(crate) fn is_dirty(&self) -> bool {
        self.len != self.durable_len || !self.blocks.is_empty()
    }
    /// Sectors that a power loss would take back.
    pub(crate) fn unsynced_sectors(&self) -> u64 {
        let ones = |block: &Block| u64::from((block.dirty | block.lost).count_ones());
        self.blocks.values().map(ones).sum()
    }

    /// To be called before bytes change: puts the durable ones aside. An error leaves all as it
    /// was but for what was put aside, which is right in any case.
    pub(crate) fn before_change(&mut self, range: Range<u64>, read: Reader<'_>) -> io::Result<()> {
        for block in blocks_of(&range) {
            if self.blocks.contains_key(&block) {
                continue;
            }
            let at = block * BLOCK;
            let durable = if at < self.durable_len {
                let mut bytes = Bytes::new([0; BLOCK as usize]);
                let end = usize::try_from((self.durable_len - at).min(BLOCK)).unwrap_or(0);
                read(&mut bytes[..end], at)?;
                bytes.iter().any(|byte| *byte != 0).then_some(bytes)
            } else {
                None
            };
            self.blocks.insert(
                block,
                Block {
                    durable,
                    dirty: 0,
                    lost: 0,
                },
            );
        }
        Ok(())
    }

    /// To be called after bytes changed; a range behind the end extends the file.
    pub(crate) fn changed(&mut self, range: &Range<u64>) {
        for index in blocks_of(range) {
            let sectors = sectors_of(index, range);
            let block = self.blocks.entry(index).or_default();
            block.dirty |= sectors;
            block.lost &= !sectors;
        }
    }
    /// To be called after the length changed. Before a cut, what is cut off must have been put
    /// aside, and afterwards it has changed.
    pub(crate) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.settle();
    }
    /// Forgets blocks that were put aside for a change that did not happen.
    pub(crate) fn settle(&mut self) {
        self.blocks
            .retain(|_, block| block.dirty != 0 || block.lost != 0);
    }

    /// Everything seen is durable, but for what an earlier failed sync left. Says how many sectors
    /// became so.
    pub(crate) fn sync(&mut self, read: Reader<'_>) -> io::Result<u64> {
        let mut synced = 0;
        for (index, block) in &mut self.blocks {
            synced += u64::from(block.dirty.count_ones());
            if block.lost != 0 && block.dirty != 0 {
                let mut seen = Bytes::new([0; BLOCK as usize]);
                read(&mut seen[..], index * BLOCK)?;
                let bytes = block
                    .durable
                    .get_or_insert_with(|| Bytes::new([0; BLOCK as usize]));
                for sector in sectors(block.dirty) {
                    bytes[sector.clone()].copy_from_slice(&seen[sector]);
                }
            }
            block.dirty = 0;
        }
        self.settle();
        self.durable_len = self.len;
        Ok(synced)
    }
    /// A sync that fails: what was dirty stays seen, and no later sync makes it durable.
    pub(crate) fn drop_dirty(&mut self) {
        for block in self.blocks.values_mut() {
            block.lost |= block.dirty;
            block.dirty = 0;
        }
    }
    /// Changes a bit of what is durable, where that is put aside.
    pub(crate) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let within = usize::try_from(offset % BLOCK).unwrap_or(0);
        if let Some(block) = self.blocks.get_mut(&(offset / BLOCK)) {
            let bytes = block
                .durable
                .get_or_insert_with(|| Bytes::new([0; BLOCK as usize]));
            bytes[within] ^= 1 << (bit % 8);
        }
    }

    /// What a power loss does to the file. Afterwards all of it is durable.
    pub(crate) fn after_loss(&self, choice: &mut Choice) -> Reversal {
        let keeps_length = self.len != self.durable_len && choice.survives();
        let len = if keeps_length {
            self.len
        } else {
            self.durable_len
        };
        let mut reversal = Reversal {
            len,
            length_reverts: len != self.len,
            ..Reversal::default()
        };
        for (index, block) in &self.blocks {
            for sector in sectors(block.dirty | block.lost) {
                // What a failed sync left is never written.
                let bit = 1 << (sector.start / SECTOR as usize);
                if block.dirty & bit != 0 && choice.survives() {
                    reversal.survived += 1;
                    continue;
                }
                reversal.discarded += 1;
                let at = index * BLOCK + sector.start as u64;
                let bytes = block.durable.as_ref().map_or_else(
                    || vec![0; sector.len()],
                    |bytes| bytes[sector.clone()].to_vec(),
                );
                match reversal.writes.last_mut() {
                    Some((start, last)) if *start + last.len() as u64 == at => last.extend(bytes),
                    _ => reversal.writes.push((at, bytes)),
                }
            }
        }
        reversal
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// The sectors of a block that a range touches, bit by bit.
fn sectors_of(block: u64, range: &Range<u64>) -> u8 {
    let at = block * BLOCK;
    (0..8).fold(0, |bits, sector| {
        let start = at + sector * SECTOR;
        let touched = range.start < start + SECTOR && start < range.end;
        bits | u8::from(touched) << sector
    })
}

/// The byte ranges, within a block, of the sectors whose bits are set.
fn sectors(bits: u8) -> impl Iterator<Item = Range<usize>> {
    const LEN: usize = SECTOR as usize;
    (0..8)
        .filter(move |sector| bits >> sector & 1 == 1)
        .map(|sector| sector * LEN..(sector + 1) * LEN)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
