//! The whole state as bytes and back; one partition alone as bytes and back.
//!
//! A state has one encoding: fields in the order of their numbers, partitions and producers in the
//! order of their keys. So replicas at the same place of the log have the same bytes.
#![deny(clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_mutant::mutant;
use highwater_proto::internal::{
    ShardPartition, ShardPartitionExport, ShardPlace, ShardProducer, ShardSegment, ShardSnapshot,
};
use highwater_proto::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId,
    TopicPartition,
};
use prost::Message;

use crate::clock::ShardClock;
use crate::compaction::Compaction;
use crate::groups::{self, table::Groups};
use crate::level::FeatureLevel;
use crate::partition::{OpenSegment, Partition, Phase};
use crate::producer::{Producer, Producers, REMEMBERED, Remembered};
use crate::state::{DELETED_REMEMBERED, ShardState};

/// The format written. All formats up to it can be read.
const FORMAT: u32 = 1;

/// Bytes that are not a usable snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not the bytes of a snapshot.
    #[error("the shard's state does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Written by a newer release.
    #[error("the shard's state has {what} {found}; this release knows up to {supported}")]
    Newer {
        /// Format or feature level.
        what: &'static str,
        /// The one found.
        found: u32,
        /// The highest that this release knows.
        supported: u32,
    },
    /// It decodes, but says what no state can be.
    #[error("the shard's state is damaged: {0}")]
    Damaged(&'static str),
    /// The same of one partition.
    #[error("the shard's state of partition {tp} is damaged: {reason}")]
    DamagedPartition {
        /// Which one.
        tp: TopicPartition,
        /// What is wrong.
        reason: &'static str,
    },
}

/// An exported partition could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The bytes cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It follows rules that are not followed here yet.
    #[error("it follows the rules of level {0}, which are not followed here yet")]
    Level(FeatureLevel),
}

/// A partition as another shard had it.
pub(crate) struct Exported {
    pub tp: TopicPartition,
    pub partition: Partition,
    /// That shard's clock.
    pub elapsed_ms: u64,
}

/// The level of the shard that exported a partition: one that adopts it needs it, too.
///
/// # Errors
/// [`SnapshotError`].
pub fn exported_level(bytes: &[u8]) -> Result<FeatureLevel, SnapshotError> {
    let export = ShardPartitionExport::decode(bytes)?;
    check_versions(export.format, export.feature_level)
}

impl ShardState {
    /// The whole state as bytes.
    #[must_use]
    pub fn encode_snapshot(&self) -> Bytes {
        let front = ShardSnapshot {
            format: FORMAT,
            feature_level: self.rules.0,
            position: self.position,
            elapsed_ms: self.clock.elapsed_ms,
            last_append_time_ms: self.clock.last.map(|time| time.0),
            swept: Some(to_place(self.swept)),
            deleted: self.deleted.iter().copied().map(to_place).collect(),
            partitions: Vec::new(),
            groups: Vec::new(),
            gone_plan: self.gone_plan,
        };
        let mut out = BytesMut::new();
        // Encoding into BytesMut cannot fail. Messages one behind the other are one message, so
        // partitions are added one by one instead of building all of them twice in memory.
        let _ = front.encode(&mut out);
        for (tp, partition) in &self.partitions {
            let partitions = vec![to_partition(*tp, partition)];
            let _ = ShardSnapshot {
                partitions,
                ..ShardSnapshot::default()
            }
            .encode(&mut out);
        }
        for (name, group) in &self.groups {
            let groups = vec![groups::snapshot::to_wire(name, group)];
            let _ = ShardSnapshot {
                groups,
                ..ShardSnapshot::default()
            }
            .encode(&mut out);
        }
        out.freeze()
    }

