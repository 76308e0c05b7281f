//! A consumer that writes what it reads into the history.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use highwater_checker::{Action, Function, Key, Kind, Offset, Process, Value};
use highwater_client::{
    Client, ConsumeError, ConsumedRecord, Consumer, NodeId, PartitionId, ReadFrom, TopicView,
};
use highwater_proto::TopicPartition;
use tokio::time::{sleep, timeout};

use super::{AGAIN, Shared};
use crate::board::Board;
use crate::rot::Expected;

/// Records of one poll.
const MOST: usize = 100;

/// What was read: values by partition and offset.
pub type Found = BTreeMap<(Key, Offset), Value>;

/// A topic as the history tells it.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// Its first partition's number in the history; the others follow.
    pub first: Key,
    /// How many it has.
    pub partitions: u32,
    /// What a record stands for; an error if nobody can have written it.
    pub decode: fn(&ConsumedRecord) -> anyhow::Result<Value>,
}

impl Topic {
    /// A partition's number in the history.
    #[must_use]
    pub fn key(&self, partition: u32) -> Key {
        Key(self.first.0 + partition)
    }

    /// Reads some partitions of it from their beginnings until their ends. `ends` are those of all.
    ///
    /// # Errors
    /// As [`Reader::poll`].
    pub async fn read_to(
        self,
        shared: &Shared,
        client: &Client,
        (from, partitions): (ReadFrom, &[u32]),
        ends: &[highwater_client::Offset],
    ) -> anyhow::Result<Result<Found, ConsumeError>> {
        let consumer = client.consumer();
        let consumer = if partitions.len() == self.partitions as usize {
            consumer.topic(self.name)
        } else {
            consumer.partitions(self.name, partitions.iter().copied())
        };
        let consumer = match consumer.read_from(from).build().await {
            Ok(consumer) => consumer,
            Err(error) => return Ok(Err(error)),
        };
        let mut reader = Reader::of(&shared.board, consumer, self, partitions.to_vec())?;
        while !reader.reached(ends) {
            if let Err(error) = reader.poll().await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(reader.found()))
    }

    /// Reads all of it until `ends`: from the leaders, and from each broker what it has a replica of, until
    /// every replica was read.
    ///
    /// # Errors
    /// As [`Reader::poll`]. That it comes to an end is seen by the run's deadline.
    pub async fn read_everywhere(
        self,
        shared: &Shared,
        client: &Client,
        replicas: u32,
        ends: &[highwater_client::Offset],
    ) -> anyhow::Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        loop {
            let next = if parts.is_empty() {
                Next::Read(ReadFrom::Leader, (0..self.partitions).collect())
            } else {
                match client.topic(self.name).await {
                    Ok(view) => next(&view, replicas, &parts),
                    Err(error) => {
                        tracing::info!(%error, "nobody says who has a replica");
                        Next::Later
                    }
                }
            };
            match next {
                Next::Nothing => return Ok(parts),
                Next::Later => {}
                Next::Read(from, partitions) => {
                    let read = self.read_to(shared, client, (from, &partitions), ends);
                    match read.await? {
                        Ok(found) => {
                            parts.push(Part {
                                from,
                                partitions,
                                found,
                            });
                            continue;
                        }
                        Err(error) => tracing::info!(name = self.name, ?from, %error, "reads anew"),
                    }
                }
            }
            sleep(AGAIN).await;
        }
    }
}

/// What was read in one place.
#[derive(Debug)]
pub struct Part {
    /// Where.
    pub from: ReadFrom,
    /// Of which partitions.
    pub partitions: Vec<u32>,
    /// What.
    pub found: Found,
}

/// What is to be read next.
enum Next {
    /// Every replica was read.
    Nothing,
    /// It is not known yet who has them all.
    Later,
    /// What nobody has read yet of one broker's replicas.
    Read(ReadFrom, Vec<u32>),
}

