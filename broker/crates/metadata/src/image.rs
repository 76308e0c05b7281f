//! The cluster as every broker knows it: immutable, shared, replaced on change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::{NodeId, ProducerId, ShardId, TopicId, murmur2};
use rpds::RedBlackTreeMapSync;

use crate::command::NewBroker;
use crate::level::MetadataLevel;
use crate::plan::{BrokerState, Floor, Plan};
use crate::topic::Topic;

/// A registered broker.
pub type BrokerInfo = NewBroker;

/// A shard and where its replicas are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its number, at least 1.
    pub id: ShardId,
    /// How many replicas it should have.
    pub class: u32,
    /// The brokers that hold it, by id.
    pub replicas: Vec<NodeId>,
    /// Brokers that are being filled and do not vote yet, each with the entry that made it a
    /// member once that is known.
    pub learners: BTreeMap<NodeId, Option<Floor>>,
    /// Who should lead it when everything is well.
    pub preferred_leader: Option<NodeId>,
    /// It has had a leader, so its first membership exists.
    pub established: bool,
    /// The plan that began it anew, empty, when its only replica was lost; 0: it is as it was made. What
    /// is said of an earlier beginning, terms and entries, says nothing of this one.
    pub beginning: u64,
    /// How many partitions are assigned to it.
    pub partitions: u32,
}

/// One state of the metadata group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: BTreeMap<NodeId, BrokerInfo>,
    pub(crate) shards: BTreeMap<ShardId, ShardInfo>,
    /// Shared with the image before, but for what changed: there may be many topics.
    pub(crate) topics: RedBlackTreeMapSync<TopicId, Arc<Topic>>,
    pub(crate) names: RedBlackTreeMapSync<Arc<str>, TopicId>,
    /// As the founding said; 0: it did not.
    pub(crate) shards_per_broker: u32,
    pub(crate) next_topic: u64,
    pub(crate) next_producer: u64,
    /// The shards that host consumer groups, fixed when the cluster was made.
    pub(crate) group_shards: Vec<ShardId>,
    /// Brokers that are not simply active.
    pub(crate) states: BTreeMap<NodeId, BrokerState>,
    /// Incarnations that must never take part again.
    pub(crate) retired: BTreeSet<String>,
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) next_plan: u64,
    /// Which commands the log may hold.
    pub(crate) level: MetadataLevel,
}

/// A page of topics by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsPage {
    /// The topics.
    pub topics: Vec<Arc<Topic>>,
    /// Where the next page begins; absent at the end.
    pub next: Option<String>,
}

impl ShardInfo {
    /// Whether `node` hosts it, voting or not.
    #[must_use]
    pub fn is_hosted_by(&self, node: NodeId) -> bool {
        self.replicas.contains(&node) || self.learners.contains_key(&node)
    }
}

impl Image {
    /// The cluster's id, once it exists.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }
    /// A broker by id.
    #[must_use]
    pub fn broker(&self, id: NodeId) -> Option<&BrokerInfo> {
        self.brokers.get(&id)
    }
    /// All brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerInfo> {
        self.brokers.values()
    }
    /// A shard by id.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&ShardInfo> {
        self.shards.get(&id)
    }
    /// All shards, by id.
    pub fn shards(&self) -> impl Iterator<Item = &ShardInfo> {
        self.shards.values()
    }
    /// A topic by id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }
    /// A topic by name.
    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }
    /// All topics, by id.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }
    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.size()
    }
    /// The shard that hosts a consumer group; `None` before the cluster exists.
    ///
    /// It is a hash over a list that was fixed when the cluster was made. Shards that are added
    /// later do not change it, so a group never moves, and no group costs an entry of this image.
    #[must_use]
    pub fn group_shard(&self, group: &str) -> Option<ShardId> {
        let hash = murmur2(group.as_bytes()) & 0x7fff_ffff;
        let count = u32::try_from(self.group_shards.len()).ok()?;
        let slot = hash.checked_rem(count)?;
        self.group_shards.get(slot as usize).copied()
    }
    /// The shards that host consumer groups.
    #[must_use]
    pub fn group_shards(&self) -> &[ShardId] {
        &self.group_shards
    }
    /// Whether a topic existed and was deleted. Of a topic that this image has not heard of yet it
    /// says no.
    #[must_use]
    pub fn was_deleted(&self, topic: TopicId) -> bool {
        topic.0 < self.next_topic && !self.topics.contains_key(&topic)
    }
    /// Whether this image is new enough to know a topic, or that it was deleted.
    #[must_use]
    pub fn has_heard_of(&self, topic: TopicId) -> bool {
        topic.0 < self.next_topic
    }
    /// Whether this image is new enough to know what a plan has begun; 0 is no plan.
    #[must_use]
    pub fn has_heard_of_plan(&self, plan: u64) -> bool {
        plan < self.next_plan.max(1)
    }
    /// The first producer id not yet given.
    #[must_use]
    pub fn next_producer(&self) -> ProducerId {
        ProducerId(self.next_producer)
    }
    /// Up to `limit` topics by name, from `token` (inclusive) on, whose name contains `filter`.
    #[must_use]
    pub fn topics_page(&self, token: &str, filter: &str, limit: usize) -> TopicsPage {
        let mut matching = self
            .names
            .range::<str, _>((std::ops::Bound::Included(token), std::ops::Bound::Unbounded))
            .filter(|(name, _)| name.contains(filter));
        let topics: Vec<Arc<Topic>> = matching
            .by_ref()
            .take(limit.max(1))
            .filter_map(|(_, id)| self.topics.get(id).cloned())
            .collect();
        TopicsPage {
            topics,
            next: matching.next().map(|(name, _)| name.to_string()),
        }
    }
}