    /// The state of a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let snapshot = ShardSnapshot::decode(bytes)?;
        let rules = check_versions(snapshot.format, snapshot.feature_level)?;
        if snapshot.deleted.len() > DELETED_REMEMBERED {
            return Err(SnapshotError::Damaged("too many deleted partitions"));
        }
        let mut partitions = BTreeMap::new();
        let mut last = None;
        for message in snapshot.partitions {
            let (tp, partition) = from_partition(message)?;
            if last.is_some_and(|last| last >= tp) {
                return Err(SnapshotError::Damaged("partitions are out of order"));
            }
            last = Some(tp);
            partitions.insert(tp, Arc::new(partition));
        }
        let mut groups = Groups::new();
        for message in snapshot.groups {
            let (name, group) =
                groups::snapshot::from_wire(message).map_err(SnapshotError::Damaged)?;
            if groups
                .last_key_value()
                .is_some_and(|(last, _)| *last >= name)
            {
                return Err(SnapshotError::Damaged("groups are out of order"));
            }
            groups.insert(name, Arc::new(group));
        }
        Ok(Self {
            rules,
            groups,
            position: snapshot.position,
            clock: ShardClock {
                elapsed_ms: snapshot.elapsed_ms,
                last: snapshot.last_append_time_ms.map(TimestampMs),
            },
            partitions,
            deleted: snapshot
                .deleted
                .iter()
                .map(from_place)
                .collect::<VecDeque<_>>(),
            gone_plan: snapshot.gone_plan,
            swept: snapshot.swept.as_ref().map(from_place).unwrap_or_default(),
        })
    }

    /// A checksum of the whole state: equal on replicas at the same place of the log.
    #[must_use]
    pub fn hash(&self) -> u32 {
        crc32fast::hash(&self.encode_snapshot())
    }

    /// One partition alone, for another shard. `None` if it is not here.
    #[must_use]
    pub fn export_partition(&self, tp: TopicPartition) -> Option<Bytes> {
        let partition = self.partitions.get(&tp)?;
        let export = ShardPartitionExport {
            format: FORMAT,
            feature_level: self.rules.0,
            elapsed_ms: self.clock.elapsed_ms,
            partition: Some(to_partition(tp, partition)),
        };
        Some(export.encode_to_vec().into())
    }

    /// A partition that another shard exported, if its rules are followed here. A replica that does not
    /// know them finds that out without reading on, so all replicas come to the same.
    pub(crate) fn read_export(&self, bytes: &[u8]) -> Result<Exported, ImportError> {
        let export = ShardPartitionExport::decode(bytes).map_err(SnapshotError::from)?;
        let level = FeatureLevel(export.feature_level);
        if level > self.rules {
            return Err(ImportError::Level(level));
        }
        check_versions(export.format, export.feature_level)?;
        let message = export
            .partition
            .ok_or(SnapshotError::Damaged("no partition"))?;
        let (tp, partition) = from_partition(message)?;
        Ok(Exported {
            tp,
            partition,
            elapsed_ms: export.elapsed_ms,
        })
    }
}

fn check_versions(format: u32, level: u32) -> Result<FeatureLevel, SnapshotError> {
    let newer = |what, found, supported| SnapshotError::Newer {
        what,
        found,
        supported,
    };
    if format == 0 || level == 0 {
        return Err(SnapshotError::Damaged("no format"));
    }
    if format > FORMAT {
        return Err(newer("format", format, FORMAT));
    }
    let level = FeatureLevel(level);
    if !level.is_supported() {
        return Err(newer("feature level", level.0, FeatureLevel::LATEST.0));
    }
    Ok(level)
}

fn to_place(tp: TopicPartition) -> ShardPlace {
    ShardPlace {
        topic: tp.topic.0,
        partition: tp.partition.0,
    }
}

fn from_place(place: &ShardPlace) -> TopicPartition {
    TopicPartition::new(TopicId(place.topic), PartitionId(place.partition))
}

fn to_partition(tp: TopicPartition, partition: &Partition) -> ShardPartition {
    let segment = partition.segment.map(|open| ShardSegment {
        base_offset: open.base_offset.0,
        bytes: open.bytes,
        opened_ms: open.opened.0,
    });
    ShardPartition {
        topic: tp.topic.0,
        partition: tp.partition.0,
        config: Some(partition.config),
        log_start: partition.log_start.0,
        next_offset: partition.next_offset.0,
        leader_epoch: partition.leader_epoch.0,
        leadership: partition.leadership,
        segment,
        producers: mutant!(
            DedupNotInSnapshot => Vec::new();
            else partition.producers.as_slice().iter().map(to_producer).collect()
        ),
        compaction: partition.compaction.as_ref().map(|last| last.to_message()),
        arrival: partition.arrival,
        importing: partition.phase == Phase::Importing,
        fenced_by: match partition.phase {
            Phase::Fenced { plan } => plan,
            Phase::Serving | Phase::Held { .. } | Phase::Importing => 0,
        },
        held_by: match partition.phase {
            Phase::Held { plan } => plan,
            Phase::Serving | Phase::Fenced { .. } | Phase::Importing => 0,
        },
    }
}

