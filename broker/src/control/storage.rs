//! Watches the disk and drives the segment writer.
//!
//! A loop of its own, beside the checkpoints: a checkpoint waits for segments that found no space,
//! and those wait until they are told to try again. One loop for both would wait for itself.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Disk, Env, Workers};

use crate::node::Broker;
use crate::runtime::blocking;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = broker.stop.cancelled() => return,
        }
        watch_disk(&broker).await;
        drive_segments(&broker).await;
    }
}

/// Closes the gate while there is too little space; everything else goes on.
async fn watch_disk<E: Env>(broker: &Broker<E>) {
    let dir = broker.config.node.data_dir.clone();
    let disk = broker.env.disk().clone();
    let measure = move || (disk.free_bytes(&dir), dir);
    let (free, dir) = match broker.env.workers() {
        Workers::Tasks => measure(),
        Workers::Threads => blocking(measure).await,
    };
    match free {
        Ok(free) => {
            let full = Space {
                free,
                reserve: broker.config.storage.reserve_bytes.0,
                log_is_full: broker.wal.stats().storage_full,
                segments_are_full: broker.shard_context.store.is_storage_full(),
            }
            .is_full();
            if full != broker.gate.is_storage_full() {
                tracing::warn!(free, full, "free disk space crossed the reserve");
            }
            broker.gate.set_storage_full(full);
            metrics::gauge!("highwater_disk_free_bytes").set(free as f64);
        }
        Err(error) => tracing::warn!(%error, dir = %dir.display(), "cannot read free disk space"),
    }
}

/// What is known of the space for data.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    reserve: u64,
    log_is_full: bool,
    segments_are_full: bool,
}

impl Space {
    /// Whether produce is refused. Segments may find no space while there seems to be some (a
    /// quota, reserved blocks): what is taken then would be logged, and answered by nobody.
    fn is_full(self) -> bool {
        self.free < self.reserve || self.log_is_full || self.segments_are_full
    }
}

/// The segment writer gathers small batches until it is told to write them, and holds what found no
/// space until it is told to try again.
async fn drive_segments<E: Env>(broker: &Broker<E>) {
    let store = &broker.shard_context.store;
    let told = if store.is_storage_full() {
        store.retry_storage().await
    } else {
        store.write().await
    };
    if let Err(error) = told {
        tracing::error!(%error, "the segment store has stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_missing_space_closes_the_gate() {
        let enough = Space {
            free: 10,
            reserve: 10,
            log_is_full: false,
            segments_are_full: false,
        };
        assert!(!enough.is_full());
        assert!(Space { free: 9, ..enough }.is_full());
        let log_is_full = true;
        assert!(
            Space {
                log_is_full,
                ..enough
            }
            .is_full()
        );
        let segments_are_full = true;
        assert!(
            Space {
                segments_are_full,
                ..enough
            }
            .is_full()
        );
    }
}
