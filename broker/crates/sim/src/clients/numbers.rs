//! The topic that is written all the time: some send, one follows, one asks for the ends, and one
//! reads everything back from every broker.

use std::time::Duration;

use anyhow::{Context, ensure};
use highwater_checker::{Action, Function, Key, Kind, Offset, Process};
use highwater_client::{NodeId, Producer, ProducerRecord, ReadFrom, SendError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::reader::{self, Reader, Topic};
use super::{AGAIN, Shared, TOPIC, decode, encode, operator, send};
use crate::board::Phase;
use crate::settings::Settings;

fn topic(settings: &Settings) -> Topic {
    Topic {
        name: TOPIC,
        first: Key(0),
        partitions: settings.partitions,
        decode: |record| decode(record.value.as_deref().unwrap_or_default()),
    }
}

/// Sends values until the run is healed, then one more to every partition.
///
/// # Errors
/// When a partition takes nothing after the run is healed.
pub async fn produce(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let patience = Duration::from_millis(shared.settings.delivery_ms);
    while shared.board.phase() == Phase::Breaking {
        let mut own = shared.clone();
        own.seed = rng.random();
        let producer = own.client().build()?.producer();
        let producer = producer.delivery_timeout(patience).build();
        let end = Instant::now() + Duration::from_millis(rng.random_range(1_000..20_000));
        let mut senders = JoinSet::new();
        for _ in 0..shared.settings.senders {
            own.seed = rng.random();
            senders.spawn(send_until(own.clone(), producer.clone(), end));
        }
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
    }
    let producer = shared.client().build()?.producer().build();
    for partition in 0..shared.settings.partitions {
        send_one(&shared, &producer, &mut shared.board.process(), partition)
            .await?
            .with_context(|| format!("partition {partition} takes nothing after healing"))?;
    }
    shared.board.producer_done();
    Ok(())
}

/// Sends until `end`, or until nothing breaks any more.
async fn send_until(shared: Shared, producer: Producer, end: Instant) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let mut process = shared.board.process();
    while shared.board.phase() == Phase::Breaking && Instant::now() < end {
        let partition = rng.random_range(0..shared.settings.partitions);
        if let Err(error) = send_one(&shared, &producer, &mut process, partition).await? {
            tracing::info!(%error, "not acknowledged");
        }
        let pause = rng.random_range(0..shared.settings.pause_ms);
        sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

/// One value to one partition.
async fn send_one(
    shared: &Shared,
    producer: &Producer,
    process: &mut Process,
    partition: u32,
) -> anyhow::Result<Result<u64, SendError>> {
    let value = shared.board.value();
    let record = ProducerRecord::to(TOPIC)
        .partition(partition)
        .value(encode(value, shared.settings.padding));
    send(
        &shared.board,
        producer,
        process,
        (Key(partition), value),
        record,
    )
    .await
}

/// Follows the topic while things break, at the leaders or at one broker.
///
/// # Errors
/// When no client can be made.
pub async fn follow(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let client = shared.client().build()?;
    let Shared {
        board, settings, ..
    } = &shared;
    while board.phase() == Phase::Breaking {
        // A broker that holds no replica would refuse.
        let complete = settings.complete(settings.replicas);
        let from = if complete > 0 && rng.random_ratio(1, 3) {
            ReadFrom::Broker(NodeId(rng.random_range(1..=complete)))
        } else {
            ReadFrom::Leader
        };
        let building = client.consumer().topic(TOPIC).read_from(from).build();
        let Ok(consumer) = building.await else {
            sleep(AGAIN).await;
            continue;
        };
        let mut reader = Reader::new(board, consumer, topic(settings))?;
        let until = Instant::now() + Duration::from_secs(rng.random_range(1..8));
        while board.phase() == Phase::Breaking && Instant::now() < until {
            if let Err(error) = reader.poll().await? {
                tracing::info!(%error, "follows anew");
                break;
            }
        }
    }
    Ok(())
}

/// Asks for the ends of the partitions while things break: what was acknowledged before must lie
/// below them, and they never go back.
///
/// # Errors
/// An end that went back.
pub async fn ask(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let client = shared.client().build()?;
    let Shared {
        board, settings, ..
    } = &shared;
    let process = board.process();
    let mut before = vec![highwater_client::Offset(0); settings.partitions as usize];
    while board.phase() == Phase::Breaking {
        let action = |ends: Option<&[highwater_client::Offset]>| {
            let of = |p: u32| Action::Latest {
                key: Key(p),
                end: ends
                    .and_then(|ends| ends.get(p as usize))
                    .map(|end| Offset(end.0)),
            };
            (0..settings.partitions).map(of).collect::<Vec<_>>()
        };
        board.push(process, Kind::Invoke, Function::Latest, action(None))?;
        match client.end_offsets(TOPIC).await {
            Ok(ends) => {
                board.push(process, Kind::Ok, Function::Latest, action(Some(&ends)))?;
                let went_back = before.iter().zip(&ends).any(|(before, end)| end < before);
                ensure!(!went_back, "ends went back from {before:?} to {ends:?}");
                before = ends;
            }
            Err(_) => board.push(process, Kind::Fail, Function::Latest, action(None))?,
        }
        sleep(Duration::from_millis(70)).await;
    }
    Ok(())
}

/// Reads everything when all producers are done and no replica moves: from the leaders, and from every
/// replica.
///
/// # Errors
/// When a reader is refused. One that never comes to the end is found by the run's deadline.
pub async fn read_back(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Healed).await;
    while !shared.board.producers_done() {
        sleep(AGAIN).await;
    }
    let client = shared.client().build()?;
    operator::until_nothing_moves(&shared, &client).await;
    let ends = loop {
        match client.end_offsets(TOPIC).await {
            Ok(ends) => break ends,
            Err(error) => tracing::info!(%error, "no ends yet"),
        }
        sleep(AGAIN).await;
    };
    let (topic, replicas) = (topic(&shared.settings), shared.settings.replicas);
    let parts = topic.read_everywhere(&shared, &client, replicas, &ends);
    for part in parts.await? {
        let keys = part.partitions.iter().map(|p| topic.key(*p)).collect();
        let reader = format!("{:?}", part.from);
        shared.board.found(&reader, keys, part.found);
    }
    for partition in 0..topic.partitions {
        let end = ends.get(partition as usize).copied();
        let end = end.context("every partition has an end")?;
        reader::expect(&shared.board, &client, (TOPIC, partition), (Some(0), end.0)).await?;
    }
    Ok(())
}
