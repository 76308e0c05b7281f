//! What was read back after a run, in the form that the checker judges.

use serde::{Deserialize, Serialize};

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// One record that the fresh consumer read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Where it lies.
    pub at: Source,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A running fingerprint of one partition's records, all that each holds, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// How many records went in.
    pub records: u64,
    /// The offset after the last one.
    pub end: u64,
    hash: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            records: 0,
            end: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Digest {
    /// Takes in the next record.
    pub fn add(&mut self, record: &Observed) {
        let offset = record.at.offset;
        self.records += 1;
        self.end = offset.saturating_add(1);
        self.part(&offset.to_be_bytes());
        self.part(&record.timestamp_ms.to_be_bytes());
        self.part(&record.key);
        self.part(&record.value);
        for (name, value) in &record.headers {
            self.part(name.as_bytes());
            self.part(&[u8::from(value.is_some())]);
            self.part(value.as_deref().unwrap_or_default());
        }
    }

    /// Lengths go in too: no other split of the same bytes may look the same.
    fn part(&mut self, bytes: &[u8]) {
        self.mix(&(bytes.len() as u64).to_be_bytes());
        self.mix(bytes);
    }

    /// FNV-1a, 64 bits.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What one broker's own copy of one partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRead {
    /// The broker's number.
    pub broker: u32,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Its content, up to the end that the leader named.
    pub digest: Digest,
}
