//! Pauses between attempts: doubling, capped, with jitter from a caller's random number.

use std::time::Duration;

/// How long to wait before attempt `failures + 1`, between half of the doubled pause and all of
/// it. `random` is any number; equal arguments give equal pauses.
pub(crate) fn pause(failures: u32, first: Duration, most: Duration, random: u64) -> Duration {
    let doubled = first
        .saturating_mul(1_u32 << failures.saturating_sub(1).min(20))
        .min(most);
    let half = doubled / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(random % span)
}

/// A small generator for jitter and sticky choices: reproducible from its seed, not for secrets.
/// Algorithm: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_never_vanish() {
        let (first, most) = (Duration::from_millis(10), Duration::from_millis(200));
        let mut jitter = Jitter::new(7);
        for failures in 1..40 {
            let pause = pause(failures, first, most, jitter.next());
            assert!(pause >= first / 2 && pause <= most, "{failures}: {pause:?}");
        }
        assert_eq!(pause(3, first, most, 0), Duration::from_millis(20));
    }
}
