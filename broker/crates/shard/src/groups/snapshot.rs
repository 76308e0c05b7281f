//! Groups as part of a shard's snapshot, and back.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::internal::{
    GroupOffset, GroupTopic, ShardGroup, ShardGroupMember, ShardHolding, ShardParkedKey,
};
use highwater_proto::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId, TopicPartition};

use super::member::{Holding, Member};
use super::membership::partitions;
use super::offsets::Committed;
use super::parked::{Parked, ParkedKeys};
use super::state::Group;

/// Partitions in order, as lists by topic.
pub(crate) fn by_topic(all: impl Iterator<Item = TopicPartition>) -> Vec<GroupTopic> {
    let mut topics: Vec<GroupTopic> = Vec::new();
    for tp in all {
        match topics.last_mut() {
            Some(topic) if topic.topic == tp.topic.0 => topic.partitions.push(tp.partition.0),
            _ => topics.push(GroupTopic {
                topic: tp.topic.0,
                partitions: vec![tp.partition.0],
            }),
        }
    }
    topics
}

pub(crate) fn to_wire(name: &Arc<str>, group: &Group) -> ShardGroup {
    let parked = group.parked.iter().map(|(tp, key, parked)| ShardParkedKey {
        topic: tp.topic.0,
        partition: tp.partition.0,
        key: key.clone(),
        first_offset: parked.first.0,
        last_offset: parked.last.0,
        records: parked.records,
        time_ms: parked.time.0,
    });
    ShardGroup {
        name: name.to_string(),
        generation: group.generation,
        target_generation: group.target_generation,
        empty_since_ms: group.empty_since_ms,
        unparked_epoch: group.unparked_epoch,
        members: group.members.iter().map(|(id, m)| member(id, m)).collect(),
        offsets: group.offsets.iter().map(|(tp, c)| offset(*tp, c)).collect(),
        parked: parked.collect(),
    }
}

fn member(id: &Arc<str>, member: &Member) -> ShardGroupMember {
    let held = member.held.iter().map(|(tp, holding)| ShardHolding {
        topic: tp.topic.0,
        partition: tp.partition.0,
        granted: holding.granted,
        revoking: holding.revoking,
    });
    ShardGroupMember {
        id: id.to_string(),
        spec: Some((*member.spec).clone()),
        joined: member.joined,
        epoch: member.epoch,
        replaced: member.replaced.as_deref().unwrap_or_default().to_owned(),
        held: held.collect(),
        target: by_topic(member.target.iter().copied()),
    }
}

fn offset(tp: TopicPartition, committed: &Committed) -> GroupOffset {
    GroupOffset {
        topic: tp.topic.0,
        partition: tp.partition.0,
        offset: committed.offset.0,
        leader_epoch: committed.leader_epoch.0,
        metadata: committed.metadata.to_string(),
        epoch: committed.epoch,
        time_ms: committed.time.0,
    }
}

fn place(topic: u64, partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(topic), PartitionId(partition))
}

/// Inserts in ascending order only: a state has one encoding.
fn put<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    (key, value): (K, V),
    what: &'static str,
) -> Result<(), &'static str> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(what);
    }
    map.insert(key, value);
    Ok(())
}

/// # Errors
/// What is wrong with it.
pub(crate) fn from_wire(message: ShardGroup) -> Result<(Arc<str>, Group), &'static str> {
    let mut group = Group {
        generation: message.generation,
        target_generation: message.target_generation,
        empty_since_ms: message.empty_since_ms,
        unparked_epoch: message.unparked_epoch,
        ..Group::default()
    };
    let mut holders = BTreeMap::new();
    for message in message.members {
        let (id, member) = from_member(message)?;
        for tp in member.held.keys() {
            if holders.insert(*tp, ()).is_some() {
                return Err("a partition of a group has two holders");
            }
        }
        let entry = (id, Arc::new(member));
        put(&mut group.members, entry, "members are out of order")?;
    }
    let mut offsets = BTreeMap::new();
    for message in message.offsets {
        let tp = place(message.topic, message.partition);
        let committed = Committed {
            offset: Offset(message.offset),
            leader_epoch: LeaderEpoch(message.leader_epoch),
            metadata: message.metadata.into(),
            epoch: message.epoch,
            time: TimestampMs(message.time_ms),
        };
        put(&mut offsets, (tp, committed), "offsets are out of order")?;
    }
    group.offsets = Arc::new(offsets);
    group.parked = from_parked(message.parked)?;
    Ok((message.name.into(), group))
}

fn from_member(message: ShardGroupMember) -> Result<(Arc<str>, Member), &'static str> {
    let mut held = BTreeMap::new();
    for message in &message.held {
        let holding = Holding {
            granted: message.granted,
            revoking: message.revoking,
        };
        let tp = place(message.topic, message.partition);
        put(&mut held, (tp, holding), "holdings are out of order")?;
    }
    let member = Member {
        spec: Arc::new(message.spec.unwrap_or_default()),
        joined: message.joined,
        epoch: message.epoch,
        replaced: Some(message.replaced.into()).filter(|id: &Arc<str>| !id.is_empty()),
        held,
        target: partitions(&message.target).collect(),
    };
    Ok((message.id.into(), member))
}

fn from_parked(messages: Vec<ShardParkedKey>) -> Result<ParkedKeys, &'static str> {
    let mut parked = ParkedKeys::default();
    let mut last = None;
    for message in messages {
        let at = (place(message.topic, message.partition), message.key);
        if last.as_ref().is_some_and(|last| *last >= at) {
            return Err("parked keys are out of order");
        }
        let value = Parked {
            first: Offset(message.first_offset),
            last: Offset(message.last_offset),
            records: message.records,
            time: TimestampMs(message.time_ms),
        };
        parked.insert(at.0, at.1.clone(), value);
        last = Some(at);
    }
    Ok(parked)
}
