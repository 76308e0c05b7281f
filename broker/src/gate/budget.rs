//! A number of bytes that many may hold parts of.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One permit covers this many bytes, so that a semaphore's count suffices for any budget.
const BYTES_PER_PERMIT: u64 = 1024;

/// Bytes that may be in memory at a time for one purpose. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
}

/// A part of a budget; given back when dropped.
#[derive(Debug)]
pub struct Taken(OwnedSemaphorePermit);

impl Taken {
    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let wanted = usize::try_from(permits_for(bytes)).unwrap_or(usize::MAX);
        let surplus = self.0.num_permits().saturating_sub(wanted);
        drop(self.0.split(surplus));
    }
}

fn permits_for(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_PERMIT).max(1)
}

impl Budget {
    /// A budget of `bytes`, at least one kibibyte.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX >> 4);
        let total = total.clamp(1, u32::MAX >> 4);
        Self {
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Waits until `bytes` fit, in the order of the calls. More than the whole budget takes all of
    /// it. Cancellation-safe: a dropped future holds nothing.
    pub async fn take(&self, bytes: usize) -> Taken {
        match Arc::clone(&self.permits)
            .acquire_many_owned(self.wanted(bytes))
            .await
        {
            Ok(permit) => Taken(permit),
            // The semaphore lives as long as `self` and is never closed.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Takes `bytes` if they fit at once.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Taken> {
        let permits = Arc::clone(&self.permits);
        let taken = permits.try_acquire_many_owned(self.wanted(bytes));
        taken.ok().map(Taken)
    }

    fn wanted(&self, bytes: usize) -> u32 {
        u32::try_from(permits_for(bytes))
            .unwrap_or(self.total)
            .min(self.total)
    }

    /// Bytes taken, rounded up to permits.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        let free = self.permits.available_permits() as u64;
        u64::from(self.total).saturating_sub(free) * BYTES_PER_PERMIT
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_not_needed_goes_back_at_once() {
        let budget = Budget::new(8 << 10);
        let mut taken = budget.take(5000).now_or_never().expect("it fits");
        assert_eq!(budget.in_use(), 5 << 10);
        assert!(budget.try_take(4 << 10).is_none());
        taken.shrink_to(1500);
        assert_eq!(budget.in_use(), 2 << 10);
        taken.shrink_to(1 << 20);
        assert_eq!(budget.in_use(), 2 << 10, "nothing grows");
        drop(taken);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn more_than_there_is_takes_all_of_it() {
        let budget = Budget::new(2 << 10);
        let all = budget.try_take(1 << 30).expect("it is free");
        assert_eq!(budget.in_use(), 2 << 10);
        assert!(budget.take(1).now_or_never().is_none());
        drop(all);
        assert!(budget.take(1).now_or_never().is_some());
    }
}
