//! What a partition remembers of its producers, so that a retry is stored once.

use std::cmp::Ordering;

use highwater_mutant::mutant;
use highwater_proto::batch::BatchHeader;
use highwater_proto::{Offset, ProducerEpoch, ProducerId};

use crate::reply::RejectReason;

/// Batches remembered per producer: as many as a producer may have in flight.
pub(crate) const REMEMBERED: usize = 5;
/// Sequences count from 0 to `i32::MAX` and begin again.
const SEQUENCE_MASK: u32 = i32::MAX as u32;
/// Half of all sequences: what is less far ahead is ahead, the rest is behind.
const HALF: u32 = 1 << 30;

/// The producer's fields of a batch that has a producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducedBatch {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    pub sequence: u32,
    pub records: u32,
}

/// What a partition's producers make of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Next,
    Duplicate(Offset),
    Reject(RejectReason),
}

/// One producer. Its batches follow each other without a gap, so the newest one's last sequence
/// and the record counts give all their sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    pub id: ProducerId,
    /// The shard's clock when it last appended.
    pub seen_ms: u64,
    /// Of the newest batch's last record.
    pub last_sequence: u32,
    pub epoch: ProducerEpoch,
    pub batches: Remembered,
}

/// Up to five batches, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    len: u8,
    records: [u32; REMEMBERED],
    base_offsets: [u64; REMEMBERED],
}

impl Remembered {
    /// Oldest first: base offset and count of records.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> + '_ {
        let all = self
            .base_offsets
            .iter()
            .copied()
            .zip(self.records.iter().copied());
        all.take(usize::from(self.len))
    }
    /// Adds the newest; the oldest goes when there are too many.
    pub fn push(&mut self, base_offset: u64, records: u32) {
        if usize::from(self.len) == REMEMBERED {
            self.base_offsets.rotate_left(1);
            self.records.rotate_left(1);
            self.len -= 1;
        }
        let at = usize::from(self.len);
        self.base_offsets[at] = base_offset;
        self.records[at] = records;
        self.len += 1;
    }
    /// The newest batch's offset; rises with every append to the partition.
    fn newest_offset(&self) -> u64 {
        self.iter().next_back().map_or(0, |(offset, _)| offset)
    }
}

impl ProducedBatch {
    /// The producer's fields of a header; `None` without a producer id.
    ///
    /// # Errors
    /// A producer id without a sequence.
    pub fn of(header: &BatchHeader) -> Result<Option<Self>, RejectReason> {
        let Some(id) = header.producer_id else {
            return Ok(None);
        };
        let sequence = header.base_sequence.ok_or(RejectReason::CorruptBatch)?.0;
        let (epoch, records) = (header.producer_epoch, header.record_count);
        Ok(Some(Self {
            id,
            epoch,
            sequence,
            records,
        }))
    }
    fn last_sequence(&self) -> u32 {
        self.sequence.wrapping_add(self.records.wrapping_sub(1)) & SEQUENCE_MASK
    }
}

/// `to - from` on the circle of sequences.
fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & SEQUENCE_MASK
}

impl Producer {
    fn check(&self, batch: &ProducedBatch) -> Check {
        let epoch = mutant!(IgnoresEpoch => Ordering::Equal; else batch.epoch.cmp(&self.epoch));
        match (epoch, batch.sequence) {
            (Ordering::Less, _) => return Check::Reject(RejectReason::ProducerFenced),
            (Ordering::Greater, 0) => return Check::Next,
            (Ordering::Greater, _) => return Check::Reject(RejectReason::OutOfOrderSequence),
            (Ordering::Equal, _) => {}
        }
        let due = self.last_sequence.wrapping_add(1) & SEQUENCE_MASK;
        if batch.sequence == due {
            return Check::Next;
        }
        let mut after = due;
        for (base_offset, records) in self.batches.iter().rev() {
            let first = after.wrapping_sub(records) & SEQUENCE_MASK;
            if batch.sequence == first && batch.records == records {
                return Check::Duplicate(Offset(base_offset));
            }
            after = first;
        }
        // `after` is the first sequence remembered. Only what ends before it is an old batch; what
        // overlaps with remembered ones without being one of them was never stored.
        let ends_before = distance(batch.last_sequence(), after).wrapping_sub(1) < HALF;
        let is_behind = distance(due, batch.sequence) >= HALF;
        Check::Reject(match is_behind && ends_before {
            true => RejectReason::DuplicateSequence,
            false => RejectReason::OutOfOrderSequence,
        })
    }
}

