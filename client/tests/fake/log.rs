//! The fake's log of one partition, with the rules for producers.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use highwater_client::ErrorCode;
use highwater_proto::batch::{DecodeLimits, RecordBatch, StampedBatch};
use highwater_proto::{LeaderEpoch, Offset};

pub struct Stored {
    pub base: u64,
    pub next: u64,
    pub batch: StampedBatch,
    pub max_timestamp: i64,
}

#[derive(Default)]
struct ProducerState {
    epoch: u16,
    next: u32,
    last: VecDeque<(u32, u64)>,
}

pub struct Partition {
    pub leader: u32,
    pub term: u64,
    /// Leader and term as the metadata streams tell them; behind after a quiet move.
    pub told: (u32, u64),
    pub stored: Vec<Stored>,
    pub log_start: u64,
    producers: BTreeMap<u64, ProducerState>,
    /// Producer epochs in the order in which they first appended.
    pub epochs: Vec<(u64, u16)>,
}

pub enum Appended {
    New(u64),
    Duplicate(u64),
    Rejected(ErrorCode),
}

impl Partition {
    pub fn led_by(leader: u32) -> Self {
        Self {
            leader,
            term: 1,
            told: (leader, 1),
            stored: Vec::new(),
            log_start: 0,
            producers: BTreeMap::new(),
            epochs: Vec::new(),
        }
    }
    pub fn end(&self) -> u64 {
        self.stored.last().map_or(self.log_start, |last| last.next)
    }
    /// As after the time for which producers are remembered.
    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }
    pub fn values(&self) -> Vec<String> {
        let text = |value: Option<Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        let decode = |stored: &Stored| {
            let batch = RecordBatch::validate_stored(stored.batch.to_bytes()).unwrap();
            let records = batch.records(&DecodeLimits::default()).unwrap();
            records
                .map(|record| text(record.unwrap().value))
                .collect::<Vec<_>>()
        };
        self.stored.iter().flat_map(decode).collect()
    }

    pub fn append(&mut self, bytes: Bytes) -> Appended {
        let Ok(batch) = RecordBatch::validate(bytes, 8 << 20) else {
            return Appended::Rejected(ErrorCode::CorruptBatch);
        };
        let header = *batch.header();
        if let (Some(id), Some(sequence)) = (header.producer_id, header.base_sequence) {
            let (epoch, first) = (header.producer_epoch.0, sequence.0);
            let known = self.producers.contains_key(&id.0);
            if !known && first != 0 {
                return Appended::Rejected(ErrorCode::UnknownProducer);
            }
            let state = self.producers.entry(id.0).or_default();
            if epoch < state.epoch {
                return Appended::Rejected(ErrorCode::ProducerFenced);
            }
            if epoch > state.epoch {
                *state = ProducerState {
                    epoch,
                    ..ProducerState::default()
                };
            }
            if let Some(&(_, base)) = state.last.iter().find(|(at, _)| *at == first) {
                return Appended::Duplicate(base);
            }
            if first != state.next {
                let older = first < state.next;
                return Appended::Rejected(if older {
                    ErrorCode::DuplicateSequence
                } else {
                    ErrorCode::OutOfOrderSequence
                });
            }
            state.next += header.record_count;
            let base = self.stored.last().map_or(0, |last| last.next);
            state.last.push_back((first, base));
            if state.last.len() > 5 {
                state.last.pop_front();
            }
            if !self.epochs.contains(&(id.0, epoch)) {
                self.epochs.push((id.0, epoch));
            }
        }
        let base = self.end();
        let next = base + u64::from(header.record_count);
        let stamped = batch.stamp(Offset(base), LeaderEpoch(1));
        let max_timestamp = header.max_timestamp.0;
        self.stored.push(Stored {
            base,
            next,
            batch: stamped,
            max_timestamp,
        });
        Appended::New(base)
    }
}
