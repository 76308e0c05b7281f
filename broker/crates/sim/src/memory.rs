//! How much memory a seed needs. A broker that keeps what it should let go shows here, because all of them
//! live in this process.

use anyhow::Context;

/// More than any seed needs, in MiB.
pub const MOST_MIB: u64 = 768;

/// What this process has needed at the most, in MiB.
///
/// # Errors
/// When the system does not say.
pub fn peak_mib() -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let told = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let told = told.context("/proc/self/status has no VmHWM")?;
    let kib = told.trim().trim_end_matches("kB").trim();
    let kib: u64 = kib
        .parse()
        .with_context(|| format!("{told:?} is no size"))?;
    Ok(kib.div_ceil(1 << 10))
}
