//! Retries: attempts, pauses, one budget, one deadline.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::budget::RetryBudget;
use super::deadline::Deadline;
use crate::backoff::Jitter;

/// How often a call is tried, and how long is waited in between.
#[derive(Debug)]
pub struct Retry {
    attempts: u32,
    backoff: Backoff,
    budget: Option<Arc<RetryBudget>>,
    jitter: Mutex<Jitter>,
}

/// A call did not succeed; `last` is its last error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp<E: Display> {
    /// The error is one that another attempt cannot help.
    #[error("{last}")]
    Permanent {
        /// The error.
        last: E,
    },
    /// All attempts failed.
    #[error("{attempts} attempts failed; the last: {last}")]
    Attempts {
        /// How many.
        attempts: u32,
        /// The last error.
        last: E,
    },
    /// The budget allows no further retry.
    #[error("the retry budget is used up; the last error: {last}")]
    Budget {
        /// The last error.
        last: E,
    },
    /// The next attempt would begin after the deadline.
    #[error("the deadline leaves no time for another attempt; the last error: {last}")]
    Deadline {
        /// The last error.
        last: E,
    },
}

impl<E: Display> GaveUp<E> {
    /// The last error.
    pub fn into_last(self) -> E {
        match self {
            Self::Permanent { last }
            | Self::Attempts { last, .. }
            | Self::Budget { last }
            | Self::Deadline { last } => last,
        }
    }
}

impl Default for Retry {
    /// Three attempts, 200 ms doubling up to 32 s, no budget.
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            budget: None,
            jitter: Mutex::new(Jitter::new(rand::random())),
        }
    }
}

impl Retry {
    /// So many attempts in all.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }
    /// These pauses.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
    /// Retries only as far as this budget reaches.
    #[must_use]
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = Some(budget);
        self
    }
    /// Seeds the jitter, so that a simulation repeats itself.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.jitter = Mutex::new(Jitter::new(seed));
        self
    }

    /// Calls `attempt` with its number, from 1, until it succeeds, its error is not `retryable`,
    /// or there is no further attempt: by number, by budget, or because [`Deadline::current`]
    /// would pass first. Cancellation-safe as far as the attempts are.
    ///
    /// # Errors
    /// [`GaveUp`].
    pub async fn run<T, E, Fut>(
        &self,
        retryable: impl Fn(&E) -> bool,
        mut attempt: impl FnMut(u32) -> Fut,
    ) -> Result<T, GaveUp<E>>
    where
        E: Display,
        Fut: Future<Output = Result<T, E>>,
    {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
        let mut number = 1;
        loop {
            let last = match attempt(number).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !retryable(&last) {
                return Err(GaveUp::Permanent { last });
            }
            if number >= self.attempts {
                return Err(GaveUp::Attempts {
                    attempts: number,
                    last,
                });
            }
            let random = self.jitter.lock().next();
            let pause = self.backoff.pause(number, random);
            let late = |deadline: Deadline| Deadline::within(pause) >= deadline;
            if Deadline::current().is_some_and(late) {
                return Err(GaveUp::Deadline { last });
            }
            if self
                .budget
                .as_ref()
                .is_some_and(|budget| !budget.withdraw())
            {
                return Err(GaveUp::Budget { last });
            }
            sleep(pause).await;
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::BudgetSettings;
    use super::*;

    async fn failing(retry: &Retry) -> (u32, GaveUp<&'static str>) {
        let calls = Mutex::new(0);
        let failed = retry.run(
            |error| *error != "mine",
            |number| {
                *calls.lock() = number;
                async { Err::<(), _>("theirs") }
            },
        );
        let failed = failed.await.unwrap_err();
        (calls.into_inner(), failed)
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted_and_some_errors_are_final() {
        let retry = Retry::default().seed(1);
        let attempts = GaveUp::Attempts {
            attempts: 3,
            last: "theirs",
        };
        assert_eq!(failing(&retry).await, (3, attempts));
        let third = |number| async move { if number == 3 { Ok(number) } else { Err("x") } };
        assert_eq!(retry.run(|_| true, third).await, Ok(3));
        let mine = retry.run(|_| false, |_| async { Err::<(), _>("mine") });
        assert_eq!(mine.await, Err(GaveUp::Permanent { last: "mine" }));
    }

    #[tokio::test(start_paused = true)]
    async fn layers_share_one_budget() {
        let settings = BudgetSettings {
            percent: 50,
            free_per_second: 0,
            ..BudgetSettings::default()
        };
        let budget = Arc::new(RetryBudget::new(settings));
        let inner = Retry::default().budget(Arc::clone(&budget)).attempts(9);
        let outer = Retry::default().budget(Arc::clone(&budget)).attempts(9);
        let calls = Mutex::new(0);
        let tried = outer.run(
            |_| true,
            |_| async {
                let call = |_| {
                    *calls.lock() += 1;
                    async { Err::<(), _>("down") }
                };
                inner.run(|_| true, call).await.map_err(GaveUp::into_last)
            },
        );
        assert!(matches!(tried.await, Err(GaveUp::Budget { .. })));
        // Without the budget it would be 81.
        assert!(*calls.lock() <= 4, "{} calls", calls.lock());
    }

    #[tokio::test]
    async fn no_attempt_begins_that_the_deadline_would_cut() {
        let retry = Retry::default().seed(1);
        let (calls, failed) = Deadline::within(Duration::from_millis(90))
            .scope(failing(&retry))
            .await
            .unwrap();
        assert_eq!((calls, failed), (1, GaveUp::Deadline { last: "theirs" }));
    }
}
