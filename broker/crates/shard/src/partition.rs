//! One partition: where its log begins and ends, its leader epoch, its segment, its producers.

use bytes::{BufMut, Bytes};
use highwater_proto::batch::{BatchHeader, HEAD_LEN, StampedBatch};
use highwater_proto::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::PartitionConfig;
use crate::command::AppendRequest;
use crate::compaction::{Compaction, CompactionFacts};
use crate::effect::AppendEffect;
use crate::level::FeatureLevel;
use crate::move_command::ImportedBatch;
use crate::producer::{Check, ProducedBatch, ProducerLimits, Producers};
use crate::reply::{RejectReason, Verdict};

/// Offsets are signed 64-bit numbers on the wire.
const LAST_OFFSET: u64 = i64::MAX as u64;
/// As are leader epochs, in 32 bits.
const LAST_EPOCH: u32 = i32::MAX as u32;
/// Tools that read segments count offsets from the segment's base in signed 32-bit numbers.
const SEGMENT_OFFSETS: u64 = i32::MAX as u64;

/// The segment being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenSegment {
    pub base_offset: Offset,
    pub bytes: u64,
    /// Append time of its first batch.
    pub opened: TimestampMs,
}

/// State of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    pub config: PartitionConfig,
    pub log_start: Offset,
    pub next_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    /// The last leadership of the shard that this partition saw. 0 is none: leaderships count
    /// from 1.
    pub leadership: u64,
    pub segment: Option<OpenSegment>,
    pub producers: Producers,
    /// Most partitions have none.
    pub compaction: Option<Box<Compaction>>,
    /// The plan whose move brought it here; 0: it was made here.
    pub arrival: u64,
    pub phase: Phase,
}

/// Where a partition stands between two shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It is served here.
    #[default]
    Serving,
    /// It is served here and copied to another shard, by this plan: what was compacted so far is what is
    /// copied.
    Held {
        /// The plan.
        plan: u64,
    },
    /// It is on its way here: a copy that is not whole, and that nobody sees.
    Importing,
    /// It is on its way to another shard, by this plan: nothing changes here any more.
    Fenced {
        /// The plan.
        plan: u64,
    },
}

impl Phase {
    /// Whether its log is written here: it is neither a copy nor fenced.
    #[must_use]
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Serving | Self::Held { .. })
    }
}

/// A batch that passed every check, with what apply needs of its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    header: BatchHeader,
    produced: Option<ProducedBatch>,
}

/// When something happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub leadership: u64,
    /// The shard's clock.
    pub now_ms: u64,
    pub rules: FeatureLevel,
}

impl Partition {
    pub fn new(config: PartitionConfig, leadership: u64) -> Self {
        Self {
            config,
            log_start: Offset(0),
            next_offset: Offset(0),
            leader_epoch: LeaderEpoch(0),
            leadership,
            segment: None,
            producers: Producers::default(),
            compaction: None,
            arrival: 0,
            phase: Phase::Serving,
        }
    }

    pub fn limits(&self) -> ProducerLimits {
        ProducerLimits {
            expiry_ms: self.config.producer_expiry_ms,
            most: self.config.max_producers,
        }
    }

    /// Decides about a batch; changes nothing.
    ///
    /// # Errors
    /// The verdict of a batch that is not appended.
    pub fn check(&self, batch: &Bytes, now_ms: u64) -> Result<Accepted, Verdict> {
        if !self.phase.is_served() {
            return Err(Verdict::Rejected(RejectReason::Moving));
        }
        let header = readable(batch).ok_or(Verdict::Rejected(RejectReason::CorruptBatch))?;
        let end = self
            .next_offset
            .0
            .checked_add(u64::from(header.record_count));
        if end.is_none_or(|end| end > LAST_OFFSET) {
            return Err(Verdict::Rejected(RejectReason::CorruptBatch));
        }
        let produced = ProducedBatch::of(&header).map_err(Verdict::Rejected)?;
        let Some(batch) = &produced else {
            return Ok(Accepted { header, produced });
        };
        match self.producers.check(batch, now_ms, self.limits()) {
            Check::Next => Ok(Accepted { header, produced }),
            Check::Duplicate(base_offset) => Err(Verdict::Duplicate { base_offset }),
            Check::Reject(reason) => Err(Verdict::Rejected(reason)),
        }
    }

    /// Gives an accepted batch its place.
    pub fn append(
        &mut self,
        accepted: &Accepted,
        request: AppendRequest,
        at: Moment,
    ) -> (Verdict, AppendEffect) {
        let Accepted { header, produced } = accepted;
        self.raise_epoch(at.leadership);
        let base_offset = self.next_offset;
        let last_offset = base_offset.plus(u64::from(header.last_offset_delta));
        self.next_offset = last_offset.plus(1);
        let len = request.batch.len() as u64;
        let longest_ms = self.longest_segment_ms(at.rules);
        let time = (request.append_time, longest_ms);
        let new_segment = self.grow_segment((base_offset, last_offset), len, time, false);
        if let Some(batch) = produced {
            let limits = self.limits();
            self.producers.record(batch, base_offset, at.now_ms, limits);
        }
        let append_time = header
            .attributes
            .is_log_append_time()
            .then_some(header.max_timestamp);
        let verdict = Verdict::Appended {
            base_offset,
            log_start: self.log_start,
            append_time,
        };
        let effect = AppendEffect {
            tp: request.tp,
            batch: stamp(header, &request.batch, base_offset, self.leader_epoch),
            base_offset,
            last_offset,
            leader_epoch: self.leader_epoch,
            max_timestamp: header.max_timestamp,
            append_time: request.append_time,
            new_segment,
        };
        (verdict, effect)
    }

