//! Changing a shard's members: asked of anyone, done by the shard's leader, one change at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{MetadataCommand, MetadataReply, NewBroker};
use highwater_proto::internal::{JoinRequest, JoinResponse, ReshapeRequest, ReshapeResponse};
use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, ShardId};
use highwater_raft::{Goal, GroupStatus, NextChange};

use crate::node::Broker;

const DEADLINE: Duration = Duration::from_secs(10);

fn ids(nodes: &BTreeSet<NodeId>) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

/// Asks the shard's leader for the next change towards `goal`.
///
/// # Errors
/// In one line; the change may or may not have been made.
pub async fn reshape<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: ShardId,
    goal: &Goal,
    metadata_term: u64,
) -> Result<ReshapeResponse, String> {
    let leader = broker.cluster.leader(shard).and_then(|info| info.node);
    let leader = leader.ok_or_else(|| format!("shard {shard} has no leader"))?;
    let request = ReshapeRequest {
        shard: shard.0,
        voters: ids(&goal.voters),
        learners: ids(&goal.learners),
        metadata_term,
    };
    let response = if leader == broker.node_id {
        serve(broker, request).await
    } else {
        let mut client = broker.peers.members(leader)?;
        let call = client.reshape(request);
        broker.peers.answer(leader, DEADLINE, call).await?
    };
    if response.error.is_empty() {
        Ok(response)
    } else {
        Err(response.error)
    }
}

/// Makes the next change towards the request's goal, if the shard is led here.
pub async fn serve<E: Env>(broker: &Broker<E>, request: ReshapeRequest) -> ReshapeResponse {
    match change(broker, &request).await {
        Ok((status, next)) => ReshapeResponse {
            done: next == NextChange::Nothing,
            doing: in_words(&next),
            voters: ids(&status.voters),
            learners: ids(&status.learners),
            members_term: status.members_at.map_or(0, |at| at.term),
            members_index: status.members_at.map_or(0, |at| at.index),
            settled: status.settled && !status.joint,
            error: String::new(),
        },
        Err(error) => ReshapeResponse {
            error,
            ..ReshapeResponse::default()
        },
    }
}

async fn change<E: Env>(
    broker: &Broker<E>,
    request: &ReshapeRequest,
) -> Result<(GroupStatus, NextChange), String> {
    let known = broker.metadata.group().status().borrow().term;
    if request.metadata_term < known {
        return Err("the controller that asks was replaced by another one".to_owned());
    }
    let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect();
    let goal = Goal {
        voters: nodes(&request.voters),
        learners: nodes(&request.learners),
    };
    if goal.voters.is_empty() {
        return Err("a shard without voters".to_owned());
    }
    let shard = ShardId(request.shard);
    let hosted = broker.shards.get(shard);
    let hosted = hosted.ok_or_else(|| format!("shard {shard} is not hosted here"))?;
    let next = match tokio::time::timeout(DEADLINE, hosted.group.reshape(&goal)).await {
        Ok(next) => next.map_err(|error| error.to_string())?,
        Err(_elapsed) => return Err("the change of members takes long".to_owned()),
    };
    let status = hosted.group.status().borrow().clone();
    Ok((status, next))
}

/// What a change is, for whoever watches.
pub fn in_words(next: &NextChange) -> String {
    match next {
        NextChange::Settle => "a change of members is being committed".to_owned(),
        NextChange::AddLearner(node) => format!("broker {node} begins to receive the log"),
        NextChange::CatchUp { node, lacks: None } => {
            format!("broker {node} has not been heard of yet")
        }
        NextChange::CatchUp {
            node,
            lacks: Some(lacks),
        } => format!("broker {node} lacks {lacks} entries"),
        NextChange::HandOver(node) => format!("broker {node} takes the lead"),
        NextChange::SetVoters(voters) => {
            let voters: Vec<String> = voters.iter().map(NodeId::to_string).collect();
            format!("brokers {} vote from now on", voters.join(", "))
        }
        NextChange::Remove(node) => format!("broker {node} is let go"),
        NextChange::Nothing => "done".to_owned(),
    }
}

/// Registers a broker that asks to be let in.
pub async fn join<E: Env>(broker: &Broker<E>, request: JoinRequest) -> JoinResponse {
    let refusal = |refusal: String| JoinResponse {
        refusal,
        ..JoinResponse::default()
    };
    let later = |later: String| JoinResponse {
        later,
        ..JoinResponse::default()
    };
    if broker.membership.cluster_id().as_deref() != Some(request.cluster_id.as_str()) {
        return refusal("it asks for another cluster".to_owned());
    }
    let command = MetadataCommand::RegisterBroker(NewBroker {
        id: NodeId(request.node_id),
        address: request.address,
        incarnation: request.incarnation,
        rack: request.rack,
        version: request.version,
    });
    match broker.metadata.propose(&command, DEADLINE / 2).await {
        Ok(MetadataReply::Refused(why)) if why.code == ErrorCode::ClusterNotReady => {
            later(why.message)
        }
        Ok(MetadataReply::Refused(why)) => refusal(why.message),
        Ok(_) => JoinResponse::default(),
        Err(error) => later(error.to_string()),
    }
}
