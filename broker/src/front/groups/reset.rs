//! Resets and copies: where a group reads on, moved for all its partitions at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{Image, Topic};
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{
    GroupCopy, GroupOffset, GroupOffsetsRequest, GroupOffsetsResponse, GroupReset,
    PartitionPosition, PositionQuery,
};
use highwater_proto::v1::reset_offsets_request::To;
use highwater_proto::v1::{
    CopyGroupRequest, CopyGroupResponse, Error, ErrorCode, OffsetChange, ResetOffsetsRequest,
    ResetOffsetsResponse,
};
use highwater_proto::{PartitionId, ShardId, TimestampMs, TopicId, TopicPartition};
use highwater_shard::groups::{Group, GroupRefusal};

use super::route::{self, check_name, coordinated, current, invalid, propose, refused};
use crate::front::convert;
use crate::groups::{lag, subscribed_topics};
use crate::node::Broker;

const DEADLINE: Duration = Duration::from_secs(5);

/// Moves committed offsets, or says what would be moved.
pub async fn reset<E: Env>(
    broker: &Arc<Broker<E>>,
    request: ResetOffsetsRequest,
) -> Result<ResetOffsetsResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let group = current(broker, &shard, &request.group).await?;
    if !group.members.is_empty() && !request.force {
        return Err(refused(&request.group, GroupRefusal::NotEmpty));
    }
    let to = request.to.clone().ok_or_else(|| {
        invalid("say where to: earliest, latest, an offset, a shift, a time, a group")
    })?;
    let image = broker.cluster.image();
    let partitions = chosen(&image, &group, &request)?;
    let other = match &to {
        To::GroupPosition(name) => Some(offsets_of(broker, name).await?),
        _ => None,
    };
    let plan = plan(broker, &group, partitions, (&to, other.as_ref())).await?;
    let executed = request.execute && !plan.is_empty();
    if executed {
        let offset = |(tp, change): (&TopicPartition, &Change)| GroupOffset {
            topic: tp.topic.0,
            partition: tp.partition.0,
            offset: change.to,
            ..GroupOffset::default()
        };
        let action = Action::Reset(GroupReset {
            offsets: plan.iter().map(offset).collect(),
            force: request.force,
        });
        let timeout = route::timeout(request.timeout_ms);
        propose(broker, &shard, (&request.group, action), timeout).await?;
    }
    let change = |(tp, change): (TopicPartition, Change)| OffsetChange {
        topic_id: tp.topic.0,
        topic: image
            .topic(tp.topic)
            .map(|topic| topic.name().to_owned())
            .unwrap_or_default(),
        partition: tp.partition.0,
        from: change.from,
        to: change.to,
        clamped: change.clamped,
    };
    let mut changes: Vec<OffsetChange> = plan.into_iter().map(change).collect();
    changes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(ResetOffsetsResponse {
        error: None,
        changes,
        executed,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    from: Option<u64>,
    to: u64,
    clamped: bool,
}

/// The partitions that a reset is about.
fn chosen(
    image: &Image,
    group: &Group,
    request: &ResetOffsetsRequest,
) -> Result<BTreeSet<TopicPartition>, Error> {
    let topics: BTreeMap<TopicId, Arc<Topic>> = if request.topics.is_empty() {
        let committed = group.offsets.keys().filter_map(|tp| image.topic(tp.topic));
        let committed = committed.map(|topic| (topic.id(), Arc::clone(topic)));
        let mut topics: BTreeMap<_, _> = committed.collect();
        topics.extend(subscribed_topics(image, group));
        topics
    } else {
        let named = request.topics.iter().map(|name| {
            let topic = image.topic_by_name(name).ok_or_else(|| {
                let text = format!("no topic is named '{name}'");
                convert::error(ErrorCode::UnknownTopic, text, None)
            })?;
            Ok((topic.id(), Arc::clone(topic)))
        });
        named.collect::<Result<_, Error>>()?
    };
    let mut partitions = BTreeSet::new();
    for topic in topics.values() {
        for number in (0..topic.partition_count()).map(PartitionId) {
            if request.partitions.is_empty() || request.partitions.contains(&number.0) {
                partitions.insert(TopicPartition::new(topic.id(), number));
            }
        }
    }
    Ok(partitions)
}

/// Where each partition would go. All of them, or none: a reset that leaves some out because a
/// leader was away would be torn.
async fn plan<E: Env>(
    broker: &Arc<Broker<E>>,
    group: &Group,
    partitions: BTreeSet<TopicPartition>,
    (to, other): (&To, Option<&BTreeMap<TopicPartition, u64>>),
) -> Result<BTreeMap<TopicPartition, Change>, Error> {
    let time = match to {
        To::TimestampMs(time) => Some(TimestampMs(*time)),
        _ => None,
    };
    let queries: Vec<PositionQuery> = partitions
        .iter()
        .map(|tp| lag::query(*tp, None, time))
        .collect();
    let positions = lag::ask(broker, queries).await;
    let mut plan = BTreeMap::new();
    for (tp, position) in partitions.into_iter().zip(positions) {
        let Some(position) = position else {
            let text = format!("the leader of {tp} could not be asked; nothing was changed");
            return Err(convert::error(ErrorCode::LeaderUnavailable, text, None));
        };
        let from = group.offsets.get(&tp).map(|c| c.offset.0);
        let theirs = other.and_then(|other| other.get(&tp).copied());
        if time.is_some() && position.found_offset.is_none() {
            let text = format!("{tp} could not be searched by time; nothing was changed");
            return Err(convert::error(ErrorCode::Damaged, text, None));
        }
        if let Some(change) = change(to, from, theirs, &position) {
            plan.insert(tp, change);
        }
    }
    Ok(plan)
}

fn change(
    to: &To,
    from: Option<u64>,
    theirs: Option<u64>,
    position: &PartitionPosition,
) -> Option<Change> {
    let (start, end) = (position.log_start_offset, position.high_watermark);
    // Wide enough for every sum of an offset and a shift.
    let wanted: i128 = match to {
        To::Earliest(_) => start.into(),
        To::Latest(_) => end.into(),
        To::Offset(offset) => (*offset).into(),
        To::Shift(by) => i128::from(from?) + i128::from(*by),
        To::TimestampMs(_) => position.found_offset?.into(),
        To::GroupPosition(_) => theirs?.into(),
    };
    let nearest = wanted.clamp(start.into(), end.max(start).into());
    Some(Change {
        from,
        to: u64::try_from(nearest).unwrap_or(start),
        clamped: nearest != wanted,
    })
}

/// Makes a new group with the offsets of another.
pub async fn copy<E: Env>(
    broker: &Arc<Broker<E>>,
    request: CopyGroupRequest,
) -> Result<CopyGroupResponse, Error> {
    let shard = coordinated(broker, &request.to)?;
    if request.from == request.to {
        return Err(refused(&request.to, GroupRefusal::Exists));
    }
    let offsets = committed(broker, &request.from).await?;
    let action = Action::Copy(GroupCopy { offsets });
    let timeout = route::timeout(request.timeout_ms);
    let outcome = propose(broker, &shard, (&request.to, action), timeout).await?;
    Ok(CopyGroupResponse {
        error: None,
        offsets: u32::try_from(outcome.count).unwrap_or(u32::MAX),
    })
}

async fn offsets_of<E: Env>(
    broker: &Arc<Broker<E>>,
    group: &str,
) -> Result<BTreeMap<TopicPartition, u64>, Error> {
    let offsets = committed(broker, group).await?;
    let place = |o: &GroupOffset| TopicPartition::new(TopicId(o.topic), PartitionId(o.partition));
    Ok(offsets.iter().map(|o| (place(o), o.offset)).collect())
}

/// What any group of the cluster has committed, asked of its coordinator.
async fn committed<E: Env>(
    broker: &Arc<Broker<E>>,
    group: &str,
) -> Result<Vec<GroupOffset>, Error> {
    check_name(group)?;
    let away = |reason: &str| {
        let text = format!("group '{group}' could not be asked: {reason}; nothing was changed");
        convert::error(ErrorCode::LeaderUnavailable, text, None)
    };
    let shard = broker.cluster.image().group_shard(group);
    let shard = shard.ok_or_else(|| away("the cluster is not formed yet"))?;
    let leader = broker.cluster.leader(shard).and_then(|info| info.node);
    let leader = leader.ok_or_else(|| away("it has no coordinator right now"))?;
    let request = GroupOffsetsRequest {
        group: group.to_owned(),
        shard: shard.0,
    };
    let answer = if leader == broker.node_id {
        offsets_here(broker, &request).await
    } else {
        let mut client = broker
            .peers
            .client(leader)
            .map_err(|reason| away(&reason))?;
        match tokio::time::timeout(DEADLINE, client.group_offsets(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(away(status.message())),
            Err(_elapsed) => return Err(away("no answer in time")),
        }
    };
    if answer.unknown_group {
        return Err(refused(group, GroupRefusal::UnknownGroup));
    }
    if !answer.error.is_empty() {
        return Err(away(&answer.error));
    }
    Ok(answer.offsets)
}

/// Answers another broker for a group that this one coordinates.
pub async fn offsets_here<E: Env>(
    broker: &Broker<E>,
    request: &GroupOffsetsRequest,
) -> GroupOffsetsResponse {
    let failed = |error: String| GroupOffsetsResponse {
        error,
        ..GroupOffsetsResponse::default()
    };
    let Some(shard) = broker.shards.get(ShardId(request.shard)) else {
        return failed("its shard is not hosted there".to_owned());
    };
    if let Err(error) = shard.group.read_barrier().await {
        return failed(error.to_string());
    }
    let Some(group) = shard.groups.state(&request.group) else {
        return GroupOffsetsResponse {
            unknown_group: true,
            ..GroupOffsetsResponse::default()
        };
    };
    let offsets = group.offsets.iter().map(|(tp, committed)| GroupOffset {
        topic: tp.topic.0,
        partition: tp.partition.0,
        offset: committed.offset.0,
        leader_epoch: committed.leader_epoch.0,
        metadata: committed.metadata.to_string(),
        epoch: committed.epoch,
        time_ms: committed.time.0,
    });
    GroupOffsetsResponse {
        offsets: offsets.collect(),
        ..GroupOffsetsResponse::default()
    }
}

#[cfg(test)]
#[path = "reset_tests.rs"]
mod tests;
