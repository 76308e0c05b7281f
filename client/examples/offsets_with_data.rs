//! Effectively once, by offsets kept with the data: the database remembers, per partition, the
//! first offset that had no effect yet, and raises it in the same transaction as the effect.
//!
//! Needs no ids, and one row per partition instead of one per event. In return the records of a
//! partition are handled one after the other (`Ordering::Partition`), and none may be set aside:
//! the policy is `OnFailure::Block`. The topic's id, not its name, names the row where a topic may
//! be deleted and made again.
//!
//! `cargo run -p highwater-client --example offsets_with_data -- highwater://localhost:9094 sums orders`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use highwater_client::Client;
use highwater_client::group::{GroupRecord, HandlerError, OnFailure, Ordering, RetryPolicy};

/// Stands for a database; locking it stands for a transaction.
#[derive(Default)]
struct Database {
    /// `create table progress (topic text, part int, next bigint, primary key (topic, part))`
    progress: BTreeMap<(String, u32), u64>,
    total: i64,
}

fn add(database: &Mutex<Database>, record: &GroupRecord) -> Result<(), HandlerError> {
    let cents: i64 = std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse()?;
    // begin
    let mut transaction = database
        .lock()
        .map_err(|_| HandlerError::retryable("database"))?;
    let Database { progress, total } = &mut *transaction;
    let place = (record.topic.to_string(), record.partition.0);
    // select next ... for update: two members that think they own the partition wait here
    let next = progress.entry(place).or_default();
    if record.offset.0 < *next {
        return Ok(()); // done before, and not committed to the group
    }
    *total += cents;
    *next = record.offset.0 + 1;
    Ok(())
    // commit
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let (brokers, group, topic) = (
        next("highwater://localhost:9094"),
        next("sums"),
        next("orders"),
    );

    let database = Arc::new(Mutex::new(Database::default()));
    let client = Client::connect(&brokers).await?;
    let worker = client
        .group(group)
        .topic(topic)
        .ordering(Ordering::Partition)
        .retry(RetryPolicy::default().then(OnFailure::Block))
        .run(move |record| {
            let database = Arc::clone(&database);
            async move { add(&database, &record) }
        })?;
    tokio::signal::ctrl_c().await?;
    worker.stop().await?;
    Ok(())
}
