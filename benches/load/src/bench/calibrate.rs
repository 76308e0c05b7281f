//! What a synced write costs on this disk right now: without it no figure means anything.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::histogram::Latencies;

const FILE_BYTES: u64 = 32 << 20;
const SPAN: Duration = Duration::from_millis(700);

/// Writes and syncs into a preallocated file that was written through once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Calibration {
    /// Milliseconds for 4 KiB: median.
    pub small_p50_ms: f64,
    /// Milliseconds for 4 KiB: 99 %.
    pub small_p99_ms: f64,
    /// MB/s in pieces of 64 KiB, each synced.
    pub at_64_kib: f64,
    /// MB/s in pieces of 1 MiB, each synced.
    pub at_1_mib: f64,
}

/// Measures in `directory`, for about two seconds.
///
/// # Errors
/// The disk's.
pub fn calibrate(directory: &Path) -> std::io::Result<Calibration> {
    let path = directory.join("fsync-calibration");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    let block = vec![0x5a; 1 << 20];
    for at in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, at)?;
    }
    file.sync_all()?;
    let measure = |size: usize| -> std::io::Result<(Latencies, f64)> {
        let (started, mut latencies, mut bytes) = (Instant::now(), Latencies::default(), 0u64);
        while started.elapsed() < SPAN {
            let write = Instant::now();
            let at = bytes % FILE_BYTES;
            file.write_all_at(block.get(..size).unwrap_or_default(), at)?;
            file.sync_data()?;
            latencies.record_us(u64::try_from(write.elapsed().as_micros()).unwrap_or(u64::MAX));
            bytes += size as u64;
        }
        Ok((
            latencies,
            bytes as f64 / 1e6 / started.elapsed().as_secs_f64(),
        ))
    };
    let (small, _) = measure(4 << 10)?;
    let (_, at_64_kib) = measure(64 << 10)?;
    let (_, at_1_mib) = measure(1 << 20)?;
    std::fs::remove_file(&path)?;
    Ok(Calibration {
        small_p50_ms: small.percentile_ms(50.0),
        small_p99_ms: small.percentile_ms(99.0),
        at_64_kib,
        at_1_mib,
    })
}
