//! What goes wrong on a simulated disk, and the trace of what was asked of it.

use std::io;
use std::path::{Path, PathBuf};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each is the method of its name
pub enum CallKind {
    Open,
    Rename,
    RemoveFile,
    RemoveDir,
    CreateDir,
    ReadDir,
    Exists,
    SyncDir,
    SyncFileSystem,
    FreeBytes,
    Read,
    Write,
    SyncData,
    Allocate,
    SetLen,
    Len,
}

/// One call, for comparing runs and for finding the call at which to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub kind: CallKind,
    /// On what; the first path of a rename.
    pub path: PathBuf,
    /// Where in the file, in bytes; 0 where that has no meaning.
    pub offset: u64,
    /// How many bytes; 0 where that has no meaning.
    pub len: u64,
    /// Whether an error was injected.
    pub failed: bool,
}

/// Faults that were asked for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Calls so far.
    pub calls: u64,
    /// From this call on, every call fails.
    pub stop_at: Option<u64>,
    /// These calls fail, by number.
    pub fail_at: Vec<(u64, io::ErrorKind)>,
    /// The next calls of these kinds fail.
    pub fail_next: Vec<(CallKind, io::ErrorKind)>,
    /// Bytes that fit.
    pub capacity: Option<u64>,
    /// Open files now, and the most at a time.
    pub open: usize,
    pub most_open: usize,
    pub trace: Option<Vec<Call>>,
    /// A call has failed.
    pub failed: bool,
}

/// How a call fails.
pub(super) enum Failure {
    /// The machine has stopped: nothing has any effect.
    Stopped(io::Error),
    /// An error is injected.
    Injected(io::Error),
}

impl Failure {
    pub(super) fn into_error(self) -> io::Error {
        match self {
            Self::Stopped(error) | Self::Injected(error) => error,
        }
    }
}

impl Faults {
    pub(super) fn opened(&mut self) {
        self.open += 1;
        self.most_open = self.most_open.max(self.open);
    }
    pub(super) fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Counts a call, and says whether it fails.
    pub(super) fn enter(
        &mut self,
        kind: CallKind,
        path: &Path,
        offset: u64,
        len: u64,
    ) -> Result<(), Failure> {
        let number = self.calls;
        self.calls += 1;
        let failure = self.failure(kind, number);
        self.failed |= failure.is_some();
        if let Some(trace) = &mut self.trace {
            let failed = failure.is_some();
            trace.push(Call {
                kind,
                path: path.to_owned(),
                offset,
                len,
                failed,
            });
        }
        failure.map_or(Ok(()), Err)
    }

    fn failure(&mut self, kind: CallKind, number: u64) -> Option<Failure> {
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Some(Failure::Stopped(io::Error::other(
                "the simulated machine has stopped",
            )));
        }
        if let Some(at) = self.fail_at.iter().position(|(call, _)| *call == number) {
            return Some(Failure::Injected(self.fail_at.remove(at).1.into()));
        }
        let at = self
            .fail_next
            .iter()
            .position(|(wanted, _)| *wanted == kind)?;
        Some(Failure::Injected(self.fail_next.remove(at).1.into()))
    }
}
