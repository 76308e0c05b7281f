//! Credit of one fetch stream: how many bytes the client is ready to take.

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Bytes that may still be sent. One batch may overdraw it, so that a batch larger than the
/// client's window is not stuck for ever; the client takes a second one for a broken promise.
#[derive(Debug)]
pub struct Credit {
    left: Mutex<i64>,
    added: Notify,
    /// One subscription of the stream at a time finds credit, reads and sends: two that saw the
    /// same credit would both spend it, and each would hold what it read until it may be sent.
    turns: Semaphore,
}

impl Default for Credit {
    fn default() -> Self {
        Self {
            left: Mutex::default(),
            added: Notify::default(),
            turns: Semaphore::new(1),
        }
    }
}

/// The right to send once. To be held until the response is queued: clients count in that order.
#[derive(Debug)]
pub struct Turn<'a> {
    credit: &'a Credit,
    available: u64,
    _turn: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    /// The credit there was, at least one byte.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.available
    }
    /// Takes `bytes`, below zero if need be.
    pub fn spend(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut left = self.credit.left.lock();
        *left = left.saturating_sub(bytes);
    }
}

impl Credit {
    /// Adds bytes.
    pub fn add(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut left = self.left.lock();
        *left = left.saturating_add(bytes);
        drop(left);
        self.added.notify_waiters();
    }
    /// Waits for the turn, in the order of the calls, and then for credit. Cancellation-safe:
    /// nothing is taken.
    pub async fn turn(&self) -> Turn<'_> {
        // Never closed.
        let turn = self.turns.acquire().await.ok();
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            let left = *self.left.lock();
            if left > 0 {
                return Turn {
                    credit: self,
                    available: left.unsigned_abs(),
                    _turn: turn,
                };
            }
            added.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_overdrawn_stream_waits_until_it_is_positive_again() {
        let credit = Arc::new(Credit::default());
        credit.add(10);
        let turn = credit.turn().await;
        assert_eq!(turn.available(), 10);
        turn.spend(25);
        drop(turn);
        let waiter = tokio::spawn({
            let credit = Arc::clone(&credit);
            async move { credit.turn().await.available() }
        });
        tokio::task::yield_now().await;
        credit.add(15);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        credit.add(7);
        assert_eq!(waiter.await.expect("joined"), 7);
    }

    #[test]
    fn the_same_credit_is_not_seen_twice() {
        let credit = Credit::default();
        credit.add(10);
        let turn = credit.turn().now_or_never().expect("credit is there");
        let mut second = Box::pin(credit.turn());
        assert!((&mut second).now_or_never().is_none(), "one at a time");
        turn.spend(10);
        drop(turn);
        assert!((&mut second).now_or_never().is_none(), "nothing is left");
        credit.add(1);
        let second = second.now_or_never().expect("credit is there again");
        assert_eq!(second.available(), 1);
    }
}
