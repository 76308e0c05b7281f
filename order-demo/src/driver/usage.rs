//! Processor time and memory of every process of a run, by the kernel's own books.

use std::collections::BTreeMap;

/// Ticks of the kernel's books per second. Linux has used 100 on every platform for decades.
const TICKS: f64 = 100.0;

/// Processor time by process, kept over restarts.
#[derive(Debug, Default)]
pub struct Usage {
    latest: BTreeMap<(String, u32), f64>,
    before: BTreeMap<(String, u32), f64>,
}

impl Usage {
    /// Looks at these processes now. Those that are gone keep their last figure.
    pub fn look(&mut self, processes: impl IntoIterator<Item = (String, u32)>) {
        for (name, pid) in processes {
            if let Some(seconds) = cpu_seconds(pid) {
                self.latest.insert((name, pid), seconds);
            }
        }
    }

    /// Counts from now on.
    pub fn begin(&mut self) {
        self.before = self.latest.clone();
    }

    /// Seconds of processor time by name, since [`Usage::begin`].
    #[must_use]
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (process, seconds) in &self.latest {
            let before = self.before.get(process).copied().unwrap_or(0.0);
            *sums.entry(process.0.clone()).or_default() += seconds - before;
        }
        sums
    }
}

/// Processor seconds of a process since it began; none where the kernel keeps no such books.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_used_some_time() {
        let own = std::process::id();
        let mut work = 0_u64;
        while cpu_seconds(own).is_some_and(|seconds| seconds < 0.02) {
            work = work.wrapping_add(crate::order::mix(work));
        }
        let mut usage = Usage::default();
        usage.look([("own".to_owned(), own), ("gone".to_owned(), u32::MAX)]);
        let seconds = usage.seconds();
        assert!(
            seconds["own"] >= 0.02 && seconds.len() == 1,
            "{seconds:?} {work}"
        );
        usage.begin();
        assert!(usage.seconds()["own"].abs() < f64::EPSILON);
    }
}
