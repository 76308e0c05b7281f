//! A topic that comes, is written and read, and goes, again and again under one name. What one of
//! them held must never be seen in the next.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::StreamExt;
use highwater_client::{AdminError, Client, ErrorCode, NewTopic, ProducerRecord};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::{AGAIN, Shared, code, make};
use crate::board::Phase;

const NAME: &str = "comes-and-goes";
const PARTITIONS: u32 = 2;
const DEADLINE: Duration = Duration::from_secs(5);

/// Makes, uses and deletes the topic until the run is healed; the last one is read to its end.
///
/// # Errors
/// What was acknowledged and is not there, or is there and was never sent to this topic.
pub async fn churn(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let mut life = 0;
    loop {
        life += 1;
        let client = shared.client().build()?;
        let topic = NewTopic::named(NAME)
            .partitions(PARTITIONS)
            .replication_factor(3)
            .config("segment.ms", "500");
        make(&client, &topic).await;
        tracing::info!(life, "made");
        let last = shared.board.phase() >= Phase::Healed;
        let count = rng.random_range(1..60);
        let acknowledged = fill(&client, life, count).await;
        tracing::info!(life, count, acknowledged = acknowledged.len(), "filled");
        if last || rng.random_ratio(1, 2) {
            read(&client, life, &acknowledged, last).await?;
        }
        if last {
            return Ok(());
        }
        drop(client);
        delete(&shared, &mut rng).await?;
    }
}

type Acknowledged = BTreeMap<(u32, u64), String>;

/// Sends so many records, a few at a time.
async fn fill(client: &Client, life: u32, count: u32) -> Acknowledged {
    let producer = client.producer().delivery_timeout(DEADLINE).build();
    let mut acknowledged = Acknowledged::new();
    let sends = (0..count).map(|number| {
        let (partition, producer) = (number % PARTITIONS, producer.clone());
        let value = format!("{life} {number} {:300}", "");
        async move {
            let record = ProducerRecord::to(NAME).partition(partition);
            let sent = producer.send(record.value(value.clone())).await;
            (partition, value, sent)
        }
    });
    let mut sends = futures_util::stream::iter(sends).buffer_unordered(8);
    while let Some((partition, value, sent)) = sends.next().await {
        match sent {
            Ok(delivery) => {
                acknowledged.insert((partition, delivery.offset.0), value);
            }
            Err(error) => tracing::info!(%error, "the topic that goes takes nothing"),
        }
    }
    acknowledged
}

/// Reads what there is. With `all`, until everything acknowledged was read.
async fn read(
    client: &Client,
    life: u32,
    acknowledged: &Acknowledged,
    all: bool,
) -> anyhow::Result<()> {
    let mut missing: Acknowledged = acknowledged.clone();
    loop {
        let mut consumer = match client.consumer().topic(NAME).build().await {
            Ok(consumer) => consumer,
            Err(_) if !all => return Ok(()),
            Err(error) => {
                tracing::info!(%error, "the last topic cannot be read yet");
                sleep(AGAIN).await;
                continue;
            }
        };
        while let Ok(Some(next)) = timeout(DEADLINE / 5, consumer.next()).await {
            let Ok(record) = next else {
                break;
            };
            let place = (record.partition.0, record.offset.0);
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
            ensure!(
                value.split(' ').next() == Some(life.to_string().as_str()),
                "topic {NAME} of life {life} holds {value:?} at {place:?}"
            );
            if let Some(sent) = missing.remove(&place)
                && sent != value
            {
                bail!("topic {NAME} of life {life} holds {value:?}, not {sent:?}, at {place:?}");
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
        if !all || missing.is_empty() {
            return Ok(());
        }
    }
}

/// Deletes the topic, however long that takes.
async fn delete(shared: &Shared, rng: &mut StdRng) -> anyhow::Result<()> {
    let mut own = shared.clone();
    own.seed = rng.random();
    let client = own.client().build()?;
    let admin = client.admin().timeout(DEADLINE);
    loop {
        match admin.delete_topic(NAME).await {
            Ok(topic) => {
                tracing::info!(id = topic.id, "deleted");
                return Ok(());
            }
            Err(error) if gone(&error) => {
                tracing::info!(%error, "gone already");
                return Ok(());
            }
            Err(error) => tracing::info!(%error, "not deleted yet"),
        }
        sleep(AGAIN).await;
    }
}

fn gone(error: &AdminError) -> bool {
    matches!(
        code(error),
        Some(ErrorCode::UnknownTopic | ErrorCode::TopicDeleted)
    )
}
