//! Step 3 of a produced record, after gate/, before runtime/: partition to shard; here, or a hint
//! who leads it. The same step of a fetched record.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use highwater_env::Disk;
use highwater_metadata::Topic;
use highwater_proto::v1::LeaderHint;
use highwater_proto::{ShardId, TopicPartition};

use crate::control::cluster::Cluster;
use crate::runtime::Shard;

/// The shards that this broker hosts.
pub struct ShardTable<D: Disk>(ArcSwap<BTreeMap<ShardId, Arc<Shard<D>>>>);

impl<D: Disk> Default for ShardTable<D> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<D: Disk> ShardTable<D> {
    /// The shard, if it is hosted here.
    #[must_use]
    pub fn get(&self, id: ShardId) -> Option<Arc<Shard<D>>> {
        self.0.load().get(&id).cloned()
    }
    /// All hosted shards, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Shard<D>>> {
        self.0.load().values().cloned().collect()
    }
    /// Adds a started shard.
    pub fn insert(&self, shard: Arc<Shard<D>>) {
        self.0.rcu(|table| {
            let mut next = BTreeMap::clone(table);
            next.insert(shard.id, Arc::clone(&shard));
            next
        });
    }
    /// Takes a shard out that is not hosted any more.
    pub fn remove(&self, id: ShardId) -> Option<Arc<Shard<D>>> {
        let removed = self.get(id);
        self.0.rcu(|table| {
            let mut next = BTreeMap::clone(table);
            next.remove(&id);
            next
        });
        removed
    }
    /// Takes all out, for shutdown.
    pub fn take_all(&self) -> Vec<Arc<Shard<D>>> {
        self.0.swap(Arc::default()).values().cloned().collect()
    }
}

/// Where a partition is served.
pub enum Route<D: Disk> {
    /// By a shard of this broker, whose leader it is.
    Here {
        /// The shard.
        shard: Arc<Shard<D>>,
        /// The topic.
        topic: Arc<Topic>,
    },
    /// By another broker, or by nobody right now.
    Elsewhere(ShardId),
    /// The topic exists, but its partitions are still being made.
    NotReady,
    /// No such topic.
    UnknownTopic,
    /// The topic existed and was deleted: its id never comes back.
    DeletedTopic,
    /// The topic has fewer partitions.
    UnknownPartition {
        /// How many it has.
        partitions: u32,
    },
}

/// Finds shards.
pub struct Router<D: Disk> {
    cluster: Arc<Cluster>,
    shards: Arc<ShardTable<D>>,
}

impl<D: Disk> Router<D> {
    /// A router over the cluster image and the local shards.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, shards: Arc<ShardTable<D>>) -> Self {
        Self { cluster, shards }
    }

    /// The leader's place for `tp`.
    #[must_use]
    pub fn route(&self, tp: TopicPartition) -> Route<D> {
        match self.locate(tp) {
            Ok((shard_id, topic)) => match self.shards.get(shard_id) {
                Some(shard) if shard.group.is_leader() && is_meant(&shard, &topic, tp) => {
                    Route::Here { shard, topic }
                }
                _ => Route::Elsewhere(shard_id),
            },
            Err(route) => route,
        }
    }

    /// This broker's replica of `tp`, leader or not.
    #[must_use]
    pub fn replica(&self, tp: TopicPartition) -> Route<D> {
        match self.locate(tp) {
            Ok((shard_id, topic)) => match self.shards.get(shard_id) {
                Some(shard) if is_meant(&shard, &topic, tp) => Route::Here { shard, topic },
                _ => Route::Elsewhere(shard_id),
            },
            Err(route) => route,
        }
    }

    fn locate(&self, tp: TopicPartition) -> Result<(ShardId, Arc<Topic>), Route<D>> {
        let image = self.cluster.image();
        let Some(topic) = image.topic(tp.topic) else {
            return Err(if image.was_deleted(tp.topic) {
                Route::DeletedTopic
            } else {
                Route::UnknownTopic
            });
        };
        let partitions = topic.partition_count();
        let shard = topic
            .shard_of(tp.partition)
            .ok_or(Route::UnknownPartition { partitions })?;
        if !topic.is_made(tp.partition) {
            return Err(Route::NotReady);
        }
        Ok((shard, Arc::clone(topic)))
    }

    /// Whether the topic existed and was deleted.
    #[must_use]
    pub fn is_deleted(&self, tp: TopicPartition) -> bool {
        self.cluster.image().was_deleted(tp.topic)
    }
    /// Whether a partition is in another shard than this one, as far as this broker knows.
    #[must_use]
    pub fn is_elsewhere(&self, tp: TopicPartition, shard: ShardId) -> bool {
        self.locate(tp).is_ok_and(|(at, _)| at != shard)
    }
    /// The shard that hosts a consumer group; `Err`: here it is not led, but there.
    ///
    /// # Errors
    /// Where it is; `None` before the cluster exists.
    pub fn group(&self, group: &str) -> Result<Arc<Shard<D>>, Option<ShardId>> {
        let id = self.cluster.image().group_shard(group).ok_or(None)?;
        match self.shards.get(id) {
            Some(shard) if shard.group.is_leader() => Ok(shard),
            _ => Err(Some(id)),
        }
    }
    /// Who leads a shard, as far as this broker knows.
    #[must_use]
    pub fn hint(&self, shard: ShardId) -> Option<LeaderHint> {
        let known = self.cluster.leader(shard)?;
        let node = known.node?;
        let address = self.cluster.image().broker(node)?.address.clone();
        Some(LeaderHint {
            broker_id: node.0,
            address,
            term: known.term,
            shard: shard.0,
            arrival: 0,
            beginning: known.beginning,
        })
    }
    /// The hint for a partition.
    #[must_use]
    pub fn hint_for(&self, tp: TopicPartition) -> Option<LeaderHint> {
        let (shard, topic) = self.locate(tp).ok()?;
        Some(LeaderHint {
            arrival: topic.arrival(tp.partition),
            ..self.hint(shard)?
        })
    }
}

/// Whether what the shard has of a partition, if anything yet, is what the image means. Where a partition has
/// gone and come back, one of the two may be behind: an image of before it went names the copy that a later
/// move is still to make good, or to give up again.
fn is_meant<D: Disk>(shard: &Shard<D>, topic: &Topic, tp: TopicPartition) -> bool {
    let view = shard.views.get(tp);
    view.is_none_or(|view| view.arrival() == topic.arrival(tp.partition))
}
