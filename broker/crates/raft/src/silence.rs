//! How long a replica has heard nothing of its leader: whether it has to look at its election timeout, and
//! whether it helps others into office. openraft looks at every tick, in every group; who leads, or has just
//! heard its leader, need not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Timings;
use crate::runtime::between;

/// When a replica last heard a leader, and whether it ticks.
#[derive(Debug)]
pub(crate) struct Silence {
    heard: Mutex<Heard>,
    ticks: AtomicBool,
}

#[derive(Debug)]
struct Heard {
    append: Option<Instant>,
    /// In a coalesced heartbeat (see `liveness.rs`), which openraft does not know of.
    coalesced: Option<Instant>,
    /// The election timeout after the next silence, if openraft's own is over by then.
    drawn: Duration,
}

impl Silence {
    /// Of a replica that has heard nobody yet. It ticks.
    pub(crate) fn new(timings: &Timings) -> Self {
        Self {
            heard: Mutex::new(Heard {
                append: None,
                coalesced: None,
                drawn: draw(timings),
            }),
            ticks: AtomicBool::new(true),
        }
    }
    /// A leader whose term stands sent something that came in at `at`.
    pub(crate) fn append(&self, at: Instant) {
        let mut heard = self.heard.lock();
        heard.append = heard.append.max(Some(at));
    }
    /// A coalesced heartbeat that came at `at` names the group; `false`: it does not count, as nothing of the
    /// leader itself has come for `trust`.
    pub(crate) fn coalesced(&self, at: Instant, trust: Duration) -> bool {
        let mut heard = self.heard.lock();
        let counts = heard
            .append
            .is_some_and(|append| at.saturating_duration_since(append) < trust);
        if counts {
            heard.coalesced = heard.coalesced.max(Some(at));
        }
        counts
    }
    /// Whether a leader was heard, one way or the other, less than `limit` ago.
    pub(crate) fn is_shorter(&self, now: Instant, limit: Duration) -> bool {
        let heard = self.heard.lock();
        let last = heard.append.max(heard.coalesced);
        last.is_some_and(|at| now.saturating_duration_since(at) < limit)
    }
    /// Whether it may last long enough for an election before anybody looks again, a beat from now.
    pub(crate) fn is_long(&self, now: Instant, timings: &Timings) -> bool {
        let heard = self.heard.lock();
        let Some(append) = heard.append else {
            return true;
        };
        let every = timings.heartbeat;
        match heard.coalesced {
            // openraft's timeout counts from before: it is over when somebody looks at it. Beats are coarse,
            // so half of them are early.
            Some(at) if at >= append + every => {
                let limit = timings.election_max + heard.drawn;
                now.saturating_duration_since(at) + every / 2 >= limit
            }
            // openraft knows, and draws its own timeout.
            _ => now.saturating_duration_since(append) + every >= timings.election_min,
        }
    }
    /// Takes note that the replica ticks from now on, or does not; `false`: it is so already.
    pub(crate) fn set_ticks(&self, ticks: bool, timings: &Timings) -> bool {
        let changed = self.ticks.swap(ticks, Ordering::Relaxed) != ticks;
        if changed && !ticks {
            self.heard.lock().drawn = draw(timings);
        }
        changed
    }
}

fn draw(timings: &Timings) -> Duration {
    between(timings.election_min, timings.election_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant) -> impl Fn(u64) -> Instant {
        move |ms| start + Duration::from_millis(ms)
    }

    #[test]
    fn a_timeout_that_may_end_before_the_next_look_is_looked_at() {
        let (timings, start) = (Timings::default(), Instant::now());
        let (silence, after) = (Silence::new(&timings), after(start));
        assert!(silence.is_long(start, &timings), "nobody was heard yet");
        silence.append(after(50));
        assert!(!silence.is_long(after(150), &timings));
        assert!(!silence.is_long(after(249), &timings));
        assert!(silence.is_long(after(250), &timings));
        silence.append(after(40));
        let later = !silence.is_long(after(249), &timings);
        assert!(later, "the later one counts");
        assert!(!silence.is_long(after(10), &timings), "an early look");
    }

    #[test]
    fn after_a_coalesced_heartbeat_a_replica_waits_as_long_as_after_an_append() {
        let (timings, start) = (Timings::default(), Instant::now());
        let (after, trust) = (after(start), Duration::from_secs(2));
        let mut ends = Vec::new();
        for _ in 0..50 {
            let silence = Silence::new(&timings);
            silence.append(start);
            assert!(silence.coalesced(after(800), trust));
            // openraft's lease, and its shortest and longest timeout; a look comes each beat.
            let looks = (800..2_000).find(|ms| silence.is_long(after(*ms), &timings));
            let end = looks.unwrap() + 50 - 800;
            assert!((750..=900).contains(&end), "{end}");
            ends.push(end);
            assert!(silence.is_shorter(after(1_249), timings.election_max));
            assert!(!silence.is_shorter(after(1_250), timings.election_max));
        }
        ends.sort_unstable();
        assert!(ends[49] - ends[0] > 75, "{ends:?}");
    }

    #[test]
    fn a_coalesced_heartbeat_does_not_count_while_the_leader_itself_is_not_heard() {
        let (timings, start) = (Timings::default(), Instant::now());
        let (trust, after) = (Duration::from_millis(1_250), after(start));
        let silence = Silence::new(&timings);
        assert!(!silence.coalesced(start, trust));
        silence.append(start);
        assert!(silence.coalesced(after(1_249), trust));
        assert!(!silence.coalesced(after(1_250), trust));
    }
}
