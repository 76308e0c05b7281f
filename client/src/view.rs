//! What the client knows of the cluster: brokers, topics, leaders. Pure: updates in, view out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::{NodeId, PartitionId, TopicId, v1};

use crate::error::{Cause, ErrorCode};

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerView {
    /// Its number.
    pub id: NodeId,
    /// `host:port` of its gRPC door.
    pub address: String,
    /// As the metadata leader sees it.
    pub alive: bool,
}

/// Who serves one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// The shard that hosts it.
    pub shard: u32,
    /// Its leader; absent during an election.
    pub leader: Option<NodeId>,
    /// The leader's term; the highest seen of the shard wins, since its beginning.
    pub term: u64,
    /// The plan that began the shard anew when it was lost; 0: none. The highest seen wins.
    pub beginning: u64,
    /// The plan that moved it to the shard; 0: none. The highest seen wins.
    pub arrival: u64,
    /// A later term without a leader, after which the leader was heard.
    pub(crate) outlived: u64,
    /// Brokers that hold it.
    pub replicas: Vec<NodeId>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its id, never reused.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Whether its partitions are set up.
    pub ready: bool,
    /// Its configuration, by key.
    pub configs: BTreeMap<String, String>,
    /// Index = partition.
    pub partitions: Vec<PartitionView>,
}

impl TopicView {
    /// One partition's view.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&PartitionView> {
        self.partitions.get(usize::try_from(partition.0).ok()?)
    }
    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }
    /// `max.message.bytes`, when set.
    pub(crate) fn max_message_bytes(&self) -> Option<usize> {
        self.configs.get("max.message.bytes")?.parse().ok()
    }
}

/// A moment's picture of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Empty until the first answer.
    pub cluster_id: String,
    /// Brokers by number.
    pub brokers: BTreeMap<NodeId, BrokerView>,
    /// Watched topics by name.
    pub topics: BTreeMap<Arc<str>, Arc<TopicView>>,
    /// Watched topics that a broker said do not exist.
    pub missing: BTreeSet<String>,
    /// Names by id, of `topics`.
    names: BTreeMap<TopicId, Arc<str>>,
    /// Ids of topics that were here and are gone for ever: an id is never used again.
    deleted: BTreeSet<TopicId>,
}

/// The least id that a name can stand for: of what this client has made or deleted.
pub(crate) type Least = BTreeMap<String, TopicId>;

impl ClusterView {
    /// A topic by id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicView>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// The partition's leader, its address and term, as far as known.
    #[must_use]
    pub fn leader(&self, topic: TopicId, partition: PartitionId) -> Option<(NodeId, u64)> {
        let partition = self.topic(topic)?.partition(partition)?;
        Some((partition.leader?, partition.term))
    }

    /// Why nothing can be written to or read from the topic any more, when it was deleted. Nobody leads what
    /// was deleted, so nobody else may be left to ask.
    pub(crate) fn deleted(&self, topic: TopicId) -> Option<Cause> {
        self.deleted.contains(&topic).then(|| Cause::Broker {
            code: ErrorCode::TopicDeleted,
            message: format!("topic {topic} was deleted"),
        })
    }

    /// A broker's address.
    #[must_use]
    pub fn address(&self, broker: NodeId) -> Option<&str> {
        self.brokers
            .get(&broker)
            .map(|broker| broker.address.as_str())
    }

    /// Takes in an update of a watch stream. `seen` are the topics that this very stream has
    /// reported: only they can be reported gone, because a broker that lags may call a topic
    /// missing that another already knows, or that was made again since. Nor is it believed about topics
    /// below the `least` ids.
    pub(crate) fn apply(
        &mut self,
        update: &v1::MetadataUpdate,
        seen: &mut BTreeMap<String, TopicId>,
        least: &Least,
    ) {
        if !update.cluster_id.is_empty() {
            self.cluster_id.clone_from(&update.cluster_id);
        }
        if !update.brokers.is_empty() {
            self.brokers = update.brokers.iter().map(broker_view).collect();
        }
        for topic in &update.topics {
            seen.insert(topic.name.clone(), TopicId(topic.id));
            if least
                .get(&topic.name)
                .is_none_or(|least| topic.id >= least.0)
            {
                self.apply_topic(topic);
            }
        }
        for name in &update.missing_topics {
            let gone = seen.remove(name);
            match self.topics.get(name.as_str()).map(|topic| topic.id) {
                Some(id) if gone == Some(id) => {
                    self.topics.remove(name.as_str());
                    self.forget(id);
                    self.missing.insert(name.clone());
                }
                Some(_) => {}
                None => {
                    self.missing.insert(name.clone());
                }
            }
        }
    }

    /// Forgets what a name stands for if that has a lower id. Returns whether it did.
    pub(crate) fn at_least(&mut self, name: &str, id: TopicId) -> bool {
        let old = self.topics.get(name).map(|topic| topic.id);
        let Some(old) = old.filter(|old| *old < id) else {
            return false;
        };
        self.topics.remove(name);
        self.forget(old);
        true
    }

