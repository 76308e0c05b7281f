//! A consumer that writes what it reads into the history.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_checker::{Action, Function, Key, Kind, Offset, Process, Value};
use highwater_client::{ConsumeError, Consumer};
use tokio::time::timeout;

use super::{TOPIC, decode};
use crate::board::Board;

/// Records of one poll.
const MOST: usize = 100;

/// What was read: values by partition and offset.
pub type Found = BTreeMap<(Key, Offset), Value>;

/// A consumer of every partition of the topic, with its process.
pub struct Reader<'a> {
    board: &'a Board,
    process: Process,
    consumer: Consumer,
    partitions: u32,
    found: Found,
}

impl<'a> Reader<'a> {
    /// A reader that begins at the first record of each partition.
    ///
    /// # Errors
    /// When the history is full.
    pub fn new(board: &'a Board, consumer: Consumer, partitions: u32) -> anyhow::Result<Self> {
        let process = board.process();
        let all: Vec<_> = (0..partitions).map(|p| Action::Use(Key(p))).collect();
        board.push(process, Kind::Invoke, Function::Assign, all.clone())?;
        board.push(process, Kind::Ok, Function::Assign, all)?;
        Ok(Self {
            board,
            process,
            consumer,
            partitions,
            found: Found::new(),
        })
    }

    /// Whether it has passed these ends.
    #[must_use]
    pub fn reached(&self, ends: &[highwater_client::Offset]) -> bool {
        (0..self.partitions).zip(ends).all(|(partition, end)| {
            let position = self.consumer.position(TOPIC, partition);
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
