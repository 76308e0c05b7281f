//! The cluster image in the words of the public protocol.

use highwater_metadata::{BrokerState, Topic};
use highwater_proto::PartitionId;
use highwater_proto::v1::{
    Broker as BrokerInfo, BrokerStanding, PartitionMetadata, ShardStatus, TopicMetadata,
};

use crate::control::cluster::Cluster;

/// All brokers, by id.
pub fn brokers(cluster: &Cluster) -> Vec<BrokerInfo> {
    let alive = cluster.alive();
    let image = cluster.image();
    let broker = |known: &highwater_metadata::BrokerInfo| BrokerInfo {
        id: known.id.0,
        address: known.address.clone(),
        rack: known.rack.clone(),
        alive: alive.contains(&known.id),
        version: known.version.clone(),
        incarnation: known.incarnation.clone(),
        standing: standing(image.state(known.id)).into(),
    };
    image.brokers().map(broker).collect()
}

fn standing(state: BrokerState) -> BrokerStanding {
    match state {
        BrokerState::Active => BrokerStanding::Active,
        BrokerState::Draining => BrokerStanding::Draining,
        BrokerState::Drained => BrokerStanding::Drained,
        BrokerState::Leaving => BrokerStanding::Leaving,
        BrokerState::Replaced => BrokerStanding::GivenUp,
        BrokerState::Awaited => BrokerStanding::Awaited,
    }
}

/// A topic with its leaders, as clients see it: without partitions that are being added.
pub fn topic(cluster: &Cluster, topic: &Topic) -> TopicMetadata {
    let mut shown = whole_topic(cluster, topic);
    shown.partitions.truncate(topic.partition_count() as usize);
    shown
}

/// A topic with its leaders, partitions that are being added included.
pub fn whole_topic(cluster: &Cluster, topic: &Topic) -> TopicMetadata {
    let image = cluster.image();
    let leaders = cluster.known_leaders();
    let partition = |number: u32, shard: highwater_proto::ShardId| {
        let known = leaders.get(&shard).copied().unwrap_or_default();
        let replicas = image
            .shard(shard)
            .map(|s| s.replicas.clone())
            .unwrap_or_default();
        PartitionMetadata {
            partition: number,
            shard: shard.0,
            leader: known.now.node.map(|node| node.0),
            term: known.now.term,
            replicas: replicas.into_iter().map(|node| node.0).collect(),
            arrival: topic.arrival(PartitionId(number)),
            outlived_term: known.outlived,
            beginning: known.now.beginning,
        }
    };
    TopicMetadata {
        id: topic.id().0,
        name: topic.name().to_owned(),
        ready: topic.is_ready(),
        replication_factor: topic.replication_factor(),
        configs: topic.configs().clone().into_iter().collect(),
        partitions: (0..)
            .zip(topic.shards())
            .map(|(n, s)| partition(n, s))
            .collect(),
    }
}

/// All shards with their leaders.
pub fn shards(cluster: &Cluster) -> Vec<ShardStatus> {
    let image = cluster.image();
    let leaders = cluster.leaders();
    let status = |shard: &highwater_metadata::ShardInfo| {
        let leader = leaders.get(&shard.id).copied().unwrap_or_default();
        ShardStatus {
            shard: shard.id.0,
            replication_factor: shard.replicas.len() as u32,
            replicas: shard.replicas.iter().map(|node| node.0).collect(),
            preferred_leader: shard.preferred_leader.map(|node| node.0),
            leader: leader.node.map(|node| node.0),
            term: leader.term,
            applied_index: cluster.applied(shard.id),
            partitions: shard.partitions,
        }
    };
    image.shards().map(status).collect()
}
