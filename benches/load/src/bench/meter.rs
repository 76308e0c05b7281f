//! What a worker counts, and the lines it reports once a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::histogram::Latencies;

/// Counters of the second that runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records handed to the client.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records that failed.
    pub failed: u64,
    /// Payload bytes acknowledged.
    pub bytes: u64,
    /// Records read.
    pub received: u64,
    /// Payload bytes read.
    pub received_bytes: u64,
    /// From the time a record was meant to be sent to its acknowledgement.
    pub publish: Latencies,
    /// From the time a record was meant to be sent to the call that sent it.
    pub delay: Latencies,
    /// From the time a record was meant to be sent to its arrival at a consumer.
    pub end_to_end: Latencies,
}

/// One second of a worker, as it travels.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since 1970 at its end.
    pub second: u64,
    /// See [`Counters`].
    pub sent: u64,
    /// See [`Counters`].
    pub acknowledged: u64,
    /// See [`Counters`].
    pub failed: u64,
    /// See [`Counters`].
    pub bytes: u64,
    /// See [`Counters`].
    pub received: u64,
    /// See [`Counters`].
    pub received_bytes: u64,
    /// Pairs of microseconds and count.
    pub publish: Vec<(u64, u64)>,
    /// Pairs of microseconds and count.
    pub delay: Vec<(u64, u64)>,
    /// Pairs of microseconds and count.
    pub end_to_end: Vec<(u64, u64)>,
    /// The first failure of this second.
    pub failure: Option<String>,
}

/// Shared by the tasks of a worker.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    counters: Arc<Mutex<(Counters, Option<String>)>>,
}

impl Meter {
    /// Counts something.
    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.lock().0);
    }
    /// Counts a failure.
    pub fn fail(&self, error: &anyhow::Error) {
        let mut lock = self.lock();
        lock.0.failed += 1;
        lock.1.get_or_insert_with(|| format!("{error:#}"));
    }
    /// What was counted since the last call.
    pub fn take(&self, second: u64) -> Sample {
        let mut lock = self.lock();
        let (counters, failure) = &mut *lock;
        let sample = Sample {
            second,
            sent: counters.sent,
            acknowledged: counters.acknowledged,
            failed: counters.failed,
            bytes: counters.bytes,
            received: counters.received,
            received_bytes: counters.received_bytes,
            publish: counters.publish.take(),
            delay: counters.delay.take(),
            end_to_end: counters.end_to_end.take(),
            failure: failure.take(),
        };
        counters.sent = 0;
        counters.acknowledged = 0;
        counters.failed = 0;
        counters.bytes = 0;
        counters.received = 0;
        counters.received_bytes = 0;
        sample
    }
    fn lock(&self) -> MutexGuard<'_, (Counters, Option<String>)> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
