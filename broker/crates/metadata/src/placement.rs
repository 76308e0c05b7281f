//! Placement: pure functions from who is there and what is placed to where the next goes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use highwater_proto::{NodeId, ShardId, TopicId};

use crate::command::NewBroker;
use crate::image::{Image, ShardInfo};
use crate::plan::BrokerState;
use crate::topic::Topic;

/// Replicated shards per founder of a cluster that was made before that was asked.
const REPLICATED_PER_BROKER: usize = 8;
/// Shards of one replica per founder, at most. Their topics trade safety for little; two spread the
/// work of one broker over its cores.
const SINGLE_PER_BROKER: usize = 2;
/// What [`fewer_shards`] was given.
static FEWER: OnceLock<Classes> = OnceLock::new();

/// Replicas of a shard, and how many such shards there are for each broker.
type Classes = [(usize, usize); 3];

/// Has new clusters so many shards per broker: of three replicas, of five, of one. For simulations, which run
/// all the groups of a cluster on one processor, and hold this the same for every broker of theirs.
pub fn fewer_shards([three, five, one]: [usize; 3]) {
    // The first one stays: a process is a simulation or it is none.
    let _ = FEWER.set([(3, three), (5, five), (1, one)]);
}

/// The classes of a cluster whose founding asked for `per_broker` replicated shards; 0: it did not ask.
fn classes(per_broker: u32) -> Classes {
    let replicated = match per_broker {
        0 => REPLICATED_PER_BROKER,
        asked => asked as usize,
    };
    let single = replicated.min(SINGLE_PER_BROKER);
    let asked = [(3, replicated), (5, replicated), (1, single)];
    FEWER.get().copied().unwrap_or(asked)
}

/// Replicas of a consumer group.
const GROUP_CLASS: u32 = 3;

/// The shards of a new cluster: class 1 for everyone, class 3 and 5 where enough brokers are.
pub(crate) fn first_shards(
    brokers: &BTreeMap<NodeId, NewBroker>,
    per_broker: u32,
) -> BTreeMap<ShardId, ShardInfo> {
    let mut shards = BTreeMap::new();
    for class in classes(per_broker) {
        add_class(&mut shards, brokers, class);
    }
    shards
}

/// The shards that host consumer groups: those of three replicas, or else of the most.
pub(crate) fn group_shards(shards: &BTreeMap<ShardId, ShardInfo>) -> Vec<ShardId> {
    let classes = shards.values().map(|shard| shard.class);
    let class = classes.max_by_key(|class| (*class == GROUP_CLASS, *class));
    shards
        .values()
        .filter(|shard| Some(shard.class) == class)
        .map(|shard| shard.id)
        .collect()
}

/// Shards of the classes that the cluster has become large enough for. `takes` brokers may hold
/// replicas.
pub(crate) fn add_missing_classes(image: &mut Image, takes: usize) {
    let active: BTreeMap<NodeId, NewBroker> = image
        .brokers
        .iter()
        .filter(|(id, _)| image.state(**id) == BrokerState::Active)
        .map(|(id, broker)| (*id, broker.clone()))
        .collect();
    for (class, per_broker) in classes(image.shards_per_broker) {
        if takes >= class && !image.has_class(class as u32) {
            add_class(&mut image.shards, &active, (class, per_broker));
        }
    }
}

fn add_class(
    shards: &mut BTreeMap<ShardId, ShardInfo>,
    brokers: &BTreeMap<NodeId, NewBroker>,
    (class, per_broker): (usize, usize),
) {
    let ring = by_rack(brokers);
    if ring.len() < class {
        return;
    }
    let first = shards.keys().last().map_or(1, |last| last.0 + 1);
    for (id, turn) in (first..).zip(0..ring.len() * per_broker) {
        let mut replicas = pick(brokers, &ring, turn, class);
        let preferred_leader = replicas.first().copied();
        replicas.sort_unstable();
        let id = ShardId(id);
        let shard = ShardInfo {
            id,
            class: class as u32,
            replicas,
            learners: BTreeMap::new(),
            preferred_leader,
            established: false,
            beginning: 0,
            partitions: 0,
        };
        shards.insert(id, shard);
    }
}

