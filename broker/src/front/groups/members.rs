//! Members: join, heartbeat, leave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{GroupAcknowledge, GroupJoin, GroupMemberSpec, GroupRemove};
use highwater_proto::v1::{
    AssignedPartition, AssignedTopic, Assignment, AssignmentStrategy, Error, ErrorCode,
    GroupHeartbeatRequest, GroupHeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, PartitionRef,
};
use highwater_shard::groups::assignor::Strategy;
use highwater_shard::groups::{Group, GroupRefusal, Member};
use tokio::time::Instant;

use super::route::{self, coordinated, current, invalid, propose, refused};
use crate::front::convert;
use crate::groups::compile_pattern;
use crate::node::Broker;
use crate::runtime::Shard;

const DEFAULT_SESSION_MS: u32 = 45_000;
const DEFAULT_REBALANCE_MS: u32 = 60_000;
const SESSION_MS: std::ops::RangeInclusive<u32> = 1_000..=600_000;
const REBALANCE_MS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;
/// Heartbeats come at least this often, however long the session is.
const SLOWEST_HEARTBEAT_MS: u32 = 5_000;
const MOST_TOPICS: usize = 1_000;
const LONGEST_PATTERN: usize = 1_024;
const LONGEST_TEXT: usize = 128;
const SHORTEST_MEMBER_ID: usize = 16;

/// Makes a member, or changes one.
pub async fn join<E: Env>(
    broker: &Arc<Broker<E>>,
    request: JoinGroupRequest,
    host: String,
) -> Result<JoinGroupResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let (group, id) = (request.group.clone(), request.member_id.clone());
    let spec = specification(request, host)?;
    let heartbeat_interval_ms = heartbeat_interval(spec.session_timeout_ms);
    let join = GroupJoin {
        member_id: id.clone(),
        spec: Some(spec),
    };
    let action = Action::Join(join);
    propose(broker, &shard, (&group, action), route::timeout(0)).await?;
    // Gone again already: expelled, or replaced. Its first heartbeat will say so.
    let state = shard.groups.state(&group).unwrap_or_default();
    let assignment = state.members.get(id.as_str());
    let assignment = assignment.and_then(|member| assignment_of(broker, &state, member));
    shard.coordinator.heard(&group, &id);
    Ok(JoinGroupResponse {
        error: None,
        assignment: Some(assignment.unwrap_or_default()),
        heartbeat_interval_ms,
        generation: state.generation,
    })
}

fn heartbeat_interval(session_timeout_ms: u32) -> u32 {
    (session_timeout_ms / 3).min(SLOWEST_HEARTBEAT_MS)
}

fn specification(request: JoinGroupRequest, host: String) -> Result<GroupMemberSpec, Error> {
    let id = &request.member_id;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(SHORTEST_MEMBER_ID..=LONGEST_TEXT).contains(&id.len()) || !id.chars().all(plain) {
        let text = "a member id is random, of 16 to 128 letters, digits, '.', '_' and '-'";
        return Err(invalid(text));
    }
    for (what, text) in [
        ("instance_id", &request.instance_id),
        ("client_id", &request.client_id),
        ("rack", &request.rack),
    ] {
        if text.len() > LONGEST_TEXT || text.chars().any(char::is_control) {
            let text = format!("{what} has at most {LONGEST_TEXT} bytes, none a control character");
            return Err(invalid(text));
        }
    }
    check_subscription(&request)?;
    if AssignmentStrategy::try_from(request.strategy).is_err() {
        return Err(invalid("strategy is sticky, range or round robin"));
    }
    let session_timeout_ms = or_default(request.session_timeout_ms, DEFAULT_SESSION_MS);
    let rebalance_timeout_ms = or_default(request.rebalance_timeout_ms, DEFAULT_REBALANCE_MS);
    if !SESSION_MS.contains(&session_timeout_ms) {
        return Err(invalid("session_timeout_ms is 1 s to 10 min"));
    }
    if !REBALANCE_MS.contains(&rebalance_timeout_ms) {
        return Err(invalid("rebalance_timeout_ms is 1 s to 1 h"));
    }
    let topics: BTreeSet<String> = request.topics.into_iter().collect();
    Ok(GroupMemberSpec {
        instance_id: request.instance_id,
        client_id: request.client_id,
        host,
        rack: request.rack,
        topics: topics.into_iter().collect(),
        pattern: request.pattern,
        strategy: Strategy::of(u32::try_from(request.strategy).unwrap_or(0)).number(),
        session_timeout_ms,
        rebalance_timeout_ms,
    })
}

fn or_default(asked: u32, default: u32) -> u32 {
    if asked == 0 { default } else { asked }
}

fn check_subscription(request: &JoinGroupRequest) -> Result<(), Error> {
    let wrong = |text: String| Err(convert::error(ErrorCode::InvalidSubscription, text, None));
    if request.topics.is_empty() && request.pattern.is_empty() {
        return wrong("name topics, or give a pattern".to_owned());
    }
    if request.topics.len() > MOST_TOPICS {
        return wrong(format!(
            "{} topics: at most {MOST_TOPICS}",
            request.topics.len()
        ));
    }
    if let Some(name) = request
        .topics
        .iter()
        .find(|t| t.is_empty() || t.len() > 249)
    {
        return wrong(format!("'{name}' is not the name of a topic"));
    }
    if request.pattern.len() > LONGEST_PATTERN {
        return wrong(format!("a pattern has at most {LONGEST_PATTERN} bytes"));
    }
    if !request.pattern.is_empty()
        && let Err(reason) = compile_pattern(&request.pattern)
    {
        return wrong(format!("pattern '{}': {reason}", request.pattern));
    }
    Ok(())
}

