//! Entries that had rotted in the log when it was opened. A checkpoint covers them, so they go, with
//! all before it, before anybody reads the log: openraft looks for terms anywhere in it.

use std::io;

use bytes::Bytes;
use highwater_proto::ShardId;
use highwater_wal::{GroupId, LogIndex, Op};
use tokio::sync::oneshot;

use crate::codec::{decode_meta, encode_log_id};
use crate::entry::from_stored;
use crate::journal::{Journal, Recovered};
use crate::types::LogId;

/// The last entry that a checkpoint covers, by what this crate stored with it.
///
/// # Errors
/// When that is not what this crate stores.
pub fn last_covered(raft_meta: &Bytes) -> io::Result<Option<u64>> {
    let meta = decode_meta(raft_meta).map_err(io::Error::other)?;
    Ok(meta.last_log_id.map(|id| id.index()))
}

/// Purges a group up to its checkpoint if something before that had rotted; durable when it returns.
/// `covered` is the last entry of the checkpoint, which is durable.
pub(crate) async fn give_up(
    journal: &dyn Journal,
    group: ShardId,
    covered: Option<LogId>,
) -> io::Result<()> {
    let id = GroupId(group.0);
    let recovered = journal.recovered(id);
    let Some(bad) = recovered.unreadable else {
        return Ok(());
    };
    let Some(upto) = covered.filter(|covered| covered.index() >= bad) else {
        return Err(refusal(&format!(
            "entry {bad} of it is damaged and no checkpoint covers it"
        )));
    };
    let mut ops = vec![Op::Purge {
        upto: LogIndex(upto.index()),
        meta: encode_log_id(&upto),
    }];
    if contradicts(journal, id, &recovered, upto)? {
        let from = LogIndex(upto.index() + 1);
        ops.insert(0, Op::Truncate { from });
    }
    let (answer, answered) = oneshot::channel();
    let done = Box::new(move |result| drop(answer.send(result)));
    journal.submit(id, ops, done).await?;
    let durable = answered.await.map_err(io::Error::other)?;
    durable.map_err(io::Error::other)?;
    tracing::warn!(
        group = group.0,
        bad,
        covered = upto.index(),
        "an entry of the log had rotted: the checkpoint takes the place of what came before it"
    );
    Ok(())
}

/// Whether the log goes on behind the checkpoint with something else than what follows it: a replica
/// that stopped between installing a leader's checkpoint and cutting its own uncommitted tail has
/// both. The entry where the checkpoint ends tells; without it, nothing does.
fn contradicts(
    journal: &dyn Journal,
    id: GroupId,
    recovered: &Recovered,
    upto: LogId,
) -> io::Result<bool> {
    let at = upto.index();
    if recovered.last_index.is_none_or(|last| last <= at) {
        return Ok(false);
    }
    let read = journal.read(id, at, at + 1, 0).map_err(|error| {
        refusal(&format!(
            "whether it continues the checkpoint, which ends with entry {at}, cannot be told: {error}"
        ))
    })?;
    let there = match read.into_iter().next() {
        Some((index, bytes)) => Some(from_stored(index, bytes).map_err(io::Error::other)?.log_id),
        None => None,
    };
    Ok(there != Some(upto))
}

fn refusal(what: &str) -> io::Error {
    io::Error::other(format!(
        "{what}: give this broker's data directory up with `highwater cluster replace`, so that it is \
         filled again from the others"
    ))
}

#[cfg(test)]
#[path = "rotten_tests.rs"]
mod tests;
