//! What happens when a handler fails. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::resilience::{Backoff, RetryBudget};

/// A handler did not succeed. Every error of the standard kind becomes one by `?`, to be retried.
pub struct HandlerError {
    message: String,
    class: Option<String>,
    permanent: bool,
}

impl HandlerError {
    /// An error that another attempt may cure.
    pub fn retryable(error: impl fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            class: None,
            permanent: false,
        }
    }
    /// An error that no attempt can cure: the record itself is bad.
    pub fn permanent(error: impl fmt::Display) -> Self {
        Self {
            permanent: true,
            ..Self::retryable(error)
        }
    }
    /// Names the kind of error, for [`RetryPolicy::never_retry`].
    #[must_use]
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retryable(error)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(class) => write!(f, "{class}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What becomes of a record whose attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It goes to the topic `<group>.dlq`, and its key is parked: later records of the key follow
    /// it there, in order, until they are redriven. Other keys flow on.
    #[default]
    DeadLetter,
    /// Its partition stands still: it is tried again and again, with the longest pause.
    Block,
    /// It is skipped, with a line in the log.
    Skip,
}

/// How often a record is tried, and what comes after.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    attempts: u32,
    backoff: Backoff,
    never: BTreeSet<String>,
    then: OnFailure,
    budget: Option<Arc<RetryBudget>>,
}

impl Default for RetryPolicy {
    /// Three attempts, 200 ms doubling up to 32 s with jitter, then the dead letter queue. No budget.
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            never: BTreeSet::new(),
            then: OnFailure::default(),
            budget: None,
        }
    }
}

impl RetryPolicy {
    /// So many attempts in all.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }
    /// These pauses between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
    /// Errors of these classes are not retried, as if they were permanent.
    #[must_use]
    pub fn never_retry<S: Into<String>>(mut self, classes: impl IntoIterator<Item = S>) -> Self {
        self.never.extend(classes.into_iter().map(Into::into));
        self
    }
    /// What comes after the last attempt.
    #[must_use]
    pub fn then(mut self, then: OnFailure) -> Self {
        self.then = then;
        self
    }

    /// Retries only as far as this budget reaches, which other layers of the process may share: every
    /// record is a call, every further attempt at it a retry. One that the budget refuses is put off
    /// until it allows it; it is not skipped, and no attempt is lost. Meanwhile its key waits.
    #[must_use]
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// So many records were handed over for the first time.
    pub(crate) fn called(&self, records: usize) {
        if let Some(budget) = &self.budget {
            budget.deposit_calls(u32::try_from(records).unwrap_or(u32::MAX));
        }
    }

    /// Waits until another attempt is allowed. Cancellation-safe.
    pub(crate) async fn allowed(&self, random: u64) {
        if let Some(budget) = &self.budget {
            budget.granted(random).await;
        }
    }

    pub(crate) fn dead_letters(&self) -> bool {
        self.then == OnFailure::DeadLetter
    }

    /// After attempt `attempt` (from 1) failed with `error`.
    pub(crate) fn decide(&self, attempt: u32, error: &HandlerError, random: u64) -> Decision {
        let never = error.class.as_ref().is_some_and(|c| self.never.contains(c));
        if attempt < self.attempts && !error.permanent && !never {
            return Decision::Retry(self.backoff.pause(attempt, random));
        }
        match self.then {
            OnFailure::DeadLetter => Decision::DeadLetter,
            OnFailure::Skip => Decision::Skip,
            OnFailure::Block => Decision::Block(self.backoff.pause(attempt.max(8), random)),
        }
    }
}

/// What to do with a record that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Again, after a pause.
    Retry(Duration),
    /// To the dead letter queue; its key is parked.
    DeadLetter,
    /// Nothing more.
    Skip,
    /// The partition stands still; again after a pause.
    Block(Duration),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn io() -> HandlerError {
        std::io::Error::other("down").into()
    }

    #[test]
    fn some_errors_are_final_at_once() {
        let policy = RetryPolicy::default().never_retry(["invalid"]);
        let permanent = HandlerError::permanent("bad");
        assert_eq!(policy.decide(1, &permanent, 0), Decision::DeadLetter);
        let named = HandlerError::retryable("bad").class("invalid");
        assert_eq!(policy.decide(1, &named, 0), Decision::DeadLetter);
        assert_eq!(named.to_string(), "invalid: bad");
        let other = HandlerError::retryable("bad").class("busy");
        assert!(matches!(policy.decide(1, &other, 0), Decision::Retry(_)));
        let skip = policy.clone().then(OnFailure::Skip);
        assert_eq!(skip.decide(1, &permanent, 0), Decision::Skip);
        let block = policy.then(OnFailure::Block);
        assert!(
            matches!(block.decide(3, &io(), 0), Decision::Block(p) if p >= Duration::from_secs(10))
        );
    }

    proptest! {
        #[test]
        fn attempts_are_counted(attempts in 1_u32..20, random: u64) {
            let policy = RetryPolicy::default().attempts(attempts);
            for attempt in 1..attempts {
                prop_assert!(matches!(policy.decide(attempt, &io(), random), Decision::Retry(_)));
            }
            prop_assert_eq!(policy.decide(attempts, &io(), random), Decision::DeadLetter);
        }
    }
}
