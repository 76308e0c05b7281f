//! Step 2 of a produced record, after front/, before router: admission.
//!
//! A byte permit is taken here before a batch is looked at and lives until its reply is out, so
//! that memory is bounded by configuration, whatever the load: when permits are gone, readers of
//! produce streams stop reading, and the transport pushes back on clients.

mod budget;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use budget::{Budget, Taken};

/// Admission of produced bytes.
#[derive(Debug, Clone)]
pub struct Gate {
    budget: Budget,
    storage_full: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
}

/// Bytes admitted; given back when dropped.
#[derive(Debug)]
pub struct Admitted(#[allow(dead_code)] Taken);

/// Why nothing is admitted at all right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Free space is below the reserve.
    StorageFull,
    /// The broker is stopping.
    ShuttingDown,
}

impl Gate {
    /// A gate for `bytes` in flight.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            budget: Budget::new(bytes),
            storage_full: Arc::default(),
            draining: Arc::default(),
        }
    }

    /// Waits until `bytes` fit. A request larger than the whole budget takes all of it.
    /// Cancellation-safe: a dropped future holds nothing.
    ///
    /// # Errors
    /// [`Closed`] at once when nothing is admitted.
    pub async fn admit(&self, bytes: usize) -> Result<Admitted, Closed> {
        self.check()?;
        Ok(Admitted(self.budget.take(bytes).await))
    }

    fn check(&self) -> Result<(), Closed> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Closed::ShuttingDown);
        }
        if self.storage_full.load(Ordering::Relaxed) {
            return Err(Closed::StorageFull);
        }
        Ok(())
    }

    /// Opens or closes the gate for lack of disk space.
    pub fn set_storage_full(&self, full: bool) {
        self.storage_full.store(full, Ordering::Relaxed);
    }
    /// Whether free space is below the reserve.
    #[must_use]
    pub fn is_storage_full(&self) -> bool {
        self.storage_full.load(Ordering::Relaxed)
    }
    /// Closes the gate for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
    /// Whether the gate was closed for good.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
    /// Bytes admitted and not yet replied to, rounded up to permits.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.budget.in_use()
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
