//! A transactional outbox: an order and the event that tells of it are written in one transaction;
//! a relay publishes the event once, whatever dies in between.
//!
//! `cargo run -p highwater-client --example outbox -- highwater://localhost:9094 orders`

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_client::resilience::outbox::{OutboxRow, OutboxStore, RelayState};
use highwater_client::{Client, ProducerRecord};

/// Stands for a database; locking it stands for a transaction. Real tables:
///
/// - `outbox (id bigserial primary key, topic, key, value, published boolean)`
/// - `relay (name text primary key, revision bigint, state jsonb)`
#[derive(Default)]
struct Tables {
    orders: Vec<String>,
    /// With whether it is published.
    outbox: BTreeMap<u64, (ProducerRecord, bool)>,
    relay: Option<RelayState>,
}

#[derive(Clone, Default)]
struct Database(Arc<Mutex<Tables>>);

impl Database {
    fn transaction(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the application does: data and event, all or nothing.
    fn place_order(&self, topic: &str, order: &str) {
        let mut tables = self.transaction();
        tables.orders.push(order.to_owned());
        let id = tables.outbox.len() as u64 + 1;
        let event = ProducerRecord::to(topic)
            .key(order.to_owned())
            .value("placed");
        tables.outbox.insert(id, (event, false));
    }
}

impl OutboxStore for Database {
    type Error = Infallible;

    async fn load(&mut self) -> Result<Option<RelayState>, Infallible> {
        Ok(self.transaction().relay.clone())
    }

    async fn pending(&mut self, most: usize) -> Result<Vec<OutboxRow>, Infallible> {
        let tables = self.transaction();
        let open = tables
            .outbox
            .iter()
            .filter(|(_, (_, published))| !published);
        let row = |(id, (record, _)): (&u64, &(ProducerRecord, bool))| OutboxRow {
            id: *id,
            record: record.clone(),
        };
        Ok(open.map(row).take(most).collect())
    }

    async fn rows(&mut self, ids: &[u64]) -> Result<Vec<OutboxRow>, Infallible> {
        let tables = self.transaction();
        let row = |id: &u64| {
            let (record, _) = tables.outbox.get(id)?;
            Some(OutboxRow {
                id: *id,
                record: record.clone(),
            })
        };
        Ok(ids.iter().filter_map(row).collect())
    }

    async fn save(
        &mut self,
        expected: u64,
        state: &RelayState,
        published: &[u64],
    ) -> Result<bool, Infallible> {
        // update relay set ... where revision = expected; no row: another relay was first
        let mut tables = self.transaction();
        if tables.relay.as_ref().map_or(0, |stored| stored.revision) != expected {
            return Ok(false);
        }
        tables.relay = Some(state.clone());
        for id in published {
            if let Some((_, marked)) = tables.outbox.get_mut(id) {
                *marked = true;
            }
        }
        Ok(true)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let brokers = args
        .next()
        .unwrap_or_else(|| "highwater://localhost:9094".to_owned());
    let topic = args.next().unwrap_or_else(|| "orders".to_owned());

    let database = Database::default();
    for number in 1..=10 {
        database.place_order(&topic, &format!("order-{number}"));
    }
    let client = Client::connect(&brokers).await?;
    let mut relay = client.outbox("orders").build(database.clone());
    tokio::select! {
        // Ends with an error only; then it is to be run again.
        Err(error) = relay.run() => return Err(error.into()),
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}
