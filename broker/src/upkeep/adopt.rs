//! A bad range of a compacted partition whose bytes no other replica has any more: the others have
//! compacted further, and this one cannot follow, because compaction copies nothing that is bad. What
//! another replica has compacted takes the place of all that is to be compacted here.
//!
//! The result of a compaction is the same on every replica, so this is the state that this one would have
//! come to. It counts only if it is, byte by byte, what the other one wrote: by the checksums that were made
//! there while it was written.

use std::io::{self, Error};
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::{NodeId, ShardId};
use highwater_segment::{Adopted, Adoption, Compacted, Replaced};
use tokio::sync::Mutex;

use super::{compact, compare};
use crate::node::Broker;
use crate::runtime::damage::Place;
use crate::runtime::pull::{Piece, Range, Taken};

/// Takes over what `node` has compacted, which was seen to be this far. Nothing else is bad in all of that
/// range then.
///
/// # Errors
/// Why not, in one line; the log is as it was.
pub(super) async fn adopt<E: Env>(
    broker: &Arc<Broker<E>>,
    node: NodeId,
    (shard, place): (ShardId, Place),
    compacted: Compacted,
) -> Result<(), String> {
    let tp = place.0;
    let store = &broker.shard_context.store;
    let hosted = broker.shards.get(shard).ok_or("it is not hosted here")?;
    let view = hosted.views.get(tp).ok_or("its partition is gone")?;
    // Never ahead of what this replica has applied.
    let decided = view.compaction().map_or(0, |facts| facts.generation);
    if decided < compacted.generation {
        return Err(format!(
            "{tp} is compacted further there than is known here"
        ));
    }
    if broker.gate.is_storage_full() {
        return Err("there is too little free space".to_owned());
    }
    let reader = store.reader(shard, tp).ok_or("its log is not open")?;
    let begun = store.call(move || reader.adopt(compacted)).await;
    let adoption = begun.map_err(words)?.map_err(words)?;
    let adopted = pull(broker, (node, shard), place, (adoption, compacted)).await?;
    let ranges = &adopted.segments;
    // Of a segment that was deleted in part only the rest has come.
    let whole = match ranges.split_first() {
        Some((first, rest)) if first.base_offset < view.log_start() => rest,
        _ => ranges,
    };
    let same = compare::confirm(broker, (node, shard), tp, (whole, compacted)).await;
    let replacement = adopted.replacement;
    if let Err(reason) = same {
        let discarded = store.call(move || replacement.discard()).await;
        discarded.map_err(words)?;
        return Err(reason);
    }
    match compact::put(broker, shard, replacement)
        .await
        .map_err(words)?
    {
        Replaced::Done => {}
        Replaced::Pinned | Replaced::Stale => return Err(format!("{tp} changed meanwhile")),
    }
    metrics::counter!("highwater_adopted_compactions_total").increment(1);
    let queue = &broker.shard_context.compactions;
    queue.done((shard, tp), compacted.generation);
    for (noted, (other, base)) in broker.damage.ranges() {
        if noted == shard && other == tp && base < compacted.upto {
            broker.damage.clear(noted, (other, base));
        }
    }
    Ok(())
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Fetches everything below the end of compaction, as it is there.
async fn pull<E: Env>(
    broker: &Arc<Broker<E>>,
    (node, shard): (NodeId, ShardId),
    (tp, _): Place,
    (adoption, compacted): (Adoption<E::Disk>, Compacted),
) -> Result<Adopted<E::Disk>, String> {
    let store = &broker.shard_context.store;
    let range = Range {
        shard,
        tp,
        from: adoption.from(),
        end: compacted.upto,
    };
    let adopting = Mutex::new(Some(adoption));
    let taken = |piece| push(broker, &adopting, piece, compacted);
    let pulled = broker
        .shard_context
        .snapshots
        .pull(node, range, taken)
        .await;
    let Some(adoption) = adopting.into_inner() else {
        return Err("the broker is stopping".to_owned());
    };
    if let Err(reason) = pulled {
        let given_up = store.call(move || adoption.discard()).await;
        given_up.map_err(words)?;
        return Err(reason.to_string());
    }
    let written = store.call(move || adoption.finish()).await;
    written.map_err(words)?.map_err(words)
}

/// Takes a piece, behind which the next one begins.
async fn push<E: Env>(
    broker: &Broker<E>,
    adopting: &Mutex<Option<Adoption<E::Disk>>>,
    piece: Piece,
    compacted: Compacted,
) -> io::Result<Taken> {
    if piece.compacted() != compacted {
        return Err(Error::other("it was compacted once more there"));
    }
    let after = piece.after(piece.end().map_err(Error::other)?);
    let mut slot = adopting.lock().await;
    let Some(mut adoption) = slot.take() else {
        return Err(Error::other("the broker is stopping"));
    };
    let pushed = broker.shard_context.store.call(move || {
        let outcome = adoption.push(piece.segment(), piece.batches);
        (adoption, outcome)
    });
    let (adoption, outcome) = pushed.await.map_err(Error::other)?;
    *slot = Some(adoption);
    outcome.map(|()| Taken::Upto(after)).map_err(Error::other)
}
