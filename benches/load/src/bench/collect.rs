//! Puts the seconds of all workers together.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::histogram::Latencies;
use super::meter::Sample;

/// What a worker does in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends.
    Producer,
    /// Reads what comes.
    Tail,
    /// Reads from the beginning, while others read what comes.
    CatchUp,
}

/// One second of the whole run.
#[derive(Debug, Default, Clone)]
pub struct Second {
    /// Records handed to clients.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records that failed.
    pub failed: u64,
    /// Payload bytes acknowledged.
    pub bytes: u64,
    /// Records read by tail consumers.
    pub received: u64,
    /// Payload bytes read by tail consumers.
    pub received_bytes: u64,
    /// Payload bytes read by catch-up readers.
    pub caught_up_bytes: u64,
    /// Meant to be sent until acknowledged.
    pub publish: Latencies,
    /// Meant to be sent until handed to the client.
    pub delay: Latencies,
    /// Meant to be sent until read by a tail consumer.
    pub end_to_end: Latencies,
}

/// Records of a run so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Payload bytes acknowledged.
    pub bytes: u64,
    /// Read by tail consumers.
    pub received: u64,
    /// Failed.
    pub failed: u64,
}

/// Filled by a task per worker.
#[derive(Debug, Default)]
pub struct Collector {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seconds: BTreeMap<u64, Second>,
    totals: Totals,
    failures: Vec<String>,
}

impl Collector {
    /// Adds a second of one worker.
    pub fn add(&self, role: Role, sample: Sample) {
        let mut inner = self.lock();
        inner.totals.acknowledged += sample.acknowledged;
        inner.totals.bytes += sample.bytes;
        inner.totals.failed += sample.failed;
        if role == Role::Tail {
            inner.totals.received += sample.received;
        }
        if let Some(failure) = sample.failure
            && inner.failures.len() < 10
            && !inner.failures.contains(&failure)
        {
            inner.failures.push(failure);
        }
        let second = inner.seconds.entry(sample.second).or_default();
        second.sent += sample.sent;
        second.acknowledged += sample.acknowledged;
        second.failed += sample.failed;
        second.bytes += sample.bytes;
        second.publish.add_pairs(&sample.publish);
        second.delay.add_pairs(&sample.delay);
        match role {
            Role::Producer => {}
            Role::Tail => {
                second.received += sample.received;
                second.received_bytes += sample.received_bytes;
                second.end_to_end.add_pairs(&sample.end_to_end);
            }
            Role::CatchUp => second.caught_up_bytes += sample.received_bytes,
        }
    }
    /// Everything so far.
    pub fn totals(&self) -> Totals {
        self.lock().totals
    }
    /// Different failures, ten at the most.
    pub fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }
    /// The seconds that ended after `from` and not after `to`, in seconds since 1970.
    pub fn between(&self, from: u64, to: u64) -> Vec<Second> {
        let inner = self.lock();
        inner
            .seconds
            .range(from + 1..=to.max(from + 1))
            .map(|(_, second)| second.clone())
            .collect()
    }
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