/// What a member may work on. None while this broker's image is older than the assignment: a topic
/// without a name is one that was deleted, and its partitions would be given up for good.
fn assignment_of<E: Env>(broker: &Broker<E>, group: &Group, member: &Member) -> Option<Assignment> {
    let image = broker.cluster.image();
    let mut assigned = member.assigned();
    if !assigned.all(|(tp, _)| image.topic(tp.topic).is_some() || image.was_deleted(tp.topic)) {
        return None;
    }
    let mut topics: Vec<AssignedTopic> = Vec::new();
    for (tp, holding) in member.assigned() {
        let partition = AssignedPartition {
            partition: tp.partition.0,
            granted_epoch: holding.granted,
            committed: group.offsets.get(&tp).map(|c| c.offset.0),
        };
        match topics.last_mut() {
            Some(topic) if topic.topic_id == tp.topic.0 => topic.partitions.push(partition),
            _ => topics.push(AssignedTopic {
                topic_id: tp.topic.0,
                topic: image
                    .topic(tp.topic)
                    .map(|topic| topic.name().to_owned())
                    .unwrap_or_default(),
                partitions: vec![partition],
            }),
        }
    }
    let revoking = member.revoking().map(|tp| PartitionRef {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
    });
    Some(Assignment {
        epoch: member.epoch,
        topics,
        revoking: revoking.collect(),
    })
}

/// The member that speaks, as apply would find it.
fn caller<'a>(
    state: &'a Group,
    request: &GroupHeartbeatRequest,
) -> Result<&'a Arc<Member>, GroupRefusal> {
    if !request.instance_id.is_empty()
        && let Some((owner, _)) = state.instance(&request.instance_id)
        && **owner != *request.member_id
    {
        return Err(GroupRefusal::FencedInstance);
    }
    let member = state.members.get(request.member_id.as_str());
    member.ok_or(GroupRefusal::UnknownMember)
}

/// Keeps a session alive, acknowledges, and waits for news.
pub async fn heartbeat<E: Env>(
    broker: &Arc<Broker<E>>,
    request: GroupHeartbeatRequest,
) -> Result<GroupHeartbeatResponse, Error> {
    let group = request.group.as_str();
    let shard = coordinated(broker, group)?;
    if request.acknowledged_epoch > request.received_epoch {
        return Err(invalid("acknowledged_epoch is above received_epoch"));
    }
    shard.coordinator.heard(group, &request.member_id);
    let state = known_member(broker, &shard, &request).await?;
    let owes = caller(&state, &request)
        .ok()
        .and_then(|member| member.owes());
    if owes.is_some_and(|epoch| epoch <= request.acknowledged_epoch) {
        let action = Action::Acknowledge(GroupAcknowledge {
            member_id: request.member_id.clone(),
            instance_id: request.instance_id.clone(),
            epoch: request.acknowledged_epoch,
        });
        propose(broker, &shard, (group, action), route::timeout(0)).await?;
    }
    wait_for_news(broker, &shard, &request).await
}

/// The group, if the caller is a member of it. Only a broker that surely leads may say that it is
/// none: a deposed one may never have heard of it.
async fn known_member<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    request: &GroupHeartbeatRequest,
) -> Result<Arc<Group>, Error> {
    if let Some(state) = shard.groups.state(&request.group)
        && caller(&state, request).is_ok()
    {
        return Ok(state);
    }
    let state = current(broker, shard, &request.group).await?;
    match caller(&state, request) {
        Ok(_) => Ok(state),
        Err(refusal) => Err(refused(&request.group, refusal)),
    }
}

async fn wait_for_news<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    request: &GroupHeartbeatRequest,
) -> Result<GroupHeartbeatResponse, Error> {
    let begin = Instant::now();
    let mut changes = broker.cluster.changes();
    loop {
        let view = shard.groups.get(&request.group);
        let news = view.as_ref().map(|view| view.news());
        let state = known_member(broker, shard, request).await?;
        let Ok(member) = caller(&state, request) else {
            return Err(refused(&request.group, GroupRefusal::UnknownMember));
        };
        let longest = Duration::from_millis(u64::from(member.spec.session_timeout_ms / 2));
        let wait = Duration::from_millis(u64::from(request.max_wait_ms)).min(longest);
        let newer = member.epoch > request.received_epoch;
        let assignment = newer.then(|| assignment_of(broker, &state, member));
        let assignment = assignment.flatten();
        let has_news = assignment.is_some() || state.unparked_epoch > request.unparked_epoch;
        if has_news || begin.elapsed() >= wait || broker.stop.is_cancelled() {
            return Ok(GroupHeartbeatResponse {
                error: None,
                assignment,
                generation: state.generation,
                unparked_epoch: state.unparked_epoch,
            });
        }
        let Some(news) = news else { continue };
        tokio::select! {
            () = news => {}
            () = tokio::time::sleep_until(begin + wait) => {}
            // Another broker may lead now.
            _ = changes.changed() => drop(coordinated(broker, &request.group)?),
            () = broker.stop.cancelled() => {}
        }
    }
}

/// Ends a membership.
pub async fn leave<E: Env>(
    broker: &Arc<Broker<E>>,
    request: LeaveGroupRequest,
) -> Result<LeaveGroupResponse, Error> {
    let shard = coordinated(broker, &request.group)?;
    let asked = GroupHeartbeatRequest {
        group: request.group.clone(),
        member_id: request.member_id.clone(),
        instance_id: request.instance_id,
        ..GroupHeartbeatRequest::default()
    };
    known_member(broker, &shard, &asked).await?;
    let action = Action::Remove(GroupRemove {
        member_ids: vec![request.member_id],
        ..GroupRemove::default()
    });
    propose(broker, &shard, (&request.group, action), route::timeout(0)).await?;
    Ok(LeaveGroupResponse::default())
}
