//! Committed offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::TopicPartition;
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{GroupCommit, GroupOffset};
use highwater_proto::v1::{
    CommitOffsetsRequest, CommitOffsetsResponse, CommitResult, CommittedOffset, Error,
    FetchOffsetsRequest, FetchOffsetsResponse, OffsetCommit,
};
use highwater_shard::groups::{Committed, MAX_OFFSETS};

use super::route::{self, coordinated, current, invalid, propose, refused};
use crate::node::Broker;

/// # Errors
/// A partition that stands there twice, or too many of them.
pub fn to_commands(offsets: Vec<OffsetCommit>) -> Result<Vec<GroupOffset>, Error> {
    if offsets.len() > MAX_OFFSETS {
        return Err(invalid(format!(
            "a commit has at most {MAX_OFFSETS} partitions"
        )));
    }
    let mut seen = BTreeSet::new();
    if !offsets
        .iter()
        .all(|o| seen.insert((o.topic_id, o.partition)))
    {
        return Err(invalid("a partition stands in the commit twice"));
    }
    let offset = |offset: OffsetCommit| GroupOffset {
        topic: offset.topic_id,
        partition: offset.partition,
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata,
        ..GroupOffset::default()
    };
    Ok(offsets.into_iter().map(offset).collect())
}

/// Commits for a member, or from outside.
pub async fn commit<E: Env>(
    broker: &Arc<Broker<E>>,
    request: CommitOffsetsRequest,
) -> Result<CommitOffsetsResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    if !request.member_id.is_empty() {
        shard.coordinator.heard(&request.group, &request.member_id);
    }
    let action = Action::Commit(GroupCommit {
        member_id: request.member_id,
        instance_id: request.instance_id,
        epoch: request.epoch,
        offsets: to_commands(request.offsets)?,
        allow_rewind: request.allow_rewind,
    });
    let timeout = route::timeout(request.timeout_ms);
    let outcome = propose(broker, &shard, (&request.group, action), timeout).await?;
    let results = outcome.items.into_iter().map(|item| CommitResult {
        error: item.refusal.map(|refusal| refused(&request.group, refusal)),
        committed: item.value.unwrap_or_default(),
    });
    Ok(CommitOffsetsResponse {
        error: None,
        results: results.collect(),
    })
}

/// What is committed.
pub async fn fetch<E: Env>(
    broker: &Arc<Broker<E>>,
    request: FetchOffsetsRequest,
) -> Result<FetchOffsetsResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let group = current(broker, &shard, &request.group).await?;
    let offset = |(tp, committed): (&TopicPartition, &Committed)| CommittedOffset {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
        offset: committed.offset.0,
        leader_epoch: committed.leader_epoch.0,
        metadata: committed.metadata.to_string(),
        epoch: committed.epoch,
        commit_time_ms: committed.time.0,
    };
    let offsets = if request.partitions.is_empty() {
        group.offsets.iter().map(offset).collect()
    } else {
        let wanted: BTreeSet<TopicPartition> =
            request.partitions.iter().map(route::place).collect();
        let found = wanted
            .iter()
            .filter_map(|tp| group.offsets.get_key_value(tp));
        found.map(offset).collect()
    };
    Ok(FetchOffsetsResponse {
        error: None,
        offsets,
    })
}
