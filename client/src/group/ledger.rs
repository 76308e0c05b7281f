//! Commits what is finished, in one call for all partitions, and parks keys together with the
//! offsets that pass their records. One round at a time.
//!
//! Invariants: no offset behind a dead-lettered record is committed without its key being parked by
//! the same call or an earlier one, and no key is parked before everything in front of its record has
//! ended.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use highwater_proto::{PartitionId, TopicId, TopicPartition, v1};
use tokio::time::{Instant, sleep};

use super::shared::Shared;
use super::state::State;
use crate::error::{Cause, ErrorCode};
use crate::rpc::CallFailure;

/// Commits now and then until dropped.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut blocked: Vec<TopicPartition> = Vec::new();
    loop {
        tokio::select! {
            () = sleep(shared.config.commit_interval) => {}
            () = shared.due.notified() => {}
        }
        let deadline = Instant::now() + shared.client.inner.request_timeout;
        let committed = commit(&shared, deadline).await;
        if let Err(cause) = &committed {
            tracing::warn!(group = &*shared.config.group, %cause, "not committed: trying on");
        }
        // A partition whose dead letters cannot be parked stands still until they can be.
        let parks = if committed.is_err() {
            shared.state().with_parks()
        } else {
            Vec::new()
        };
        for tp in blocked.iter().filter(|tp| !parks.contains(tp)) {
            shared.set_blocked(*tp, false);
        }
        for tp in &parks {
            shared.set_blocked(*tp, true);
        }
        blocked = parks;
        let wanted = std::mem::take(&mut shared.state().relist);
        if wanted && let Err(cause) = relist(&shared, deadline).await {
            tracing::warn!(group = &*shared.config.group, %cause, "parked keys: trying on");
            shared.state().relist = true;
        }
    }
}

struct Due {
    tp: TopicPartition,
    grant: u64,
    /// To commit under.
    epoch: u64,
    offset: Option<u64>,
    parks: Vec<(u64, Bytes)>,
}

/// Of one request to park: a broker takes messages up to a size.
const MOST_PARKS: usize = 1_000;
const MOST_PARK_BYTES: usize = 1 << 20;

/// What is finished of a partition and may be committed.
fn due_of(state: &State, tp: TopicPartition) -> Option<Due> {
    let part = state.parts.get(&tp)?;
    if part.progress.to_rewind().is_some() {
        return None;
    }
    let (mut parks, mut bytes) = (Vec::new(), 0);
    let mut offset = part.progress.to_commit();
    for (at, name) in part.parks_due() {
        bytes += name.len();
        if parks.len() == MOST_PARKS || (bytes > MOST_PARK_BYTES && !parks.is_empty()) {
            // Everything before it has ended, and what of that is parked is in this request or an earlier one.
            offset = Some(at);
            break;
        }
        parks.push((at, name.clone()));
    }
    let due = Due {
        tp,
        grant: part.grant,
        epoch: state.membership.commit_epoch(tp)?,
        offset,
        parks,
    };
    (due.offset.is_some() || !due.parks.is_empty()).then_some(due)
}

/// What is finished and may be committed.
fn due(state: &State) -> Vec<Due> {
    let parts = state.parts.keys();
    parts.filter_map(|tp| due_of(state, *tp)).collect()
}

/// What of a partition is still to be parked under the same grant.
fn rest(shared: &Shared, before: &Due) -> Option<Due> {
    let next = due_of(&shared.state(), before.tp)?;
    (next.grant == before.grant && !next.parks.is_empty()).then_some(next)
}

/// Takes back what was committed of logs that have begun anew, before anything of them is committed. Answers with
/// what failed, and the epochs.
async fn rewind(shared: &Shared, deadline: Instant) -> Vec<(u64, Cause)> {
    let due = {
        let state = shared.state();
        by_epoch(state.parts.iter().filter_map(|(tp, part)| {
            Some(Due {
                tp: *tp,
                grant: part.grant,
                epoch: state.membership.commit_epoch(*tp)?,
                offset: Some(part.progress.to_rewind()?),
                parks: Vec::new(),
            })
        }))
    };
    let mut failed = Vec::new();
    for (epoch, due) in due {
        if let Err(failure) = commit_offsets(shared, (epoch, true), &due, deadline).await {
            failed.push((epoch, failure.cause));
        }
    }
    failed
}

