//! What an fsync costs here: every durable step of every mode pays it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::report::{Latency, SLOWEST_MICROS};

const WRITES: usize = 100;

/// Writes 4 KiB and waits for the disk, a hundred times.
///
/// # Errors
/// Those of the file system.
pub fn fsync(directory: &Path) -> io::Result<Latency> {
    let path = directory.join("calibration");
    let mut file = File::create(&path)?;
    let mut took = Histogram::new_with_max(SLOWEST_MICROS, 3).map_err(io::Error::other)?;
    for _ in 0..WRITES {
        file.write_all(&[0x5a; 4_096])?;
        let begun = Instant::now();
        file.sync_data()?;
        took.saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    std::fs::remove_file(path)?;
    Ok(Latency::from_micros(&took))
}
