//! When each order is due: a steady rate, and bursts of several times as many.

use std::time::Duration;

/// How long a burst lasts.
pub const BURST: Duration = Duration::from_secs(5);

/// `6x@30s`: six times the rate, from the 30th second on, for five seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// How many times the rate.
    pub factor: f64,
    /// When it begins.
    pub at: Duration,
}

impl std::str::FromStr for Burst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no burst: write 6x@30s");
        let (factor, at) = text.split_once("x@").ok_or_else(wrong)?;
        let at = at.strip_suffix('s').unwrap_or(at);
        let factor: f64 = factor.parse().map_err(|_| wrong())?;
        let at: f64 = at.parse().map_err(|_| wrong())?;
        if !(1.0..=100.0).contains(&factor) || !(0.0..1e6).contains(&at) {
            return Err(wrong());
        }
        Ok(Self {
            factor,
            at: Duration::from_secs_f64(at),
        })
    }
}

/// The times of orders, from the first on, which is due at once.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Orders per second outside of bursts.
    pub rate: f64,
    /// Bursts.
    pub bursts: Vec<Burst>,
}

impl Schedule {
    /// When each of `count` orders is due.
    pub fn times(&self, count: u64) -> impl Iterator<Item = Duration> {
        let mut next = 0.0;
        (0..count).map(move |_| {
            let due = next;
            next += 1.0 / (self.rate * self.factor(due));
            Duration::from_secs_f64(due)
        })
    }

    fn factor(&self, at: f64) -> f64 {
        let under_way = |burst: &&Burst| {
            let from = burst.at.as_secs_f64();
            (from..from + BURST.as_secs_f64()).contains(&at)
        };
        let factors = self
            .bursts
            .iter()
            .filter(under_way)
            .map(|burst| burst.factor);
        factors.fold(1.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_so_many_times_the_rate() {
        let burst: Burst = "6x@2s".parse().expect("a burst");
        let schedule = Schedule {
            rate: 100.0,
            bursts: vec![burst],
        };
        let times: Vec<Duration> = schedule.times(4_000).collect();
        let within = |from: u64, to: u64| {
            let range = Duration::from_secs(from)..Duration::from_secs(to);
            times.iter().filter(|at| range.contains(at)).count()
        };
        assert!((199..=201).contains(&within(0, 2)));
        assert!((2_995..=3_005).contains(&within(2, 7)), "{}", within(2, 7));
        assert!((99..=101).contains(&within(7, 8)));
        for wrong in ["6", "x@3s", "0x@1s", "6x@-1s"] {
            assert!(wrong.parse::<Burst>().is_err(), "{wrong}");
        }
    }
}
