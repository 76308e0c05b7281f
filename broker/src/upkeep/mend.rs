//! Bad ranges, until they are whole: this replica does not vote and does not lead, and the range is
//! fetched from another replica that has it. One range at a time.
//!
//! What comes counts only if it is exactly what was written here (see the segment crate), so it does
//! not matter who sends it, and a crash at any moment leaves the range bad or whole. The members of
//! the group do not change: no copy is given up for it, and no quorum shrinks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::batch::split_batches;
use highwater_proto::{NodeId, Offset, ShardId};
use highwater_segment::{Mend, MendError};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::notes;
use crate::control::{host, transfer};
use crate::node::Broker;
use crate::runtime::Shard;
use crate::runtime::damage::Place;
use crate::runtime::install::{Piece, Range, Taken};

/// Between two looks while nothing is noted.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a failed attempt, doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Attempts that failed: how many, and when the next is due.
type Failed = HashMap<(ShardId, Place), (u32, Instant)>;

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    // Beside each other: a range that takes long holds up nothing that keeps others safe.
    tokio::select! {
        () = stand_back(&broker) => {}
        () = mend_all(&broker) => {}
        () = notes::keep(&broker) => {}
        () = broker.stop.cancelled() => {}
    }
}

/// Replicas with a bad range do not vote, and do not lead where somebody else can.
async fn stand_back<E: Env>(broker: &Arc<Broker<E>>) {
    loop {
        let changed = broker.damage.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        for shard in broker.shards.all() {
            host::set_vote_floor(broker, &shard);
            if broker.damage.is_bad(shard.id) {
                step_down(broker, &shard).await;
            }
        }
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Fetches one noted range after the other.
async fn mend_all<E: Env>(broker: &Arc<Broker<E>>) {
    let mut failed = Failed::new();
    loop {
        let changed = broker.damage.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let noted = broker.damage.ranges();
        failed.retain(|key, _| noted.contains(key));
        for (shard, place) in noted {
            if !notes::settle(broker, shard, place).await {
                continue;
            }
            if broker.config.repair.automatic {
                let now = Instant::now();
                let due = failed.get(&(shard, place)).is_none_or(|(_, at)| *at <= now);
                if due {
                    attempt(broker, &mut failed, (shard, place)).await;
                }
            }
        }
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Somebody whose replica is whole should lead. Where nobody can, what is whole here is still served.
async fn step_down<E: Env>(broker: &Arc<Broker<E>>, shard: &Shard<E::Disk>) {
    if !shard.group.is_leader() {
        return;
    }
    let voters = shard.group.status().borrow().voters.clone();
    let alive = broker.cluster.alive();
    for to in voters {
        if to == broker.node_id || !alive.contains(&to) {
            continue;
        }
        match transfer::here(broker, shard.id, to).await {
            Ok(()) => {
                tracing::info!(
                    shard = shard.id.0,
                    to = to.0,
                    "handed over: a range is bad here"
                );
                return;
            }
            Err(reason) => tracing::info!(shard = shard.id.0, to = to.0, reason, "not handed over"),
        }
    }
}

async fn attempt<E: Env>(
    broker: &Arc<Broker<E>>,
    failed: &mut Failed,
    (shard, place): (ShardId, Place),
) {
    match mend(broker, shard, place).await {
        Ok(from) => {
            let from = from.map(|node| node.0);
            tracing::info!(
                shard = shard.0, partition = %place.0, segment = %place.1, from,
                "a bad range is whole again"
            );
            metrics::counter!("highwater_mended_ranges_total").increment(1);
            failed.remove(&(shard, place));
            broker.damage.clear(shard, place);
        }
        Err(reason) => {
            metrics::counter!("highwater_mend_failures_total").increment(1);
            let tries = failed.get(&(shard, place)).map_or(0, |(tries, _)| *tries);
            let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(tries));
            let pause = pause.min(LAST_RETRY);
            let due = Instant::now() + pause;
            failed.insert((shard, place), (tries.saturating_add(1), due));
            tracing::warn!(
                shard = shard.0, partition = %place.0, segment = %place.1, reason,
                "a bad range is not whole yet; will repeat"
            );
            let words = format!("not fetched yet: {reason}; it is tried again");
            broker.damage.doing(shard, place, &words);
        }
    }
}

/// Tries the other replicas one after the other, the shard's leader last: it has enough to do. Who
/// sent it; `None`: nobody needs it any more.
async fn mend<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: ShardId,
    place: Place,
) -> Result<Option<NodeId>, String> {
    let image = broker.cluster.image();
    let leader = broker.cluster.leader(shard).and_then(|info| info.node);
    let alive = broker.cluster.alive();
    let known = image.shard(shard);
    let replicas = known
        .map(|shard| shard.replicas.clone())
        .unwrap_or_default();
    let mut others: Vec<NodeId> = replicas
        .into_iter()
        .filter(|node| *node != broker.node_id)
        .collect();
    if others.is_empty() {
        return Err("there is no other replica: restore the file from a backup".to_owned());
    }
    others.retain(|node| alive.contains(node));
    others.sort_by_key(|node| (leader == Some(*node), *node));
    let mut reasons = Vec::new();
    for node in others {
        let words = format!("broker {node} sends it");
        broker.damage.doing(shard, place, &words);
        match fetch(broker, node, shard, place).await {
            Ok(true) => return Ok(Some(node)),
            Ok(false) => return Ok(None),
            Err(reason) => reasons.push(format!("broker {node}: {reason}")),
        }
    }
    if reasons.is_empty() {
        return Err("no other replica answers".to_owned());
    }
    Err(reasons.join("; "))
}

/// Fetches a range from one broker. `false`: nobody needs it any more.
async fn fetch<E: Env>(
    broker: &Arc<Broker<E>>,
    node: NodeId,
    shard: ShardId,
    (tp, base): Place,
) -> Result<bool, String> {
    let store = &broker.shard_context.store;
    let Some(reader) = store.reader(tp) else {
        return Ok(false);
    };
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let begun = store.call(move || reader.mend(base)).await;
    let mend = match begun.map_err(|error| words(&error))? {
        Ok(mend) => mend,
        Err(MendError::Gone(_)) => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    let range = Range {
        shard,
        tp,
        from: base,
        end: mend.wanted().next_offset,
    };
    let mending = Mutex::new(Some(mend));
    let pulled = broker
        .shard_context
        .snapshots
        .pull(node, range, |piece| push(broker, &mending, piece));
    let pulled = pulled.await.map_err(|error| error.to_string());
    let Some(mend) = mending.into_inner() else {
        return Err("the broker is stopping".to_owned());
    };
    if let Err(reason) = pulled {
        let given_up = store.call(move || mend.give_up()).await;
        given_up.map_err(|error| words(&error))?;
        return Err(reason);
    }
    let put = store.call(move || mend.put_back()).await;
    match put.map_err(|error| words(&error))? {
        Ok(()) => Ok(true),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes a piece, behind which the next one begins.
async fn push<E: Env>(
    broker: &Broker<E>,
    mending: &Mutex<Option<Mend<E::Disk>>>,
    piece: Piece,
) -> std::io::Result<Taken> {
    let mut end = Offset(0);
    for batch in split_batches(piece.batches.clone()) {
        let batch = batch.map_err(std::io::Error::other)?;
        end = batch.header().last_offset().plus(1);
    }
    let after = piece.after(end);
    if after == Offset(0) {
        return Err(std::io::Error::other("an empty piece"));
    }
    let mut slot = mending.lock().await;
    let Some(mut mend) = slot.take() else {
        return Err(std::io::Error::other("the broker is stopping"));
    };
    let pushed = broker.shard_context.store.call(move || {
        let outcome = mend.push(&piece.batches);
        (mend, outcome)
    });
    let (mend, outcome) = pushed.await.map_err(std::io::Error::other)?;
    *slot = Some(mend);
    outcome
        .map(|()| Taken::Upto(after))
        .map_err(std::io::Error::other)
}
