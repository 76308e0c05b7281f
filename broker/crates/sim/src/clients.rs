//! The clients of a run: one makes the topic, some send, one follows, some read everything at the
//! end. All use the real client.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use highwater_checker::{Action, Function, Key, Kind, Offset, Value};
use highwater_client::{
    Client, ClientBuilder, Consumer, ErrorCode, NewTopic, NodeId, Producer, ProducerRecord,
    ReadFrom, SendError,
};
use highwater_env::Clock;
use http::Uri;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::board::{Board, Phase};
use crate::cluster::{NODES, address};
use crate::surroundings::SimClock;

/// The topic of a run.
const TOPIC: &str = "numbers";
/// Its partitions.
pub const PARTITIONS: u32 = 6;
/// Clients that send.
pub const PRODUCERS: u32 = 2;
/// Sequential senders within each of them.
const SENDERS: u32 = 4;
const AGAIN: Duration = Duration::from_millis(50);

fn client(seed: u64) -> ClientBuilder {
    let clock = SimClock { ahead_ms: 0 };
    Client::builder()
        .brokers(NODES.map(address))
        .connector(tower::service_fn(|uri: Uri| async move {
            let address = uri.authority().map_or("", |a| a.as_str()).to_owned();
            turmoil::net::TcpStream::connect(address).await
        }))
        .seed(seed)
        .wall_clock(move || clock.now_ms())
}

async fn until(board: &Board, phase: Phase) {
    while board.phase() < phase {
        sleep(AGAIN).await;
    }
}

/// Makes the topic as soon as the cluster can.
///
/// # Errors
/// When no client can be made.
pub async fn found(board: Board, seed: u64) -> anyhow::Result<()> {
    let client = client(seed).build()?;
    let admin = client.admin();
    loop {
        let topic = NewTopic::named(TOPIC)
            .partitions(PARTITIONS)
            .replication_factor(3);
        match admin.create_topic(topic).await {
            Ok(_) => break,
            Err(error) if error.cause().code() == Some(ErrorCode::TopicExists) => break,
            Err(error) => tracing::info!(%error, "no topic yet"),
        }
        sleep(AGAIN).await;
    }
    board.set_phase(Phase::Breaking);
    Ok(())
}

/// Sends values until the run is healed, then one more to every partition.
///
/// # Errors
/// When a partition takes nothing after the run is healed.
pub async fn produce(board: Board, seed: u64) -> anyhow::Result<()> {
    until(&board, Phase::Breaking).await;
    let client = client(seed).build()?;
    let producer = client.producer().build();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let seed = seed.wrapping_mul(31).wrapping_add(u64::from(sender));
        senders.spawn(send_all(board.clone(), producer.clone(), seed));
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    for partition in 0..PARTITIONS {
        send(&board, &producer, &mut board.process(), partition)
            .await?
            .with_context(|| format!("partition {partition} takes nothing after healing"))?;
    }
    board.producer_done();
    Ok(())
}

async fn send_all(board: Board, producer: Producer, seed: u64) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut process = board.process();
    while board.phase() == Phase::Breaking {
        let partition = rng.random_range(0..PARTITIONS);
        if let Err(error) = send(&board, &producer, &mut process, partition).await? {
            tracing::info!(%error, "not acknowledged");
        }
        sleep(Duration::from_millis(rng.random_range(1..40))).await;
    }
    Ok(())
}

/// A value with padding behind it, so that a short run fills more than one log file.
fn encode(value: Value) -> String {
    let padding = usize::try_from(value.0.unsigned_abs() * 37 % 700).unwrap_or(0);
    format!("{value} {:padding$}", "")
}

fn decode(bytes: &[u8]) -> anyhow::Result<Value> {
    Ok(Value(std::str::from_utf8(bytes)?.trim_end().parse()?))
}

/// One send, with its place in the history.
async fn send(
    board: &Board,
    producer: &Producer,
    process: &mut highwater_checker::Process,
    partition: u32,
) -> anyhow::Result<Result<(), SendError>> {
    let (key, value) = (Key(partition), board.value());
    let action = |offset| vec![Action::Send { key, value, offset }];
    board.push(*process, Kind::Invoke, Function::Send, action(None))?;
    let record = ProducerRecord::to(TOPIC)
        .partition(partition)
        .value(encode(value));
    let (kind, offset, outcome) = match producer.send(record).await {
        Ok(delivery) => (Kind::Ok, Some(Offset(delivery.offset.0)), Ok(())),
        Err(error) if error.may_be_written() => (Kind::Info, None, Err(error)),
        Err(error) => (Kind::Fail, None, Err(error)),
    };
    board.push(*process, kind, Function::Send, action(offset))?;
    if kind == Kind::Info {
        *process = board.process();
    }
    Ok(outcome)
}

