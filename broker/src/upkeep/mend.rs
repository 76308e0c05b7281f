//! Bad ranges, until they are whole: this replica does not vote and does not lead, and the range is
//! fetched from another replica that has it. One range at a time.
//!
//! What comes counts only if it is exactly what was written here (see the segment crate), so it does
//! not matter who sends it, and a crash at any moment leaves the range bad or whole. The members of
//! the group do not change: no copy is given up for it, and no quorum shrinks. Where the others have
//! compacted the range meanwhile, what they made of it is taken over (`adopt.rs`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::{NodeId, Offset, ShardId};
use highwater_segment::{Compacted, Mend, MendError};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{adopt, notes};
use crate::control::{host, transfer};
use crate::node::Broker;
use crate::runtime::Shard;
use crate::runtime::damage::Place;
use crate::runtime::pull::{Piece, Range, Taken};

/// Between two looks while nothing is noted.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a failed attempt, doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// The same while nothing came, so that an attempt costs next to nothing.
const LAST_CHEAP_RETRY: Duration = Duration::from_secs(10);

/// Why a range is not whole yet, and whether all of it came in vain.
struct Failure {
    reason: String,
    in_vain: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            reason,
            in_vain: false,
        }
    }
}

/// What came of one attempt.
enum Fetched {
    /// It is whole.
    Whole,
    /// Nobody needs it any more.
    Gone,
    /// Who was asked has compacted it so far, and this broker has not.
    Compacted(Compacted),
}

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
        Err(Failure { reason, in_vain }) => {
            metrics::counter!("highwater_mend_failures_total").increment(1);
            let tries = failed.get(&(shard, place)).map_or(0, |(tries, _)| *tries);
            let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(tries));
            let pause = pause.min(if in_vain {
                LAST_RETRY
            } else {
                LAST_CHEAP_RETRY
            });
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
) -> Result<Option<NodeId>, Failure> {
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
        let reason = "there is no other replica: restore the file from a backup";
        return Err(reason.to_owned().into());
    }
    others.retain(|node| alive.contains(node));
    others.sort_by_key(|node| (leader == Some(*node), *node));
    let mut reasons = Vec::new();
    let mut in_vain = false;
    for node in others {
        let words = format!("broker {node} sends it");
        broker.damage.doing(shard, place, &words);
        match fetch(broker, node, shard, place).await {
            Ok(Fetched::Whole) => return Ok(Some(node)),
            Ok(Fetched::Gone) => return Ok(None),
            Ok(Fetched::Compacted(compacted)) => {
                match adopt::adopt(broker, node, (shard, place), compacted).await {
                    Ok(()) => return Ok(Some(node)),
                    Err(reason) => reasons.push(format!("broker {node}: {reason}")),
                }
            }
            Err(failure) => {
                in_vain |= failure.in_vain;
                reasons.push(format!("broker {node}: {}", failure.reason));
            }
        }
    }
    if reasons.is_empty() {
        return Err("no other replica answers".to_owned().into());
    }
    let reason = reasons.join("; ");
    Err(Failure { reason, in_vain })
}

/// Fetches a range from one broker.
async fn fetch<E: Env>(
    broker: &Arc<Broker<E>>,
    node: NodeId,
    shard: ShardId,
    (tp, base): Place,
) -> Result<Fetched, Failure> {
    let store = &broker.shard_context.store;
    let Some(reader) = store.reader(shard, tp) else {
        return Ok(Fetched::Gone);
    };
    let (ours, start) = (reader.compacted(), reader.log_start());
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let begun = store.call(move || reader.mend(base)).await;
    let mend = match begun.map_err(|error| words(&error))? {
        Ok(mend) => mend,
        Err(MendError::Gone(_)) => return Ok(Fetched::Gone),
        Err(error) => return Err(error.to_string().into()),
    };
    let range = Range {
        shard,
        tp,
        from: base,
        end: mend.wanted().next_offset,
    };
    match compacted_there(broker, node, (range, start)).await {
        Ok(theirs) if theirs.is_none_or(|theirs| !differs(theirs, ours, base)) => {}
        other => {
            give_up(broker, mend).await?;
            return otherwise(other?.unwrap_or_default(), ours);
        }
    }
    let mending = Mutex::new(Some(mend));
    let theirs = Mutex::new(None);
    let pulled = broker.shard_context.snapshots.pull(node, range, |piece| {
        let compacted = piece.compacted();
        let theirs = &theirs;
        let pushed = push(broker, &mending, piece);
        async move {
            // What lies here is no part of what they have.
            if differs(compacted, ours, base) {
                *theirs.lock().await = Some(compacted);
                return Ok(Taken::Enough);
            }
            pushed.await
        }
    });
    let pulled = pulled.await.map_err(|error| error.to_string());
    let Some(mend) = mending.into_inner() else {
        return Err("the broker is stopping".to_owned().into());
    };
    let theirs = theirs.into_inner();
    if pulled.is_err() || theirs.is_some() {
        give_up(broker, mend).await?;
        pulled?;
        return otherwise(theirs.unwrap_or_default(), ours);
    }
    let put = store.call(move || mend.put_back()).await;
    match put.map_err(|error| words(&error))? {
        Ok(()) => Ok(Fetched::Whole),
        Err(error) => Err(Failure {
            in_vain: matches!(error, MendError::Differs { .. }),
            reason: error.to_string(),
        }),
    }
}

/// Whether what lies in the segment at `base` is no part of what another replica has.
fn differs(theirs: Compacted, ours: Compacted, base: Offset) -> bool {
    theirs.upto.max(ours.upto) > base && theirs != ours
}

/// What is to be done where it is compacted otherwise there.
fn otherwise(theirs: Compacted, ours: Compacted) -> Result<Fetched, Failure> {
    if theirs.generation > ours.generation {
        return Ok(Fetched::Compacted(theirs));
    }
    Err("it is not compacted there as it is here".to_owned().into())
}

async fn give_up<E: Env>(broker: &Broker<E>, mend: Mend<E::Disk>) -> Result<(), String> {
    let given_up = broker.shard_context.store.call(move || mend.give_up());
    given_up.await.map_err(|error| error.to_string())
}

/// How far a broker has compacted a partition, where the log's start lies in this range: compaction keeps nothing
/// below it, and the rest tells.
async fn compacted_there<E: Env>(
    broker: &Broker<E>,
    node: NodeId,
    (range, start): (Range, Offset),
) -> Result<Option<Compacted>, String> {
    if start <= range.from || start >= range.end {
        return Ok(None);
    }
    let range = Range {
        from: start,
        ..range
    };
    let said = Mutex::new(None);
    let look = |piece: Piece| {
        let said = &said;
        async move {
            *said.lock().await = Some(piece.compacted());
            Ok(Taken::Enough)
        }
    };
    let pulled = broker.shard_context.snapshots.pull(node, range, look).await;
    pulled.map_err(|error| error.to_string())?;
    Ok(said.into_inner())
}

/// Takes a piece, behind which the next one begins.
async fn push<E: Env>(
    broker: &Broker<E>,
    mending: &Mutex<Option<Mend<E::Disk>>>,
    piece: Piece,
) -> std::io::Result<Taken> {
    let after = piece.after(piece.end().map_err(std::io::Error::other)?);
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
