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

use super::{AGAIN, Shared, make, operator, reader};
use crate::board::Phase;

const NAME: &str = "trimmed";
const DEADLINE: Duration = Duration::from_secs(5);
const REPLICAS: u32 = 3;
/// Of the one partition.
const PARTITION: u32 = 0;

/// Sends and trims until the run is healed, then reads what is kept from every replica.
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
    operator::until_nothing_moves(&shared, &client).await;
    let mut kept = BTreeMap::new();
    while let Some(from) = unread(&client, &kept).await {
        match read_all(&client, from, &acknowledged).await? {
            Some(read) => {
                let first = judge(from, &read, &acknowledged, asked)?;
                kept.insert(format!("{from:?}"), first);
            }
            None => sleep(AGAIN).await,
        }
    }
    let first = kept.values().max().copied();
    let end = acknowledged
        .last_key_value()
        .map_or(0, |(last, _)| last + 1);
    reader::expect(&shared.board, &client, (NAME, PARTITION), (first, end)).await
}

/// Its leader, or the next of its replicas, if that was not read yet.
async fn unread(client: &Client, read: &BTreeMap<String, u64>) -> Option<ReadFrom> {
    loop {
        let replicas = reader::replicas(client, NAME, PARTITION).await;
        if replicas.len() >= REPLICAS as usize {
            let brokers = replicas.into_iter().map(ReadFrom::Broker);
            let mut places = std::iter::once(ReadFrom::Leader).chain(brokers);
            return places.find(|from| !read.contains_key(&format!("{from:?}")));
        }
        sleep(AGAIN).await;
    }
}

type Values = BTreeMap<u64, String>;

/// Reads from the first record kept past the last one acknowledged; `None`: it could not yet.
async fn read_all(
    client: &Client,
    from: ReadFrom,
    sent: &Values,
) -> anyhow::Result<Option<Values>> {
    let last = sent.last_key_value().map_or(0, |(offset, _)| *offset);
    let building = client.consumer().topic(NAME).read_from(from).build();
    let mut consumer = match building.await {
        Ok(consumer) => consumer,
        Err(error) => {
            tracing::info!(%error, "the trimmed topic cannot be read yet");
            return Ok(None);
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
            return Ok(Some(read));
        }
    }
    Ok(None)
}

/// Where it begins, if that and all the rest is as it should be.
fn judge(from: ReadFrom, read: &Values, sent: &Values, asked: u64) -> anyhow::Result<u64> {
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
    Ok(first)
}
