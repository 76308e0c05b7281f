//! Checkpoints, made ([`take`]) and received ([`receive`]). One at a time per group, so that an
//! older manifest never replaces a newer one on the disk.

use std::time::Duration;

use highwater_proto::NodeId;
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::adapter::{PersistError, SnapshotHandle, persist};
use crate::codec::{SnapshotBody, decode_meta};
use crate::error::CheckpointError;
use crate::machine::{StateMachine, StoredCheckpoint};
use crate::replica::Replica;
use crate::types::{LogId, Snapshot, SnapshotResponse};

/// Makes a checkpoint of everything applied, unless the last one has it already, where it is now. Answers
/// with the last entry that openraft knows to be covered.
pub(crate) async fn take<S: StateMachine>(
    replica: Replica<S>,
) -> Result<Option<u64>, CheckpointError> {
    let _alone = replica.checkpointing.lock().await;
    let stopped = |error: &dyn ToString| CheckpointError::Stopped(error.to_string());
    let frozen = replica.raft.with_state_machine(|machine| {
        let frozen = machine.freeze();
        Box::pin(async move { frozen })
    });
    let Some(frozen) = frozen.await.map_err(|error| stopped(&error))? else {
        return Ok(reported(&replica));
    };
    let before = replica.current.lock().covered();
    let made = persist(frozen, &replica.log, &replica.current).await;
    let made = made.map_err(|error| match error {
        PersistError::Log(error) => CheckpointError::Log(error.to_string()),
        PersistError::Machine(error) => CheckpointError::Persist(error),
    })?;
    if before.is_some() && made.meta.last_log_id == before {
        // Only what it names is new.
        return Ok(reported(&replica));
    }
    replica.current.lock().announced = true;
    replica
        .raft
        .trigger()
        .snapshot()
        .await
        .map_err(|error| stopped(&error))?;
    wait_reported(&replica, made.meta.last_log_id).await?;
    Ok(made.meta.last_log_id.map(|id| id.index()))
}

/// The last entry that openraft knows to be covered. Less than the durable checkpoint has, where openraft refused
/// one that had been installed, because a later leader was heard meanwhile: it hears of as much from that leader.
fn reported<S: StateMachine>(replica: &Replica<S>) -> Option<u64> {
    let known = replica.raft.metrics().borrow_watched().snapshot;
    known.map(|id| id.index())
}

/// Waits until openraft knows of a checkpoint, so that a purge that follows is not refused.
async fn wait_reported<S: StateMachine>(
    replica: &Replica<S>,
    made: Option<LogId>,
) -> Result<(), CheckpointError> {
    let mut metrics = replica.raft.metrics();
    loop {
        let now = metrics.borrow_and_update().snapshot;
        if now >= made {
            return Ok(());
        }
        if let Err(error) = &metrics.borrow_watched().running_state {
            return Err(CheckpointError::Stopped(error.to_string()));
        }
        if metrics.changed().await.is_err() {
            return Err(CheckpointError::Stopped("its core has ended".to_owned()));
        }
    }
}

/// Installs a leader's checkpoint. The state machine pulls first; openraft hears of it only when
/// the state is in place and durable, because to openraft a failed installation is fatal, while a
/// leader that goes away in the middle is not. Dropping the future gives up.
pub(crate) async fn receive<S: StateMachine>(
    replica: Replica<S>,
    from: NodeId,
    body: SnapshotBody,
) -> Result<SnapshotResponse, String> {
    let known = replica.raft.metrics().borrow_watched().vote;
    if known > body.vote {
        return Ok(SnapshotResponse::new(known));
    }
    let meta = decode_meta(&body.raft_meta).map_err(|error| error.to_string())?;
    let stored = StoredCheckpoint {
        raft_meta: body.raft_meta,
        manifest: body.manifest,
    };
    let handle = SnapshotHandle { from, stored };
    let _alone = replica.checkpointing.lock().await;
    install(&replica, meta.clone(), handle.clone()).await?;
    let snapshot = Snapshot {
        meta,
        snapshot: handle,
    };
    let installed = replica
        .raft
        .install_full_snapshot(body.vote, snapshot)
        .await;
    installed.map_err(|error| error.to_string())
}

async fn install<S: StateMachine>(
    replica: &Replica<S>,
    meta: crate::types::SnapshotMeta,
    handle: SnapshotHandle,
) -> Result<(), String> {
    // Dropped with this future: tells the installation, which runs on the state machine's task,
    // that nobody waits for it any more.
    let (_wanted, mut unwanted) = tokio::sync::oneshot::channel::<()>();
    let deadline: Duration = replica.timings.install_deadline;
    let done = replica.raft.with_state_machine(move |machine| {
        Box::pin(async move {
            let prepared = tokio::select! {
                biased;
                _ = &mut unwanted => return Err("given up by its leader".to_owned()),
                done = tokio::time::timeout(deadline, machine.prepare_install(meta, handle)) => done,
            };
            let prepared = prepared.map_err(|_| format!("not there within {deadline:?}"))?;
            match prepared.map_err(|error| error.to_string())? {
                // From here on nobody gives it up: half of it would be no state at all.
                Some(prepared) => machine.finish_install(prepared).await.map_err(|e| e.to_string()),
                None => Ok(()),
            }
        })
    });
    let done = done.await.map_err(|error| error.to_string())?;
    done.inspect_err(|error| {
        tracing::warn!(
            group = replica.log.group.0,
            error,
            "a checkpoint was not installed"
        );
    })
}
