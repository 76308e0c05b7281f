//! How far groups are behind: where logs begin and end, asked of the leaders of the partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_proto::batch::BatchHeader;
use highwater_proto::internal::{
    PartitionPosition, PartitionPositionsRequest, PartitionPositionsResponse, PositionQuery,
};
use highwater_proto::{NodeId, Offset, PartitionId, TimestampMs, TopicId, TopicPartition};
use highwater_shard::groups::Group;
use tokio::time::Instant;

use super::survey::{GroupLag, PartitionLag, lag_of, universe};
use crate::node::Broker;
use crate::router::Route;
use crate::runtime::view::PartitionView;

/// Between two collections for the metrics.
const INTERVAL: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(2);
/// Partitions asked about in one call.
const CHUNK: usize = 2_000;
const AT_ONCE: usize = 16;

/// Runs until the broker stops: keeps what metrics show, and notes what stands still.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut pause = INTERVAL;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = broker.stop.cancelled() => return,
        }
        let begin = Instant::now();
        for shard in broker.shards.all() {
            if !shard.group.is_leader() || !shard.coordinator.is_ready() {
                continue;
            }
            let groups = shard.groups.all();
            let names: BTreeSet<Arc<str>> = groups.iter().map(|(name, _)| name.clone()).collect();
            shard.coordinator.survey(|survey| survey.retain(&names));
            let seen = collect(&broker, groups.iter().map(|(_, group)| &**group)).await;
            let now = Instant::now();
            for ((name, group), seen) in groups.iter().zip(seen) {
                let group = (name, &**group);
                shard
                    .coordinator
                    .survey(|survey| drop(survey.observe(group, seen, now)));
            }
        }
        // With very many groups it takes a tenth of the time at most.
        pause = INTERVAL.max(begin.elapsed() * 10);
    }
}

/// One group, now.
pub async fn of_group<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &crate::runtime::Shard<E::Disk>,
    (name, group): (&Arc<str>, &Group),
) -> Arc<GroupLag> {
    let seen = collect(broker, std::iter::once(group)).await;
    let seen = seen.into_iter().next().unwrap_or_default();
    let now = Instant::now();
    shard
        .coordinator
        .survey(|survey| survey.observe((name, group), seen, now))
}

/// Lag of all partitions of some groups, in their order.
async fn collect<E: Env>(
    broker: &Arc<Broker<E>>,
    groups: impl Iterator<Item = &Group>,
) -> Vec<BTreeMap<TopicPartition, PartitionLag>> {
    let groups: Vec<(&Group, BTreeSet<TopicPartition>)> =
        groups.map(|group| (group, universe(group))).collect();
    let queries = groups.iter().flat_map(|(group, all)| {
        all.iter().map(|tp| {
            let committed = group.offsets.get(tp).map(|c| c.offset.0);
            query(*tp, committed, None)
        })
    });
    let mut queries: Vec<PositionQuery> = queries.collect();
    let key = |query: &PositionQuery| (query.topic_id, query.partition, query.offset);
    queries.sort_unstable_by_key(key);
    queries.dedup_by_key(|query| key(query));
    let answers = ask(broker, queries.clone()).await;
    let known: BTreeMap<_, _> = queries.iter().map(key).zip(answers).collect();
    let now = broker.append_time_ms();
    let lag = |group: &Group, tp: &TopicPartition| {
        let committed = group.offsets.get(tp).map(|c| c.offset);
        let at = (tp.topic.0, tp.partition.0, committed.map(|o| o.0));
        let Some(Some(position)) = known.get(&at) else {
            return PartitionLag::default();
        };
        let (start, end) = (position.log_start_offset, position.high_watermark);
        let lag = lag_of(committed, Offset(start), Offset(end));
        let age = |time: i64| (now.saturating_sub(time).max(0)) as f64 / 1000.0;
        PartitionLag {
            log_start: Offset(start),
            log_end: Some(Offset(end)),
            lag,
            lag_seconds: match lag {
                Some(0) => Some(0.0),
                Some(_) => position.timestamp_ms.map(age),
                None => None,
            },
        }
    };
    groups
        .iter()
        .map(|(group, all)| all.iter().map(|tp| (*tp, lag(group, tp))).collect())
        .collect()
}

/// A question about a partition.
#[must_use]
pub fn query(
    tp: TopicPartition,
    offset: Option<u64>,
    timestamp: Option<TimestampMs>,
) -> PositionQuery {
    PositionQuery {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
        offset,
        timestamp_ms: timestamp.map(|time| time.0),
    }
}

fn place(query: &PositionQuery) -> TopicPartition {
    TopicPartition::new(TopicId(query.topic_id), PartitionId(query.partition))
}

