//! Follows assignments: finishes and commits what goes, looks up where to begin with what comes,
//! calls the hooks. A task of its own.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use highwater_proto::{PartitionId, TopicPartition};
use tokio::time::{Instant, sleep, timeout_at};

use super::config::{GroupStart, NamedPartition, RevokeReason};
use super::ledger;
use super::membership::{Grant, Step};
use super::shared::Shared;
use super::state::shown;
use super::{GroupError, session, worker};
use crate::error::Cause;
use crate::offsets::{self, At};

/// Runs until the member is dropped.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut failures: u32 = 0;
    loop {
        let lost = std::mem::take(&mut shared.state().lost);
        if !lost.is_empty() {
            revoked(&shared, lost, RevokeReason::Lost).await;
        }
        let step = {
            let state = shared.state();
            if state.stopping {
                None
            } else {
                state.membership.step()
            }
        };
        match step {
            None => shared.changed.notified().await,
            Some(Step::GiveUp(partitions)) => give_up(&shared, &partitions).await,
            Some(Step::Take(grants)) => match take(&shared, grants).await {
                Ok(()) => failures = 0,
                Err(cause) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(
                        group = &*shared.config.group, %cause,
                        "cannot begin with all partitions yet"
                    );
                    let pause = shared.client.inner.cluster.pause(failures);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = shared.changed.notified() => {}
                    }
                }
            },
        }
    }
}

async fn revoked(shared: &Shared, partitions: Vec<NamedPartition>, reason: RevokeReason) {
    if partitions.is_empty() {
        return;
    }
    let names: Vec<_> = partitions.iter().map(shown).collect();
    tracing::info!(
        group = &*shared.config.group,
        ?names,
        ?reason,
        "partitions go"
    );
    if let Some(hook) = &shared.config.revoked {
        called(shared, "on_revoked", async {
            hook(partitions, reason).await
        })
        .await;
    }
}

/// Runs a hook. One that panics must not end the task that follows assignments.
async fn called(shared: &Shared, name: &str, hook: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(hook).catch_unwind().await {
        let panic = worker::message(&*panic);
        tracing::error!(
            group = &*shared.config.group,
            hook = name,
            panic,
            "a hook panicked"
        );
    }
}

/// Stops, waits for handlers, commits, and lets go.
async fn give_up(shared: &Shared, partitions: &[TopicPartition]) {
    {
        let mut state = shared.state();
        for &tp in partitions {
            shared.quiesce(&mut state, tp);
        }
    }
    // Half of what the group allows: the rest is for the commit and the acknowledgement.
    let patience = Instant::now() + shared.config.rebalance_timeout / 2;
    if !idle(shared, partitions, patience).await {
        tracing::warn!(
            group = &*shared.config.group,
            "a handler did not finish in time: its record will be handled by another member too"
        );
    }
    // Nothing is left of a session that was lost meanwhile.
    let names = shared.state().named(partitions);
    revoked(shared, names, RevokeReason::Moved).await;
    let deadline = Instant::now() + shared.client.inner.request_timeout;
    if let Err(cause) = ledger::commit(shared, deadline).await {
        tracing::warn!(group = &*shared.config.group, %cause, "the last commit failed");
    }
    let news = {
        let mut state = shared.state();
        let left = partitions.iter().map(|&tp| {
            let part = state.parts.get(&tp);
            (tp, part.and_then(|part| part.progress.last_committed()))
        });
        let left: Vec<_> = left.collect();
        for &tp in partitions {
            shared.drop_part(&mut state, tp);
        }
        state.membership.gave_up(&left)
    };
    if news {
        shared.beat.notify_one();
    }
}

/// Waits until no handler works on these partitions, or the session is lost. Cancellation-safe.
async fn idle(shared: &Shared, partitions: &[TopicPartition], until: Instant) -> bool {
    let mut settled = shared.settled.subscribe();
    loop {
        settled.borrow_and_update();
        if !shared.state().is_running(partitions) {
            return true;
        }
        // The sender lives in `shared`.
        if timeout_at(until, settled.changed()).await.is_err() {
            return false;
        }
    }
}

