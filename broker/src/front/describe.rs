//! Facts about partitions, from the brokers that lead them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::Topic;
use highwater_proto::internal::{
    DescribePartitionsRequest, DescribePartitionsResponse, PartitionFacts,
};
use highwater_proto::v1::{ErrorCode, PartitionStatus};
use highwater_proto::{NodeId, PartitionId, TopicId, TopicPartition};

use super::convert;
use crate::node::Broker;
use crate::router::Route;

const DEADLINE: Duration = Duration::from_secs(2);

/// The facts of those partitions that this broker leads.
pub fn led_here<E: Env>(
    broker: &Broker<E>,
    request: &DescribePartitionsRequest,
) -> DescribePartitionsResponse {
    let facts = |partition: &u32| {
        let tp = TopicPartition::new(TopicId(request.topic_id), PartitionId(*partition));
        let Route::Here { shard, .. } = broker.router.route(tp) else {
            return None;
        };
        let view = shard.views.get(tp)?;
        if !view.is_serving() {
            return None;
        }
        Some(PartitionFacts {
            partition: *partition,
            log_start_offset: view.log_start().0,
            high_watermark: view.high_watermark().0,
            leader_epoch: view.leader_epoch().0,
            size_bytes: view.size_bytes(),
            config_version: view.config().version,
        })
    };
    DescribePartitionsResponse {
        partitions: request.partitions.iter().filter_map(facts).collect(),
    }
}

/// The facts of all partitions of a topic, asked of each leader once.
pub async fn topic<E: Env>(broker: &Arc<Broker<E>>, topic: &Topic) -> Vec<PartitionStatus> {
    let leaders = broker.cluster.leaders();
    let mut by_leader: BTreeMap<Option<NodeId>, Vec<u32>> = BTreeMap::new();
    let shown = topic.partition_count() as usize;
    for (partition, shard) in (0..).zip(topic.shards()).take(shown) {
        let leader = leaders.get(&shard).and_then(|info| info.node);
        by_leader.entry(leader).or_default().push(partition);
    }
    let asked = by_leader
        .into_iter()
        .map(|(leader, partitions)| async move {
            let request = DescribePartitionsRequest {
                topic_id: topic.id().0,
                partitions,
            };
            let wanted = request.partitions.clone();
            let facts = ask(broker, leader, request).await;
            statuses(wanted, facts)
        });
    let mut all: Vec<_> = futures_util::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .collect();
    all.sort_unstable_by_key(|status| status.partition);
    all
}

/// How many partitions of a topic have a leader that is not known to follow its present settings.
pub async fn behind_settings<E: Env>(broker: &Arc<Broker<E>>, topic: &Topic) -> u32 {
    let leaders = broker.cluster.leaders();
    let mut by_leader: BTreeMap<Option<NodeId>, Vec<u32>> = BTreeMap::new();
    for (partition, shard) in (0..).zip(topic.shards()) {
        let leader = leaders.get(&shard).and_then(|info| info.node);
        by_leader.entry(leader).or_default().push(partition);
    }
    let asked = by_leader
        .into_iter()
        .map(|(leader, partitions)| async move {
            let all = partitions.len();
            let request = DescribePartitionsRequest {
                topic_id: topic.id().0,
                partitions,
            };
            let facts = ask(broker, leader, request).await.unwrap_or_default();
            let follows = |fact: &&PartitionFacts| fact.config_version >= topic.config_version();
            all - facts.iter().filter(follows).count()
        });
    let behind = futures_util::future::join_all(asked).await;
    u32::try_from(behind.into_iter().sum::<usize>()).unwrap_or(u32::MAX)
}

/// The facts of one partition.
pub async fn one<E: Env>(
    broker: &Arc<Broker<E>>,
    leader: Option<NodeId>,
    tp: TopicPartition,
) -> Result<PartitionFacts, String> {
    let request = DescribePartitionsRequest {
        topic_id: tp.topic.0,
        partitions: vec![tp.partition.0],
    };
    let facts = ask(broker, leader, request).await?;
    facts
        .into_iter()
        .next()
        .ok_or_else(|| "its leader just changed".to_owned())
}

async fn ask<E: Env>(
    broker: &Arc<Broker<E>>,
    leader: Option<NodeId>,
    request: DescribePartitionsRequest,
) -> Result<Vec<PartitionFacts>, String> {
    let leader = leader.ok_or("no leader right now")?;
    if leader == broker.node_id {
        return Ok(led_here(broker, &request).partitions);
    }
    let mut client = broker.peers.client(leader)?;
    let call = client.describe_partitions(request);
    let response = broker.peers.answer(leader, DEADLINE, call).await?;
    Ok(response.partitions)
}

fn statuses(wanted: Vec<u32>, facts: Result<Vec<PartitionFacts>, String>) -> Vec<PartitionStatus> {
    let (facts, reason) = match facts {
        Ok(facts) => (facts, "its leader just changed".to_owned()),
        Err(reason) => (Vec::new(), reason),
    };
    let mut known: BTreeMap<u32, PartitionFacts> = facts
        .into_iter()
        .map(|fact| (fact.partition, fact))
        .collect();
    let status = |partition: u32| match known.remove(&partition) {
        Some(fact) => PartitionStatus {
            partition,
            error: None,
            log_start_offset: fact.log_start_offset,
            high_watermark: fact.high_watermark,
            leader_epoch: fact.leader_epoch,
            size_bytes: fact.size_bytes,
        },
        None => PartitionStatus {
            partition,
            error: Some(convert::error(
                ErrorCode::LeaderUnavailable,
                reason.clone(),
                None,
            )),
            ..PartitionStatus::default()
        },
    };
    wanted.into_iter().map(status).collect()
}
