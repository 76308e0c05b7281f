//! Effectively once, by an inbox: an event's id is written in the same database transaction as its
//! effect, and an event whose id is there already has no effect again.
//!
//! A group delivers at least once: after a crash, or when a partition moves, records come again.
//! This recipe needs an id in every event and a unique index on the inbox. It bears any order and
//! any number of handlers, and it is the one for records that come by way of a dead letter queue.
//! Ids may be deleted after longer than an event can come again (the topic's retention).
//!
//! `cargo run -p highwater-client --example inbox -- highwater://localhost:9094 billing orders`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use highwater_client::Client;
use highwater_client::group::{GroupRecord, HandlerError};

/// Stands for a database; locking it stands for a transaction.
#[derive(Default)]
struct Database {
    /// `create table inbox (event_id text primary key)`
    inbox: BTreeSet<String>,
    balances: BTreeMap<String, i64>,
}

/// What one event does, all or nothing.
fn bill(
    database: &Mutex<Database>,
    event_id: &str,
    account: &str,
    cents: i64,
) -> Result<(), HandlerError> {
    // begin
    let mut transaction = database
        .lock()
        .map_err(|_| HandlerError::retryable("database"))?;
    // insert into inbox ... on conflict do nothing; no row: it was done before
    if !transaction.inbox.insert(event_id.to_owned()) {
        return Ok(());
    }
    *transaction.balances.entry(account.to_owned()).or_default() += cents;
    Ok(())
    // commit
}

fn handle(database: &Mutex<Database>, record: &GroupRecord) -> Result<(), HandlerError> {
    // The producer's own id; an outbox writes one into each record.
    let id = record.header("event-id");
    let id = id.ok_or_else(|| HandlerError::permanent("the event has no id"))?;
    let account = record.key.as_deref().unwrap_or_default();
    let cents = std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse()?;
    bill(
        database,
        &String::from_utf8_lossy(id),
        &String::from_utf8_lossy(account),
        cents,
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let (brokers, group, topic) = (
        next("highwater://localhost:9094"),
        next("billing"),
        next("orders"),
    );

    let database = Arc::new(Mutex::new(Database::default()));
    let client = Client::connect(&brokers).await?;
    let worker = client.group(group).topic(topic).run(move |record| {
        let database = Arc::clone(&database);
        async move { handle(&database, &record) }
    })?;
    tokio::signal::ctrl_c().await?;
    worker.stop().await?;
    Ok(())
}
