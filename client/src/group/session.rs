//! Keeps the session alive: joins, beats, learns of assignments. A task of its own, so that nothing
//! that handlers do can delay it.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::v1;
use tokio::time::{Instant, sleep, timeout_at};

use super::GroupError;
use super::config::is_final;
use super::shared::Shared;
use crate::error::{Cause, ErrorCode};
use crate::rpc::CallFailure;

/// What an answer may take beyond the time that the broker was asked to wait, at the most. A third of
/// the session at the most too: a coordinator that stands still must leave time to find another.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until the member has ended.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut interval = shared.config.session_timeout / 4;
    let mut failures: u32 = 0;
    loop {
        let (ended, member) = {
            let state = shared.state();
            (state.ended.is_some(), state.membership.is_member())
        };
        if ended {
            return;
        }
        let outcome = if member {
            beat(&shared, interval).await
        } else {
            join(&shared, &mut interval).await
        };
        match outcome {
            Ok(()) => failures = 0,
            Err(cause) => {
                if is_final(&cause) {
                    tracing::error!(group = &*shared.config.group, %cause, "no member any more");
                    shared.end(GroupError::Ended(cause));
                    return;
                }
                failures = failures.saturating_add(1);
                tracing::warn!(group = &*shared.config.group, %cause, "group session: trying on");
                sleep(shared.client.inner.cluster.pause(failures)).await;
            }
        }
    }
}

async fn join(shared: &Shared, interval: &mut Duration) -> Result<(), Cause> {
    let config = &shared.config;
    let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    let request = v1::JoinGroupRequest {
        group: config.group.to_string(),
        member_id: config.member_id.clone(),
        instance_id: config.instance_id.clone(),
        client_id: shared.client.inner.client_id.clone(),
        rack: config.rack.clone(),
        topics: config.topics.clone(),
        pattern: config.pattern.clone(),
        strategy: config.strategy.into(),
        session_timeout_ms: millis(config.session_timeout),
        rebalance_timeout_ms: millis(config.rebalance_timeout),
    };
    let longest = shared.client.inner.request_timeout;
    let deadline = Instant::now() + longest;
    let joined = shared.coordinator.call(deadline, longest, |mut groups| {
        let request = request.clone();
        async move { groups.join(request).await }
    });
    let joined = joined.await.map_err(|failure| failure.cause)?;
    if joined.heartbeat_interval_ms > 0 {
        *interval = Duration::from_millis(joined.heartbeat_interval_ms.into());
    }
    tracing::info!(
        group = &*config.group,
        member = config.member_id,
        generation = joined.generation,
        "joined"
    );
    {
        let (mut state, now) = (shared.state(), shared.now());
        state.membership.joined(joined.assignment, now);
        state.membership.acknowledge();
    }
    shared.changed.notify_one();
    Ok(())
}

async fn beat(shared: &Shared, interval: Duration) -> Result<(), Cause> {
    let (silence, said) = {
        let state = shared.state();
        let silence = shared.instant(state.membership.silent_at());
        (silence, state.membership.beat())
    };
    let request = v1::GroupHeartbeatRequest {
        group: shared.config.group.to_string(),
        member_id: shared.config.member_id.clone(),
        instance_id: shared.config.instance_id.clone(),
        received_epoch: said.received,
        acknowledged_epoch: said.acknowledged,
        max_wait_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
        unparked_epoch: said.unparked,
    };
    let longest = interval + GRACE.min(shared.config.session_timeout / 3);
    let call = shared.coordinator.call(silence, longest, |mut groups| {
        let request = request.clone();
        async move { groups.heartbeat(request).await }
    });
    let answer = tokio::select! {
        answer = timeout_at(silence, call) => answer,
        // There is something new to say: the broker need not answer the old question.
        () = shared.beat.notified() => return Ok(()),
    };
    let failure = match answer {
        Ok(Ok(answer)) => {
            heard(shared, answer);
            return Ok(());
        }
        Ok(Err(failure)) => failure,
        Err(_) => CallFailure {
            cause: Cause::Deadline("no heartbeat was answered".to_owned()),
            maybe_done: false,
        },
    };
    let cause = failure.cause;
    let expelled = matches!(
        cause.code(),
        Some(ErrorCode::UnknownMember | ErrorCode::UnknownGroup | ErrorCode::FencedMember)
    );
    let silent = {
        let (state, now) = (shared.state(), shared.now());
        state.membership.is_silent(now)
    };
    if shared.state().ended.is_some() {
        return Ok(());
    }
    if expelled || silent {
        tracing::warn!(group = &*shared.config.group, %cause, expelled, "the session is lost");
        shared.lose();
        return Ok(());
    }
    Err(cause)
}

fn heard(shared: &Shared, answer: v1::GroupHeartbeatResponse) {
    {
        let (mut state, now) = (shared.state(), shared.now());
        let unparked = state
            .membership
            .heard(answer.assignment, answer.unparked_epoch, now);
        // Nothing to give up: it is in force as it comes, and the next beat says so.
        state.membership.acknowledge();
        state.relist |= unparked;
        if unparked {
            shared.due.notify_one();
        }
    }
    shared.changed.notify_one();
}

/// Leaves the group. A member that cannot say so is expelled when its session is over.
pub(crate) async fn leave(shared: &Shared, deadline: Instant) -> Result<(), Cause> {
    let request = v1::LeaveGroupRequest {
        group: shared.config.group.to_string(),
        member_id: shared.config.member_id.clone(),
        instance_id: shared.config.instance_id.clone(),
    };
    let longest = shared.client.inner.request_timeout;
    let left = shared.coordinator.call(deadline, longest, |mut groups| {
        let request = request.clone();
        async move { groups.leave(request).await }
    });
    match left.await {
        Ok(_) => Ok(()),
        Err(failure) => match failure.cause.code() {
            // Gone already, by an earlier attempt or otherwise.
            Some(ErrorCode::UnknownMember | ErrorCode::UnknownGroup) => Ok(()),
            _ => Err(failure.cause),
        },
    }
}