    fn apply_topic(&mut self, update: &v1::TopicMetadata) {
        let mut next = topic_view(update);
        if let Some(known) = self.topics.get(update.name.as_str()) {
            if known.id > next.id {
                return; // deleted and created again since; this broker lags
            }
            if known.id == next.id {
                next.ready |= known.ready;
                keep_newer_leaders(&mut next, known);
            } else {
                let id = known.id;
                self.forget(id);
            }
        }
        self.missing.remove(&update.name);
        self.names.insert(next.id, Arc::clone(&next.name));
        self.topics.insert(Arc::clone(&next.name), Arc::new(next));
    }

    fn forget(&mut self, id: TopicId) {
        self.names.remove(&id);
        self.deleted.insert(id);
    }

    /// Takes in a hint that came with an error: it speaks for the partition's whole shard, or says that
    /// the partition is in another one now. Returns whether anything changed.
    pub(crate) fn apply_hint(
        &mut self,
        topic: TopicId,
        partition: PartitionId,
        hint: &v1::LeaderHint,
    ) -> bool {
        let known = self.topic(topic).and_then(|t| t.partition(partition));
        let Some((shard, arrival)) = known.map(|p| (p.shard, p.arrival)) else {
            return false;
        };
        let moved = hint.shard != 0 && hint.shard != shard;
        if moved && hint.arrival <= arrival {
            return false; // it was there before; that broker lags
        }
        let node = NodeId(hint.broker_id);
        let mut changed = false;
        if !hint.address.is_empty() && !self.brokers.contains_key(&node) {
            let broker = BrokerView {
                id: node,
                address: hint.address.clone(),
                alive: true,
            };
            self.brokers.insert(node, broker);
            changed = true;
        }
        if moved {
            return self.apply_move(topic, partition, hint) || changed;
        }
        for topic in self.topics.values_mut() {
            let newer = |p: &PartitionView| {
                let (told, known) = ((hint.beginning, hint.term), (p.beginning, p.term));
                p.shard == shard && (told > known || (told == known && p.leader.is_none()))
            };
            if !topic.partitions.iter().any(newer) {
                continue;
            }
            changed = true;
            for partition in &mut Arc::make_mut(topic).partitions {
                if newer(partition) {
                    partition.leader = Some(node);
                    (partition.beginning, partition.term) = (hint.beginning, hint.term);
                }
            }
        }
        changed
    }

    fn apply_move(
        &mut self,
        topic: TopicId,
        partition: PartitionId,
        hint: &v1::LeaderHint,
    ) -> bool {
        let at = usize::try_from(partition.0).ok();
        let name = self.names.get(&topic);
        let found = name.and_then(|name| self.topics.get_mut(name));
        let Some((topic, at)) = found.zip(at) else {
            return false;
        };
        let Some(known) = Arc::make_mut(topic).partitions.get_mut(at) else {
            return false;
        };
        known.shard = hint.shard;
        known.arrival = hint.arrival;
        known.leader = Some(NodeId(hint.broker_id));
        (known.beginning, known.term) = (hint.beginning, hint.term);
        true
    }
}

fn keep_newer_leaders(next: &mut TopicView, known: &TopicView) {
    for (new, old) in next.partitions.iter_mut().zip(&known.partitions) {
        if new.shard != old.shard {
            // Terms of two shards say nothing about each other.
            if new.arrival < old.arrival {
                new.clone_from(old);
            }
            continue;
        }
        // Who was known to lead before a term in which nobody came to lead may be there still.
        // Nor do the terms of a shard that was lost, and of the one that was begun in its place.
        if new.beginning > old.beginning {
            continue;
        }
        let is_still_there = old.leader.is_none() && old.term <= new.outlived;
        let older = new.term < old.term && !is_still_there;
        let forgets = new.term == old.term && new.leader.is_none();
        if new.beginning < old.beginning || older || forgets {
            new.leader = old.leader;
            (new.beginning, new.term) = (old.beginning, old.term);
        }
    }
}

fn broker_view(broker: &v1::Broker) -> (NodeId, BrokerView) {
    let id = NodeId(broker.id);
    (
        id,
        BrokerView {
            id,
            address: broker.address.clone(),
            alive: broker.alive,
        },
    )
}

fn topic_view(update: &v1::TopicMetadata) -> TopicView {
    let partitions = update
        .partitions
        .iter()
        .map(|p| PartitionView {
            shard: p.shard,
            leader: p.leader.map(NodeId),
            term: p.term,
            beginning: p.beginning,
            arrival: p.arrival,
            outlived: p.outlived_term,
            replicas: p.replicas.iter().copied().map(NodeId).collect(),
        })
        .collect();
    TopicView {
        id: TopicId(update.id),
        name: Arc::from(update.name.as_str()),
        ready: update.ready,
        configs: update
            .configs
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        partitions,
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