async fn take(shared: &Shared, grants: Vec<Grant>) -> Result<(), Cause> {
    let deadline = Instant::now() + shared.client.inner.request_timeout;
    let cluster = &shared.client.inner.cluster;
    let mut by_topic: BTreeMap<Arc<str>, Vec<Grant>> = BTreeMap::new();
    for grant in grants {
        by_topic
            .entry(Arc::clone(&grant.topic))
            .or_default()
            .push(grant);
    }
    let mut trouble = None;
    let mut ready = Vec::new();
    for (topic, grants) in by_topic {
        // From now on the client follows the topic's leaders.
        let looked_up = match cluster.topic(&topic, deadline).await {
            Ok(_) => starts(shared, &topic, &grants, deadline).await,
            Err(cause) => Err(cause),
        };
        match looked_up {
            Ok(starts) => ready.extend(grants.into_iter().zip(starts)),
            Err(cause) => trouble = Some(cause),
        }
    }
    let partitions: Vec<_> = ready.iter().map(|(grant, _)| grant.tp).collect();
    let parked = if shared.config.retry.dead_letters() && !partitions.is_empty() {
        ledger::parked(shared, &partitions, deadline).await?
    } else {
        Vec::new()
    };
    let names: Vec<NamedPartition> = ready
        .iter()
        .map(|(grant, _)| (Arc::clone(&grant.topic), grant.tp.partition))
        .collect();
    if !names.is_empty() {
        tracing::info!(
            group = &*shared.config.group,
            names = ?names.iter().map(shown).collect::<Vec<_>>(),
            "partitions come"
        );
        if let Some(hook) = &shared.config.assigned {
            called(shared, "on_assigned", async { hook(names).await }).await;
        }
    }
    for (grant, start) in ready {
        let keys = parked.iter().filter(|(tp, _)| *tp == grant.tp);
        let keys: Vec<Bytes> = keys.map(|(_, key)| key.clone()).collect();
        shared.begin(&grant, start, &keys);
    }
    trouble.map_or(Ok(()), Err)
}

/// Where each of a topic's partitions begins.
async fn starts(
    shared: &Shared,
    topic: &str,
    grants: &[Grant],
    deadline: Instant,
) -> Result<Vec<u64>, Cause> {
    // What was redriven before this member came is never to be passed over.
    let at = match shared.config.start {
        GroupStart::Latest if topic != shared.redrive_topic => At::Latest,
        _ => At::Earliest,
    };
    let unknown = grants.iter().filter(|grant| grant.committed.is_none());
    let queries: Vec<(PartitionId, At)> = unknown.map(|grant| (grant.tp.partition, at)).collect();
    let mut found = BTreeMap::new();
    if !queries.is_empty() {
        let cluster = &shared.client.inner.cluster;
        let listed = offsets::list(cluster, topic, &queries, deadline).await;
        for offset in listed.map_err(|error| error.cause)? {
            found.insert(offset.partition, offset.offset.0);
        }
    }
    let start = |grant: &Grant| {
        let looked_up = found.get(&grant.tp.partition).copied();
        grant.committed.or(looked_up).unwrap_or(0)
    };
    Ok(grants.iter().map(start).collect())
}

/// Finishes what handlers work on, commits it, and leaves the group.
///
/// # Errors
/// [`GroupError::Commit`]: what was finished may be handled again.
pub(crate) fn leave(shared: &Shared) -> BoxFuture<'_, Result<(), GroupError>> {
    async move {
        let (partitions, names) = {
            let mut state = shared.state();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            state.stopping = true;
            let partitions: Vec<_> = state.parts.keys().copied().collect();
            let names = state.named(&partitions);
            for &tp in &partitions {
                shared.quiesce(&mut state, tp);
            }
            (partitions, names)
        };
        shared.waker.wake();
        let patience = Instant::now() + shared.config.leave_timeout;
        if !idle(shared, &partitions, patience).await {
            tracing::warn!(
                group = &*shared.config.group,
                "leaving with handlers at work: their records will be handled again"
            );
        }
        revoked(shared, names, RevokeReason::Leaving).await;
        let deadline = Instant::now() + shared.client.inner.request_timeout;
        let committed = ledger::commit(shared, deadline).await;
        // No heartbeat from here on, and no joining again.
        shared.state().ended.get_or_insert(GroupError::Closed);
        shared.beat.notify_one();
        // A static member that comes back in time finds its partitions again.
        if shared.config.instance_id.is_empty()
            && let Err(cause) = session::leave(shared, deadline).await
        {
            tracing::warn!(group = &*shared.config.group, %cause, "could not say that it leaves");
        }
        committed.map_err(GroupError::Commit)
    }
    .boxed()
}
