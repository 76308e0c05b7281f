//! What a simulated file holds: as seen, as durable, and what lies between.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::random::Random;

/// Bytes that a disk writes or leaves as they were.
pub(super) const SECTOR: usize = 512;
/// How many versions of a sector between two syncs may surface after a power loss.
const VERSIONS: usize = 3;

/// Shared by what is seen, what is durable and what was in between, until one of them is written.
type Sector = Arc<[u8; SECTOR]>;

/// Bytes by sector. A sector that is not there reads as zeroes.
#[derive(Debug, Clone, Default)]
struct Sectors(BTreeMap<u64, Sector>);

impl Sectors {
    fn get(&self, at: u64) -> Option<&Sector> {
        self.0.get(&at)
    }
    fn set(&mut self, at: u64, sector: Option<Sector>) {
        match sector {
            Some(sector) if *sector != [0; SECTOR] => self.0.insert(at, sector),
            _ => self.0.remove(&at),
        };
    }
    /// Makes everything from byte `len` on read as zeroes.
    fn cut(&mut self, len: u64) {
        let first = len / SECTOR as u64;
        let kept = usize::try_from(len % SECTOR as u64).unwrap_or(0);
        let mut gone = self.0.split_off(&first);
        if let Some(mut sector) = gone.remove(&first) {
            Arc::make_mut(&mut sector)[kept..].fill(0);
            self.set(first, Some(sector));
        }
    }
}

/// One file's content.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    seen: Sectors,
    durable: Sectors,
    len: u64,
    durable_len: u64,
    /// Sectors that differ since the last sync, with what they held in between.
    dirty: BTreeMap<u64, Vec<Option<Sector>>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        let count = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        for_sectors(offset, count, |sector, within, at, part| {
            match self.seen.get(sector) {
                Some(bytes) => buf[at..at + part].copy_from_slice(&bytes[within..within + part]),
                None => buf[at..at + part].fill(0),
            };
        });
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for_sectors(offset, bytes.len(), |sector, within, at, part| {
            let written = &bytes[at..at + part];
            let old = self.seen.get(sector).cloned();
            let new = match written.try_into() {
                Ok(whole) => Arc::new(whole),
                Err(_) => {
                    let mut new = old.clone().unwrap_or_else(zeroes);
                    Arc::make_mut(&mut new)[within..within + part].copy_from_slice(written);
                    new
                }
            };
            match self.dirty.get_mut(&sector) {
                Some(versions) if versions.len() < VERSIONS => versions.push(old),
                Some(_) => {}
                None => {
                    self.dirty.insert(sector, Vec::new());
                }
            }
            self.seen.set(sector, Some(new));
        });
        self.len = self.len.max(offset.saturating_add(bytes.len() as u64));
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            for sector in self.seen.0.range(len / SECTOR as u64..).map(|(at, _)| *at) {
                self.dirty.entry(sector).or_default();
            }
            self.seen.cut(len);
        }
        self.len = len;
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            let seen = self.seen.get(sector).cloned();
            self.durable.set(sector, seen);
        }
        self.durable_len = self.len;
    }

    /// A sync that fails: what was dirty is taken for clean, still seen, and never written.
    pub(super) fn drop_dirty(&mut self) {
        self.dirty.clear();
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let sector = offset / SECTOR as u64;
        let within = usize::try_from(offset % SECTOR as u64).unwrap_or(0);
        for sectors in [&mut self.seen, &mut self.durable] {
            let mut bytes = sectors.get(sector).cloned().unwrap_or_else(zeroes);
            Arc::make_mut(&mut bytes)[within] ^= 1 << (bit % 8);
            sectors.set(sector, Some(bytes));
        }
    }

    /// What is there after a power loss. Without `random` nothing survives that was not synced;
    /// with it, each sector holds one of the versions it had, or is torn between two.
    pub(super) fn after_power_loss(&self, random: Option<&mut Random>) -> Self {
        let mut durable = self.durable.clone();
        let mut len = self.durable_len;
        if let Some(random) = random {
            for (&at, between) in &self.dirty {
                let old = self.durable.get(at).cloned();
                let mut versions = vec![old.clone(), self.seen.get(at).cloned()];
                versions.extend(between.iter().cloned());
                let chosen = random.pick(&versions).cloned().flatten();
                durable.set(
                    at,
                    if random.one_in(8) {
                        tear(old, chosen, random)
                    } else {
                        chosen
                    },
                );
            }
            if random.one_in(2) {
                len = self.len;
            }
        }
        durable.cut(len);
        Self {
            seen: durable.clone(),
            durable,
            len,
            durable_len: len,
            dirty: BTreeMap::new(),
        }
    }
}

fn tear(old: Option<Sector>, new: Option<Sector>, random: &mut Random) -> Option<Sector> {
    let mut sector = old.unwrap_or_else(zeroes);
    let torn = Arc::make_mut(&mut sector);
    let cut = usize::try_from(random.below(SECTOR as u64)).unwrap_or(0);
    match new {
        Some(new) => torn[..cut].copy_from_slice(&new[..cut]),
        None => torn[..cut].fill(0),
    }
    Some(sector)
}

fn zeroes() -> Sector {
    static ZEROES: LazyLock<Sector> = LazyLock::new(|| Arc::new([0; SECTOR]));
    Arc::clone(&ZEROES)
}

/// Calls `each` with (sector, offset within it, offset within the range, length).
fn for_sectors(offset: u64, len: usize, mut each: impl FnMut(u64, usize, usize, usize)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = usize::try_from(at % SECTOR as u64).unwrap_or(0);
        let part = (SECTOR - within).min(len - done);
        each(at / SECTOR as u64, within, done, part);
        done += part;
    }
}
