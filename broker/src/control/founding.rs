//! The first membership of a shard's group: the replicas that the image has. Any number of its replicas may write
//! it, the same one; the image changes them only when the group has had a leader.
//!
//! The preferred leader writes it at once, so that no two candidates meet. The others wait for it, and do it
//! themselves when its disk is lost before it did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::ShardInfo;
use highwater_proto::{NodeId, ShardId};
use highwater_raft::{Group, MembershipError, Peers as _, Role};
use tokio::time::timeout;

use crate::node::Broker;

/// How long the preferred leader is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins a group that has had no leader, or sees to it that it is begun.
///
/// # Errors
/// When the group has other members than the image.
pub(super) async fn begin<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &ShardInfo,
    group: &Group,
) -> Result<(), MembershipError> {
    if !group.status().borrow().voters.is_empty() {
        // It has members, whatever they are by now: this image is old.
        return Ok(());
    }
    if shard.preferred_leader == Some(broker.node_id) {
        return group.initialize(voters(broker, shard)).await;
    }
    tokio::spawn(stand_in(
        Arc::clone(broker),
        (shard.id, shard.beginning),
        group.clone(),
    ));
    Ok(())
}

/// Writes the first membership when nothing is heard of one for a while.
async fn stand_in<E: Env>(
    broker: Arc<Broker<E>>,
    (shard, beginning): (ShardId, u64),
    group: Group,
) {
    let mut status = group.status();
    let begun = status.wait_for(|now| !now.voters.is_empty() || now.role == Role::Stopped);
    tokio::select! {
        begun = timeout(PATIENCE, begun) => if begun.is_ok() { return },
        () = broker.stop.cancelled() => return,
    }
    let image = broker.cluster.image();
    let known = image.shard(shard).filter(|known| {
        let is_member = known.replicas.contains(&broker.node_id);
        !known.established && is_member && known.beginning == beginning
    });
    let Some(known) = known else { return };
    if let Err(error) = group.initialize(voters(&broker, known)).await {
        tracing::warn!(shard = shard.0, %error, "the group is not begun here");
        return;
    }
    let begun = status.wait_for(|now| !now.voters.is_empty());
    match timeout(PATIENCE, begun).await {
        Ok(_) => tracing::warn!(
            shard = shard.0,
            "its first leader is not heard: the group is begun here"
        ),
        // openraft begins no group that has voted.
        Err(_elapsed) => tracing::error!(
            shard = shard.0,
            "its first leader asked for a vote and is not heard: the group begins when that broker is back; if \
             its disk is lost, this new cluster has to be founded again, in empty data directories"
        ),
    }
}

fn voters<E: Env>(broker: &Broker<E>, shard: &ShardInfo) -> BTreeMap<NodeId, String> {
    let address = |id: &NodeId| (*id, broker.addresses.address(*id).unwrap_or_default());
    shard.replicas.iter().map(address).collect()
}
