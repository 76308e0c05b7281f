//! A broker's own wall clock, by libfaketime: the machine's, and an offset that a file says. Monotonic
//! time is the machine's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where distributions have it, under a directory of libraries.
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// The library; otherwise why not.
///
/// # Errors
/// One sentence.
pub fn library() -> Result<PathBuf, String> {
    let machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    [machine.as_str(), "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|directory| Path::new(directory).join(LIBRARY))
        .find(|path| path.exists())
        .ok_or_else(|| "libfaketime is not there (package libfaketime)".to_owned())
}

/// The file that says how far a broker's clock is ahead.
pub(super) fn file(directory: &Path, node: u32) -> PathBuf {
    directory.join(format!("clock-{node}"))
}

/// The variables that give a process the clock of a file, which is made and says that it is right.
///
/// # Errors
/// Without the library, or when the file cannot be written.
pub(super) fn environment(file: &Path) -> anyhow::Result<Vec<(String, String)>> {
    set(file, 0)?;
    let library = library().map_err(anyhow::Error::msg)?;
    let variables = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        // Seconds until the file is read again.
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DISABLE_SHM", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    let owned = variables.map(|(name, value)| (name.to_owned(), value));
    Ok(owned.into())
}

/// Sets a clock, whole: a process that reads the file meanwhile finds the old or the new offset.
///
/// # Errors
/// Those of the file system.
pub(super) fn set(file: &Path, ahead_s: i64) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{ahead_s:+}\n"))
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot set the clock {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind_by_a_number_with_its_sign() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = file(directory.path(), 3);
        for (ahead, said) in [(0, "+0\n"), (3_600, "+3600\n"), (-86_400, "-86400\n")] {
            set(&clock, ahead).expect("written");
            assert_eq!(fs::read_to_string(&clock).expect("written"), said);
        }
    }
}
