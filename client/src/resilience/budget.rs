//! Retry budget: retries are a share of the calls, so that they cannot multiply an outage.
//!
//! The idea and its numbers are Finagle's `RetryBudget` (a fifth of the calls of the last ten
//! seconds, and ten retries a second beside them for callers with few calls); gRPC's retry
//! throttling (gRFC A6) serves the same end. Deposits and withdrawals leave the account when they
//! leave the window.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How much may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Calls and retries of this long count. Default 10 s.
    pub window: Duration,
    /// Retries per hundred calls. Default 20.
    pub percent: u32,
    /// Retries per second that are free. Default 10.
    pub free_per_second: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            percent: 20,
            free_per_second: 10,
        }
    }
}

/// Cost of one retry; a call deposits `percent`.
const RETRY: i64 = 100;
const BUCKETS: u32 = 10;

/// The account, without a clock: `now` is the time since any fixed moment and never runs
/// backwards.
#[derive(Debug)]
pub struct Budget {
    settings: BudgetSettings,
    /// Number of the bucket, and its sum.
    buckets: VecDeque<(u128, i64)>,
    free: i64,
}

impl Budget {
    /// An account with nothing but the free retries.
    #[must_use]
    pub fn new(mut settings: BudgetSettings) -> Self {
        settings.window = settings
            .window
            .max(Duration::from_millis(u64::from(BUCKETS)));
        let millis = i64::try_from(settings.window.as_millis()).unwrap_or(i64::MAX);
        let per_second = i64::from(settings.free_per_second).saturating_mul(RETRY);
        Self {
            free: per_second.saturating_mul(millis) / 1_000,
            settings,
            buckets: VecDeque::new(),
        }
    }

    /// A call is made (its first attempt).
    pub fn deposit(&mut self, now: Duration) {
        let percent = i64::from(self.settings.percent);
        self.add(now, percent);
    }

    /// Asks for one retry. False: give up, the budget is used.
    #[must_use]
    pub fn withdraw(&mut self, now: Duration) -> bool {
        self.add(now, 0);
        if self.balance() < RETRY {
            return false;
        }
        self.add(now, -RETRY);
        true
    }

    /// Hundredths of retries that are left.
    fn balance(&self) -> i64 {
        let sum: i64 = self.buckets.iter().map(|(_, sum)| sum).sum();
        self.free.saturating_add(sum)
    }

    fn add(&mut self, now: Duration, amount: i64) {
        let span = (self.settings.window / BUCKETS).as_nanos().max(1);
        let number = now.as_nanos() / span;
        let oldest = number.saturating_sub(u128::from(BUCKETS) - 1);
        while self.buckets.front().is_some_and(|(at, _)| *at < oldest) {
            self.buckets.pop_front();
        }
        match self.buckets.back_mut() {
            Some((at, sum)) if *at == number => *sum = sum.saturating_add(amount),
            _ => self.buckets.push_back((number, amount)),
        }
    }
}

/// A [`Budget`] with a clock. Make one per process (or per thing that is called) and hand it to
/// every layer that retries.
#[derive(Debug)]
pub struct RetryBudget {
    started: Instant,
    budget: Mutex<Budget>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(BudgetSettings::default())
    }
}

impl RetryBudget {
    /// An account with nothing but the free retries.
    #[must_use]
    pub fn new(settings: BudgetSettings) -> Self {
        Self {
            started: Instant::now(),
            budget: Mutex::new(Budget::new(settings)),
        }
    }
    /// A call is made (its first attempt).
    pub fn deposit(&self) {
        self.budget.lock().deposit(self.started.elapsed());
    }
    /// Asks for one retry. False: give up.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.budget.lock().withdraw(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn retries_are_a_share_of_the_calls() {
        let mut budget = Budget::new(BudgetSettings {
            free_per_second: 0,
            ..BudgetSettings::default()
        });
        assert!(!budget.withdraw(ms(0)));
        (0..100).for_each(|_| budget.deposit(ms(1)));
        assert_eq!((0..100).filter(|_| budget.withdraw(ms(2))).count(), 20);
        assert!(!budget.withdraw(ms(9_999)));
        (0..10).for_each(|_| budget.deposit(ms(10_500)));
        assert_eq!(
            (0..100).filter(|_| budget.withdraw(ms(10_500))).count(),
            2,
            "the old account is closed"
        );
    }

    #[test]
    fn few_calls_may_be_retried_freely() {
        let mut budget = Budget::new(BudgetSettings::default());
        assert_eq!((0..500).filter(|_| budget.withdraw(ms(0))).count(), 100);
        assert_eq!(
            (0..500).filter(|_| budget.withdraw(ms(10_000))).count(),
            100
        );
    }

    proptest! {
        /// In any run, the retries stay below the share of all calls plus the free ones of the
        /// windows it touches.
        #[test]
        fn retries_are_bounded(steps in proptest::collection::vec((0_u64..300, any::<bool>()), 0..2000)) {
            let settings = BudgetSettings { window: ms(1_000), percent: 10, free_per_second: 2 };
            let mut budget = Budget::new(settings);
            let (mut now, mut calls, mut retries) = (0_u64, 0_u64, 0_u64);
            for (wait, call) in steps {
                now += wait;
                if call {
                    budget.deposit(ms(now));
                    calls += 1;
                } else {
                    retries += u64::from(budget.withdraw(ms(now)));
                }
            }
            // A withdrawal leaves the window at the earliest 900 ms after it was made.
            prop_assert!(retries * 10 <= calls + 10 * 2 * (now / 900 + 1), "{retries} of {calls}");
        }
    }
}
