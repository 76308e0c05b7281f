//! Whether a replica has to look at its election timeout. openraft looks at every tick, in every group;
//! who leads, or has just heard its leader, need not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When a replica last heard a leader, and whether it ticks.
#[derive(Debug)]
pub(crate) struct Silence {
    heard: Mutex<Option<Instant>>,
    ticks: AtomicBool,
}

impl Silence {
    /// Of a replica that has heard nobody yet. It ticks.
    pub(crate) fn new() -> Self {
        Self {
            heard: Mutex::default(),
            ticks: AtomicBool::new(true),
        }
    }
    /// A leader whose term stands sent something that came in at `at`.
    pub(crate) fn heard(&self, at: Instant) {
        let mut heard = self.heard.lock();
        *heard = (*heard).max(Some(at));
    }
    /// Whether it may last for `least` before anybody looks again, `every` from now.
    pub(crate) fn is_long(&self, now: Instant, least: Duration, every: Duration) -> bool {
        let heard = *self.heard.lock();
        heard.is_none_or(|at| now.saturating_duration_since(at) + every >= least)
    }
    /// Takes note that the replica ticks from now on, or does not; `false`: it is so already.
    pub(crate) fn set_ticks(&self, ticks: bool) -> bool {
        self.ticks.swap(ticks, Ordering::Relaxed) != ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_may_end_before_the_next_look_is_looked_at() {
        let (least, every) = (Duration::from_millis(300), Duration::from_millis(100));
        let (silence, start) = (Silence::new(), Instant::now());
        let after = |ms: u64| start + Duration::from_millis(ms);
        assert!(silence.is_long(start, least, every), "nobody was heard yet");
        silence.heard(after(50));
        assert!(!silence.is_long(after(150), least, every));
        assert!(!silence.is_long(after(249), least, every));
        assert!(silence.is_long(after(250), least, every));
        silence.heard(after(40));
        assert!(
            !silence.is_long(after(249), least, every),
            "the later one counts"
        );
        assert!(!silence.is_long(after(10), least, every), "an early look");
    }
}
