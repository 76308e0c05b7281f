//! The store's outbox as the client's relay wants it: rows are published once, in order, whatever
//! dies in between.

use std::sync::atomic::Ordering;
use std::time::Duration;

use highwater_client::resilience::outbox::{OutboxRow, OutboxStore, RelayState};
use redb::ReadableDatabase as _;
use tokio::time::timeout;

use super::database::{META, RELAY, StoreError, failed};
use super::writer::Store;

/// The longest time for which an empty outbox lets its relay wait.
const IDLE: Duration = Duration::from_secs(1);

/// A store's outbox.
pub struct StoredOutbox(pub Store);

impl OutboxStore for StoredOutbox {
    type Error = StoreError;

    async fn load(&mut self) -> Result<Option<RelayState>, StoreError> {
        let read = self.0.database.file.begin_read().map_err(failed)?;
        let table = read.open_table(META).map_err(failed)?;
        let Some(document) = table.get(RELAY).map_err(failed)? else {
            return Ok(None);
        };
        serde_json::from_slice(document.value())
            .map(Some)
            .map_err(failed)
    }

    /// Waits for a row, so that a message need not wait for the next look.
    async fn pending(&mut self, most: usize) -> Result<Vec<OutboxRow>, StoreError> {
        if self.0.shared.waiting.load(Ordering::Acquire) == 0 {
            // Either way the rows are looked at.
            let _ = timeout(IDLE, self.0.shared.changed.notified()).await;
        }
        Ok(self.0.shared.rows().values().take(most).cloned().collect())
    }

    async fn rows(&mut self, ids: &[u64]) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = self.0.shared.rows();
        Ok(ids.iter().filter_map(|id| rows.get(id).cloned()).collect())
    }

    async fn save(
        &mut self,
        expected: u64,
        state: &RelayState,
        published: &[u64],
    ) -> Result<bool, StoreError> {
        self.0.relay(expected, state, published).await
    }
}