    /// The partition's epoch counts the leaderships under which it was written; other partitions
    /// of the shard, and shards it was in before, have nothing to do with it.
    fn raise_epoch(&mut self, leadership: u64) {
        if leadership != self.leadership {
            self.leadership = leadership;
            self.leader_epoch = LeaderEpoch(self.leader_epoch.0.saturating_add(1).min(LAST_EPOCH));
        }
    }

    /// The age at which a segment is closed; 0: none. What is to be compacted in time must be closed
    /// in time.
    fn longest_segment_ms(&self, rules: FeatureLevel) -> u64 {
        let config = &self.config;
        let lag = config
            .max_compaction_lag_ms
            .filter(|_| config.compact && rules >= FeatureLevel::COMPACTION);
        match (config.segment_ms, lag) {
            (0, lag) => lag.unwrap_or(0),
            (longest, lag) => longest.min(lag.unwrap_or(longest)),
        }
    }

    /// Gives a batch of another shard's log the place that it had there.
    pub fn import(
        &mut self,
        (tp, imported): (TopicPartition, &ImportedBatch),
        header: &BatchHeader,
    ) -> AppendEffect {
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        let epoch = header.leader_epoch.unwrap_or_default();
        self.next_offset = last_offset.plus(1);
        self.leader_epoch = self.leader_epoch.max(epoch);
        let len = imported.batch.len() as u64;
        // Its age has closed a segment where it comes from, or has not.
        let time = (imported.append_time, 0);
        let begins = imported.begins_segment;
        let new_segment = self.grow_segment((base_offset, last_offset), len, time, begins);
        AppendEffect {
            tp,
            batch: stamp(header, &imported.batch, base_offset, epoch),
            base_offset,
            last_offset,
            leader_epoch: self.leader_epoch,
            max_timestamp: header.max_timestamp,
            append_time: imported.append_time,
            new_segment,
        }
    }
    /// Whether the batch begins a new segment; takes note of it either way.
    fn grow_segment(
        &mut self,
        (base_offset, last_offset): (Offset, Offset),
        len: u64,
        (append_time, longest_ms): (TimestampMs, u64),
        begins_segment: bool,
    ) -> bool {
        let config = self.config;
        let over = |limit: u64, value: u64| limit > 0 && value > limit;
        if let Some(open) = &mut self.segment {
            let grown = open.bytes.saturating_add(len);
            // A clock that went back does not close a segment.
            let age = append_time
                .0
                .saturating_sub(open.opened.0)
                .max(0)
                .unsigned_abs();
            let rolls = begins_segment
                || over(config.segment_bytes, grown)
                || (longest_ms > 0 && age >= longest_ms)
                || last_offset.0 - open.base_offset.0 > SEGMENT_OFFSETS;
            if !rolls {
                open.bytes = grown;
                return false;
            }
        }
        self.segment = Some(OpenSegment {
            base_offset,
            bytes: len,
            opened: append_time,
        });
        true
    }
}

/// The header of a batch that may be appended. Its checksum was checked before the batch was
/// proposed; what is looked at here is what apply relies on.
fn readable(batch: &Bytes) -> Option<BatchHeader> {
    let header = BatchHeader::parse(batch).ok()?;
    let is_whole = header.total_len() == batch.len();
    let is_dense = header.record_count > 0 && header.record_count == header.offset_count();
    // Markers are written by brokers, and transactions need rules that this level lacks.
    let is_plain = !header.attributes.is_control() && !header.attributes.is_transactional();
    (is_whole && is_dense && is_plain).then_some(header)
}

/// A fresh head for the batch's place; everything after it is shared.
fn stamp(header: &BatchHeader, batch: &Bytes, base: Offset, epoch: LeaderEpoch) -> StampedBatch {
    let mut head = [0; HEAD_LEN];
    let mut field = head.as_mut_slice();
    field.put_u64(base.0);
    field.put_u32(header.batch_length);
    field.put_u32(epoch.0);
    // A header parsed, so the batch is longer than its head.
    StampedBatch {
        head,
        body: batch.slice(HEAD_LEN..),
    }
}

/// What others may know of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFacts {
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// As of the last append.
    pub leader_epoch: LeaderEpoch,
    /// How it is treated.
    pub config: PartitionConfig,
    /// Producers remembered.
    pub producers: usize,
    /// The newest compaction.
    pub compaction: Option<CompactionFacts>,
    /// The plan whose move brought it here; 0: it was made here.
    pub arrival: u64,
    /// Where it stands between two shards.
    pub phase: Phase,
}

impl Partition {
    pub fn facts(&self) -> PartitionFacts {
        PartitionFacts {
            log_start: self.log_start,
            next_offset: self.next_offset,
            leader_epoch: self.leader_epoch,
            config: self.config,
            producers: self.producers.as_slice().len(),
            compaction: self.compaction.as_ref().map(|last| last.facts()),
            arrival: self.arrival,
            phase: self.phase,
        }
    }
}
