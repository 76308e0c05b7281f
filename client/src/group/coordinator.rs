//! Calls to a group's coordinator: finds it, follows it, tries until the deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::v1::{self, groups_client::GroupsClient};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::connect::Purpose;
use crate::error::{Cause, CodeClass, ErrorCode, classify};
use crate::rpc::{self, Answer, CallFailure};

/// The way to one group's coordinator.
#[derive(Clone)]
pub(crate) struct Coordinator {
    pub cluster: Arc<Cluster>,
    pub group: Arc<str>,
    address: Arc<Mutex<Option<String>>>,
}

/// The largest answer that is accepted, in bytes: a page of parked keys, 100,000 partitions.
const MAX_ANSWER_BYTES: usize = 64 << 20;

impl Coordinator {
    pub(crate) fn new(cluster: Arc<Cluster>, group: Arc<str>) -> Self {
        Self {
            cluster,
            group,
            address: Arc::default(),
        }
    }

    /// Calls until success, a fatal answer, or `deadline`. `longest` bounds one attempt.
    /// Cancellation-safe: dropping it leaves the current attempt's outcome unknown.
    pub(crate) async fn call<T, F, Fut>(
        &self,
        deadline: Instant,
        longest: Duration,
        mut attempt: F,
    ) -> Result<T, CallFailure>
    where
        T: Answer,
        F: FnMut(GroupsClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut failures: u32 = 0;
        let mut maybe_done = false;
        loop {
            let cause = match self.once(deadline, longest, &mut attempt).await {
                Ok(answer) => match answer.error() {
                    None => return Ok(answer),
                    Some(error) => {
                        let cause = Cause::broker(error);
                        match class(error.code()) {
                            CodeClass::Fatal => return Err(CallFailure { cause, maybe_done }),
                            CodeClass::Unknown => maybe_done = true,
                            CodeClass::Retriable => {}
                        }
                        self.follow(error);
                        cause
                    }
                },
                Err(failure) => {
                    maybe_done |= failure.maybe_done;
                    *self.address.lock() = None;
                    failure.cause
                }
            };
            failures = failures.saturating_add(1);
            tracing::debug!(group = &*self.group, %cause, failures, "group call failed");
            let pause = self.cluster.pause(failures);
            if Instant::now() + pause >= deadline {
                return Err(CallFailure { cause, maybe_done });
            }
            // A named coordinator is worth asking at once, but not for ever in a circle.
            if failures > 2 || self.address.lock().is_none() {
                sleep(pause).await;
            }
        }
    }

    /// Where to go instead, if the error says so.
    fn follow(&self, error: &v1::Error) {
        let hint = error.leader.as_ref().map(|leader| leader.address.clone());
        *self.address.lock() = hint.filter(|hint| !hint.is_empty());
    }

    async fn once<T, F, Fut>(
        &self,
        deadline: Instant,
        longest: Duration,
        attempt: &mut F,
    ) -> Result<T, CallFailure>
    where
        F: FnMut(GroupsClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let known = self.address.lock().clone();
        let address = match known {
            Some(address) => address,
            None => self.find(deadline).await?,
        };
        let channel = self.cluster.pool.channel(&address, Purpose::Group);
        let channel = channel.map_err(|reason| CallFailure {
            cause: Cause::Transport(reason),
            maybe_done: false,
        })?;
        let budget = deadline
            .saturating_duration_since(Instant::now())
            .min(longest);
        let client = GroupsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        match timeout(budget, attempt(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CallFailure {
                cause: Cause::status(&status),
                maybe_done: !rpc::never_sent(&status),
            }),
            Err(_) => {
                self.cluster.pool.forget(&address, Purpose::Group);
                Err(CallFailure {
                    cause: Cause::Deadline(format!("{address} did not answer")),
                    maybe_done: true,
                })
            }
        }
    }

    async fn find(&self, deadline: Instant) -> Result<String, CallFailure> {
        let longest = self.cluster.timings.request_timeout;
        let deadline = deadline.min(Instant::now() + longest);
        let request = v1::FindCoordinatorRequest {
            groups: vec![self.group.to_string()],
        };
        // A heartbeat waits for this: a session must not end because something else retries much.
        let found = rpc::call_always(&self.cluster, deadline, |channel| {
            let request = request.clone();
            async move { GroupsClient::new(channel).find_coordinator(request).await }
        });
        let failed = |cause| CallFailure {
            cause,
            maybe_done: false,
        };
        let found = found.await.map_err(|failure| failed(failure.cause))?;
        let coordinator = found.coordinators.into_iter().next().unwrap_or_default();
        let address = coordinator.leader.map(|leader| leader.address);
        match address.filter(|address| !address.is_empty()) {
            Some(address) => {
                *self.address.lock() = Some(address.clone());
                Ok(address)
            }
            None => Err(failed(match &coordinator.error {
                Some(error) => Cause::broker(error),
                None => Cause::Transport("the group's coordinator is not known".to_owned()),
            })),
        }
    }
}

/// What a code means for a call to a coordinator.
fn class(code: ErrorCode) -> CodeClass {
    match code {
        // Of a partition's call these may pass; a group's call names them for good.
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => CodeClass::Fatal,
        code => classify(code),
    }
}
