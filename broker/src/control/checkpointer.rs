//! Decides when shards are checkpointed and how far their log is purged.
//!
//! A shard is checkpointed when it has applied enough since its last checkpoint or enough time has
//! passed, one at a time, so that the disk sees no burst; and when compaction has replaced files of it,
//! because the old ones stay until then. The log before a checkpoint is purged as far
//! as every member has it, so that its files are used again while they are few and a restart has little
//! to read. What a lagging member lacks is kept until the write-ahead log exceeds its budget and says
//! what it wants to be rid of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::ShardId;
use highwater_raft::Group;
use tokio::time::Instant;

use crate::node::Broker;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What is remembered of a group since its last checkpoint.
struct Since {
    at: Instant,
    wal_bytes: u64,
}

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut since: HashMap<ShardId, Since> = HashMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = broker.stop.cancelled() => return,
        }
        for group in groups(&broker) {
            if is_due(&broker, &group, &mut since) {
                checkpoint(&broker, &group, &mut since).await;
                purge_common(&group, Common::Part).await;
            }
            purge_common(&group, Common::All).await;
        }
        obey_log(&broker, &mut since).await;
    }
}

fn groups<E: Env>(broker: &Broker<E>) -> Vec<Group> {
    let mut groups = vec![broker.metadata.group().clone()];
    groups.extend(broker.shards.all().iter().map(|shard| shard.group.clone()));
    groups
}

fn is_due<E: Env>(broker: &Broker<E>, group: &Group, since: &mut HashMap<ShardId, Since>) -> bool {
    let receiver = group.status();
    let status = receiver.borrow();
    let now = Instant::now();
    let bytes = group.appended_bytes();
    let last = since.entry(group.id()).or_insert(Since {
        at: now,
        wal_bytes: bytes,
    });
    let replaced = broker.shard_context.compactions.replaced.has(group.id());
    if status.applied <= status.checkpointed && !replaced {
        return false;
    }
    let storage = &broker.config.storage;
    bytes.saturating_sub(last.wal_bytes) >= storage.checkpoint_bytes.0
        || now - last.at >= storage.checkpoint_interval_ms.duration()
}

async fn checkpoint<E: Env>(
    broker: &Broker<E>,
    group: &Group,
    since: &mut HashMap<ShardId, Since>,
) {
    let started = Instant::now();
    let wal_bytes = group.appended_bytes();
    match group.checkpoint().await {
        Ok(()) => {
            metrics::histogram!("highwater_checkpoint_seconds").record(started.elapsed());
        }
        Err(error) if broker.stop.is_cancelled() => {
            tracing::debug!(group = group.id().0, %error, "no checkpoint while stopping");
        }
        Err(error) => tracing::error!(group = group.id().0, %error, "checkpoint failed"),
    }
    since.insert(
        group.id(),
        Since {
            at: Instant::now(),
            wal_bytes,
        },
    );
}

/// When entries that all members have are purged. A purge is a write of its own, so not with each
/// few that become common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Common {
    /// As many as there are.
    Part,
    /// Once all that the checkpoint covers are.
    All,
}

/// Purges what the checkpoint covers and every member has: nobody will ask for it.
async fn purge_common(group: &Group, when: Common) {
    let (checkpointed, purged) = {
        let receiver = group.status();
        let status = receiver.borrow();
        (status.checkpointed, status.purged)
    };
    let Some(everywhere) = group.everywhere() else {
        return;
    };
    let upto = everywhere.min(checkpointed);
    if upto <= purged || (when == Common::All && upto < checkpointed) {
        return;
    }
    if let Err(error) = group.purge(upto).await {
        tracing::debug!(group = group.id().0, %error, "log not purged; will repeat");
    }
}

/// Frees what the write-ahead log wants to be rid of: checkpoint if needed, then purge.
async fn obey_log<E: Env>(broker: &Broker<E>, since: &mut HashMap<ShardId, Since>) {
    let hints = broker.wal.purge_hints();
    for hint in hints {
        let wanted = ShardId(hint.group.0);
        let Some(group) = groups(broker)
            .into_iter()
            .find(|group| group.id() == wanted)
        else {
            continue;
        };
        let (checkpointed, applied) = {
            let receiver = group.status();
            let status = receiver.borrow();
            (status.checkpointed, status.applied)
        };
        if checkpointed < hint.upto.0 && applied > checkpointed {
            checkpoint(broker, &group, since).await;
        }
        if let Err(error) = group.purge(hint.upto.0.min(applied)).await {
            tracing::debug!(group = wanted.0, %error, "log not purged; will repeat");
        }
    }
}
