//! Hosting shards: starts the groups that the image assigns to this broker, makes a new group's
//! first membership, and tells the cluster who leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_env::Env;
use highwater_metadata::ShardInfo;
use highwater_proto::{NodeId, ShardId};
use highwater_raft::{Group, Peers};

use super::cluster::LeaderInfo;
use crate::groups::{self, Coordinator};
use crate::node::Broker;
use crate::runtime::Shard;
use crate::runtime::accumulate::Accumulator;
use crate::runtime::machine::ShardMachine;

/// Runs until the broker stops. An error to start a shard stops the broker: it would otherwise
/// look alive while a replica is missing.
///
/// # Errors
/// One line.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) -> anyhow::Result<()> {
    let mut changes = broker.cluster.changes();
    loop {
        changes.borrow_and_update();
        let image = broker.cluster.image();
        for shard in image.shards() {
            if shard.replicas.contains(&broker.node_id) && broker.shards.get(shard.id).is_none() {
                host(&broker, shard).await?;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = broker.stop.cancelled() => return Ok(()),
        }
    }
}

async fn host<E: Env>(broker: &Arc<Broker<E>>, shard: &ShardInfo) -> anyhow::Result<()> {
    let machine = ShardMachine::new(shard.id, Arc::clone(&broker.shard_context));
    let (views, groups) = (machine.views(), machine.groups());
    let group = broker.groups.start(shard.id, machine).await?;
    let (accumulator, _task) = Accumulator::start(group.clone());
    // The founding membership is written by one broker, for a shard that never had a leader; any
    // number of repetitions of it are harmless, a second, different one is refused by the group.
    if !shard.established && shard.preferred_leader == Some(broker.node_id) {
        group.initialize(voters(broker, shard)).await?;
    }
    tokio::spawn(report_leader(Arc::clone(broker), shard.id, group.clone()));
    let hosted = Shard {
        id: shard.id,
        group,
        views,
        accumulator,
        groups,
        coordinator: Coordinator::default(),
    };
    let hosted = Arc::new(hosted);
    broker.shards.insert(Arc::clone(&hosted));
    tokio::spawn(groups::coordinate(Arc::clone(broker), hosted));
    Ok(())
}

fn voters<E: Env>(broker: &Broker<E>, shard: &ShardInfo) -> BTreeMap<NodeId, String> {
    let address = |id: &NodeId| (*id, broker.addresses.address(*id).unwrap_or_default());
    shard.replicas.iter().map(address).collect()
}

/// Copies the group's view of its leader into the cluster's until the group ends.
async fn report_leader<E: Env>(broker: Arc<Broker<E>>, shard: ShardId, group: Group) {
    let mut status = group.status();
    loop {
        let seen = {
            let status = status.borrow_and_update();
            LeaderInfo {
                term: status.term,
                node: status.leader,
            }
        };
        broker.cluster.observe_leader(shard, seen);
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
    }
}
