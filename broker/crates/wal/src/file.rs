//! A log file by number, and the errors of its calls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{WalError, WalOpenError};

/// An open log file. Whoever holds the `Arc` of it keeps it from being reused.
#[derive(Debug)]
pub(crate) struct WalFile<F> {
    pub file: F,
    pub path: PathBuf,
    /// Length in bytes: preallocated and written through once.
    pub len: u64,
}

/// The name of file `number`.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:010}.wal")
}

/// The number in a file's name, if it is a log file.
pub(crate) fn file_number(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".wal")?;
    (digits.len() == 10).then(|| digits.parse().ok()).flatten()
}

/// Names the call and the file of a failed call of the writer.
pub(crate) fn write_error(call: &'static str, file: &Path) -> impl FnOnce(io::Error) -> WalError {
    move |source| WalError::Io {
        call,
        file: file.to_owned(),
        source: Arc::new(source),
    }
}

/// Names the call and the file of a failed call of recovery.
pub(crate) fn open_error(
    call: &'static str,
    file: &Path,
) -> impl FnOnce(io::Error) -> WalOpenError {
    move |source| WalOpenError::Io {
        call,
        file: file.to_owned(),
        source,
    }
}
