//! A call outside: the time it takes, the errors it meets, and what keeps a sick provider from
//! taking the service down with it: a bulkhead, a circuit breaker, pauses between attempts, and the
//! budget of retries that it shares with every other layer of the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater_client::resilience::{
    Backoff, BreakerSettings, BreakerState, BrokenCall, Bulkhead, CircuitBreaker, RetryBudget,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

use super::control::Control;

/// Calls at a time, and callers that wait for one to end.
const AT_A_TIME: usize = 64;
/// How long one call is tried before the message is given back.
const PATIENCE: Duration = Duration::from_secs(60);

/// An open circuit lets probes pass every so often: at the usual rate, fewer than one call in a hundred.
const OPEN_FOR: Duration = Duration::from_secs(2);

/// The call did not succeed in time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the provider does not answer: {0}")]
pub struct Unavailable(String);

/// One attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the provider answered with an error")]
struct ProviderError;

/// Counts of calls outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    /// Made.
    pub calls: u64,
    /// Of those, failed.
    pub failures: u64,
    /// Not made, because the circuit was open.
    pub refused: u64,
    /// How often the circuit opened.
    pub opened: u64,
    /// The longest time from the call that crossed the threshold to the open circuit, in
    /// microseconds.
    pub opened_within_us: u64,
    /// `closed`, `open` or `half-open`.
    pub state: String,
}

/// What a service calls outside.
#[derive(Debug)]
pub struct Dependency {
    control: Arc<Control>,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    backoff: Backoff,
    budget: Arc<RetryBudget>,
    service_time: Duration,
    calls: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    opened: AtomicU64,
    opened_within_us: AtomicU64,
    was_open: AtomicBool,
}

impl Dependency {
    /// A provider that takes `service_time` to answer.
    #[must_use]
    pub fn new(
        (control, budget): (Arc<Control>, Arc<RetryBudget>),
        service_time: Duration,
    ) -> Self {
        Self {
            control,
            breaker: CircuitBreaker::new(BreakerSettings {
                window: Duration::from_secs(60),
                open_for: OPEN_FOR,
                ..BreakerSettings::default()
            }),
            bulkhead: Bulkhead::new(AT_A_TIME, 100_000),
            backoff: Backoff::default(),
            budget,
            service_time,
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            opened_within_us: AtomicU64::new(0),
            was_open: AtomicBool::new(false),
        }
    }

    /// Calls until it succeeds. Cancellation-safe: the effect itself is not here but in the
    /// service's commit.
    ///
    /// # Errors
    /// [`Unavailable`] after a minute.
    pub async fn call(&self, random: u64) -> Result<(), Unavailable> {
        let until = Instant::now() + PATIENCE;
        let gave_up = |failures: u32| Err(Unavailable(format!("{failures} attempts failed")));
        self.budget.deposit();
        // Leave for a call that is not made, because the circuit is open, is kept for the next.
        let (mut failures, mut may_call) = (0, true);
        loop {
            if !may_call
                && timeout_at(until, self.budget.granted(random))
                    .await
                    .is_err()
            {
                return gave_up(failures);
            }
            may_call = true;
            let pause = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(BrokenCall::Refused(refused)) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    // Somewhat later for each, so that they do not all come at once.
                    refused.retry_after + Duration::from_millis(20 + random % 180)
                }
                Err(BrokenCall::Failed(_)) => {
                    failures += 1;
                    may_call = false;
                    self.backoff.pause(failures, random)
                }
            };
            if Instant::now() + pause > until {
                return gave_up(failures);
            }
            sleep(pause).await;
        }
    }

    async fn attempt(&self) -> Result<(), BrokenCall<ProviderError>> {
        let Ok(_place) = self.bulkhead.enter(PATIENCE).await else {
            return Err(BrokenCall::Failed(ProviderError));
        };
        let called = async {
            let answered = self.once().await;
            (Instant::now(), answered)
        };
        let mut ended = None;
        let result = self
            .breaker
            .call(async {
                let (at, answered) = called.await;
                ended = Some(at);
                answered
            })
            .await;
        self.watch(ended);
        result
    }

    /// Notes when the circuit has opened, once for each time.
    fn watch(&self, ended: Option<Instant>) {
        let open = self.breaker.state() == BreakerState::Open;
        let was_open = self.was_open.swap(open, Ordering::AcqRel);
        if let Some(ended) = ended.filter(|_| open && !was_open) {
            self.opened.fetch_add(1, Ordering::Relaxed);
            let within = u64::try_from(ended.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.opened_within_us.fetch_max(within, Ordering::Relaxed);
        }
    }

    async fn once(&self) -> Result<(), ProviderError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let time = self.service_time + self.control.slower_by();
        if !time.is_zero() {
            sleep(time).await;
        }
        if self.control.fails_now() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(ProviderError);
        }
        Ok(())
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> CallCounts {
        let state = match self.breaker.state() {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        };
        CallCounts {
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
            opened_within_us: self.opened_within_us.load(Ordering::Relaxed),
            state: state.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "dependency_tests.rs"]
mod tests;
