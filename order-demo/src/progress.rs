//! What a run tells while it goes on: counters that its tasks share, and events for whoever
//! watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::report::Sample;

/// One piece of news about a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Brokers are up; their addresses.
    Ready(Vec<String>),
    /// Topics exist; sending begins, at so many orders per second.
    Sending {
        /// Orders in the plan.
        orders: u64,
        /// Orders per second.
        rate: f64,
    },
    /// A second has passed.
    Sample(Sample),
    /// A broker was killed.
    Killed {
        /// Which.
        broker: u32,
        /// The shard that it led and that is measured.
        shard: u32,
    },
    /// The shard acknowledged again.
    Recovered {
        /// From the kill, in milliseconds.
        failover_ms: f64,
    },
    /// The killed broker is up again.
    Restarted {
        /// Which.
        broker: u32,
    },
    /// It holds everything again.
    CaughtUp {
        /// Which.
        broker: u32,
    },
    /// Every order has its outcome; the rest of them are being priced.
    Draining,
    /// A fresh consumer, or one broker's own copy, is read from the start.
    Reading {
        /// None: from the leaders.
        broker: Option<u32>,
    },
    /// The checker is at work.
    Verifying,
}

/// Takes news. Called from many tasks; must not block.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// How far a run is. Every change wakes those who wait.
#[derive(Debug)]
pub struct Counters {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    ended: AtomicU64,
    priced: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            priced: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        }
    }
}

impl Counters {
    /// Orders handed to the producer.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }
    /// Orders acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }
    /// Orders whose outcome is known or known to be unknown.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }
    /// Orders whose priced event is acknowledged.
    pub fn priced(&self) -> u64 {
        self.priced.load(Ordering::Acquire)
    }

    pub(crate) fn note_sent(&self) {
        self.bump(&self.sent);
    }
    pub(crate) fn note_ended(&self, acknowledged: bool) {
        if acknowledged {
            self.acknowledged.fetch_add(1, Ordering::AcqRel);
        }
        self.bump(&self.ended);
    }
    pub(crate) fn set_priced(&self, priced: u64) {
        self.priced.store(priced, Ordering::Release);
        self.changed
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn bump(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::AcqRel);
        self.changed
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Waits until `reached` says so. Cancellation-safe.
    pub(crate) async fn until(&self, reached: impl Fn(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        while !reached(self) {
            // The sender lives in `self`: it cannot be gone.
            let _ = changes.changed().await;
        }
    }

    pub(crate) fn sample(&self, second: u64) -> Sample {
        Sample {
            second,
            sent: self.sent(),
            acknowledged: self.acknowledged(),
            priced: self.priced(),
        }
    }
}
