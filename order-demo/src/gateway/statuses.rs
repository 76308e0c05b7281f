//! How far orders are, for those who poll: the topic of states, read from its beginning into
//! memory. A gateway that starts again reads it again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::{Client, Start};
use tokio::time::sleep;

use crate::domain::message::{Body, Message, OrderStatus};
use crate::domain::topics;

/// Pause before the topic is read again after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// The states by order id. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Statuses(Arc<RwLock<HashMap<String, OrderStatus>>>);

impl Statuses {
    /// The state of an order, if it is known.
    #[must_use]
    pub fn get(&self, order_id: &str) -> Option<OrderStatus> {
        let statuses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        statuses.get(order_id).cloned()
    }

    /// Takes a state over, unless a later one is known.
    pub fn put(&self, order_id: String, status: OrderStatus) {
        let mut statuses = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = statuses.entry(order_id).or_insert_with(|| status.clone());
        if known.sequence < status.sequence {
            *known = status;
        }
    }

    /// Follows the topic for ever.
    pub async fn follow(self, client: Client) {
        loop {
            if let Err(error) = self.read(&client).await {
                tracing::warn!(%error, "the states are read again");
            }
            sleep(PAUSE).await;
        }
    }

    async fn read(&self, client: &Client) -> anyhow::Result<()> {
        let consumer = client.consumer().topic(topics::STATUS);
        let mut records = consumer.start_at(Start::Earliest).build().await?;
        while let Some(record) = records.next().await {
            let record = record?;
            let value = record.value.as_deref().unwrap_or_default();
            let message: Message = serde_json::from_slice(value)?;
            if let Body::Status(status) = message.body {
                self.put(message.order_id, status);
            }
        }
        Ok(())
    }
}
