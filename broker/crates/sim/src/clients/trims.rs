//! A topic whose old records are deleted. What is kept must be there without a gap, and begin no
//! later than was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::StreamExt;
use highwater_client::{Client, NewTopic, Offset, PartitionId, ProducerRecord, ReadFrom};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::reader::Topic;
use super::{AGAIN, Shared, make};
use crate::board::Phase;

const NAME: &str = "trimmed";
const DEADLINE: Duration = Duration::from_secs(5);
const REPLICAS: u32 = 3;
/// Of the one partition.
const PARTITION: u32 = 0;

/// Sends and trims until the run is healed, then reads what is kept from every broker.
///
/// # Errors
/// What is not there, or is otherwise than was acknowledged.
pub async fn trim(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let client = shared.client().build()?;
    let topic = NewTopic::named(NAME)
        .partitions(1)
        .replication_factor(REPLICAS)
        .config("segment.bytes", (64 << 10).to_string())
        .config("segment.ms", "300");
    make(&client, &topic).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let producer = client.producer().delivery_timeout(DEADLINE).build();
    let admin = client.admin().timeout(DEADLINE);
    let (mut acknowledged, mut asked, mut number) = (BTreeMap::new(), 0, 0);
    let mut last = false;
    while !last {
        // The last record is sent when everything is healed, and must come.
        last = shared.board.phase() >= Phase::Healed;
        number += 1;
        let value = format!("{number} {:2000}", "");
        let record = ProducerRecord::to(NAME).partition(PARTITION);
        match producer.send(record.value(value.clone())).await {
            Ok(delivery) => {
                acknowledged.insert(delivery.offset.0, value);
            }
            Err(error) if last => bail!("the trimmed topic takes nothing after healing: {error}"),
            Err(error) => tracing::info!(%error, "the trimmed topic takes nothing"),
        }
        // Whoever reads at the end looks for the last record: it stays.
        if !last
            && rng.random_ratio(1, 15)
            && let Some((&newest, _)) = acknowledged.last_key_value()
        {
            let before = rng.random_range(0..=newest + 1);
            asked = before.max(asked);
            let wanted = [(PartitionId(PARTITION), Offset(before))];
            if let Err(error) = admin.delete_records(NAME, &wanted, false).await {
                tracing::info!(%error, "not trimmed");
            }
        }
        sleep(Duration::from_millis(rng.random_range(1..30))).await;
    }
    for from in Topic::places(shared.settings.complete(REPLICAS)) {
        let read = read_all(&client, from, &acknowledged).await?;
        judge(from, &read, &acknowledged, asked)?;
    }
    Ok(())
}

type Values = BTreeMap<u64, String>;

/// Reads from the first record kept past the last one acknowledged.
async fn read_all(client: &Client, from: ReadFrom, sent: &Values) -> anyhow::Result<Values> {
    let last = sent.last_key_value().map_or(0, |(offset, _)| *offset);
    loop {
        let building = client.consumer().topic(NAME).read_from(from).build();
        let mut consumer = match building.await {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::info!(%error, "the trimmed topic cannot be read yet");
                sleep(AGAIN).await;
                continue;
            }
        };
        let mut read = Values::new();
        while let Ok(Some(next)) = timeout(DEADLINE, consumer.next()).await {
            let record = match next {
                Ok(record) => record,
                Err(error) => {
                    tracing::info!(?from, %error, "the trimmed topic is read anew");
                    break;
                }
            };
            let value = String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec())?;
            read.insert(record.offset.0, value);
            if record.offset.0 >= last {
                return Ok(read);
            }
        }
        sleep(AGAIN).await;
    }
}

fn judge(from: ReadFrom, read: &Values, sent: &Values, asked: u64) -> anyhow::Result<()> {
    let Some((&first, _)) = read.first_key_value() else {
        bail!("{from:?}: nothing of {NAME} is left");
    };
    ensure!(
        first <= asked,
        "{from:?}: {NAME} begins at {first}, but only {asked} was asked for"
    );
    for (offset, value) in sent.range(first..) {
        ensure!(
            read.get(offset) == Some(value),
            "{from:?}: {NAME} lacks what was acknowledged at {offset}"
        );
    }
    let (&last, _) = read.last_key_value().unwrap_or((&first, &String::new()));
    let span = usize::try_from(last - first)? + 1;
    ensure!(read.len() == span, "{from:?}: {NAME} has a gap");
    Ok(())
}
