//! The tables of a store, over `redb`: a crash-safe B-tree file whose commits are durable.

use std::path::Path;

use bytes::Bytes;
use highwater_client::ProducerRecord;
use highwater_client::resilience::outbox::OutboxRow;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use thiserror::Error;

use crate::domain::context::{LogicError, Lookup, Outcome};
use crate::domain::message::Message;

/// What a service knows, by key.
pub(super) const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// Ids of messages that have had their effect.
pub(super) const INBOX: TableDefinition<'_, &str, ()> = TableDefinition::new("inbox");
/// Messages to be published, by number.
pub(super) const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
/// Numbers given, and the relay's document.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

pub(super) const RELAY: &str = "relay";
const NEXT_ROW: &str = "next-row";

/// A store cannot be used.
#[derive(Debug, Error)]
#[error("the store failed: {0}")]
pub struct StoreError(pub String);

/// Errors of redb, which has one type per operation.
pub(super) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

/// A store's file. One process at a time may have it open.
#[derive(Debug)]
pub struct Database {
    pub(super) file: redb::Database,
}

impl Database {
    /// Opens the store, or makes it.
    ///
    /// # Errors
    /// When the file cannot be opened, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = redb::Builder::new()
            .set_cache_size(32 << 20)
            .create(path)
            .map_err(failed)?;
        let begin = file.begin_write().map_err(failed)?;
        {
            // Readers expect every table to be there.
            begin.open_table(STATE).map_err(failed)?;
            begin.open_table(INBOX).map_err(failed)?;
            begin.open_table(OUTBOX).map_err(failed)?;
            begin.open_table(META).map_err(failed)?;
        }
        begin.commit().map_err(failed)?;
        Ok(Self { file })
    }

    /// Every key with this prefix, and its value.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = self.file.begin_read().map_err(failed)?;
        let table = read.open_table(STATE).map_err(failed)?;
        let mut found = Vec::new();
        for row in table.range(prefix..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(found)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.file.begin_read().map_err(failed)?;
        let table = read.open_table(STATE).map_err(failed)?;
        let found = table.get(key).map_err(failed)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// Whether a message has had its effect.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_handled(&self, event_id: &str) -> Result<bool, StoreError> {
        let read = self.file.begin_read().map_err(failed)?;
        let table = read.open_table(INBOX).map_err(failed)?;
        Ok(table.get(event_id).map_err(failed)?.is_some())
    }

    /// Messages that wait to be published, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn outbox(&self) -> Result<Vec<OutboxRow>, StoreError> {
        let read = self.file.begin_read().map_err(failed)?;
        let table = read.open_table(OUTBOX).map_err(failed)?;
        let mut rows = Vec::new();
        for row in table.iter().map_err(failed)? {
            let (id, value) = row.map_err(failed)?;
            let value = Bytes::copy_from_slice(value.value());
            rows.push(read_row(id.value(), &value)?);
        }
        Ok(rows)
    }
}

/// A transaction that handles messages.
pub(super) struct Tables<'t> {
    pub state: redb::Table<'t, &'static str, &'static [u8]>,
    pub inbox: redb::Table<'t, &'static str, ()>,
    pub outbox: redb::Table<'t, u64, &'static [u8]>,
    pub meta: redb::Table<'t, &'static str, &'static [u8]>,
    next_row: u64,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t redb::WriteTransaction) -> Result<Self, StoreError> {
        let meta = write.open_table(META).map_err(failed)?;
        let next_row = meta
            .get(NEXT_ROW)
            .map_err(failed)?
            .and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes))
            .unwrap_or(1);
        Ok(Self {
            state: write.open_table(STATE).map_err(failed)?,
            inbox: write.open_table(INBOX).map_err(failed)?,
            outbox: write.open_table(OUTBOX).map_err(failed)?,
            meta,
            next_row,
        })
    }

    /// Takes over what a message led to. The rows of what is to be published are added to `fresh`.
    pub(super) fn take(
        &mut self,
        outcome: Outcome,
        fresh: &mut Vec<OutboxRow>,
    ) -> Result<(), StoreError> {
        for (key, value) in outcome.writes {
            match value {
                Some(value) => {
                    self.state
                        .insert(key.as_str(), value.as_slice())
                        .map_err(failed)?;
                }
                None => {
                    self.state.remove(key.as_str()).map_err(failed)?;
                }
            }
        }
        let any = !outcome.sent.is_empty();
        for message in outcome.sent {
            let row = Bytes::from(encode(&message)?);
            self.outbox
                .insert(self.next_row, row.as_ref())
                .map_err(failed)?;
            fresh.push(read_row(self.next_row, &row)?);
            self.next_row += 1;
        }
        if any {
            let next = self.next_row.to_be_bytes();
            self.meta
                .insert(NEXT_ROW, next.as_slice())
                .map_err(failed)?;
        }
        Ok(())
    }
}

impl Lookup for Tables<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogicError> {
        let found = self.state.get(key);
        let found = found.map_err(|error| LogicError::Store(error.to_string()))?;
        Ok(found.map(|value| value.value().to_vec()))
    }
}

/// A row of the outbox: topic, key and trace context, each with its length, then the value.
fn encode(message: &Message) -> Result<Vec<u8>, StoreError> {
    let value = serde_json::to_vec(message).map_err(failed)?;
    let mut row = Vec::with_capacity(value.len() + 128);
    for part in [message.topic(), &message.key(), &message.traceparent] {
        let length = u16::try_from(part.len()).map_err(failed)?;
        row.extend(length.to_be_bytes());
        row.extend(part.as_bytes());
    }
    row.extend(value);
    Ok(row)
}

fn read_row(id: u64, row: &Bytes) -> Result<OutboxRow, StoreError> {
    let record = decode(row).ok_or_else(|| StoreError(format!("row {id} does not read")))?;
    Ok(OutboxRow { id, record })
}

/// The record of an outbox row, which shares the row's bytes; none when the row does not read.
fn decode(row: &Bytes) -> Option<ProducerRecord> {
    let mut rest = row.as_ref();
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (part, after) = after.split_at_checked(length)?;
        rest = after;
        String::from_utf8(part.to_vec()).ok()
    };
    let (topic, key, trace) = (part()?, part()?, part()?);
    let value = row.slice_ref(rest);
    let mut record = ProducerRecord::to(topic).key(key).value(value);
    if !trace.is_empty() {
        record = record.header(highwater_client::TRACEPARENT, trace);
    }
    Some(record)
}
