//! What whoever runs a service can change while it runs, to break it or to mend it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A change; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// So many of 100 calls outside fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_percent: Option<u64>,
    /// Calls outside take so many milliseconds longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<u64>,
    /// Broken lists of prices can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<bool>,
}

/// What is in force.
#[derive(Debug, Default)]
pub struct Control {
    error_percent: AtomicU64,
    slow_ms: AtomicU64,
    repaired: AtomicBool,
    calls: AtomicU64,
}

impl Control {
    /// Puts a change in force.
    pub fn apply(&self, change: Change) {
        if let Some(percent) = change.error_percent {
            self.error_percent.store(percent, Ordering::Relaxed);
        }
        if let Some(slow) = change.slow_ms {
            self.slow_ms.store(slow, Ordering::Relaxed);
        }
        if let Some(repaired) = change.repaired {
            self.repaired.store(repaired, Ordering::Relaxed);
        }
    }

    /// Whether the next call outside fails: so many of every hundred, spread evenly.
    pub fn fails_now(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        // 37 has no factor in common with 100: every hundred calls meet each number once.
        (call * 37) % 100 < self.error_percent.load(Ordering::Relaxed)
    }

    /// How much longer calls outside take.
    pub fn slower_by(&self) -> Duration {
        Duration::from_millis(self.slow_ms.load(Ordering::Relaxed))
    }

    /// Whether broken lists of prices can be read.
    pub fn repaired(&self) -> bool {
        self.repaired.load(Ordering::Relaxed)
    }
}