/// Follows the topic while things break.
///
/// # Errors
/// When no client can be made.
pub async fn follow(board: Board, seed: u64) -> anyhow::Result<()> {
    until(&board, Phase::Breaking).await;
    let client = client(seed).build()?;
    while board.phase() == Phase::Breaking {
        let Ok(consumer) = client.consumer().topic(TOPIC).build().await else {
            sleep(AGAIN).await;
            continue;
        };
        let mut reader = Reader::new(&board, consumer)?;
        while board.phase() == Phase::Breaking {
            if let Err(error) = reader.poll().await? {
                tracing::info!(%error, "follows anew");
                break;
            }
        }
    }
    Ok(())
}

/// Reads everything when all producers are done: once from the leaders, once from every broker.
///
/// # Errors
/// When a reader is refused. One that never comes to the end is found by the run's deadline.
pub async fn read_back(board: Board, seed: u64) -> anyhow::Result<()> {
    until(&board, Phase::Healed).await;
    while !board.producers_done() {
        sleep(AGAIN).await;
    }
    let client = client(seed).build()?;
    let ends = loop {
        match client.end_offsets(TOPIC).await {
            Ok(ends) => break ends,
            Err(error) => tracing::info!(%error, "no ends yet"),
        }
        sleep(AGAIN).await;
    };
    let brokers = (1..).zip(NODES).map(|(id, _)| ReadFrom::Broker(NodeId(id)));
    for from in std::iter::once(ReadFrom::Leader).chain(brokers) {
        let read = loop {
            match read_to(&board, &client, from, &ends).await? {
                Ok(read) => break read,
                Err(error) => tracing::info!(%error, "reads anew"),
            }
            sleep(AGAIN).await;
        };
        board.found(&format!("{from:?}"), read);
    }
    Ok(())
}

type Found = BTreeMap<(Key, Offset), Value>;

async fn read_to(
    board: &Board,
    client: &Client,
    from: ReadFrom,
    ends: &[highwater_client::Offset],
) -> anyhow::Result<Result<Found, highwater_client::ConsumeError>> {
    let building = client.consumer().topic(TOPIC).read_from(from).build();
    let consumer = match building.await {
        Ok(consumer) => consumer,
        Err(error) => return Ok(Err(error)),
    };
    let mut reader = Reader::new(board, consumer)?;
    while !reader.reached(ends) {
        if let Err(error) = reader.poll().await? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(reader.found))
}

/// A consumer that writes into the history.
struct Reader<'a> {
    board: &'a Board,
    process: highwater_checker::Process,
    consumer: Consumer,
    found: Found,
}

impl<'a> Reader<'a> {
    fn new(board: &'a Board, consumer: Consumer) -> anyhow::Result<Self> {
        let process = board.process();
        let all: Vec<_> = (0..PARTITIONS).map(|p| Action::Use(Key(p))).collect();
        board.push(process, Kind::Invoke, Function::Assign, all.clone())?;
        board.push(process, Kind::Ok, Function::Assign, all)?;
        Ok(Self {
            board,
            process,
            consumer,
            found: Found::new(),
        })
    }

    fn reached(&self, ends: &[highwater_client::Offset]) -> bool {
        (0..PARTITIONS).zip(ends).all(|(partition, end)| {
            let position = self.consumer.position(TOPIC, partition);
            position.is_some_and(|position| position >= *end)
        })
    }

    /// What has arrived, or nothing after a while.
    async fn poll(&mut self) -> anyhow::Result<Result<(), highwater_client::ConsumeError>> {
        const MOST: usize = 100;
        self.board
            .push(self.process, Kind::Invoke, Function::Poll, Vec::new())?;
        let mut read = Vec::new();
        let mut outcome = Ok(());
        let mut patience = Duration::from_millis(100);
        while read.len() < MOST
            && let Ok(Some(next)) = timeout(patience, self.consumer.next()).await
        {
            match next {
                Ok(record) => {
                    let value = decode(record.value.as_deref().unwrap_or_default())?;
                    let (key, offset) = (Key(record.partition.0), Offset(record.offset.0));
                    self.found.insert((key, offset), value);
                    read.push(Action::Read { key, offset, value });
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            patience = Duration::ZERO;
        }
        self.board
            .push(self.process, Kind::Ok, Function::Poll, read)?;
        Ok(outcome)
    }
}
