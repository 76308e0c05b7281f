//! Settings of segment files.

/// How segments are laid out. Two brokers may differ: nothing here decides what a log holds.
#[derive(Debug, Clone, Copy)]
pub struct SegmentConfig {
    /// Least distance between two index entries, in bytes. Wider in long segments.
    pub index_interval_bytes: u64,
    /// The first step in which space is reserved, in bytes.
    pub preallocate_min: u64,
    /// The widest step, in bytes.
    pub preallocate_max: u64,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        // 100,000 idle partitions reserve 1.6 GB at the least step.
        Self {
            index_interval_bytes: 4 << 10,
            preallocate_min: 16 << 10,
            preallocate_max: 8 << 20,
        }
    }
}

/// A step that was used up within this time was too short.
const BUSY_MS: i64 = 2_000;
/// A step that lasted longer than this was too long.
const IDLE_MS: i64 = 30_000;

/// The step in which a partition reserves space: doubled while steps are used up quickly, halved
/// when they last. Time is that of the appends, so that it is the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Preallocation {
    min: u64,
    max: u64,
    step: u64,
    last_ms: Option<i64>,
}

impl Preallocation {
    pub(crate) fn new(config: &SegmentConfig) -> Self {
        let min = config.preallocate_min.max(1);
        Self {
            min,
            max: config.preallocate_max.max(min),
            step: min,
            last_ms: None,
        }
    }
    /// The size to which a file is to be extended that must hold `needed` bytes now.
    pub(crate) fn extend(&mut self, needed: u64, now_ms: i64) -> u64 {
        if let Some(last) = self.last_ms {
            let lasted = now_ms.saturating_sub(last);
            if lasted < BUSY_MS {
                self.step = self.step.saturating_mul(2).min(self.max);
            } else if lasted > IDLE_MS {
                self.step = (self.step / 2).max(self.min);
            }
        }
        self.last_ms = Some(now_ms);
        needed.saturating_add(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_follows_the_rate() {
        let config = SegmentConfig {
            preallocate_min: 10,
            preallocate_max: 40,
            ..Default::default()
        };
        let mut steps = Preallocation::new(&config);
        let taken: Vec<u64> = [0, 100, 200, 300, 60_000, 120_000, 180_000]
            .into_iter()
            .map(|now| steps.extend(0, now))
            .collect();
        assert_eq!(taken, [10, 20, 40, 40, 20, 10, 10]);
    }
}
