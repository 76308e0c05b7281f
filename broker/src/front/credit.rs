//! Credit of one fetch stream: how many bytes the client is ready to take.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may still be sent. One batch may overdraw it, so that a batch larger than the
/// client's window is not stuck for ever.
#[derive(Debug, Default)]
pub struct Credit {
    left: Mutex<i64>,
    added: Notify,
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
    /// Waits until there is any credit and says how much. Cancellation-safe: nothing is taken.
    pub async fn available(&self) -> u64 {
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            let left = *self.left.lock();
            if left > 0 {
                return left.unsigned_abs();
            }
            added.await;
        }
    }
    /// Takes `bytes`, below zero if need be.
    pub fn spend(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut left = self.left.lock();
        *left = left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_overdrawn_stream_waits_until_it_is_positive_again() {
        let credit = std::sync::Arc::new(Credit::default());
        credit.add(10);
        assert_eq!(credit.available().await, 10);
        credit.spend(25);
        let waiter = tokio::spawn({
            let credit = std::sync::Arc::clone(&credit);
            async move { credit.available().await }
        });
        tokio::task::yield_now().await;
        credit.add(15);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        credit.add(7);
        assert_eq!(waiter.await.expect("joined"), 7);
    }
}