/// One call can commit under one epoch.
fn by_epoch(due: impl IntoIterator<Item = Due>) -> BTreeMap<u64, Vec<Due>> {
    let mut sorted: BTreeMap<u64, Vec<Due>> = BTreeMap::new();
    for due in due {
        sorted.entry(due.epoch).or_default().push(due);
    }
    sorted
}

/// Commits everything that is finished now. Cancellation-safe: what was under way may or may not
/// be committed, and is committed again.
pub(crate) fn commit(shared: &Shared, deadline: Instant) -> BoxFuture<'_, Result<(), Cause>> {
    async move {
        let _one = shared.ledger.lock().await;
        let mut failed = rewind(shared, deadline).await;
        let (newest, due) = {
            let state = shared.state();
            (state.membership.epoch(), due(&state))
        };
        let (parks, plain): (Vec<_>, Vec<_>) = due.into_iter().partition(|d| !d.parks.is_empty());
        // One call, but for what is being given up.
        for (epoch, due) in by_epoch(plain) {
            if let Err(failure) = commit_offsets(shared, (epoch, false), &due, deadline).await {
                failed.push((epoch, failure.cause));
            }
        }
        for first in parks {
            let mut next = Some(first);
            while let Some(due) = next {
                next = match park(shared, &due, deadline).await {
                    Ok(()) => rest(shared, &due),
                    Err(failure) => {
                        failed.push((due.epoch, failure.cause));
                        None
                    }
                };
            }
        }
        let lost = failed.iter().find(|(epoch, cause)| {
            // What is being given up may have been granted anew without a word of it.
            let fenced = cause.code() == Some(ErrorCode::FencedMember) && *epoch == newest;
            let gone = [ErrorCode::UnknownMember, ErrorCode::UnknownGroup];
            fenced || cause.code().is_some_and(|code| gone.contains(&code))
        });
        // Others hold what was worked on here: it counts for nothing. After newer news, the next round
        // tells.
        let current = shared.state().membership.epoch() == newest;
        if let Some((_, cause)) = lost.filter(|_| current) {
            tracing::warn!(group = &*shared.config.group, %cause, "the session is lost");
            shared.lose();
        }
        failed.pop().map_or(Ok(()), |(_, cause)| Err(cause))
    }
    .boxed()
}

fn wire(tp: TopicPartition, offset: u64) -> v1::OffsetCommit {
    v1::OffsetCommit {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
        offset,
        leader_epoch: 0,
        metadata: String::new(),
    }
}

async fn commit_offsets(
    shared: &Shared,
    (epoch, allow_rewind): (u64, bool),
    due: &[Due],
    deadline: Instant,
) -> Result<(), CallFailure> {
    let timeout = shared.client.inner.request_timeout;
    let request = v1::CommitOffsetsRequest {
        group: shared.config.group.to_string(),
        member_id: shared.config.member_id.clone(),
        instance_id: shared.config.instance_id.clone(),
        epoch,
        offsets: due
            .iter()
            .filter_map(|due| Some(wire(due.tp, due.offset?)))
            .collect(),
        allow_rewind,
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
    };
    let done = shared.coordinator.call(deadline, timeout, |mut groups| {
        let request = request.clone();
        async move { groups.commit_offsets(request).await }
    });
    let done = done.await?;
    let mut refused = None;
    let mut state = shared.state();
    for (due, result) in due.iter().zip(&done.results) {
        let part = state
            .parts
            .get_mut(&due.tp)
            .filter(|part| part.grant == due.grant);
        let code = result.error.as_ref().map(v1::Error::code);
        match (code, part) {
            (None, Some(part)) if allow_rewind => part.progress.rewound(),
            (None | Some(ErrorCode::CommitBehind), Some(part)) => {
                part.progress.committed(result.committed);
            }
            _ => {}
        }
        if let Some(error) = &result.error {
            let partition = due.tp;
            tracing::warn!(
                group = &*shared.config.group, %partition, error.message, "commit refused"
            );
            let worse = code == Some(ErrorCode::FencedMember) || refused.is_none();
            if worse {
                refused = Some(Cause::broker(error));
            }
        }
    }
    match refused {
        None => Ok(()),
        Some(cause) => Err(CallFailure {
            cause,
            maybe_done: false,
        }),
    }
}