fn from_partition(message: ShardPartition) -> Result<(TopicPartition, Partition), SnapshotError> {
    let tp = TopicPartition::new(TopicId(message.topic), PartitionId(message.partition));
    let damaged = |reason| SnapshotError::DamagedPartition { tp, reason };
    let segment = message.segment.map(|segment| OpenSegment {
        base_offset: Offset(segment.base_offset),
        bytes: segment.bytes,
        opened: TimestampMs(segment.opened_ms),
    });
    let partition = Partition {
        config: message.config.unwrap_or_default(),
        log_start: Offset(message.log_start),
        next_offset: Offset(message.next_offset),
        leader_epoch: LeaderEpoch(message.leader_epoch),
        leadership: message.leadership,
        segment,
        producers: from_producers(&message.producers).map_err(damaged)?,
        compaction: message
            .compaction
            .as_ref()
            .map(Compaction::from_message)
            .map(Box::new),
        arrival: message.arrival,
        phase: match (message.importing, message.fenced_by, message.held_by) {
            (false, 0, 0) => Phase::Serving,
            (false, 0, plan) => Phase::Held { plan },
            (true, 0, 0) => Phase::Importing,
            (false, plan, 0) => Phase::Fenced { plan },
            _ => return Err(damaged("it stands in two places at the same time")),
        },
    };
    if partition.log_start > partition.next_offset {
        return Err(damaged("its log begins above its end"));
    }
    let compacted = partition.compaction.as_ref().map(|last| last.facts());
    if compacted.is_some_and(|done| done.upto > partition.next_offset) {
        return Err(damaged("it is compacted beyond its end"));
    }
    if segment.is_some_and(|open| open.base_offset >= partition.next_offset) {
        return Err(damaged("its segment begins above its end"));
    }
    Ok((tp, partition))
}

fn to_producer(producer: &Producer) -> ShardProducer {
    ShardProducer {
        id: producer.id.0,
        epoch: u32::from(producer.epoch.0),
        last_sequence: producer.last_sequence,
        seen_ms: producer.seen_ms,
        base_offsets: producer.batches.iter().map(|(offset, _)| offset).collect(),
        record_counts: producer
            .batches
            .iter()
            .map(|(_, records)| records)
            .collect(),
    }
}

fn from_producers(messages: &[ShardProducer]) -> Result<Producers, &'static str> {
    let mut producers: Vec<Producer> = Vec::with_capacity(messages.len());
    for message in messages {
        let producer = from_producer(message)?;
        if producers.last().is_some_and(|last| last.id >= producer.id) {
            return Err("its producers are out of order");
        }
        producers.push(producer);
    }
    Ok(Producers::from_sorted(producers))
}

fn from_producer(message: &ShardProducer) -> Result<Producer, &'static str> {
    let count = message.base_offsets.len();
    if count != message.record_counts.len() || !(1..=REMEMBERED).contains(&count) {
        return Err("a producer has a wrong number of batches");
    }
    if message.last_sequence > i32::MAX as u32 {
        return Err("a producer's sequence is impossible");
    }
    let mut batches = Remembered::default();
    for (offset, records) in message.base_offsets.iter().zip(&message.record_counts) {
        batches.push(*offset, *records);
    }
    Ok(Producer {
        id: ProducerId(message.id),
        seen_ms: message.seen_ms,
        last_sequence: message.last_sequence,
        epoch: ProducerEpoch(
            u16::try_from(message.epoch).map_err(|_| "a producer's epoch is impossible")?,
        ),
        batches,
    })
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
