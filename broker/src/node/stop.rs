//! The graceful stop: leaders first, then clients, then the log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_proto::NodeId;
use highwater_raft::Group;

use super::Broker;
use super::start::Running;

/// Leaders are given this long to move away.
const HANDOVER: Duration = Duration::from_secs(10);
const HANDOVERS_AT_ONCE: usize = 8;
/// Streams and calls are given this long to end.
const CALLS: Duration = Duration::from_secs(3);
/// Groups, segments and log are given this long to write what they have.
const CLOSING: Duration = Duration::from_secs(15);

/// Stops a broker so that clients notice as little as possible.
///
/// # Errors
/// When the log could not be closed cleanly; nothing acknowledged is lost by that.
pub async fn stop<E: Env>(running: Running<E>) -> anyhow::Result<()> {
    let Running { broker, mut tasks } = running;
    tracing::info!("stopping: handing over leaders");
    broker.start_draining();
    if tokio::time::timeout(HANDOVER, hand_over_all(&broker))
        .await
        .is_err()
    {
        tracing::warn!("not all leaders moved away in time; elections will do the rest");
    }
    broker.gate.drain();
    broker.stop.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(CALLS, ended).await.is_err() {
        tasks.abort_all();
    }
    match tokio::time::timeout(CLOSING, close(&broker)).await {
        Ok(closed) => closed?,
        // On a full disk what waits for space would wait for ever, and the stop with it.
        Err(_elapsed) => {
            tracing::warn!("not all could be written in time; nothing acknowledged is lost");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Writes and syncs what was taken in, from the groups down to the log.
async fn close<E: Env>(broker: &Broker<E>) -> anyhow::Result<()> {
    for shard in broker.shards.take_all() {
        shard.group.shutdown().await;
    }
    broker.metadata.group().shutdown().await;
    broker.groups.close().await;
    broker.shard_context.store.clone().close().await?;
    broker.wal.clone().close().await;
    Ok(())
}

async fn hand_over_all<E: Env>(broker: &Arc<Broker<E>>) {
    let mut groups: Vec<Group> = broker
        .shards
        .all()
        .iter()
        .map(|s| s.group.clone())
        .collect();
    groups.push(broker.metadata.group().clone());
    groups.retain(Group::is_leader);
    futures_util::stream::iter(groups.into_iter().enumerate())
        .for_each_concurrent(HANDOVERS_AT_ONCE, |(turn, group)| {
            hand_over(broker, group, turn)
        })
        .await;
}

/// Hands one group to the live voters, beginning with a different one each turn, so that what this
/// broker led spreads over all others.
async fn hand_over<E: Env>(broker: &Broker<E>, group: Group, turn: usize) {
    let alive = broker.cluster.alive();
    let voters = group.status().borrow().voters.clone();
    let mut candidates: Vec<NodeId> = voters
        .into_iter()
        .filter(|node| *node != broker.node_id && (alive.is_empty() || alive.contains(node)))
        .collect();
    if candidates.is_empty() {
        return;
    }
    let first = turn % candidates.len();
    candidates.rotate_left(first);
    for candidate in candidates {
        match group.transfer_leader(candidate).await {
            Ok(()) => return,
            Err(error) => {
                tracing::info!(group = group.id().0, to = candidate.0, %error, "not handed over");
            }
        }
    }
}
