//! The catalogue's list prices as its topic says them: read from its beginning to its end before the
//! first order is priced, and followed from then on. The topic is compacted, so that its beginning is
//! the latest price of each item, however often prices change.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::{Client, Start};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::catalogue::Sku;
use crate::domain::catalogue::Prices;
use crate::domain::message::{Body, Message};
use crate::domain::topics;
use crate::money::Cents;

/// Pause before the topic is read again after an error. What was known stays known.
const PAUSE: Duration = Duration::from_millis(500);

/// The list prices by item. Clones share them.
#[derive(Debug, Clone)]
pub struct PriceCache {
    /// With the offset of the record that said so: when the topic is read again from its beginning,
    /// old prices do not come back.
    prices: Arc<RwLock<BTreeMap<Sku, (u64, Cents)>>>,
    whole: Arc<watch::Sender<bool>>,
}

impl Default for PriceCache {
    fn default() -> Self {
        Self {
            prices: Arc::default(),
            whole: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Prices for PriceCache {
    fn of(&self, sku: Sku) -> Option<Cents> {
        let prices = self.prices.read().unwrap_or_else(PoisonError::into_inner);
        prices.get(&sku).map(|(_, price)| *price)
    }
}

impl PriceCache {
    /// Takes over what the message at this offset says, unless a later one was taken. All messages of
    /// an item are in one partition.
    pub fn take(&self, message: &Message, offset: u64) {
        if let Body::Item { sku, list_price } = message.body {
            let mut prices = self.prices.write().unwrap_or_else(PoisonError::into_inner);
            let known = prices.entry(sku).or_insert((offset, list_price));
            if known.0 < offset {
                *known = (offset, list_price);
            }
        }
    }

    /// How many items have a price.
    #[must_use]
    pub fn items(&self) -> u64 {
        let prices = self.prices.read().unwrap_or_else(PoisonError::into_inner);
        prices.len() as u64
    }

    /// Returns when the topic was read once to the end that it had when the reading began.
    /// Cancellation-safe.
    pub async fn whole(&self) {
        // The sender lives in `self`.
        let _ = self.whole.subscribe().wait_for(|whole| *whole).await;
    }

    /// Follows the topic for ever.
    pub async fn follow(self, client: Client) {
        loop {
            if let Err(error) = self.read(&client).await {
                tracing::warn!(%error, "the prices are read again");
            }
            sleep(PAUSE).await;
        }
    }

    async fn read(&self, client: &Client) -> anyhow::Result<()> {
        let ends = client.end_offsets(topics::ITEMS).await?;
        let consumer = client.consumer().topic(topics::ITEMS);
        let mut records = consumer.start_at(Start::Earliest).build().await?;
        loop {
            let passed = |(partition, end)| {
                let at = records.position(topics::ITEMS, partition);
                at.is_some_and(|at| at >= end)
            };
            if (0..).zip(ends.iter().copied()).all(passed) {
                self.whole.send_replace(true);
            }
            let Some(record) = records.next().await else {
                return Ok(());
            };
            let record = record?;
            let value = record.value.as_deref().unwrap_or_default();
            self.take(&serde_json::from_slice(value)?, record.offset.0);
        }
    }
}

#[cfg(test)]
#[path = "prices_tests.rs"]
mod tests;
