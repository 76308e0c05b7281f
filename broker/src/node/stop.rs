//! The graceful stop: leaders first, then clients, then the log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_proto::NodeId;
use highwater_raft::Group;

use super::Broker;
use super::start::Running;
use crate::control::heartbeat;

/// Leaders are given this long to move away.
const HANDOVER: Duration = Duration::from_secs(10);
const HANDOVERS_AT_ONCE: usize = 8;
/// Rounds in which nobody takes anything before it is given up, and the pause between two.
const HANDOVER_ROUNDS: u32 = 5;
const HANDOVER_PAUSE: Duration = Duration::from_millis(100);
/// What producers have handed in is given this long to be decided, which takes the new leaders.
const VERDICTS: Duration = Duration::from_secs(3);
/// Other calls that are under way are given this long. Streams of consumers, of watchers and of other brokers
/// never end by themselves; whoever is on one goes elsewhere.
const CALLS: Duration = Duration::from_millis(500);
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
    // First of all it is told: whoever balances leaders would give back at once what is handed over,
    // to a broker that takes no more records.
    heartbeat::beat(&broker).await;
    let handed_over = tokio::time::timeout(HANDOVER, hand_over_all(&broker)).await;
    if !handed_over.unwrap_or(false) {
        tracing::warn!("not all leaders moved away in time; elections will do the rest");
    }
    broker.gate.drain();
    broker.leaving.cancel();
    broker.producing.close();
    // Other brokers are still listened to: they say what became of what was proposed here.
    if tokio::time::timeout(VERDICTS, broker.producing.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "not all that producers handed in was decided in time: they will ask again elsewhere"
        );
    }
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

/// Until nothing is led here, or nobody takes it; answers whether all that others could lead is gone. A transfer to this broker that was under
/// way already makes it a leader once more.
async fn hand_over_all<E: Env>(broker: &Arc<Broker<E>>) -> bool {
    let mut failures = 0;
    loop {
        let mut groups: Vec<Group> = broker
            .shards
            .all()
            .iter()
            .map(|s| s.group.clone())
            .collect();
        groups.push(broker.metadata.group().clone());
        groups.retain(Group::is_leader);
        let handed_over = futures_util::stream::iter(groups.into_iter().enumerate())
            .map(|(turn, group)| hand_over(broker, group, turn))
            .buffer_unordered(HANDOVERS_AT_ONCE)
            .filter(|moved| std::future::ready(*moved))
            .count();
        if handed_over.await > 0 {
            continue;
        }
        let led = leads_with_others(broker);
        failures += 1;
        if !led || failures == HANDOVER_ROUNDS {
            return !led;
        }
        // Who is behind may have caught up by then.
        tokio::time::sleep(HANDOVER_PAUSE).await;
    }
}

/// Whether this broker leads a group that others could lead.
fn leads_with_others<E: Env>(broker: &Broker<E>) -> bool {
    let shards = broker.shards.all();
    let groups = shards.iter().map(|shard| &shard.group);
    let mut groups = groups.chain([broker.metadata.group()]);
    groups.any(|group| group.is_leader() && group.status().borrow().voters.len() > 1)
}

/// Hands one group to the live voters, beginning with a different one each turn, so that what this
/// broker led spreads over all others. Answers whether somebody took it.
async fn hand_over<E: Env>(broker: &Broker<E>, group: Group, turn: usize) -> bool {
    let alive = broker.cluster.alive();
    let voters = group.status().borrow().voters.clone();
    let mut candidates: Vec<NodeId> = voters
        .into_iter()
        .filter(|node| *node != broker.node_id && (alive.is_empty() || alive.contains(node)))
        .collect();
    if candidates.is_empty() {
        return false;
    }
    let first = turn % candidates.len();
    candidates.rotate_left(first);
    for candidate in candidates {
        match group.transfer_leader(candidate).await {
            Ok(()) => return true,
            Err(error) => {
                tracing::info!(group = group.id().0, to = candidate.0, %error, "not handed over");
            }
        }
    }
    false
}
