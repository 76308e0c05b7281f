//! Moving the leadership of a shard: asked of anyone, done by the leader.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::internal::TransferRequest;
use highwater_proto::{NodeId, ShardId};

use crate::node::Broker;

const DEADLINE: Duration = Duration::from_secs(5);

/// Asks `from`, the leader, to hand `shard` to `to`.
///
/// # Errors
/// In one line; the leadership may or may not have moved.
pub async fn request<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: ShardId,
    from: NodeId,
    to: NodeId,
) -> Result<(), String> {
    if from == broker.node_id {
        return here(broker, shard, to).await;
    }
    let mut client = broker.peers.client(from)?;
    let call = client.transfer(TransferRequest {
        shard: shard.0,
        to: to.0,
    });
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(response)) if response.get_ref().error.is_empty() => Ok(()),
        Ok(Ok(response)) => Err(response.into_inner().error),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_elapsed) => Err("no answer before the deadline".to_owned()),
    }
}

/// Hands over a shard that is led here, and waits until the other one leads.
///
/// # Errors
/// In one line.
pub async fn here<E: Env>(broker: &Broker<E>, shard: ShardId, to: NodeId) -> Result<(), String> {
    let hosted = broker.shards.get(shard);
    let hosted = hosted.ok_or_else(|| format!("shard {shard} is not hosted here"))?;
    let transfer = hosted.group.transfer_leader(to);
    match tokio::time::timeout(DEADLINE, transfer).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("broker {to} did not take over in time")),
    }
}