/// When and how many producers are forgotten. 0: no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerLimits {
    pub expiry_ms: u64,
    pub most: u32,
}

/// All producers of a partition, by id. A sorted vector: most partitions have few, and a tree's
/// node would take a kilobyte for one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers(Vec<Producer>);

impl Producers {
    /// From producers sorted by id.
    pub fn from_sorted(sorted: Vec<Producer>) -> Self {
        Self(sorted)
    }
    /// By id.
    pub fn as_slice(&self) -> &[Producer] {
        &self.0
    }
    fn find(&self, id: ProducerId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |producer| producer.id)
    }

    /// Decides about a batch; changes nothing.
    pub fn check(&self, batch: &ProducedBatch, now_ms: u64, limits: ProducerLimits) -> Check {
        let known = self.find(batch.id).ok().and_then(|at| self.0.get(at));
        match known.filter(|producer| !is_expired(producer, now_ms, limits)) {
            Some(producer) => producer.check(batch),
            None if batch.sequence == 0 => Check::Next,
            None => Check::Reject(RejectReason::UnknownProducer),
        }
    }

    /// Remembers a batch for which [`Self::check`] said `Next`.
    pub fn record(
        &mut self,
        batch: &ProducedBatch,
        base_offset: Offset,
        now_ms: u64,
        limits: ProducerLimits,
    ) {
        let at = match self.find(batch.id) {
            Ok(at) => at,
            Err(_) => {
                self.make_room(limits);
                self.insert(batch)
            }
        };
        let Some(producer) = self.0.get_mut(at) else {
            return;
        };
        // A new epoch begins anew, as does a producer whose time was over.
        if producer.epoch != batch.epoch || is_expired(producer, now_ms, limits) {
            producer.batches = Remembered::default();
        }
        producer.epoch = batch.epoch;
        producer.seen_ms = now_ms;
        producer.last_sequence = batch.last_sequence();
        producer.batches.push(base_offset.0, batch.records);
    }

    fn insert(&mut self, batch: &ProducedBatch) -> usize {
        let at = self.find(batch.id).unwrap_or_else(|at| at);
        if self.0.is_empty() {
            // One is the usual number, and there are many partitions.
            self.0.reserve_exact(1);
        }
        let (id, epoch) = (batch.id, batch.epoch);
        let batches = Remembered::default();
        self.0.insert(
            at,
            Producer {
                id,
                seen_ms: 0,
                last_sequence: 0,
                epoch,
                batches,
            },
        );
        at
    }

    /// Forgets those that appended longest ago until one more has its place.
    fn make_room(&mut self, limits: ProducerLimits) {
        let most = limits.most as usize;
        while most > 0 && self.0.len() >= most {
            // Offsets of newest batches differ, so the choice is the same everywhere.
            let oldest = (0..self.0.len()).min_by_key(|at| self.0[*at].batches.newest_offset());
            let Some(oldest) = oldest else { return };
            self.0.remove(oldest);
        }
    }

    /// Whether [`Self::forget_expired`] would forget any.
    pub fn has_expired(&self, now_ms: u64, limits: ProducerLimits) -> bool {
        self.0
            .iter()
            .any(|producer| is_expired(producer, now_ms, limits))
    }
    /// Forgets those that appended nothing for too long.
    pub fn forget_expired(&mut self, now_ms: u64, limits: ProducerLimits) {
        self.0
            .retain(|producer| !is_expired(producer, now_ms, limits));
        self.0.shrink_to_fit();
    }
    /// Moves all times from one shard's clock to another's; ages stay as they are.
    pub fn shift_times(&mut self, theirs_ms: u64, ours_ms: u64) {
        for producer in &mut self.0 {
            let age_ms = theirs_ms.saturating_sub(producer.seen_ms);
            producer.seen_ms = ours_ms.saturating_sub(age_ms);
        }
    }
}

fn is_expired(producer: &Producer, now_ms: u64, limits: ProducerLimits) -> bool {
    limits.expiry_ms > 0 && now_ms.saturating_sub(producer.seen_ms) >= limits.expiry_ms
}

#[cfg(test)]
#[path = "producer_tests.rs"]
mod tests;
