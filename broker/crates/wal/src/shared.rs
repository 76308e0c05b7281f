//! What the writer shares with the handles: the index, the figures, the failure.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::WalError;
use crate::index::Index;
use crate::stats::WalStats;

/// Shared by the writer and all handles.
#[derive(Debug, Default)]
pub(crate) struct Shared<F> {
    /// Changed by the writer alone, after each sync.
    pub index: RwLock<Index<F>>,
    pub stats: Mutex<WalStats>,
    /// Jobs handed over or about to be, not yet taken by the writer.
    pub waiting: AtomicUsize,
    pub closed: AtomicBool,
    /// Told when appends begin to wait for disk space.
    pub full: Notify,
    failed: OnceLock<WalError>,
}

impl<F> Shared<F> {
    pub(crate) fn new() -> Self {
        Self {
            index: RwLock::new(Index::default()),
            stats: Mutex::default(),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            full: Notify::new(),
            failed: OnceLock::new(),
        }
    }
    /// Whether nobody is waiting to be taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }
    /// The error that ended the log.
    pub(crate) fn failure(&self) -> Option<&WalError> {
        self.failed.get()
    }
    /// Notes the error that ended the log. `false` when it had ended before.
    pub(crate) fn fail(&self, error: WalError) -> bool {
        self.failed.set(error).is_ok()
    }
    /// Why nothing can be submitted any more, if so.
    pub(crate) fn check(&self) -> Result<(), WalError> {
        if let Some(error) = self.failure() {
            return Err(error.clone());
        }
        if self.closed.load(Ordering::SeqCst) {
            Err(WalError::Closed)
        } else {
            Ok(())
        }
    }
    /// Brings the figures up to date with the pool and shows them.
    pub(crate) fn refresh(&self, ready_files: usize) {
        self.stats.lock().ready_files = ready_files as u64;
        self.stats().publish();
    }
    /// The figures now.
    pub(crate) fn stats(&self) -> WalStats {
        let (files, bytes, live) = {
            let index = self.index.read();
            (
                index.files.len() as u64,
                index.used_bytes(),
                index.live_bytes(),
            )
        };
        let mut stats = self.stats.lock();
        stats.files = files;
        stats.bytes = bytes;
        stats.live_bytes = live;
        *stats
    }
}
