//! The whole image as bytes: the metadata group's checkpoint.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use highwater_proto::{NodeId, PartitionId, ShardId, TopicId};
use prost::Message;

use crate::command::{DecodeError, NewBroker};
use crate::configs::TopicSettings;
use crate::image::{Image, ShardInfo};
use crate::level::MetadataLevel;
use crate::placement;
use crate::plan::{Floor, Plan};
use crate::topic::Topic;
use crate::wire;
use crate::wire_life::{Place, StoredLearner, StoredPlan, StoredState};
use crate::wire_moves::StoredArrival;

/// The version written; all up to it can be read.
const VERSION: u32 = 7;
/// Written as long as nothing is there that only a later version can say: an older release still
/// reads it.
const PLAIN_VERSION: u32 = 1;
/// Written as long as no topic was altered and none is growing, at the first level.
const LIFE_VERSION: u32 = 2;
/// Written at the first level.
const TOPICS_VERSION: u32 = 3;
/// Written below the level of moves.
const GATED_VERSION: u32 = 4;
/// Written as long as no shard was begun anew.
const MOVES_VERSION: u32 = 5;
/// Written as long as the founding asked for no number of shards.
const BEGUN_VERSION: u32 = 6;

impl Image {
    /// All of it; equal images give equal bytes.
    #[must_use]
    pub fn encode_snapshot(&self) -> Bytes {
        let shard = |shard: &ShardInfo| wire::Shard {
            id: shard.id.0,
            replicas: shard.replicas.iter().map(|node| node.0).collect(),
            preferred_leader: shard.preferred_leader.map_or(0, |node| node.0),
            established: shard.established,
            class: Some(shard.class).filter(|class| *class as usize != shard.replicas.len()),
            learners: shard.learners.iter().map(learner).collect(),
            beginning: shard.beginning,
        };
        let topic = |topic: &Arc<Topic>| wire::Topic {
            id: topic.id.0,
            name: topic.name.to_string(),
            replication_factor: topic.replication_factor,
            configs: topic.configs.clone(),
            shards: topic.shards.iter().map(|shard| shard.0).collect(),
            unconfirmed: topic.unconfirmed.iter().map(|p| p.0).collect(),
            config_version: topic.config_version,
            growing_from: topic.growing_from,
            arrivals: topic.arrivals.iter().map(arrival).collect(),
        };
        let snapshot = wire::Snapshot {
            version: self.version_to_write(),
            cluster_id: self.cluster_id.clone().unwrap_or_default(),
            brokers: self.brokers.values().map(wire::Broker::from).collect(),
            shards: self.shards.values().map(shard).collect(),
            topics: self.topics.values().map(topic).collect(),
            next_topic: self.next_topic,
            next_producer: self.next_producer,
            group_shards: self.group_shards_to_write(),
            states: self
                .states
                .iter()
                .filter_map(|(broker, state)| StoredState::of(*broker, *state))
                .collect(),
            retired: self.retired.iter().cloned().collect(),
            plan: self.plan.as_deref().map(StoredPlan::from),
            next_plan: self.next_plan,
            level: if self.level == MetadataLevel::FIRST {
                0
            } else {
                self.level.0
            },
            shards_per_broker: self.shards_per_broker,
        };
        snapshot.encode_to_vec().into()
    }

