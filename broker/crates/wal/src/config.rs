//! What an operator may set, and whom to tell when the log has failed.

use std::fmt;
use std::sync::Arc;

use crate::{GroupId, LogIndex, WalError};

/// Called once, on the writer, with the error after which the log takes nothing any more. The
/// broker stops its process here.
pub type OnFatal = Arc<dyn Fn(&WalError) + Send + Sync>;

/// Up to which entry a checkpoint on the disk holds what a group's log said, so that what the log
/// has of it may be unreadable. Asked when the log is opened, and only if something is. A wrong answer
/// loses entries.
pub type Covered = Arc<dyn Fn(GroupId) -> Option<LogIndex> + Send + Sync>;

/// Settings of a log. Sizes in bytes.
#[derive(Clone)]
pub struct WalConfig {
    /// Size of one file. An operation larger than that gets a file of its own size.
    pub file_bytes: u64,
    /// How much log may lie on the disk before [`crate::Wal::purge_hints`] names what to purge.
    pub budget_bytes: u64,
    /// How many bytes may wait for the writer before [`crate::Wal::submit`] waits.
    pub queue_bytes: usize,
    /// The largest group of operations, in bytes, that is made durable by one sync. A single
    /// submission may be larger.
    pub flush_bytes: usize,
    /// The most files kept for reuse. Further ones are removed.
    pub max_free_files: usize,
    /// Whom to tell of the error that ended the log.
    pub on_fatal: OnFatal,
    /// What checkpoints hold; nothing by default.
    pub covered: Covered,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            budget_bytes: 8 << 30,
            queue_bytes: 64 << 20,
            flush_bytes: 16 << 20,
            max_free_files: 4,
            on_fatal: Arc::new(|_| {}),
            covered: Arc::new(|_| None),
        }
    }
}

impl fmt::Debug for WalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalConfig")
            .field("file_bytes", &self.file_bytes)
            .field("budget_bytes", &self.budget_bytes)
            .field("queue_bytes", &self.queue_bytes)
            .field("flush_bytes", &self.flush_bytes)
            .field("max_free_files", &self.max_free_files)
            .finish_non_exhaustive()
    }
}