/// `class` brokers, the one at `turn` first, then always one whose rack holds the fewest of those
/// chosen; ties go by the ring.
fn pick(
    brokers: &BTreeMap<NodeId, NewBroker>,
    ring: &[NodeId],
    turn: usize,
    class: usize,
) -> Vec<NodeId> {
    let rack = |id: &NodeId| brokers.get(id).map_or("", |broker| broker.rack.as_str());
    let mut rest: Vec<NodeId> = ring
        .iter()
        .cycle()
        .skip(turn % ring.len())
        .take(ring.len())
        .copied()
        .collect();
    let mut chosen: Vec<NodeId> = Vec::with_capacity(class);
    while chosen.len() < class {
        let crowd = |id: &NodeId| {
            chosen
                .iter()
                .filter(|other| rack(other) == rack(id))
                .count()
        };
        let best = rest
            .iter()
            .enumerate()
            .min_by_key(|(at, id)| (crowd(id), *at));
        let Some((at, _)) = best else { break };
        chosen.push(rest.remove(at));
    }
    chosen
}

/// The brokers in an order in which neighbours are in different racks as far as possible: one of
/// each rack, then the next of each.
fn by_rack(brokers: &BTreeMap<NodeId, NewBroker>) -> Vec<NodeId> {
    let mut racks: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for broker in brokers.values() {
        racks
            .entry(broker.rack.as_str())
            .or_default()
            .push(broker.id);
    }
    let deepest = racks.values().map(Vec::len).max().unwrap_or(0);
    let layer = |depth: usize| {
        racks
            .values()
            .filter_map(move |rack| rack.get(depth).copied())
    };
    (0..deepest).flat_map(layer).collect()
}

/// A shard for each of `count` partitions of a new topic: the shards with the fewest partitions of
/// this topic first, then those with the fewest of all, leaders in turn, ties by a hash.
pub(crate) fn place(image: &Image, topic: TopicId, count: u32, class: u32) -> Vec<ShardId> {
    place_beside(image, topic, &[], (count, class))
}

/// A shard for each of `count` more partitions of a topic, by the same rules.
pub(crate) fn extend(image: &Image, topic: &Topic, count: u32) -> Vec<ShardId> {
    let class = topic.replication_factor;
    place_beside(image, topic.id, &topic.shards, (count, class))
}

/// A shard of a class for each of `count` partitions of a topic that go there, by the same rules.
pub(crate) fn spread_over(
    image: &Image,
    topic: &Topic,
    (count, class): (u32, u32),
) -> Vec<ShardId> {
    place_beside(image, topic.id, &topic.shards, (count, class))
}

fn place_beside(
    image: &Image,
    topic: TopicId,
    placed_before: &[ShardId],
    (count, class): (u32, u32),
) -> Vec<ShardId> {
    let mut load: BTreeMap<ShardId, Load> = image
        .shards
        .values()
        .filter(|shard| shard.class == class)
        .map(|shard| {
            (
                shard.id,
                Load {
                    of_topic: 0,
                    of_all: shard.partitions,
                    shard,
                },
            )
        })
        .collect();
    let mut led: BTreeMap<NodeId, u32> = BTreeMap::new();
    for shard in placed_before {
        if let Some(known) = load.get_mut(shard) {
            known.of_topic += 1;
            let leader = known.shard.preferred_leader.unwrap_or_default();
            *led.entry(leader).or_default() += 1;
        }
    }
    let mut placed = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let best = load.values().min_by_key(|l| {
            let leader = l.shard.preferred_leader.unwrap_or_default();
            let leads = led.get(&leader).copied().unwrap_or(0);
            (leads, l.of_topic, l.of_all, spread(topic, l.shard.id))
        });
        let Some((id, leader)) = best.map(|l| (l.shard.id, l.shard.preferred_leader)) else {
            return placed;
        };
        if let Some(chosen) = load.get_mut(&id) {
            chosen.of_topic += 1;
            chosen.of_all += 1;
        }
        *led.entry(leader.unwrap_or_default()).or_default() += 1;
        placed.push(id);
    }
    placed
}

struct Load<'a> {
    of_topic: u32,
    of_all: u32,
    shard: &'a ShardInfo,
}

/// A fixed scramble (the finaliser of SplitMix64), so that topics of one partition do not all begin
/// at the same shard.
fn spread(topic: TopicId, shard: ShardId) -> u64 {
    let mut x = topic.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(shard.0);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
