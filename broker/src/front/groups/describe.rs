//! One group in full: members, partitions, lag, and what stands still.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::Image;
use highwater_proto::TopicPartition;
use highwater_proto::v1::{
    AssignmentStrategy, DescribeGroupRequest, DescribeGroupResponse, Error, GroupMember,
    GroupPartition,
};
use highwater_shard::groups::{Group, Holding, Member};

use super::list;
use super::route::{coordinated, current};
use crate::groups::{GroupLag, lag, subscribed_topics};
use crate::node::Broker;
use crate::runtime::Shard;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Describes a group.
pub async fn describe<E: Env>(
    broker: &Arc<Broker<E>>,
    request: DescribeGroupRequest,
) -> Result<DescribeGroupResponse, Error> {
    let name: Arc<str> = request.group.as_str().into();
    let shard = coordinated(broker, &name)?;
    let group = current(broker, &shard, &name).await?;
    let lag = if request.without_lag {
        shard.coordinator.lag(&name).unwrap_or_default()
    } else {
        lag::of_group(broker, &shard, (&name, &group)).await
    };
    let stalled = lag.stalled_members(&group);
    let members = group.members.iter().map(|(id, member)| {
        let silent = shard.coordinator.silent_for(&name, id);
        GroupMember {
            last_heartbeat_ms: millis(silent.unwrap_or_default()),
            stalled_ms: stalled.get(id).copied().map_or(0, millis),
            ..describe_member(id, member)
        }
    });
    let members = members.collect();
    let partitions = partitions(broker, &group, &lag, request.without_lag);
    let summary = list::summary(list::listed(&name, shard.id, &group), broker.node_id);
    let seconds = lag.partitions.values().filter_map(|seen| seen.lag_seconds);
    Ok(DescribeGroupResponse {
        error: None,
        summary: Some(summary),
        generation: group.generation,
        members,
        partitions,
        parked_keys: count(group.parked.len()),
        parked_key_bytes: group.parked.bytes() as u64,
        lag: lag.partitions.values().filter_map(|seen| seen.lag).sum(),
        lag_seconds: seconds.fold(0.0, f64::max),
        problems: problems(&shard, &group, &lag),
    })
}

fn problems<D: highwater_env::Disk>(
    shard: &Shard<D>,
    group: &Group,
    lag: &GroupLag,
) -> Vec<String> {
    let mut problems = lag.problems(group);
    let unknown = lag
        .partitions
        .values()
        .filter(|seen| seen.log_end.is_none());
    let unknown = unknown.count();
    if unknown > 0 {
        problems.push(format!(
            "the leaders of {unknown} partitions could not be asked; their lag is not known"
        ));
    }
    if !shard.coordinator.is_ready() {
        problems.push("this broker is just becoming, or has ceased to be, its coordinator".into());
    }
    problems
}

fn describe_member(id: &str, member: &Member) -> GroupMember {
    let spec = &member.spec;
    let strategy = i32::try_from(spec.strategy).unwrap_or_default();
    let revoking = member.revoking().count();
    GroupMember {
        member_id: id.to_owned(),
        instance_id: spec.instance_id.clone(),
        client_id: spec.client_id.clone(),
        host: spec.host.clone(),
        rack: spec.rack.clone(),
        topics: spec.topics.clone(),
        pattern: spec.pattern.clone(),
        strategy: AssignmentStrategy::try_from(strategy)
            .unwrap_or_default()
            .into(),
        epoch: member.epoch,
        assigned: count(member.held.len() - revoking),
        revoking: count(revoking),
        session_timeout_ms: spec.session_timeout_ms,
        waiting_for_acknowledgement: revoking > 0,
        ..GroupMember::default()
    }
}

/// Everything that the group holds, should hold, committed or is subscribed to.
fn all_partitions(image: &Image, group: &Group, lag: &GroupLag) -> BTreeSet<TopicPartition> {
    let mut all: BTreeSet<TopicPartition> = lag.partitions.keys().copied().collect();
    all.extend(group.offsets.keys());
    for topic in subscribed_topics(image, group).values() {
        let numbers = (0..topic.partition_count()).map(highwater_proto::PartitionId);
        all.extend(numbers.map(|number| TopicPartition::new(topic.id(), number)));
    }
    all
}

fn partitions<E: Env>(
    broker: &Broker<E>,
    group: &Group,
    lag: &GroupLag,
    without_lag: bool,
) -> Vec<GroupPartition> {
    let image = broker.cluster.image();
    let holders = group.holders();
    let describe = |tp: TopicPartition| {
        let topic = image.topic(tp.topic);
        let committed = group.offsets.get(&tp);
        let mut partition = GroupPartition {
            topic_id: tp.topic.0,
            topic: topic.map(|t| t.name().to_owned()).unwrap_or_default(),
            partition: tp.partition.0,
            committed: committed.map(|c| c.offset.0),
            metadata: committed
                .map(|c| c.metadata.to_string())
                .unwrap_or_default(),
            unowned_ms: lag.unowned.get(&tp).copied().map_or(0, millis),
            stalled_ms: lag.stalled.get(&tp).copied().map_or(0, millis),
            ..GroupPartition::default()
        };
        if let Some(seen) = lag.partitions.get(&tp).filter(|_| !without_lag) {
            partition.log_start_offset = seen.log_start.0;
            partition.log_end_offset = seen.log_end.map(|end| end.0);
            partition.lag = seen.lag;
            partition.lag_seconds = seen.lag_seconds;
        }
        if let Some((id, holding)) = holders.get(&tp) {
            own(&mut partition, group, id, *holding);
        }
        partition
    };
    let all = all_partitions(&image, group, lag).into_iter();
    let mut all: Vec<GroupPartition> = all.map(describe).collect();
    all.sort_by(|a, b| {
        (&a.topic, a.topic_id, a.partition).cmp(&(&b.topic, b.topic_id, b.partition))
    });
    all
}

fn own(partition: &mut GroupPartition, group: &Group, id: &Arc<str>, holding: Holding) {
    id.to_string().clone_into(&mut partition.member_id);
    partition.revoking = holding.revoking != 0;
    if let Some(member) = group.members.get(id) {
        partition.client_id.clone_from(&member.spec.client_id);
        partition.host.clone_from(&member.spec.host);
    }
}
