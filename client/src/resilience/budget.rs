//! Retry budget: retries are a share of the calls, so that they cannot multiply an outage.
//!
//! The idea and its numbers are Finagle's `RetryBudget` (a fifth of the calls of the last ten
//! seconds, and ten retries a second beside them for callers with few calls); gRPC's retry
//! throttling (gRFC A6) serves the same end. Deposits and withdrawals leave the account when they
//! leave the window.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;

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
/// Pauses between two questions for the same retry. Asking costs nothing outside of the process.
const ASK_AGAIN: Backoff = Backoff {
    first: Duration::from_millis(100),
    most: Duration::from_secs(1),
};

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
        self.deposit_calls(now, 1);
    }

    /// So many calls are made at once.
    pub fn deposit_calls(&mut self, now: Duration, calls: u32) {
        let percent = i64::from(self.settings.percent);
        self.add(now, percent.saturating_mul(i64::from(calls)));
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

/// What a budget has been asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetCounts {
    /// Calls: first attempts.
    pub calls: u64,
    /// Retries that were allowed.
    pub retries: u64,
    /// Times that a retry was not allowed. One that is asked for again may be refused again.
    pub refused: u64,
}

/// A [`Budget`] with a clock. Make one per process (or per thing that is called) and hand it to
/// every layer that retries.
#[derive(Debug)]
pub struct RetryBudget {
    started: Instant,
    account: Mutex<(Budget, BudgetCounts)>,
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
            account: Mutex::new((Budget::new(settings), BudgetCounts::default())),
        }
    }
    /// A call is made (its first attempt).
    pub fn deposit(&self) {
        self.deposit_calls(1);
    }
    /// So many calls are made at once.
    pub fn deposit_calls(&self, calls: u32) {
        let mut account = self.account.lock();
        account.0.deposit_calls(self.started.elapsed(), calls);
        account.1.calls += u64::from(calls);
    }
    /// Asks for one retry. False: give up, or ask again later.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let mut account = self.account.lock();
        let allowed = account.0.withdraw(self.started.elapsed());
        if allowed {
            account.1.retries += 1;
        } else {
            account.1.refused += 1;
        }
        allowed
    }
    /// Waits until one retry is allowed: for those who must not give up, whose retry is put off and
    /// not dropped. `random` is any number, so that those who wait do not all ask at once.
    /// Cancellation-safe: dropped, it has taken nothing.
    pub async fn granted(&self, random: u64) {
        let mut refusals: u32 = 0;
        while !self.withdraw() {
            refusals = refusals.saturating_add(1);
            sleep(ASK_AGAIN.pause(refusals, random.rotate_left(refusals))).await;
        }
    }
    /// What it has been asked so far.
    #[must_use]
    pub fn counts(&self) -> BudgetCounts {
        self.account.lock().1
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
        budget.deposit_calls(ms(10_500), 10);
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

    #[tokio::test(start_paused = true)]
    async fn a_retry_that_is_refused_may_wait_for_the_window_to_move_on() {
        let budget = RetryBudget::new(BudgetSettings {
            percent: 50,
            free_per_second: 0,
            ..BudgetSettings::default()
        });
        budget.deposit_calls(2);
        budget.granted(1).await;
        let begun = Instant::now();
        let waits = tokio::time::timeout(Duration::from_secs(5), budget.granted(2));
        assert!(waits.await.is_err(), "there is nothing to be had");
        let refused = budget.counts().refused;
        assert!((5..100).contains(&refused), "{refused}");
        budget.deposit_calls(2);
        budget.granted(3).await;
        assert!(begun.elapsed() < Duration::from_secs(6));
        let counts = budget.counts();
        assert_eq!((counts.calls, counts.retries), (4, 2));
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
