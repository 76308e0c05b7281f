//! Records as an application sees them.

use std::sync::Arc;

use bytes::Bytes;
use highwater_proto::{Offset, PartitionId, TimestampMs, TopicId};

/// Ordered headers; a key may occur more than once.
pub type Headers = Vec<(String, Option<Bytes>)>;

/// A record to be produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic's name.
    pub topic: String,
    /// Absent: chosen by key, or spread.
    pub partition: Option<PartitionId>,
    /// Records with equal keys share a partition, and their order.
    pub key: Option<Bytes>,
    /// Absent: a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Headers,
    /// Absent: the time of sending.
    pub timestamp: Option<TimestampMs>,
}

impl ProducerRecord {
    /// A record without key or value.
    #[must_use]
    pub fn to(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            ..Self::default()
        }
    }
    /// With a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }
    /// With a value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }
    /// To this partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(PartitionId(partition));
        self
    }
    /// With one more header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((key.into(), Some(value.into())));
        self
    }
    /// With this timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(TimestampMs(timestamp));
        self
    }

    /// An upper bound of the record's encoded size in bytes, before compression.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        /// Length, attributes, deltas, field lengths and header count as varints, at their worst.
        const FRAME: usize = 40;
        const HEADER_FRAME: usize = 10;
        let headers: usize = self
            .headers
            .iter()
            .map(|(key, value)| HEADER_FRAME + key.len() + value.as_ref().map_or(0, Bytes::len))
            .sum();
        FRAME
            + self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + headers
    }
}

/// Where a record lies, once it is on the disks of a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The topic it went to: a name may have been given to another one since.
    pub topic: TopicId,
    /// The partition it went to.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// Its timestamp: the broker's with LogAppendTime, else the producer's.
    pub timestamp: TimestampMs,
    /// An earlier attempt had been stored; this is that attempt's offset.
    pub duplicate: bool,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<Bytes>,
    /// Absent: a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; a key may occur more than once.
    pub headers: Headers,
}

impl ConsumedRecord {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(key, _)| key == name)?.1.as_ref()
    }
}