    /// Nothing as long as the list follows from the shards, as it does in images from before there
    /// were groups.
    fn group_shards_to_write(&self) -> Vec<u32> {
        if self.group_shards == placement::group_shards(&self.shards) {
            return Vec::new();
        }
        self.group_shards.iter().map(|shard| shard.0).collect()
    }
    fn version_to_write(&self) -> u32 {
        let changed = |topic: &Arc<Topic>| topic.config_version > 0 || topic.growing_from > 0;
        if self.shards_per_broker > 0 {
            VERSION
        } else if self.shards.values().any(|shard| shard.beginning > 0) {
            BEGUN_VERSION
        } else if self.level >= MetadataLevel::MOVES {
            MOVES_VERSION
        } else if self.level > MetadataLevel::FIRST {
            GATED_VERSION
        } else if self.topics.values().any(changed) {
            TOPICS_VERSION
        } else if self.is_plain() {
            PLAIN_VERSION
        } else {
            LIFE_VERSION
        }
    }
    /// Whether version 1 says all of it.
    fn is_plain(&self) -> bool {
        let plain = |shard: &ShardInfo| {
            shard.class as usize == shard.replicas.len() && shard.learners.is_empty()
        };
        self.next_plan == 0
            && self.states.is_empty()
            && self.retired.is_empty()
            && self.shards.values().all(plain)
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; a newer version is named as such.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, DecodeError> {
        let failed = |reason: String| DecodeError {
            what: "snapshot",
            reason,
        };
        let snapshot = wire::Snapshot::decode(bytes).map_err(|e| failed(e.to_string()))?;
        if snapshot.version == 0 || snapshot.version > VERSION {
            return Err(failed(format!(
                "it has version {}, this release reads up to {VERSION}",
                snapshot.version
            )));
        }
        let level = MetadataLevel(snapshot.level.max(MetadataLevel::FIRST.0));
        if !level.is_known() {
            return Err(failed(format!(
                "it has level {level}, this release knows levels up to {}",
                MetadataLevel::LATEST
            )));
        }
        let mut image = Self {
            level,
            cluster_id: Some(snapshot.cluster_id).filter(|id| !id.is_empty()),
            shards_per_broker: snapshot.shards_per_broker,
            next_topic: snapshot.next_topic,
            next_producer: snapshot.next_producer,
            retired: snapshot.retired.into_iter().collect(),
            next_plan: snapshot.next_plan,
            ..Self::default()
        };
        let stored = |reason: &'static str| failed(reason.to_owned());
        for state in snapshot.states {
            let (broker, state) = state.read().map_err(stored)?;
            image.states.insert(broker, state);
        }
        let plan = snapshot.plan.map(Plan::try_from).transpose();
        image.plan = plan.map_err(stored)?.map(Arc::new);
        let brokers = snapshot.brokers.into_iter().map(NewBroker::from);
        image.brokers = brokers.map(|broker| (broker.id, broker)).collect();
        let shards = snapshot.shards.into_iter().map(shard);
        image.shards = shards.map(|shard| (shard.id, shard)).collect();
        let group_shards = snapshot.group_shards.into_iter().map(ShardId);
        image.group_shards = group_shards.collect();
        if image.group_shards.is_empty() {
            image.group_shards = placement::group_shards(&image.shards);
        }
        for stored in snapshot.topics {
            let topic = topic(stored).map_err(failed)?;
            for shard in &topic.shards {
                let known = image.shards.get_mut(shard);
                let known = known.ok_or_else(|| {
                    failed(format!(
                        "topic {} is in shard {shard}, which is unknown",
                        topic.name
                    ))
                })?;
                known.partitions += 1;
            }
            image.names.insert_mut(Arc::clone(&topic.name), topic.id);
            image.topics.insert_mut(topic.id, Arc::new(topic));
        }
        Ok(image)
    }
}

fn learner((broker, floor): (&NodeId, &Option<Floor>)) -> StoredLearner {
    StoredLearner {
        broker: broker.0,
        floor: floor.map(Place::from),
    }
}

fn arrival((partition, plan): (&PartitionId, &u64)) -> StoredArrival {
    StoredArrival {
        partition: partition.0,
        plan: *plan,
    }
}

fn shard(stored: wire::Shard) -> ShardInfo {
    let replicas: Vec<NodeId> = stored.replicas.into_iter().map(NodeId).collect();
    let class = stored.class.unwrap_or(replicas.len() as u32);
    let floor = |learner: StoredLearner| (NodeId(learner.broker), learner.floor.map(Floor::from));
    let learners: BTreeMap<NodeId, Option<Floor>> =
        stored.learners.into_iter().map(floor).collect();
    ShardInfo {
        id: ShardId(stored.id),
        class,
        replicas,
        learners,
        preferred_leader: Some(NodeId(stored.preferred_leader)).filter(|node| node.0 != 0),
        established: stored.established,
        beginning: stored.beginning,
        partitions: 0,
    }
}

fn topic(stored: wire::Topic) -> Result<Topic, String> {
    let settings = TopicSettings::read(&stored.configs)
        .map_err(|refusal| format!("topic {}: {}", stored.name, refusal.message))?;
    Ok(Topic {
        id: TopicId(stored.id),
        name: stored.name.into(),
        replication_factor: stored.replication_factor,
        configs: stored.configs,
        settings,
        shards: stored.shards.into_iter().map(ShardId).collect(),
        unconfirmed: stored.unconfirmed.into_iter().map(PartitionId).collect(),
        config_version: stored.config_version,
        growing_from: stored.growing_from,
        arrivals: stored
            .arrivals
            .into_iter()
            .map(|arrival| (PartitionId(arrival.partition), arrival.plan))
            .collect(),
    })
}
