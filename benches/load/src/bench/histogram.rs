//! HDR histograms of microseconds that travel as pairs of value and count.

use hdrhistogram::Histogram;

/// Values up to ten minutes are told apart; larger ones count as that.
const MOST_US: u64 = 600_000_000;

/// Latencies in microseconds, three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MOST_US, 3);
        Self(histogram.expect("the bounds are right"))
    }
}

impl Latencies {
    /// Adds a value.
    pub fn record_us(&mut self, value: u64) {
        self.0.saturating_record(value.clamp(1, MOST_US));
    }
    /// Adds all of the other's.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing can fail.
        self.0.add(&other.0).expect("equal bounds");
    }
    /// How many values.
    pub fn len(&self) -> u64 {
        self.0.len()
    }
    /// The value below which this part (0 to 100) of all values lies, in milliseconds.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        self.0.value_at_percentile(percentile) as f64 / 1e3
    }
    /// Their mean, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        if self.0.is_empty() {
            0.0
        } else {
            self.0.mean() / 1e3
        }
    }
    /// The largest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
    /// Pairs of microseconds and count; empties the histogram.
    pub fn take(&mut self) -> Vec<(u64, u64)> {
        let pairs = self
            .0
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect();
        self.0.clear();
        pairs
    }
    /// Adds such pairs.
    pub fn add_pairs(&mut self, pairs: &[(u64, u64)]) {
        for &(value, count) in pairs {
            self.0.saturating_record_n(value.clamp(1, MOST_US), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Latencies;

    #[test]
    fn pairs_carry_everything() {
        let mut one = Latencies::default();
        for value in 1..=100_000 {
            one.record_us(value);
        }
        let mut two = Latencies::default();
        two.add_pairs(&one.clone().take());
        assert_eq!(two.len(), 100_000);
        for percentile in [50.0, 99.0, 99.9, 100.0] {
            let (a, b) = (one.percentile_ms(percentile), two.percentile_ms(percentile));
            assert!((a - b).abs() <= a / 1_000.0, "{percentile}: {a} {b}");
        }
        assert!((two.percentile_ms(50.0) - 50.0).abs() < 0.1);
    }
}
