//! The newest offset of each key, in memory of a fixed size.
//!
//! Keys are told apart by 128 bits of SipHash-2-4 under a secret of the process: two keys that share
//! them would be one, which nobody meets by chance (2^-128 for each pair) or can bring about.

use std::hash::Hasher as _;

use highwater_proto::Offset;
use siphasher::sip128::{Hasher128, SipHasher24};

/// What one key takes, in bytes.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();
/// No offset is this high, so it marks a slot without a key.
const FREE: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: u64,
}

/// A table of keys with open addressing; a fourth of it stays free.
pub(super) struct Keys {
    secret: [u8; 16],
    slots: Vec<Slot>,
    used: usize,
}

impl Keys {
    /// For `keys` keys, but not more than `bytes` hold; always for one.
    pub(super) fn new(secret: [u8; 16], keys: u64, bytes: usize) -> Self {
        let most = (bytes / SLOT_BYTES).max(4);
        let wanted = usize::try_from(keys).unwrap_or(usize::MAX);
        let wanted = wanted.saturating_add(wanted / 2).saturating_add(4);
        let mut made = Self {
            secret,
            slots: Vec::new(),
            used: 0,
        };
        made.resize(wanted.min(most));
        made
    }
    fn resize(&mut self, slots: usize) {
        let free = Slot {
            hash: [0, 0],
            offset: FREE,
        };
        self.used = 0;
        self.slots = vec![free; slots];
    }
    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        self.resize(self.slots.len());
    }
    /// Makes room for so many more keys. `false`: there is none, unless the table is empty: then it
    /// grows, because a batch is taken as a whole.
    pub(super) fn has_room(&mut self, keys: u32) -> bool {
        let keys = keys as usize;
        let most = self.slots.len() / 4 * 3;
        if self.used + keys <= most {
            return true;
        }
        if self.used > 0 {
            return false;
        }
        self.resize((keys + 1) * 2);
        true
    }
    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
    /// The slot of a hash: its own, or the free one where it belongs.
    fn place(&self, hash: [u64; 2]) -> usize {
        // Uniform whatever the length; and some slot is always free.
        let len = self.slots.len() as u128;
        let mut at = usize::try_from((u128::from(hash[0]) * len) >> 64).unwrap_or_default();
        while let Some(slot) = self.slots.get(at)
            && slot.offset != FREE
            && slot.hash != hash
        {
            at = (at + 1) % self.slots.len();
        }
        at
    }
    /// Notes a record of a key; offsets rise from call to call.
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) {
        let hash = self.hash(key);
        let at = self.place(hash);
        if let Some(slot) = self.slots.get_mut(at) {
            self.used += usize::from(slot.offset == FREE);
            *slot = Slot {
                hash,
                offset: offset.0,
            };
        }
    }
    /// The newest offset noted of a key.
    pub(super) fn newest(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots.get(self.place(self.hash(key)))?;
        (slot.offset != FREE).then_some(Offset(slot.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_each_key_is_known_and_memory_has_a_bound() {
        let mut keys = Keys::new([7; 16], 1 << 40, 100 * SLOT_BYTES);
        let mut offset = 0;
        let mut held = 0;
        while keys.has_room(1) {
            for _ in 0..2 {
                keys.note(format!("key {held}").as_bytes(), Offset(offset));
                offset += 1;
            }
            held += 1;
        }
        assert_eq!((held, keys.slots.len()), (75, 100));
        for key in 0..held {
            let newest = keys.newest(format!("key {key}").as_bytes());
            assert_eq!(newest, Some(Offset(key * 2 + 1)));
        }
        assert_eq!(keys.newest(b"another"), None);
        assert_eq!(keys.newest(b""), None);
        keys.clear();
        assert_eq!(keys.newest(b"key 1"), None);
        // One batch is more than the bound: it is taken all the same.
        assert!(keys.has_room(1_000));
        for key in 0..1_000 {
            keys.note(format!("key {key}").as_bytes(), Offset(key));
        }
        assert!(!keys.has_room(1_000));
        assert_eq!(keys.newest(b"key 999"), Some(Offset(999)));
    }
}
