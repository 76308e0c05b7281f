//! Calls with one answer: tried at one broker after another until the deadline.

use std::future::Future;

use highwater_proto::v1;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::connect::Purpose;
use crate::error::{Cause, CodeClass, classify};

/// Why a call was given up, and whether some attempt may have had an effect.
#[derive(Debug, Clone)]
pub(crate) struct CallFailure {
    pub cause: Cause,
    /// An attempt ended without a verdict, now or before.
    pub maybe_done: bool,
}

/// What a call answers with: success, or the error inside the response.
pub(crate) trait Answer {
    fn error(&self) -> Option<&v1::Error>;
}

macro_rules! answers {
    ($($name:ident),*) => {
        $(impl Answer for v1::$name {
            fn error(&self) -> Option<&v1::Error> {
                self.error.as_ref()
            }
        })*
    };
}
answers!(
    InitProducerResponse,
    CreateTopicResponse,
    DescribeTopicResponse,
    TransferLeaderResponse,
    JoinGroupResponse,
    GroupHeartbeatResponse,
    LeaveGroupResponse,
    CommitOffsetsResponse,
    FetchOffsetsResponse,
    ParkKeysResponse,
    UnparkKeysResponse,
    ListParkedKeysResponse,
    DescribeGroupResponse,
    DeleteGroupResponse,
    ResetOffsetsResponse,
    CopyGroupResponse,
    RemoveMembersResponse,
    PlanResponse,
    RemoveBrokerResponse,
    HealthResponse,
    RestartCheckResponse,
    DeleteTopicResponse,
    AlterTopicResponse,
    AddPartitionsResponse,
    DeleteRecordsResponse
);

macro_rules! always_answers {
    ($($name:ident),*) => {
        $(impl Answer for v1::$name {
            fn error(&self) -> Option<&v1::Error> {
                None
            }
        })*
    };
}
always_answers!(
    ListOffsetsResponse,
    ListTopicsResponse,
    DescribeClusterResponse,
    FindCoordinatorResponse,
    ListGroupsResponse
);

/// Calls until success, a fatal answer, or `deadline`, again only as far as the client's budget of
/// retries reaches. `first` is asked before the others. Cancellation-safe: dropping it leaves the
/// current attempt's outcome unknown.
pub(crate) async fn call<T, F, Fut>(
    cluster: &Cluster,
    first: Option<String>,
    deadline: Instant,
    attempt: F,
) -> Result<T, CallFailure>
where
    T: Answer,
    F: FnMut(Channel) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    cluster.called(1);
    calls(cluster, first, (deadline, true), attempt).await
}

/// The same, whatever the budget says: for what must not starve when others retry much.
pub(crate) async fn call_always<T, F, Fut>(
    cluster: &Cluster,
    deadline: Instant,
    attempt: F,
) -> Result<T, CallFailure>
where
    T: Answer,
    F: FnMut(Channel) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    calls(cluster, None, (deadline, false), attempt).await
}

async fn calls<T, F, Fut>(
    cluster: &Cluster,
    first: Option<String>,
    (deadline, within_budget): (Instant, bool),
    mut attempt: F,
) -> Result<T, CallFailure>
where
    T: Answer,
    F: FnMut(Channel) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let mut named = first;
    let mut failures: u32 = 0;
    let mut turn = cluster.random();
    let mut maybe_done = false;
    loop {
        let address = match named.take() {
            Some(address) => address,
            None => next_address(cluster, &mut turn)?,
        };
        let budget = deadline
            .saturating_duration_since(Instant::now())
            .min(cluster.timings.request_timeout);
        let mut called = within_budget;
        let cause = match one(cluster, &address, budget, &mut attempt).await {
            Ok(answer) => match answer.error() {
                None => return Ok(answer),
                Some(error) => {
                    let cause = Cause::broker(error);
                    match classify(error.code()) {
                        CodeClass::Fatal => return Err(CallFailure { cause, maybe_done }),
                        CodeClass::Unknown => maybe_done = true,
                        CodeClass::Retriable => {}
                    }
                    let hint = error.leader.as_ref().map(|leader| leader.address.clone());
                    named = hint.filter(|hint| !hint.is_empty() && *hint != address);
                    cause
                }
            },
            Err(Attempt::NotSent(cause)) => {
                // It reached nobody: no call, and the next attempt is no retry of it.
                called = false;
                cause
            }
            Err(Attempt::NoAnswer(cause)) => {
                maybe_done = true;
                cause
            }
        };
        failures = failures.saturating_add(1);
        tracing::debug!(broker = address, %cause, failures, "call failed");
        let pause = cluster.pause(failures);
        if Instant::now() + pause >= deadline {
            return Err(CallFailure { cause, maybe_done });
        }
        // A named leader is worth asking at once, but not for ever in a circle.
        if named.is_none() || failures > 3 {
            sleep(pause).await;
        }
        if called && !cluster.allowed(deadline).await {
            return Err(CallFailure { cause, maybe_done });
        }
    }
}

fn next_address(cluster: &Cluster, turn: &mut u64) -> Result<String, CallFailure> {
    let mut candidates = cluster.candidates();
    *turn = turn.wrapping_add(1);
    let count = u64::try_from(candidates.len()).unwrap_or(1).max(1);
    let index = usize::try_from(*turn % count).unwrap_or(0);
    if index < candidates.len() {
        return Ok(candidates.swap_remove(index));
    }
    let cause = Cause::Transport("no broker address is known".to_owned());
    Err(CallFailure {
        cause,
        maybe_done: false,
    })
}

enum Attempt {
    NotSent(Cause),
    NoAnswer(Cause),
}

async fn one<T, F, Fut>(
    cluster: &Cluster,
    address: &str,
    budget: std::time::Duration,
    attempt: &mut F,
) -> Result<T, Attempt>
where
    F: FnMut(Channel) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let channel = cluster
        .pool
        .channel(address, Purpose::Control)
        .map_err(|reason| Attempt::NotSent(Cause::Transport(reason)))?;
    match timeout(budget, attempt(channel)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let cause = Cause::status(&status);
            // A failed dial and a missing method prove that nothing was received.
            if never_sent(&status) {
                Err(Attempt::NotSent(cause))
            } else {
                Err(Attempt::NoAnswer(cause))
            }
        }
        Err(_) => {
            cluster.pool.forget(address, Purpose::Control);
            Err(Attempt::NoAnswer(Cause::Deadline(format!(
                "{address} did not answer"
            ))))
        }
    }
}

/// Whether the failure came before a connection stood.
pub(crate) fn never_sent(status: &tonic::Status) -> bool {
    if status.code() == tonic::Code::Unimplemented {
        return true;
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
