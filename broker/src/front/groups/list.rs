//! All groups of the cluster, asked of the brokers that coordinate them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::internal::{ListShardGroupsRequest, ListShardGroupsResponse, ListedGroup};
use highwater_proto::v1::{
    AssignmentStrategy, GroupState, GroupSummary, ListGroupsRequest, ListGroupsResponse,
};
use highwater_proto::{NodeId, ShardId};
use highwater_shard::groups::{Group, GroupPhase, assignor};

use crate::node::Broker;

const DEADLINE: Duration = Duration::from_secs(2);
const DEFAULT_PAGE: usize = 1_000;
const LARGEST_PAGE: usize = 10_000;

const fn number(phase: GroupPhase) -> u32 {
    match phase {
        GroupPhase::Empty => GroupState::Empty as u32,
        GroupPhase::Assigning => GroupState::Assigning as u32,
        GroupPhase::Reconciling => GroupState::Reconciling as u32,
        GroupPhase::Stable => GroupState::Stable as u32,
    }
}

/// A group in a few words.
pub fn listed(name: &str, shard: ShardId, group: &Group) -> ListedGroup {
    let held = group.members.values().map(|member| member.held.len());
    ListedGroup {
        name: name.to_owned(),
        shard: shard.0,
        phase: number(group.phase()),
        members: u32::try_from(group.members.len()).unwrap_or(u32::MAX),
        partitions: u32::try_from(held.sum::<usize>()).unwrap_or(u32::MAX),
        strategy: assignor::strategy_of(group).number(),
    }
}

/// The same for clients.
pub fn summary(listed: ListedGroup, coordinator: NodeId) -> GroupSummary {
    let state = i32::try_from(listed.phase).unwrap_or_default();
    let strategy = i32::try_from(listed.strategy).unwrap_or_default();
    GroupSummary {
        group: listed.name,
        state: GroupState::try_from(state).unwrap_or_default().into(),
        members: listed.members,
        partitions: listed.partitions,
        strategy: AssignmentStrategy::try_from(strategy)
            .unwrap_or_default()
            .into(),
        shard: listed.shard,
        coordinator: coordinator.0,
    }
}

/// The groups of those shards that this broker leads.
pub fn here<E: Env>(
    broker: &Broker<E>,
    request: &ListShardGroupsRequest,
) -> ListShardGroupsResponse {
    let mut answer = ListShardGroupsResponse::default();
    for id in request.shards.iter().copied().map(ShardId) {
        let shard = broker.shards.get(id);
        let led = shard.filter(|shard| shard.group.is_leader() && shard.coordinator.is_ready());
        let Some(shard) = led else {
            answer.not_led.push(id.0);
            continue;
        };
        let groups = shard.groups.all();
        let wanted = groups.iter().filter(|(name, _)| {
            **name >= *request.after && name.contains(request.name_contains.as_str())
        });
        answer
            .groups
            .extend(wanted.map(|(name, group)| listed(name, id, group)));
    }
    answer.groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    answer.groups.truncate(request.limit as usize);
    answer
}

/// One page of all groups.
pub async fn all<E: Env>(
    broker: &Arc<Broker<E>>,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let page = match request.page_size as usize {
        0 => DEFAULT_PAGE,
        size => size.min(LARGEST_PAGE),
    };
    let image = broker.cluster.image();
    let leaders = broker.cluster.leaders();
    let mut by_leader: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
    let mut missing: Vec<(u32, String)> = Vec::new();
    for shard in image.group_shards() {
        match leaders.get(shard).and_then(|info| info.node) {
            Some(leader) => by_leader.entry(leader).or_default().push(shard.0),
            None => missing.push((shard.0, "it has no leader right now".to_owned())),
        }
    }
    let asked = by_leader.into_iter().map(|(leader, shards)| {
        let asked = ListShardGroupsRequest {
            shards,
            after: request.page_token.clone(),
            name_contains: request.name_contains.clone(),
            // One more than the page, so that the next one is known to exist.
            limit: u32::try_from(page).unwrap_or(u32::MAX).saturating_add(1),
        };
        async move {
            (
                leader,
                asked.shards.clone(),
                ask(broker, leader, asked).await,
            )
        }
    });
    let mut groups: Vec<GroupSummary> = Vec::new();
    for (leader, shards, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(answer) => {
                let found = answer.groups.into_iter();
                groups.extend(found.map(|listed| summary(listed, leader)));
                let reason = || "its leader just changed".to_owned();
                missing.extend(answer.not_led.into_iter().map(|shard| (shard, reason())));
            }
            Err(reason) => missing.extend(shards.into_iter().map(|s| (s, reason.clone()))),
        }
    }
    groups.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    let next_page_token = groups.get(page).map(|next| next.group.clone());
    groups.truncate(page);
    let problem = |(shard, reason)| format!("groups of shard {shard} are missing: {reason}");
    ListGroupsResponse {
        groups,
        next_page_token: next_page_token.unwrap_or_default(),
        problems: missing.into_iter().map(problem).collect(),
    }
}

async fn ask<E: Env>(
    broker: &Arc<Broker<E>>,
    leader: NodeId,
    request: ListShardGroupsRequest,
) -> Result<ListShardGroupsResponse, String> {
    if leader == broker.node_id {
        return Ok(here(broker, &request));
    }
    let mut client = broker.peers.client(leader)?;
    let call = client.list_shard_groups(request);
    broker.peers.answer(leader, DEADLINE, call).await
}
