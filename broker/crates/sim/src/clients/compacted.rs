//! A compacted topic: of each key the latest record survives, on every broker, whatever breaks. What a
//! tombstone has removed stays away, and the topic becomes smaller.

use std::time::Duration;

use anyhow::{Context, ensure};
use highwater_checker::{Action, Function, Kind, Process, Value};
use highwater_client::{
    Client, ConsumedRecord, NewTopic, NodeId, Offset, PartitionId, Producer, ProducerRecord,
    ReadFrom, SendError,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::reader::{Reader, Topic};
use super::{AGAIN, Shared, decode, encode, make, send};
use crate::board::{ASIDES, Compacting, Phase};
use crate::settings::{Compacted, Kind as Fault};

/// Its name.
pub const NAME: &str = "compacted";
/// One value of so many of a key is a tombstone.
const TOMBSTONES: i64 = 5;
/// Carries the value: a tombstone has none of its own.
const HEADER: &str = "v";
/// Replicas of each partition.
pub const REPLICAS: u32 = 3;
/// Of a request to delete records.
const DEADLINE: Duration = Duration::from_secs(3);
/// Writers to each partition.
const WRITERS: u32 = 2;
/// So many records of a partition lie in many segments, so that some of them must have been compacted away.
const MANY: u64 = 200;

fn settings(shared: &Shared) -> anyhow::Result<&Compacted> {
    let compacted = shared.settings.compacted.as_ref();
    compacted.context("the seed has a compacted topic")
}

fn topic(compacted: &Compacted) -> Topic {
    Topic {
        name: NAME,
        first: ASIDES,
        partitions: compacted.partitions,
        decode: value_of,
    }
}

const fn is_tombstone(value: Value) -> bool {
    value.0.div_euclid(Compacted::KEYS).rem_euclid(TOMBSTONES) == 0
}

fn key_of(value: Value) -> String {
    format!("key-{}", value.0.rem_euclid(Compacted::KEYS))
}

/// What a record stands for, if it is just as it was sent.
fn value_of(record: &ConsumedRecord) -> anyhow::Result<Value> {
    let offset = record.offset;
    let header = record.header(HEADER).context("no value in the header")?;
    let value = decode(header)?;
    let key = record.key.as_deref().unwrap_or_default();
    ensure!(
        key == key_of(value).as_bytes(),
        "{NAME} holds {value} at {offset} under another key"
    );
    match &record.value {
        None => ensure!(is_tombstone(value), "{value} at {offset} lost its value"),
        Some(bytes) => ensure!(
            !is_tombstone(value) && decode(bytes)? == value,
            "{value} at {offset} has another value"
        ),
    }
    Ok(value)
}

/// Writes until the run is healed, and once more to every partition then.
///
/// # Errors
/// When a partition takes nothing after the run is healed.
pub async fn write(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let compacted = settings(&shared)?;
    let client = shared.client().build()?;
    let mut new = NewTopic::named(NAME)
        .partitions(compacted.partitions)
        .replication_factor(REPLICAS);
    for (key, value) in &compacted.topic {
        new = new.config(*key, value);
    }
    make(&client, &new).await;
    declare(&shared, compacted)?;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let mut writers = JoinSet::new();
    for partition in (0..compacted.partitions)
        .cycle()
        .take((compacted.partitions * WRITERS) as usize)
    {
        let mut own = shared.clone();
        own.seed = rng.random();
        writers.spawn(write_until_healed(own, client.clone(), partition));
    }
    if compacted.trims {
        let mut own = shared.clone();
        own.seed = rng.random();
        writers.spawn(trim_until_healed(own, client.clone()));
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    for partition in 0..compacted.partitions {
        let mut process = shared.board.process();
        let producer = client.producer().build();
        let sent = write_one(&shared, &producer, &mut process, (partition, &mut rng));
        sent.await?.with_context(|| {
            format!("partition {partition} of {NAME} takes nothing after healing")
        })?;
    }
    let (topic, shortest) = loop {
        match (client.topic(NAME).await, client.end_offsets(NAME).await) {
            (Ok(topic), Ok(ends)) => break (topic.id, ends.iter().map(|end| end.0).min()),
            (Err(error), _) => tracing::info!(%error, "no ends yet"),
            (_, Err(error)) => tracing::info!(%error, "no ends yet"),
        }
        sleep(AGAIN).await;
    };
    // A leader that cannot tell what time it is compacts nothing.
    let knows_the_time = !shared.settings.faults.contains(&Fault::Clock);
    let surely = shortest >= Some(MANY) && knows_the_time && !compacted.trims;
    shared.board.await_compaction(Compacting { topic, surely });
    Ok(())
}

/// Says in the history what is compacted.
fn declare(shared: &Shared, compacted: &Compacted) -> anyhow::Result<()> {
    let (board, process) = (&shared.board, shared.board.process());
    for partition in 0..compacted.partitions {
        let says = vec![Action::Compacted {
            key: topic(compacted).key(partition),
            keys: u32::try_from(Compacted::KEYS)?,
            tombstones: u32::try_from(TOMBSTONES)?,
        }];
        board.push(process, Kind::Invoke, Function::Compacted, says.clone())?;
        board.push(process, Kind::Ok, Function::Compacted, says)?;
    }
    Ok(())
}

async fn write_until_healed(shared: Shared, client: Client, partition: u32) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let patience = Duration::from_millis(shared.settings.delivery_ms);
    let producer = client.producer().delivery_timeout(patience).build();
    let mut process = shared.board.process();
    while shared.board.phase() == Phase::Breaking {
        let sent = write_one(&shared, &producer, &mut process, (partition, &mut rng));
        if let Err(error) = sent.await? {
            tracing::info!(%error, "the compacted topic takes nothing");
        }
        sleep(Duration::from_millis(rng.random_range(0..40))).await;
    }
    Ok(())
}

/// Deletes first records, sometimes all there are.
async fn trim_until_healed(shared: Shared, client: Client) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let admin = client.admin().timeout(DEADLINE);
    let topic = topic(settings(&shared)?);
    while shared.board.phase() == Phase::Breaking {
        sleep(Duration::from_millis(rng.random_range(200..3_000))).await;
        let partition = rng.random_range(0..topic.partitions);
        let Ok(ends) = client.end_offsets(NAME).await else {
            continue;
        };
        let end = ends.get(partition as usize).map_or(0, |end| end.0);
        let before = rng.random_range(0..=end);
        let trim = Action::Trim {
            key: topic.key(partition),
            before: highwater_checker::Offset(before),
            start: None,
        };
        let process = shared.board.process();
        shared
            .board
            .push(process, Kind::Invoke, Function::Trim, vec![trim])?;
        let wanted = [(PartitionId(partition), Offset(before))];
        if let Err(error) = admin.delete_records(NAME, &wanted, false).await {
            tracing::info!(%error, "not trimmed");
        }
        shared
            .board
            .push(process, Kind::Info, Function::Trim, vec![trim])?;
    }
    Ok(())
}

