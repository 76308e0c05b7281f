//! Parked keys: keys whose records a group sets aside, in order, until they were redriven.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use highwater_proto::internal::{GroupPark, GroupParkKey, GroupUnpark};
use highwater_proto::{Offset, PartitionId, TimestampMs, TopicId, TopicPartition};

use super::limits::{MAX_KEY_BYTES, MAX_PARKED_BYTES, MAX_PARKED_KEYS};
use super::membership::Outcome;
use super::offsets::{When, committed, place};
use super::reply::{GroupOutcome, GroupRefusal, ItemOutcome};
use super::state::Group;
use crate::level::FeatureLevel;

/// What is parked of one key of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// Its first record that was set aside and not redriven.
    pub first: Offset,
    /// Its last one.
    pub last: Offset,
    /// How many were told of.
    pub records: u32,
    /// The coordinator's wall clock when the first was parked.
    pub time: TimestampMs,
}

type KeysOfPartition = BTreeMap<Bytes, Parked>;

/// All parked keys of a group, with what they weigh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedKeys {
    partitions: BTreeMap<TopicPartition, Arc<KeysOfPartition>>,
    count: usize,
    bytes: usize,
}

impl ParkedKeys {
    /// How many keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Bytes of all keys.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// All of them, by topic, partition and key.
    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &Bytes, &Parked)> + '_ {
        self.partitions
            .iter()
            .flat_map(|(tp, keys)| keys.iter().map(|(key, parked)| (*tp, key, parked)))
    }
    /// Those behind a place, in the same order.
    pub fn after<'a>(
        &'a self,
        tp: TopicPartition,
        key: &'a [u8],
    ) -> impl Iterator<Item = (TopicPartition, &'a Bytes, &'a Parked)> + 'a {
        let rest = self.partitions.range(tp..);
        rest.flat_map(move |(at, keys)| {
            let from = if *at == tp {
                Bound::Excluded(key)
            } else {
                Bound::Unbounded
            };
            keys.range::<[u8], _>((from, Bound::Unbounded))
                .map(move |(key, parked)| (*at, key, parked))
        })
    }
    /// What is parked of a key.
    #[must_use]
    pub fn get(&self, tp: TopicPartition, key: &[u8]) -> Option<&Parked> {
        self.partitions.get(&tp)?.get(key)
    }
    pub(super) fn insert(&mut self, tp: TopicPartition, key: Bytes, parked: Parked) {
        let keys = Arc::make_mut(self.partitions.entry(tp).or_default());
        let len = key.len();
        if keys.insert(key, parked).is_none() {
            self.count += 1;
            self.bytes += len;
        }
    }
    fn remove(&mut self, tp: TopicPartition, key: &[u8]) {
        let Some(keys) = self.partitions.get_mut(&tp) else {
            return;
        };
        if Arc::make_mut(keys).remove(key).is_some() {
            self.count -= 1;
            self.bytes -= key.len();
        }
        if keys.is_empty() {
            self.partitions.remove(&tp);
        }
    }
    /// Forgets everything of topics that do not exist any more; says whether there was something.
    pub(super) fn forget_topics(&mut self, is_gone: impl Fn(TopicId) -> bool) -> bool {
        let gone: Vec<TopicPartition> = self.partitions.keys().copied().collect();
        let gone: Vec<TopicPartition> = gone.into_iter().filter(|tp| is_gone(tp.topic)).collect();
        for tp in &gone {
            if let Some(keys) = self.partitions.remove(tp) {
                self.count -= keys.len();
                self.bytes -= keys.keys().map(Bytes::len).sum::<usize>();
            }
        }
        !gone.is_empty()
    }
}

fn place_of(key: &GroupParkKey) -> TopicPartition {
    TopicPartition::new(TopicId(key.topic), PartitionId(key.partition))
}

impl Group {
    /// Parks keys and commits offsets, all or nothing.
    pub(super) fn park(&mut self, park: &GroupPark, when: When) -> Outcome {
        let member = self.caller(&park.member_id, &park.instance_id)?;
        let places = park.keys.iter().map(place_of);
        let mut places = places.chain(park.offsets.iter().map(place));
        if !places.all(|tp| member.holds_under(tp, park.epoch)) {
            return Err(GroupRefusal::FencedMember);
        }
        for offset in &park.offsets {
            self.check_offset(offset, false)?;
        }
        let mut parked = self.parked.clone();
        for key in &park.keys {
            if key.key.len() > MAX_KEY_BYTES {
                return Err(GroupRefusal::Limit);
            }
            extend(&mut parked, key, when);
        }
        if parked.len() > MAX_PARKED_KEYS || parked.bytes() > MAX_PARKED_BYTES {
            return Err(GroupRefusal::ParkedFull);
        }
        self.parked = parked;
        let offsets = Arc::make_mut(&mut self.offsets);
        for offset in &park.offsets {
            offsets.insert(place(offset), committed(offset, when));
        }
        Ok(GroupOutcome::counted(self.parked.len()))
    }

    /// Takes keys out, as far as they were redriven.
    pub(super) fn unpark(&mut self, unpark: &GroupUnpark, epoch: u64) -> Outcome {
        let mut items = Vec::with_capacity(unpark.keys.len());
        for key in &unpark.keys {
            let tp = place_of(key);
            let Some(known) = self.parked.get(tp, &key.key).copied() else {
                items.push(ItemOutcome::default());
                continue;
            };
            if known.last.0 > key.offset {
                let first = Offset(known.first.0.max(key.offset.saturating_add(1)));
                let left = known.last.0 - first.0 + 1;
                let records = known.records.min(u32::try_from(left).unwrap_or(u32::MAX));
                let rest = Parked {
                    first,
                    records,
                    ..known
                };
                self.parked.insert(tp, key.key.clone(), rest);
                items.push(ItemOutcome {
                    refusal: None,
                    value: Some(known.last.0),
                });
            } else {
                self.parked.remove(tp, &key.key);
                self.unparked_epoch = epoch;
                items.push(ItemOutcome::default());
            }
        }
        Ok(GroupOutcome { items, count: 0 })
    }
}

fn extend(parked: &mut ParkedKeys, key: &GroupParkKey, when: When) {
    let (tp, offset) = (place_of(key), Offset(key.offset));
    // After a reset records come again that lie before those that wait.
    let downwards = when.rules >= FeatureLevel::PARKS;
    let next = match parked.get(tp, &key.key) {
        // Said before, or among those that wait.
        Some(known) if (known.first..=known.last).contains(&offset) => return,
        Some(known) if offset < known.first && !downwards => return,
        Some(known) => Parked {
            first: offset.min(known.first),
            last: offset.max(known.last),
            records: known.records.saturating_add(1),
            ..*known
        },
        None => Parked {
            first: offset,
            last: offset,
            records: 1,
            time: when.time,
        },
    };
    parked.insert(tp, key.key.clone(), next);
}
