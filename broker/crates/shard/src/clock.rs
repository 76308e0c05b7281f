//! A shard's own clock: how much append time has passed in its log.
//!
//! Producers are forgotten by time, and the only time apply may use is the append times of entries,
//! which leaders take from their wall clocks. A wall clock may jump; forgetting a producer because
//! of a jump would let its retry in twice. So the clock counts steps between append times rather
//! than believing them, and no step counts for more than [`LONGEST_STEP_MS`]: after a jump (or an
//! idle night) producers are forgotten a little later, never all at once.

use highwater_proto::TimestampMs;

/// What a single step between two append times counts for at most, in milliseconds.
pub(crate) const LONGEST_STEP_MS: u64 = 600_000;

/// Counts append time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ShardClock {
    /// Milliseconds counted so far; never goes back.
    pub elapsed_ms: u64,
    /// What the next append time is compared with.
    pub last: Option<TimestampMs>,
}

impl ShardClock {
    /// Takes note of an append time and returns the milliseconds counted so far.
    pub fn observe(&mut self, time: TimestampMs) -> u64 {
        let last = *self.last.get_or_insert(time);
        let apart = time.0.abs_diff(last.0);
        if time > last {
            self.elapsed_ms = self.elapsed_ms.saturating_add(apart.min(LONGEST_STEP_MS));
            self.last = Some(time);
        } else if apart > LONGEST_STEP_MS {
            // The clock was set back. Smaller steps back are batches that overtook each other, or
            // a new leader whose clock is a little behind: counting from there would count the
            // same time twice.
            self.last = Some(time);
        }
        self.elapsed_ms
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
