//! What the operating system says processes and the disk have used.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::stats::cpu_seconds;

const SECTOR: u64 = 512;

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU seconds, user and system.
    pub cpu_seconds: f64,
    /// Bytes of page cache that it made dirty, in whole folios: a small write into a large folio
    /// counts as the folio. What reaches the disk is in [`MachineUse`].
    pub write_bytes: u64,
    /// Times a thread gave up the CPU.
    pub voluntary_switches: u64,
    /// Times a thread was made to.
    pub involuntary_switches: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// Of a process; of one that is gone, nothing.
    pub fn of(pid: u32) -> Self {
        let Ok(cpu_seconds) = cpu_seconds(pid) else {
            return Self::default();
        };
        let (voluntary, involuntary) = switches(pid);
        Self {
            cpu_seconds,
            write_bytes: field(&format!("/proc/{pid}/io"), "write_bytes:"),
            voluntary_switches: voluntary,
            involuntary_switches: involuntary,
            resident_bytes: field(&format!("/proc/{pid}/status"), "VmRSS:") << 10,
        }
    }
    /// What was used between `earlier` and this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_seconds: (self.cpu_seconds - earlier.cpu_seconds).max(0.0),
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
            voluntary_switches: self
                .voluntary_switches
                .saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
            resident_bytes: self.resident_bytes,
        }
    }
}

/// The number after a name that begins a line.
fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Of all threads that live.
fn switches(pid: u32) -> (u64, u64) {
    let (mut voluntary, mut involuntary) = (0, 0);
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return (0, 0);
    };
    for task in tasks.flatten() {
        let status = task.path().join("status").display().to_string();
        voluntary += field(&status, "voluntary_ctxt_switches:");
        involuntary += field(&status, "nonvoluntary_ctxt_switches:");
    }
    (voluntary, involuntary)
}

/// What the whole machine, and the disk below a directory, have done since it began.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    at: Instant,
    busy_seconds: f64,
    steal_seconds: f64,
    disk_bytes: u64,
    disk_flushes: u64,
}

/// What the machine did in a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineUse {
    /// Its length.
    pub seconds: f64,
    /// CPU seconds that anybody used.
    pub busy_seconds: f64,
    /// CPU seconds that the host gave to others.
    pub steal_seconds: f64,
    /// Bytes written to the disk, at the block layer.
    pub disk_bytes: u64,
    /// Flushes of the disk's cache that were completed: merged, so fewer than fsyncs.
    pub disk_flushes: u64,
}

impl Machine {
    /// Now, with the disk that carries `directory`.
    pub fn now(directory: &Path) -> Self {
        let (busy_seconds, steal_seconds) = cpu();
        let (disk_bytes, disk_flushes) = disk(directory);
        Self {
            at: Instant::now(),
            busy_seconds,
            steal_seconds,
            disk_bytes,
            disk_flushes,
        }
    }
    /// What was done between `earlier` and this.
    pub fn since(&self, earlier: &Self) -> MachineUse {
        MachineUse {
            seconds: self.at.duration_since(earlier.at).as_secs_f64(),
            busy_seconds: self.busy_seconds - earlier.busy_seconds,
            steal_seconds: self.steal_seconds - earlier.steal_seconds,
            disk_bytes: self.disk_bytes.saturating_sub(earlier.disk_bytes),
            disk_flushes: self.disk_flushes.saturating_sub(earlier.disk_flushes),
        }
    }
}

/// Busy and stolen CPU seconds of all cores.
fn cpu() -> (f64, f64) {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
    // user, nice, system, then idle and waiting, then interrupts, then stolen
    (at(0) + at(1) + at(2) + at(5) + at(6), at(7))
}

/// Bytes written to and flushes of the disk that carries `directory`.
fn disk(directory: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(device) = std::fs::metadata(directory).map(|found| found.dev()) else {
        return (0, 0);
    };
    // The split of a device number into its two parts, as Linux has it.
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| -> u64 {
            fields
                .get(index)
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        if number(0) == major && number(1) == minor {
            return (number(9) * SECTOR, number(18));
        }
    }
    (0, 0)
}
