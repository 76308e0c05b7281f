//! A consumer that writes what it reads into the history.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_checker::{Action, Function, Key, Kind, Offset, Process, Value};
use highwater_client::{Client, ConsumeError, ConsumedRecord, Consumer, NodeId, ReadFrom};
use tokio::time::timeout;

use super::Shared;
use crate::board::Board;

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

    /// Where all of it can be read: at the leaders, and at each of the first `complete` brokers.
    pub fn places(complete: u32) -> impl Iterator<Item = ReadFrom> {
        let brokers = (1..=complete).map(|id| ReadFrom::Broker(NodeId(id)));
        std::iter::once(ReadFrom::Leader).chain(brokers)
    }

    /// Reads it from its beginning until `ends`.
    ///
    /// # Errors
    /// As [`Reader::poll`].
    pub async fn read_to(
        self,
        shared: &Shared,
        client: &Client,
        from: ReadFrom,
        ends: &[highwater_client::Offset],
    ) -> anyhow::Result<Result<Found, ConsumeError>> {
        let building = client.consumer().topic(self.name).read_from(from).build();
        let consumer = match building.await {
            Ok(consumer) => consumer,
            Err(error) => return Ok(Err(error)),
        };
        let mut reader = Reader::new(&shared.board, consumer, self)?;
        while !reader.reached(ends) {
            if let Err(error) = reader.poll().await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(reader.found()))
    }
}

/// A consumer of every partition of a topic, with its process.
pub struct Reader<'a> {
    board: &'a Board,
    process: Process,
    consumer: Consumer,
    topic: Topic,
    found: Found,
}

impl<'a> Reader<'a> {
    /// A reader that begins at the first record of each partition.
    ///
    /// # Errors
    /// When the history is full.
    pub fn new(board: &'a Board, consumer: Consumer, topic: Topic) -> anyhow::Result<Self> {
        let process = board.process();
        let all = (0..topic.partitions).map(|p| Action::Use(topic.key(p)));
        let all: Vec<_> = all.collect();
        board.push(process, Kind::Invoke, Function::Assign, all.clone())?;
        board.push(process, Kind::Ok, Function::Assign, all)?;
        Ok(Self {
            board,
            process,
            consumer,
            topic,
            found: Found::new(),
        })
    }

    /// Whether it has passed these ends.
    #[must_use]
    pub fn reached(&self, ends: &[highwater_client::Offset]) -> bool {
        (0..self.topic.partitions)
            .zip(ends)
            .all(|(partition, end)| {
                let position = self.consumer.position(self.topic.name, partition);
                position.is_some_and(|position| position >= *end)
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
