//! Pauses between attempts: exponential, capped, with jitter. Pure.

use std::time::Duration;

use crate::backoff::pause;

/// How long to wait between attempts.
///
/// Each pause is at least half of the doubled one and below all of it: "equal jitter" of the AWS
/// Architecture Blog's "Exponential Backoff And Jitter". It never vanishes, so a caller that fails
/// for ever is bounded in rate, and callers that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause, before jitter.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
}

impl Default for Backoff {
    /// 200 ms, doubling, at most 32 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(32),
        }
    }
}

impl Backoff {
    /// The pause after `failures` failures in a row (at least 1). `random` is any number: equal
    /// arguments give equal pauses.
    #[must_use]
    pub fn pause(&self, failures: u32, random: u64) -> Duration {
        pause(failures, self.first, self.most, random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_lies_between_half_and_all_of_the_doubled_one(
            failures in 1_u32..80, random: u64
        ) {
            let backoff = Backoff::default();
            let doubled = backoff.first.saturating_mul(1 << (failures - 1).min(20));
            let doubled = doubled.min(backoff.most);
            let pause = backoff.pause(failures, random);
            prop_assert!(pause >= doubled / 2 && pause < doubled, "{pause:?} of {doubled:?}");
        }
    }
}
