//! Bulkhead: one slow thing may take so many callers, and no more.
//!
//! The name is from Michael Nygard's "Release It!": a leak fills one compartment of the ship.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bounds calls in progress, and callers that wait for their turn. Clones share it.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
}

/// A place inside; free again when dropped.
#[derive(Debug)]
#[must_use = "the place is free again at once"]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// No place: the call was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BulkheadFull {
    /// As many wait as may wait.
    #[error("the bulkhead is full, and so is its queue")]
    Queue,
    /// No place came free in time.
    #[error("the bulkhead stayed full for {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// Takes one from a counter when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Bulkhead {
    /// `most` calls at a time, and `most_waiting` callers in the queue.
    #[must_use]
    pub fn new(most: usize, most_waiting: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: Arc::default(),
            most_waiting,
        }
    }

    /// Takes a place, first come first served, or waits for one. Cancellation-safe: dropped, it
    /// has left the queue.
    ///
    /// # Errors
    /// [`BulkheadFull`].
    pub async fn enter(&self, patience: Duration) -> Result<Place, BulkheadFull> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        if before >= self.most_waiting {
            return Err(BulkheadFull::Queue);
        }
        match timeout(patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(BulkheadFull::TimedOut(patience)),
        }
    }

    /// Places that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_and_queue_are_bounded_and_come_free() {
        let bulkhead = Bulkhead::new(2, 1);
        let patience = Duration::from_millis(100);
        let first = bulkhead.enter(patience).await.unwrap();
        let second = bulkhead.enter(patience).await.unwrap();
        let third = bulkhead.clone();
        let third = tokio::spawn(async move { third.enter(patience).await.map(drop) });
        tokio::task::yield_now().await;
        let fourth = bulkhead.enter(patience).await;
        assert_eq!(fourth.unwrap_err(), BulkheadFull::Queue);
        drop(first);
        assert_eq!(third.await.unwrap(), Ok(()));
        let _fifth = bulkhead.enter(patience).await.unwrap();
        let sixth = bulkhead.enter(patience).await;
        assert_eq!(sixth.unwrap_err(), BulkheadFull::TimedOut(patience));
        drop(second);
        assert_eq!(bulkhead.free(), 1);
        assert_eq!(bulkhead.waiting.load(Ordering::Acquire), 0);
    }
}
