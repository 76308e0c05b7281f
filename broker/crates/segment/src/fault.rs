//! The first failure that stops the process: remembered, and reported once.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A write or a sync failed. What the file holds is unknown, so nothing may be built on it: the
/// process stops and recovers from the write-ahead log. Never retried.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of {path} failed: {source}", path = path.display())]
pub struct SegmentFault {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the file system said.
    pub source: io::Error,
}

/// Called exactly once, with the first fault.
pub type OnFatal = Arc<dyn Fn(&SegmentFault) + Send + Sync>;

/// Shared by everything that writes or syncs segment files of one broker.
pub(crate) struct Faults {
    first: OnceLock<Arc<SegmentFault>>,
    hook: OnFatal,
}

impl Faults {
    pub(crate) fn new(hook: OnFatal) -> Self {
        Self {
            first: OnceLock::new(),
            hook,
        }
    }
    /// Remembers the fault if it is the first, and reports that one.
    pub(crate) fn raise(
        &self,
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    ) -> Arc<SegmentFault> {
        let fault = Arc::new(SegmentFault {
            operation,
            path,
            source,
        });
        if self.first.set(fault.clone()).is_ok() {
            (self.hook)(&fault);
        }
        self.first.get().cloned().unwrap_or(fault)
    }
    /// The first fault, if there was one.
    pub(crate) fn first(&self) -> Option<Arc<SegmentFault>> {
        self.first.get().cloned()
    }
}
