//! A batch on its way into a segment: step 7 of the produce journey, after apply.

use bytes::Bytes;
use highwater_proto::{Offset, TimestampMs};

use crate::header::{HEAD_LEN, HEADER_LEN, LENGTH_END};

/// A committed batch with the place that apply gave it. Head and body together are the stored
/// bytes; the body is shared with everyone who holds the batch.
#[derive(Debug, Clone)]
pub struct AppendBatch {
    /// Base offset, length, leader epoch: as on the wire, big-endian.
    pub head: [u8; HEAD_LEN],
    /// Everything behind the head.
    pub body: Bytes,
    /// The first record's offset.
    pub base_offset: Offset,
    /// The last record's offset.
    pub last_offset: Offset,
    /// The greatest timestamp of its records.
    pub max_timestamp: TimestampMs,
    /// When the leader took it.
    pub append_time: TimestampMs,
    /// Whether apply decided to begin a new segment with it.
    pub new_segment: bool,
}

impl AppendBatch {
    /// Bytes stored.
    #[must_use]
    pub fn len(&self) -> usize {
        HEAD_LEN + self.body.len()
    }
    /// Never: a batch has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Whether the head says what the rest is. A segment is walked by these fields.
    pub(crate) fn is_well_formed(&self) -> bool {
        let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, ..] = self.head;
        let base = u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        self.len() >= HEADER_LEN
            && base == self.base_offset.0
            && length + LENGTH_END == self.len()
            && self.last_offset >= self.base_offset
    }
}
