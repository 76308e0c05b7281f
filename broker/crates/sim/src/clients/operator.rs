//! Whoever looks after the cluster: replaces a broker that lost its disk, and moves leaders, replicas and
//! partitions about.

use std::time::Duration;

use highwater_client::{Admin, Client, NewPlan, NodeId, PartitionId, ShardId, v1};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::{AGAIN, Shared, TOPIC, compacted};
use crate::board::Phase;

/// Its name as a client.
pub const NAME: &str = "operator";
const DEADLINE: Duration = Duration::from_secs(3);

/// Works until the run is healed, no broker waits to be replaced, and no partition is on its way.
///
/// # Errors
/// When no client can be made.
pub async fn operate(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let client = shared.client().build()?;
    let admin = client.admin().timeout(DEADLINE);
    let mut rng = StdRng::seed_from_u64(shared.seed);
    // Nobody stands by all the time: the broker may come back meanwhile, and must be turned away.
    let mut looks_on = rng.random_range(0..6);
    loop {
        let wiped = shared.board.wiped();
        if wiped.is_some() && looks_on > 0 && shared.board.phase() < Phase::Healed {
            looks_on -= 1;
        } else if let Some(broker) = wiped {
            shared.board.set_replacing();
            replace(&shared, &admin, NodeId(broker)).await;
        } else if shared.board.phase() >= Phase::Healed {
            if !shared.settings.moves_partitions || is_on_its_way(&admin).await == Some(false) {
                return Ok(());
            }
        } else if shared.settings.moves_partitions && rng.random_ratio(1, 3) {
            move_partition(&shared, &admin, &mut rng).await;
        } else if shared.settings.workload.moves && rng.random_ratio(1, 3) {
            move_replicas(&shared, &admin, &mut rng).await;
        } else if shared.settings.workload.transfers {
            transfer(&admin, &mut rng).await;
        }
        sleep(Duration::from_millis(rng.random_range(50..600))).await;
    }
}

async fn replace(shared: &Shared, admin: &Admin, broker: NodeId) {
    match admin.start_plan(NewPlan::replace(broker)).await {
        Ok(_) => shared.board.set_replaced(),
        Err(error) => {
            tracing::info!(%error, "no plan yet");
            // A call whose answer was lost may have begun it.
            let plan = admin.plan().await.ok().flatten();
            if plan.is_some_and(|plan| plan.broker == broker.0) {
                shared.board.set_replaced();
            }
        }
    }
}

/// Asks for a plan that moves replicas; one that still runs refuses it.
async fn move_replicas(shared: &Shared, admin: &Admin, rng: &mut StdRng) {
    let nodes = shared.settings.nodes;
    let plan = if nodes == 3 {
        let Ok(cluster) = admin.describe_cluster().await else {
            return;
        };
        let Some(shard) = cluster.shards.choose(rng) else {
            return;
        };
        let Some(broker) = shard.replicas.choose(rng) else {
            return;
        };
        NewPlan::repair(NodeId(*broker), ShardId(shard.shard))
    } else if rng.random_ratio(1, 2) {
        NewPlan::drain(NodeId(rng.random_range(1..=shared.settings.last_broker())))
    } else {
        NewPlan::rebalance()
    };
    if let Err(error) = admin.start_plan(plan).await {
        tracing::info!(%error, "no replica moves");
    }
}

/// Asks for a partition to go to another shard, now and then for the opposite.
async fn move_partition(shared: &Shared, admin: &Admin, rng: &mut StdRng) {
    if rng.random_ratio(1, 5) {
        // Another plan is not to be taken back.
        if is_on_its_way(admin).await == Some(true)
            && let Err(error) = admin.cancel_plan().await
        {
            tracing::info!(%error, "nothing is taken back");
        }
        return;
    }
    let Ok(cluster) = admin.describe_cluster().await else {
        return;
    };
    let settings = &shared.settings;
    let aside = settings.compacted.as_ref();
    let (topic, partitions, replicas) = match aside.filter(|_| rng.random_ratio(1, 2)) {
        Some(aside) => (compacted::NAME, aside.partitions, compacted::REPLICAS),
        None => (TOPIC, settings.partitions, settings.replicas),
    };
    let shards = cluster.shards.iter();
    let class: Vec<u32> = shards
        .filter(|shard| shard.replication_factor == replicas)
        .map(|shard| shard.shard)
        .collect();
    let partition = PartitionId(rng.random_range(0..partitions));
    let Some(to) = class.choose(rng) else {
        return;
    };
    // Where it is already, it is refused.
    let plan = NewPlan::move_partition(topic, partition, ShardId(*to));
    if let Err(error) = admin.start_plan(plan).await {
        tracing::info!(%error, "no partition moves");
    }
}

/// Whether a partition is on its way, if anybody says.
async fn is_on_its_way(admin: &Admin) -> Option<bool> {
    match admin.plan().await {
        Ok(plan) => {
            Some(plan.is_some_and(|plan| !plan.ended && plan.kind() == v1::PlanKind::MovePartition))
        }
        Err(error) => {
            tracing::info!(%error, "nobody says what is on its way");
            None
        }
    }
}

/// Waits until the operator has gone, and no plan moves replicas any more.
pub async fn until_nothing_moves(shared: &Shared, client: &Client) {
    while shared.board.is_busy(NAME) {
        sleep(AGAIN).await;
    }
    let admin = client.admin().timeout(DEADLINE);
    while shared.settings.needs_operator() {
        match admin.plan().await {
            Ok(plan) if plan.as_ref().is_none_or(|plan| plan.ended) => return,
            Ok(_) => {}
            Err(error) => tracing::info!(%error, "nobody says what moves"),
        }
        sleep(AGAIN).await;
    }
}

async fn transfer(admin: &Admin, rng: &mut StdRng) {
    let Ok(cluster) = admin.describe_cluster().await else {
        return;
    };
    if let Some(shard) = cluster.shards.choose(rng)
        && let Some(to) = shard.replicas.choose(rng)
        && let Err(error) = admin
            .transfer_leader(ShardId(shard.shard), NodeId(*to))
            .await
    {
        tracing::info!(%error, "no transfer");
    }
}