fn next(view: &TopicView, replicas: u32, parts: &[Part]) -> Next {
    let mut unread: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
    for (partition, known) in (0..).zip(&view.partitions) {
        if known.replicas.len() < replicas as usize {
            return Next::Later;
        }
        for broker in &known.replicas {
            let from = ReadFrom::Broker(*broker);
            let was_read = |part: &Part| part.from == from && part.partitions.contains(&partition);
            if !parts.iter().any(was_read) {
                unread.entry(*broker).or_default().push(partition);
            }
        }
    }
    match unread.pop_first() {
        Some((broker, partitions)) => Next::Read(ReadFrom::Broker(broker), partitions),
        None => Next::Nothing,
    }
}

/// A consumer of partitions of a topic, with its process.
pub struct Reader<'a> {
    board: &'a Board,
    process: Process,
    consumer: Consumer,
    topic: Topic,
    partitions: Vec<u32>,
    found: Found,
}

impl<'a> Reader<'a> {
    /// A reader that begins at the first record of each partition.
    ///
    /// # Errors
    /// When the history is full.
    pub fn new(board: &'a Board, consumer: Consumer, topic: Topic) -> anyhow::Result<Self> {
        Self::of(board, consumer, topic, (0..topic.partitions).collect())
    }

    fn of(
        board: &'a Board,
        consumer: Consumer,
        topic: Topic,
        partitions: Vec<u32>,
    ) -> anyhow::Result<Self> {
        let process = board.process();
        let all = partitions.iter().map(|p| Action::Use(topic.key(*p)));
        let all: Vec<_> = all.collect();
        board.push(process, Kind::Invoke, Function::Assign, all.clone())?;
        board.push(process, Kind::Ok, Function::Assign, all)?;
        Ok(Self {
            board,
            process,
            consumer,
            topic,
            partitions,
            found: Found::new(),
        })
    }

    /// Whether it has passed these ends.
    #[must_use]
    pub fn reached(&self, ends: &[highwater_client::Offset]) -> bool {
        self.partitions.iter().all(|partition| {
            let position = self.consumer.position(self.topic.name, *partition);
            let end = ends.get(*partition as usize);
            position
                .zip(end)
                .is_some_and(|(position, end)| position >= *end)
        })
    }
    /// What it has found.
    #[must_use]
    pub fn found(self) -> Found {
        self.found
    }

    /// What has arrived, or nothing after a while.
    ///
    /// # Errors
    /// A value that nobody can have written, or a full history; within it, why it cannot go on.
    pub async fn poll(&mut self) -> anyhow::Result<Result<(), ConsumeError>> {
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
                    let value = (self.topic.decode)(&record)?;
                    let key = self.topic.key(record.partition.0);
                    let offset = Offset(record.offset.0);
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

/// The brokers that have replicas of a partition; none, if nobody says.
pub async fn replicas(client: &Client, name: &str, partition: u32) -> Vec<NodeId> {
    match client.topic(name).await {
        Ok(view) => {
            let known = view.partition(PartitionId(partition));
            known.map_or(Vec::new(), |known| known.replicas.clone())
        }
        Err(error) => {
            tracing::info!(%error, "nobody says who has a replica");
            Vec::new()
        }
    }
}

/// Says what must lie on the disks of the brokers that have replicas of a partition: all from an offset on,
/// or from wherever each begins, to an end.
///
/// # Errors
/// When the topic has no such partition.
pub async fn expect(
    board: &Board,
    client: &Client,
    (name, partition): (&str, u32),
    (from, end): (Option<u64>, u64),
) -> anyhow::Result<()> {
    let view = loop {
        match client.topic(name).await {
            Ok(view) => break view,
            Err(error) => tracing::info!(%error, "nobody says who has a replica"),
        }
        sleep(AGAIN).await;
    };
    let known = view.partition(PartitionId(partition));
    let known = known.with_context(|| format!("{name} has no partition {partition}"))?;
    let tp = TopicPartition::new(view.id, PartitionId(partition));
    board.expect(Expected {
        log: (tp, known.arrival),
        replicas: known.replicas.iter().map(|broker| broker.0).collect(),
        from,
        end,
    });
    Ok(())
}
