//! Offsets by rule: start, end or time. Asked of the leader, answered only after it has proved
//! that it still leads.

use highwater_env::Env;
use highwater_proto::v1::offset_query::At;
use highwater_proto::v1::{Error, ErrorCode, OffsetQuery, OffsetResult};
use highwater_proto::{PartitionId, TimestampMs, TopicId, TopicPartition};

use super::convert;
use crate::node::Broker;
use crate::router::Route;

/// Answers one query.
pub async fn answer<E: Env>(broker: &Broker<E>, query: OffsetQuery) -> OffsetResult {
    match find(broker, query).await {
        Ok(found) => found,
        Err(error) => OffsetResult {
            error: Some(error),
            timestamp_ms: -1,
            ..Default::default()
        },
    }
}

async fn find<E: Env>(broker: &Broker<E>, query: OffsetQuery) -> Result<OffsetResult, Error> {
    let tp = TopicPartition::new(TopicId(query.topic_id), PartitionId(query.partition));
    let route = broker.router.route(tp);
    let Route::Here { shard, .. } = route else {
        return Err(convert::route_error(&broker.router, tp, &route));
    };
    let at = query.at.ok_or_else(|| {
        convert::error(
            ErrorCode::InvalidRequest,
            "say earliest, latest or a timestamp",
            None,
        )
    })?;
    shard
        .group
        .read_barrier()
        .await
        .map_err(|error| convert::barrier_error(tp, &error))?;
    let view = shard
        .views
        .get(tp)
        .ok_or_else(|| convert::not_here_yet(tp))?;
    // It may be written to elsewhere already: this end is the end no more.
    if !view.is_serving() {
        return Err(convert::moving(tp));
    }
    let mut found = OffsetResult {
        timestamp_ms: -1,
        leader_epoch: view.leader_epoch().0,
        ..OffsetResult::default()
    };
    match at {
        At::Earliest(_) => found.offset = view.log_start().0,
        At::Latest(_) => found.offset = view.high_watermark().0,
        At::TimestampMs(wanted) => {
            let end = view.high_watermark();
            let record = view
                .find_by_timestamp(TimestampMs(wanted), end, broker.env.workers())
                .await
                .map_err(|error| convert::read_error(tp, &error, view.log_start()))?;
            match record {
                Some((offset, timestamp)) => {
                    found.offset = offset.0;
                    found.timestamp_ms = timestamp.0;
                }
                None => found.offset = end.0,
            }
        }
    }
    Ok(found)
}
