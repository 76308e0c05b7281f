//! A rate limit: a bucket of tokens that fills at a steady rate. Pure but for the time it is told.

use std::time::Duration;

/// A bucket that holds as many tokens as come in one second.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        let per_second = per_second.max(1.0);
        Self {
            per_second,
            tokens: per_second,
            last: Duration::ZERO,
        }
    }

    /// Takes a token; `now` is the time since any fixed moment.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / self.per_second,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_passes() {
        let mut bucket = TokenBucket::new(10.0);
        let mut passed = 0;
        for millis in 0..3_000 {
            passed += u32::from(bucket.take(Duration::from_millis(millis)).is_ok());
        }
        // A full bucket, and what came in three seconds.
        assert!((39..=40).contains(&passed), "{passed}");
        let wait = bucket
            .take(Duration::from_millis(3_000))
            .map_or_else(|wait| wait, |()| Duration::ZERO);
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
    }
}