/// Asks the leaders; one answer for each query, in their order. `None`: nobody could say.
pub async fn ask<E: Env>(
    broker: &Arc<Broker<E>>,
    queries: Vec<PositionQuery>,
) -> Vec<Option<PartitionPosition>> {
    let image = broker.cluster.image();
    let leaders = broker.cluster.leaders();
    let mut by_leader: BTreeMap<NodeId, Vec<(usize, PositionQuery)>> = BTreeMap::new();
    for (at, query) in queries.iter().enumerate() {
        let tp = place(query);
        let shard = image.topic(tp.topic).and_then(|t| t.shard_of(tp.partition));
        let leader = shard.and_then(|shard| leaders.get(&shard)?.node);
        if let Some(leader) = leader {
            by_leader.entry(leader).or_default().push((at, *query));
        }
    }
    let chunks = by_leader.into_iter().flat_map(|(leader, queries)| {
        let chunks = queries.chunks(CHUNK).map(<[_]>::to_vec);
        let chunks: Vec<Vec<(usize, PositionQuery)>> = chunks.collect();
        chunks.into_iter().map(move |chunk| (leader, chunk))
    });
    let chunks: Vec<_> = chunks.collect();
    let mut answers = vec![None; queries.len()];
    let mut asked = futures_util::stream::iter(chunks)
        .map(|(leader, chunk)| ask_one(broker, leader, chunk))
        .buffer_unordered(AT_ONCE);
    while let Some(found) = asked.next().await {
        for (at, position) in found {
            if let Some(answer) = answers.get_mut(at) {
                *answer = position;
            }
        }
    }
    answers
}

async fn ask_one<E: Env>(
    broker: &Arc<Broker<E>>,
    leader: NodeId,
    chunk: Vec<(usize, PositionQuery)>,
) -> Vec<(usize, Option<PartitionPosition>)> {
    let (places, queries): (Vec<usize>, Vec<PositionQuery>) = chunk.into_iter().unzip();
    let request = PartitionPositionsRequest {
        partitions: queries.clone(),
    };
    let answered = if leader == broker.node_id {
        positions_here(broker, request).await
    } else {
        match remote(broker, leader, request).await {
            Ok(answered) => answered,
            Err(reason) => {
                tracing::debug!(leader = leader.0, reason, "positions not known");
                return Vec::new();
            }
        }
    };
    // Partitions that are not led there (any more) are left out of the answer.
    let mut answered = answered.partitions.into_iter().peekable();
    let matched = places.into_iter().zip(queries).map(|(at, query)| {
        let same =
            |p: &PartitionPosition| (p.topic_id, p.partition) == (query.topic_id, query.partition);
        (at, answered.next_if(same))
    });
    matched.collect()
}

async fn remote<E: Env>(
    broker: &Arc<Broker<E>>,
    leader: NodeId,
    request: PartitionPositionsRequest,
) -> Result<PartitionPositionsResponse, String> {
    let mut client = broker.peers.client(leader)?;
    match tokio::time::timeout(DEADLINE, client.partition_positions(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_elapsed) => Err("no answer in time".to_owned()),
    }
}

/// Answers for those partitions that this broker leads, in the order of the questions.
pub async fn positions_here<E: Env>(
    broker: &Arc<Broker<E>>,
    request: PartitionPositionsRequest,
) -> PartitionPositionsResponse {
    let answers = request.partitions.into_iter().map(|query| async move {
        let Route::Here { shard, .. } = broker.router.route(place(&query)) else {
            return None;
        };
        let view = shard.views.get(place(&query))?;
        // Where it goes to it may be longer already.
        if !view.is_serving() {
            return None;
        }
        Some(position(broker, &view, query).await)
    });
    let answers = futures_util::stream::iter(answers)
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    PartitionPositionsResponse {
        partitions: answers,
    }
}

async fn position<E: Env>(
    broker: &Broker<E>,
    view: &Arc<PartitionView<E::Disk>>,
    query: PositionQuery,
) -> PartitionPosition {
    let (start, end) = (view.log_start(), view.high_watermark());
    let mut found = PartitionPosition {
        topic_id: query.topic_id,
        partition: query.partition,
        log_start_offset: start.0,
        high_watermark: end.0,
        ..PartitionPosition::default()
    };
    let workers = broker.env.workers();
    if let Some(offset) = query.offset.map(|offset| Offset(offset).max(start))
        && offset < end
    {
        let read = view.read((offset, end), 1, workers).await;
        found.timestamp_ms = read.ok().and_then(|read| first_time(&read.pieces.concat()));
    }
    if let Some(time) = query.timestamp_ms.map(TimestampMs) {
        // A range that cannot be read leaves the answer open rather than wrong.
        if let Ok(record) = view.find_by_timestamp(time, end, workers).await {
            found.found_offset = Some(record.map_or(end, |(offset, _)| offset).0);
        }
    }
    found
}

/// The time of the first record of a batch: records of one batch are milliseconds apart.
fn first_time(batch: &[u8]) -> Option<i64> {
    let header = BatchHeader::parse(batch).ok()?;
    Some(if header.attributes.is_log_append_time() {
        header.max_timestamp.0
    } else {
        header.base_timestamp.0
    })
}