/// One partition's dead letters, and the offset that passes them, all or nothing.
async fn park(shared: &Shared, due: &Due, deadline: Instant) -> Result<(), CallFailure> {
    let timeout = shared.client.inner.request_timeout;
    let keys = due.parks.iter().map(|(offset, key)| v1::ParkKey {
        topic_id: due.tp.topic.0,
        partition: due.tp.partition.0,
        key: key.clone(),
        offset: *offset,
    });
    let request = v1::ParkKeysRequest {
        group: shared.config.group.to_string(),
        member_id: shared.config.member_id.clone(),
        instance_id: shared.config.instance_id.clone(),
        epoch: due.epoch,
        keys: keys.collect(),
        offsets: due
            .offset
            .map(|offset| wire(due.tp, offset))
            .into_iter()
            .collect(),
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
    };
    let parked = shared.coordinator.call(deadline, timeout, |mut groups| {
        let request = request.clone();
        async move { groups.park_keys(request).await }
    });
    let failure = match parked.await {
        Ok(_) => {
            let mut state = shared.state();
            if let Some(part) = state.parts.get_mut(&due.tp)
                && part.grant == due.grant
            {
                for (offset, _) in &due.parks {
                    part.parks.remove(offset);
                }
                if let Some(offset) = due.offset {
                    part.progress.committed(offset);
                }
            }
            return Ok(());
        }
        Err(failure) => failure,
    };
    if failure.cause.code() == Some(ErrorCode::ParkedFull) {
        tracing::error!(
            group = &*shared.config.group, partition = %due.tp,
            "no more keys can be parked: the partition stands still until some are redriven"
        );
    }
    Err(failure)
}

/// The parked keys of these partitions.
pub(crate) async fn parked(
    shared: &Shared,
    partitions: &[TopicPartition],
    deadline: Instant,
) -> Result<Vec<(TopicPartition, Bytes)>, Cause> {
    let _one = shared.ledger.lock().await;
    list(shared, partitions, deadline).await
}

async fn list(
    shared: &Shared,
    partitions: &[TopicPartition],
    deadline: Instant,
) -> Result<Vec<(TopicPartition, Bytes)>, Cause> {
    let listed = super::admin::parked_keys(&shared.coordinator, partitions, deadline).await;
    let listed = listed.map_err(|failure| failure.cause)?;
    let place = |key: v1::ParkedKey| {
        let tp = TopicPartition::new(TopicId(key.topic_id), PartitionId(key.partition));
        (tp, key.key)
    };
    Ok(listed.into_iter().map(place).collect())
}

/// Keys were unparked: takes in which are left. No park is under way meanwhile.
async fn relist(shared: &Shared, deadline: Instant) -> Result<(), Cause> {
    let _one = shared.ledger.lock().await;
    let partitions: Vec<_> = shared.state().parts.keys().copied().collect();
    if partitions.is_empty() || !shared.config.retry.dead_letters() {
        return Ok(());
    }
    let listed = list(shared, &partitions, deadline).await?;
    let mut state = shared.state();
    // Those that are in the dead letter queue and not parked yet stay as well.
    let waiting: Vec<_> = state
        .parts
        .iter()
        .flat_map(|(tp, part)| part.parks.values().map(|key| (*tp, key.clone())))
        .collect();
    let asked = |tp: &TopicPartition| partitions.contains(tp);
    let held = |tp: &TopicPartition| state.parts.contains_key(tp);
    let kept: Vec<_> = listed
        .into_iter()
        .filter(|(tp, _)| held(tp))
        .chain(waiting)
        .collect();
    state.parked.retain(|(tp, _)| !asked(tp));
    state.parked.extend(kept);
    Ok(())
}
