//! So many bytes a second, for everybody together.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// A rate that its users share: each waits until what was spent before is paid off.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    paid_at: Mutex<Instant>,
}

impl Pace {
    /// At most so many bytes a second; 0: without a bound.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_at: Mutex::new(Instant::now()),
        }
    }
    /// Spends `bytes` and waits for its turn; how long that was. A piece larger than a second's
    /// share goes whole, and whoever comes next waits for it. A dropped future has spent its bytes.
    pub async fn spend(&self, bytes: u64) -> Duration {
        let wait = self.book(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        wait
    }
    /// How long a spender waits that comes at `now`.
    fn book(&self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_at = self.paid_at.lock();
        let turn = (*paid_at).max(now);
        *paid_at = turn + cost;
        turn - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_together_gets_the_rate_and_no_more() {
        let (pace, start) = (Pace::new(1_000), Instant::now());
        let mut now = start;
        for _ in 0..50 {
            now += pace.book(100, now);
        }
        // The first goes at once; the others have waited for all before them.
        assert_eq!(now - start, Duration::from_millis(4_900));
        // Nothing is saved up while nobody comes.
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.book(100, later), Duration::ZERO);
        assert_eq!(pace.book(100, later), Duration::from_millis(100));
    }

    #[test]
    fn no_rate_is_no_bound() {
        let (pace, now) = (Pace::new(0), Instant::now());
        assert_eq!(pace.book(u64::MAX, now), Duration::ZERO);
        assert_eq!(pace.book(1, now), Duration::ZERO);
    }
}
