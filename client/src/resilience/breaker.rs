//! Circuit breaker: stops calling what fails, and finds out with few calls when it is well again.
//!
//! States and their names follow Michael Nygard's "Release It!" (2007) and Martin Fowler's
//! "CircuitBreaker" (2014): closed (calls pass and are counted), open (calls are refused at once),
//! half open (a few calls pass as probes). The rate is taken over a sliding window of buckets, with
//! a least number of calls, as resilience4j does it.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When a breaker opens, and how it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Calls of this long count for the rate. Default 10 s.
    pub window: Duration,
    /// Below so many calls in the window it stays closed. Default 20.
    pub least_calls: u32,
    /// Opens at this failure rate, in percent. Default 50.
    pub failure_percent: u32,
    /// Refuses everything for so long before it probes. Default 5 s.
    pub open_for: Duration,
    /// Calls that pass while half open; all must succeed. Default 3.
    pub probes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            least_calls: 20,
            failure_percent: 50,
            open_for: Duration::from_secs(5),
            probes: 3,
        }
    }
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets calls pass and counts.
    Closed,
    /// Refuses calls.
    Open,
    /// Lets probes pass.
    HalfOpen,
}

/// Leave to make one call; its outcome is reported with it. Outcomes of calls that were admitted
/// before the state last changed count for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission(u64);

/// The breaker is open, or its probes are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open; probed again in {} ms", .retry_after.as_millis())]
pub struct Refused {
    /// When the state may change; zero when probes are under way.
    pub retry_after: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    number: u128,
    ok: u32,
    failed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { out: u32, succeeded: u32 },
}

const BUCKETS: u32 = 10;

/// The breaker itself, without a clock: `now` is the time since any fixed moment and never runs
/// backwards.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Counts changes of state.
    turn: u64,
    buckets: VecDeque<Bucket>,
}

impl Breaker {
    /// A closed breaker. Zeros in the settings count as one.
    #[must_use]
    pub fn new(mut settings: BreakerSettings) -> Self {
        settings.least_calls = settings.least_calls.max(1);
        settings.probes = settings.probes.max(1);
        settings.failure_percent = settings.failure_percent.clamp(1, 100);
        settings.window = settings
            .window
            .max(Duration::from_millis(u64::from(BUCKETS)));
        Self {
            settings,
            phase: Phase::Closed,
            turn: 0,
            buckets: VecDeque::new(),
        }
    }

    /// What the next call would meet.
    #[must_use]
    pub fn state(&self, now: Duration) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks for leave to make a call.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&mut self, now: Duration) -> Result<Admission, Refused> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(Refused {
                    retry_after: until - now,
                });
            }
            self.enter(Phase::HalfOpen {
                out: 0,
                succeeded: 0,
            });
        }
        if let Phase::HalfOpen { out, succeeded } = &mut self.phase {
            if *out + *succeeded >= self.settings.probes {
                return Err(Refused {
                    retry_after: Duration::ZERO,
                });
            }
            *out += 1;
        }
        Ok(Admission(self.turn))
    }

    /// The call succeeded.
    pub fn succeeded(&mut self, admission: Admission, now: Duration) {
        if admission.0 != self.turn {
            return;
        }
        match &mut self.phase {
            Phase::Closed => self.count(now, true),
            Phase::HalfOpen { out, succeeded } => {
                *out = out.saturating_sub(1);
                *succeeded += 1;
                if *succeeded >= self.settings.probes {
                    self.buckets.clear();
                    self.enter(Phase::Closed);
                }
            }
            Phase::Open { .. } => {}
        }
    }

    /// The call failed.
    pub fn failed(&mut self, admission: Admission, now: Duration) {
        if admission.0 != self.turn {
            return;
        }
        let opens = match self.phase {
            Phase::Closed => {
                self.count(now, false);
                let (calls, failed) = self.counts();
                calls >= u64::from(self.settings.least_calls)
                    && failed * 100 >= calls * u64::from(self.settings.failure_percent)
            }
            Phase::HalfOpen { .. } => true,
            Phase::Open { .. } => false,
        };
        if opens {
            let until = now + self.settings.open_for;
            self.enter(Phase::Open { until });
        }
    }

    /// The call ended without saying anything about what was called: it was dropped, or its
    /// failure was the caller's own.
    pub fn withdrawn(&mut self, admission: Admission) {
        if admission.0 == self.turn
            && let Phase::HalfOpen { out, .. } = &mut self.phase
        {
            *out = out.saturating_sub(1);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.turn += 1;
    }

    /// Counts a call in the present bucket; buckets that left the window are gone.
    fn count(&mut self, now: Duration, ok: bool) {
        let span = (self.settings.window / BUCKETS).as_nanos().max(1);
        let number = now.as_nanos() / span;
        let oldest = number.saturating_sub(u128::from(BUCKETS) - 1);
        while self.buckets.front().is_some_and(|b| b.number < oldest) {
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|b| b.number < number) {
            self.buckets.push_back(Bucket {
                number,
                ..Bucket::default()
            });
        }
        if let Some(bucket) = self.buckets.back_mut() {
            bucket.ok += u32::from(ok);
            bucket.failed += u32::from(!ok);
        }
    }

    /// Calls in the window, and how many of them failed.
    fn counts(&self) -> (u64, u64) {
        self.buckets.iter().fold((0, 0), |(calls, failed), b| {
            let (ok, bad) = (u64::from(b.ok), u64::from(b.failed));
            (calls + ok + bad, failed + bad)
        })
    }
}

/// A call through a breaker did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenCall<E> {
    /// It was not made.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was made, and failed.
    #[error("{0}")]
    Failed(E),
}

/// A [`Breaker`] with a clock, to be shared by every caller of one thing. Clones share it.
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    started: Instant,
    breaker: Arc<Mutex<Breaker>>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new(BreakerSettings::default())
    }
}

/// Reports a call that was dropped.
struct Probe<'a> {
    of: &'a CircuitBreaker,
    admission: Option<Admission>,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.of.breaker.lock().withdrawn(admission);
        }
    }
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            started: Instant::now(),
            breaker: Arc::new(Mutex::new(Breaker::new(settings))),
        }
    }
    /// What the next call would meet.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.breaker.lock().state(self.started.elapsed())
    }

    /// Makes the call, or refuses it; every error counts as a failure. Cancellation-safe as far as
    /// the call is: dropped, it counts for nothing.
    ///
    /// # Errors
    /// [`BrokenCall`].
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BrokenCall<E>> {
        self.call_if(call, |_| true).await
    }

    /// The same; errors for which `counts` is false are the caller's own (a bad argument) and say
    /// nothing about what was called. Cancellation-safe as far as the call is.
    ///
    /// # Errors
    /// [`BrokenCall`].
    pub async fn call_if<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, BrokenCall<E>> {
        let admission = self.breaker.lock().admit(self.started.elapsed())?;
        let mut probe = Probe {
            of: self,
            admission: Some(admission),
        };
        let outcome = call.await;
        let silent = outcome.as_ref().err().is_some_and(|error| !counts(error));
        if !silent {
            probe.admission = None;
            let (mut breaker, now) = (self.breaker.lock(), self.started.elapsed());
            match &outcome {
                Ok(_) => breaker.succeeded(admission, now),
                Err(_) => breaker.failed(admission, now),
            }
        }
        outcome.map_err(BrokenCall::Failed)
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