async fn write_one(
    shared: &Shared,
    producer: &Producer,
    process: &mut Process,
    (partition, rng): (u32, &mut StdRng),
) -> anyhow::Result<Result<u64, SendError>> {
    let fresh = shared.board.value().0;
    let value = Value(fresh * Compacted::KEYS + rng.random_range(0..Compacted::KEYS));
    let mut record = ProducerRecord::to(NAME)
        .partition(partition)
        .key(key_of(value))
        .header(HEADER, value.to_string());
    if !is_tombstone(value) {
        record = record.value(encode(value, shared.settings.padding));
    }
    let key = topic(settings(shared)?).key(partition);
    send(&shared.board, producer, process, (key, value), record).await
}

/// Reads all of it again and again while things break, at the leaders or at one broker.
///
/// # Errors
/// A record that nobody can have written, or a full history.
pub async fn scan(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let client = shared.client().build()?;
    let topic = topic(settings(&shared)?);
    let complete = shared.settings.complete(REPLICAS);
    let breaking = || shared.board.phase() == Phase::Breaking;
    while breaking() {
        sleep(Duration::from_millis(rng.random_range(50..600))).await;
        let from = if complete > 0 && rng.random_ratio(1, 2) {
            ReadFrom::Broker(NodeId(rng.random_range(1..=complete)))
        } else {
            ReadFrom::Leader
        };
        let Ok(ends) = client.end_offsets(NAME).await else {
            continue;
        };
        let building = client.consumer().topic(NAME).read_from(from).build();
        let Ok(consumer) = building.await else {
            continue;
        };
        let mut reader = Reader::new(&shared.board, consumer, topic)?;
        let until = Instant::now() + Duration::from_secs(rng.random_range(1..6));
        while breaking() && Instant::now() < until && !reader.reached(&ends) {
            if let Err(error) = reader.poll().await? {
                tracing::info!(%error, "scans anew");
                break;
            }
        }
    }
    Ok(())
}

/// Reads all of it when its replicas are compacted alike: from the leaders, and from every replica. The checker judges what was found; that it comes to an end is seen by the run's deadline.
///
/// # Errors
/// A record that nobody can have written, or a full history.
pub async fn read_back(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Healed).await;
    while shared.board.settled_compaction().is_none() {
        sleep(AGAIN).await;
    }
    let client = shared.client().build()?;
    let topic = topic(settings(&shared)?);
    let ends: Vec<Offset> = loop {
        match client.end_offsets(NAME).await {
            Ok(ends) => break ends,
            Err(error) => tracing::info!(%error, "no ends yet"),
        }
        sleep(AGAIN).await;
    };
    let parts = topic.read_everywhere(&shared, &client, REPLICAS, &ends);
    parts.await?;
    Ok(())
}
