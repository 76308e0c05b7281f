//! Figures of a log: what it occupies and how its syncs went.

use std::time::Duration;

/// A snapshot of a log's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Files in use.
    pub files: u64,
    /// Files prepared for use.
    pub ready_files: u64,
    /// Bytes of the files in use.
    pub bytes: u64,
    /// Bytes in them that are still needed: entries not purged, states, purge points.
    pub live_bytes: u64,
    /// Syncs that made a group of operations durable.
    pub fsyncs: u64,
    /// How long the last of them took, in microseconds.
    pub last_fsync_micros: u64,
    /// Bytes written in groups, heads and padding included.
    pub written_bytes: u64,
    /// Bytes of entries written again so that an old file could be reused.
    pub relocated_bytes: u64,
    /// Files reused.
    pub recycled_files: u64,
    /// Whether appends wait for disk space.
    pub storage_full: bool,
    /// Whether an unreadable entry keeps the oldest file from being reused.
    pub recycling_blocked: bool,
}

impl WalStats {
    /// Notes a group of `bytes` made durable by a sync that took `fsync`.
    pub(crate) fn committed(&mut self, bytes: u64, fsync: Duration) {
        self.fsyncs += 1;
        self.last_fsync_micros = u64::try_from(fsync.as_micros()).unwrap_or(u64::MAX);
        self.written_bytes += bytes;
        metrics::histogram!("highwater_wal_fsync_seconds").record(fsync.as_secs_f64());
        #[allow(clippy::cast_precision_loss)] // a histogram's bucket needs no last digit
        metrics::histogram!("highwater_wal_commit_bytes").record(bytes as f64);
    }

    /// Shows the gauges to the metrics recorder.
    #[allow(clippy::cast_precision_loss)] // byte counts below 2^53
    pub(crate) fn publish(&self) {
        metrics::gauge!("highwater_wal_files").set(self.files as f64);
        metrics::gauge!("highwater_wal_bytes").set(self.bytes as f64);
        metrics::gauge!("highwater_wal_live_bytes").set(self.live_bytes as f64);
        metrics::gauge!("highwater_wal_storage_full").set(f64::from(u8::from(self.storage_full)));
        metrics::gauge!("highwater_wal_recycling_blocked")
            .set(f64::from(u8::from(self.recycling_blocked)));
    }
}
