//! Content becomes durable as documented: compared with whole copies of a file.

use proptest::prelude::*;

use super::*;

/// The most bytes that a file of these tests has.
const MOST: usize = 64 << 10;

/// A file with its content, and a whole copy of what is durable.
struct File {
    content: Content,
    seen: Vec<u8>,
    /// Behind the durable length stands what sectors held that a failed sync left behind: it is
    /// there again when the file grows over it, as on the simulated disk.
    durable: Vec<u8>,
    durable_len: usize,
    /// Sectors that a failed sync left behind, by their number.
    lost: std::collections::BTreeSet<u64>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            content: Content::default(),
            seen: Vec::new(),
            durable: vec![0; MOST],
            durable_len: 0,
            lost: std::collections::BTreeSet::new(),
        }
    }
}

fn read(seen: &[u8]) -> impl FnMut(&mut [u8], u64) -> io::Result<()> {
    move |bytes, offset| {
        let from = usize::try_from(offset).unwrap().min(seen.len());
        let count = bytes.len().min(seen.len() - from);
        bytes[..count].copy_from_slice(&seen[from..from + count]);
        Ok(())
    }
}

impl File {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        let range = at..at + bytes.len() as u64;
        self.content
            .before_change(range.clone(), &mut read(&self.seen))
            .unwrap();
        let end = usize::try_from(range.end).unwrap();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[end - bytes.len()..end].copy_from_slice(bytes);
        self.content.changed(&range);
        self.content.set_len(self.seen.len() as u64);
        for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
            self.lost.remove(&sector);
        }
    }
    fn set_len(&mut self, len: u64) {
        let before = self.seen.len() as u64;
        let cut = len..before.max(len);
        self.content
            .before_change(cut.clone(), &mut read(&self.seen))
            .unwrap();
        self.seen.resize(usize::try_from(len).unwrap(), 0);
        self.content.changed(&cut);
        self.content.set_len(len);
        if len < before {
            let cut = len / SECTOR..before.div_ceil(SECTOR);
            self.lost.retain(|sector| !cut.contains(sector));
        }
    }
    /// Calls `each` with every sector, as it is seen and as it is durable.
    fn sectors(&mut self, mut each: impl FnMut(u64, &[u8], &mut [u8])) {
        let mut seen = self.seen.clone();
        seen.resize(MOST, 0);
        let both = seen.chunks(512).zip(self.durable.chunks_mut(512));
        for (sector, (seen, durable)) in both.enumerate() {
            each(sector as u64, seen, durable);
        }
    }
    fn sync(&mut self) {
        self.content.sync(&mut read(&self.seen)).unwrap();
        let lost = self.lost.clone();
        self.sectors(|sector, seen, durable| {
            if !lost.contains(&sector) {
                durable.copy_from_slice(seen);
            }
        });
        self.durable_len = self.seen.len();
    }
    fn fail_to_sync(&mut self) {
        self.content.drop_dirty();
        let mut lost = self.lost.clone();
        self.sectors(|sector, seen, durable| {
            if seen != durable {
                lost.insert(sector);
            }
        });
        self.lost = lost;
    }
    fn expected(&self) -> &[u8] {
        &self.durable[..self.durable_len]
    }
    fn after(&self, choice: &mut Choice) -> Vec<u8> {
        let reversal = self.content.after_loss(choice);
        let len = usize::try_from(reversal.len).unwrap();
        let mut bytes = self.seen.clone();
        bytes.resize(len, 0);
        for (offset, old) in &reversal.writes {
            let offset = usize::try_from(*offset).unwrap();
            for (at, byte) in old.iter().enumerate() {
                if let Some(place) = bytes.get_mut(offset + at) {
                    *place = *byte;
                }
            }
        }
        bytes
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, usize, u8),
    SetLen(u64),
    Sync,
    FailToSync,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || (0u64..8, 0u64..5).prop_map(|(block, near)| (block * 2048 + near * 257).max(1) - 1);
    let len = prop_oneof![1usize..10, 400usize..700, 4000usize..5000];
    let op = prop_oneof![
        6 => (at(), len, 1u8..255).prop_map(|(at, len, fill)| Op::Write(at, len, fill)),
        2 => at().prop_map(Op::SetLen),
        3 => Just(Op::Sync),
        1 => Just(Op::FailToSync),
    ];
    prop::collection::vec(op, 0..40)
}

proptest! {
    #[test]
    fn a_loss_leaves_the_durable_copy(ops in ops()) {
        let mut file = File::default();
        for op in ops {
            match op {
                Op::Write(at, len, fill) => file.write(at, &vec![fill; len]),
                Op::SetLen(len) => file.set_len(len),
                Op::Sync => file.sync(),
                Op::FailToSync => file.fail_to_sync(),
            }
            prop_assert!(file.after(&mut Choice::Nothing) == file.expected());
            prop_assert_eq!(file.content.len(), file.seen.len() as u64);
        }
    }
}

#[test]
fn a_torn_loss_keeps_each_sector_old_or_new() {
    let mut file = File::default();
    file.write(0, &[1; 64 * 512]);
    file.sync();
    file.write(0, &[2; 64 * 512]);
    for seed in 0..50 {
        let after = file.after(&mut Choice::Seeded(seed));
        assert_eq!(after, file.after(&mut Choice::Seeded(seed)));
        let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
        assert!(after.chunks(512).all(whole));
        let new = after.chunks(512).filter(|sector| sector[0] == 2).count();
        assert!((10..54).contains(&new), "{new} of 64 are new");
    }
    let reversal = file.content.after_loss(&mut Choice::Seeded(3));
    assert_eq!(reversal.discarded + reversal.survived, 64);
}

#[test]
fn what_a_failed_sync_left_does_not_survive_even_torn() {
    let mut file = File::default();
    file.write(0, &[1; 512]);
    file.fail_to_sync();
    file.sync();
    for seed in 0..20 {
        assert_eq!(file.after(&mut Choice::Seeded(seed)), [0; 512]);
    }
    file.write(0, &[3]);
    file.sync();
    assert_eq!(file.after(&mut Choice::Nothing)[..2], [3, 1]);
}

#[test]
fn counts_of_what_is_unsynced() {
    let mut file = File::default();
    assert!(!file.content.is_dirty());
    file.write(1000, &[1; 30]);
    assert!(file.content.is_dirty());
    assert_eq!(file.content.unsynced_sectors(), 2);
    file.sync();
    assert!(!file.content.is_dirty());
    file.set_len(5000);
    assert!(file.content.is_dirty());
    assert_eq!(file.content.unsynced_sectors(), 0, "a length alone");
    let reversal = file.content.after_loss(&mut Choice::Nothing);
    assert_eq!((reversal.len, reversal.length_reverts), (1030, true));
}
