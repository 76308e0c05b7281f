//! Sparse indexes in memory: where to start looking, never where something is.

/// Up to this many entries the spacing is the configured one; a longer segment gets wider spacing,
/// so that an index of a full segment stays within a few hundred KiB.
const DENSE_ENTRIES: u64 = 4096;

/// A key and the position of the batch that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Offset index: the batch's base offset. Time index: the greatest timestamp of all batches
    /// before `position`.
    pub key: i64,
    /// Where the batch starts, in bytes from the segment's start.
    pub position: u64,
}

/// Both indexes of a segment that still grows, or that was just read through.
#[derive(Debug, Clone, Default)]
pub(crate) struct SparseIndexes {
    pub offsets: Vec<Entry>,
    pub times: Vec<Entry>,
    /// Batches below this position have no entries (yet): they were written before a restart.
    pub known_from: u64,
}

impl SparseIndexes {
    /// Indexes of a segment whose first `known_from` bytes nobody has looked at.
    pub(crate) fn starting_at(known_from: u64) -> Self {
        Self {
            known_from,
            ..Self::default()
        }
    }
    /// Whether every batch is covered.
    pub(crate) fn is_complete(&self) -> bool {
        self.known_from == 0
    }
    /// Notes a batch at `position`; `max_timestamp_before` is that of all batches before it.
    pub(crate) fn note(
        &mut self,
        interval: u64,
        base_offset: u64,
        position: u64,
        max_timestamp_before: Option<i64>,
    ) {
        let spacing = interval.max(position / DENSE_ENTRIES);
        if self
            .offsets
            .last()
            .is_some_and(|last| position - last.position < spacing)
        {
            return;
        }
        self.offsets.push(Entry {
            key: base_offset.cast_signed(),
            position,
        });
        if let Some(max) = max_timestamp_before
            && self.times.last().is_none_or(|last| last.key < max)
        {
            self.times.push(Entry { key: max, position });
        }
    }
    /// Puts the entries of the part that was unknown in front.
    pub(crate) fn complete(&mut self, mut front: SparseIndexes) {
        front
            .offsets
            .retain(|entry| entry.position < self.known_from);
        front.times.retain(|entry| entry.position < self.known_from);
        front.offsets.append(&mut self.offsets);
        let newest = front.times.last().map_or(i64::MIN, |entry| entry.key);
        front
            .times
            .extend(self.times.drain(..).filter(|entry| entry.key > newest));
        *self = Self {
            known_from: 0,
            ..front
        };
    }
    /// Where to start looking for `offset`; `None` if that lies in the unknown part.
    pub(crate) fn offset_floor(&self, offset: u64) -> Option<u64> {
        let found = floor(
            self.offsets.len(),
            |i| self.offsets.get(i).copied(),
            |key| key <= offset.cast_signed(),
        );
        found.or(self.is_complete().then_some(0))
    }
    /// Where to start looking for the first batch that reaches `timestamp`; `None` if that may lie
    /// in the unknown part.
    pub(crate) fn time_floor(&self, timestamp: i64) -> Option<u64> {
        if !self.is_complete() {
            return None;
        }
        let found = floor(
            self.times.len(),
            |i| self.times.get(i).copied(),
            |key| key < timestamp,
        );
        Some(found.unwrap_or(0))
    }
}

/// The position of the last of `count` entries, sorted by key, whose key passes `below`.
pub(crate) fn floor(
    count: usize,
    entry: impl Fn(usize) -> Option<Entry>,
    below: impl Fn(i64) -> bool,
) -> Option<u64> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle).is_some_and(|e| below(e.key)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1).and_then(entry).map(|e| e.position)
}
