//! Reads dead letters, and which of them their group has handled already.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt;
use highwater_proto::{Offset, PartitionId, TopicId, v1};
use tokio::time::timeout;

use super::admin::GroupAdmin;
use super::dead_letter::{DeadLetter, headers};
use super::redrive::{Letter, RedriveError};
use crate::client::Client;
use crate::consumer::Start;
use crate::error::{Cause, ErrorCode, OffsetsError};
use crate::offsets::At;
use crate::record::ConsumedRecord;

/// Bytes of letters that are held in memory.
const MOST_BYTES: usize = 256 << 20;
/// What the name of a letter takes in memory, with where it is.
const NAME_BYTES: usize = 128;

/// Topic id, partition and offset name a letter, however often it is in the queue.
type Name = (TopicId, PartitionId, Offset);

fn name(letter: &DeadLetter) -> Name {
    (letter.topic_id, letter.partition, letter.offset)
}

/// Offsets of a topic's partitions; none of a topic that does not exist.
async fn bounds(
    client: &Client,
    topic: &str,
    at: At,
) -> Result<BTreeMap<PartitionId, u64>, RedriveError> {
    match client.topic_offsets(topic, at).await {
        Ok(found) => Ok(found.iter().map(|f| (f.partition, f.offset.0)).collect()),
        Err(OffsetsError {
            cause: Cause::UnknownTopic(_),
            ..
        }) => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that a group has committed; nothing of a group that does not exist.
pub(super) async fn committed(
    admin: &GroupAdmin,
    group: &str,
) -> Result<Vec<v1::CommittedOffset>, RedriveError> {
    match admin.offsets(group).await {
        Ok(committed) => Ok(committed),
        Err(error) if error.cause().code() == Some(ErrorCode::UnknownGroup) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Reads partitions of a topic, each from its first offset to before its second.
async fn each(
    client: &Client,
    topic: &str,
    spans: &BTreeMap<PartitionId, (u64, u64)>,
    mut take: impl FnMut(ConsumedRecord) -> Result<(), RedriveError>,
) -> Result<(), RedriveError> {
    let mut open = spans.clone();
    open.retain(|_, (from, to)| from < to);
    if open.is_empty() {
        return Ok(());
    }
    let mut records = client.consumer();
    for (partition, (from, _)) in &open {
        records = records.assign(topic, partition.0, Start::Offset(Offset(*from)));
    }
    let mut records = records.build().await?;
    loop {
        open.retain(|partition, (_, to)| {
            let position = records.position(topic, partition.0);
            position.is_none_or(|at| at.0 < *to)
        });
        let Some(partition) = open.keys().next() else {
            return Ok(());
        };
        match timeout(client.inner.request_timeout, records.next()).await {
            Ok(Some(record)) => take(record?)?,
            Ok(None) | Err(_) => {
                let cause = Cause::Deadline(format!("{topic}-{partition} could not be read"));
                let topic = topic.to_owned();
                return Err(OffsetsError { topic, cause }.into());
            }
        }
    }
}

/// Reads a group's queue to its present end: each letter once, by where it comes from.
pub(super) async fn read(
    client: &Client,
    group: &str,
    wanted: impl Fn(&DeadLetter) -> bool,
) -> Result<Vec<Letter>, RedriveError> {
    let topic = super::dlq_topic(group);
    let firsts = bounds(client, &topic, At::Earliest).await?;
    let ends = bounds(client, &topic, At::Latest).await?;
    let span = |(p, end): (PartitionId, u64)| (p, (firsts.get(&p).copied().unwrap_or(0), end));
    let spans = ends.into_iter().map(span).collect();
    let mut letters = BTreeMap::new();
    let mut bytes = 0;
    each(client, &topic, &spans, |record| {
        let Some(letter) = DeadLetter::of(&record).filter(|letter| wanted(letter)) else {
            return Ok(());
        };
        bytes += record.value.as_ref().map_or(0, Bytes::len) + 512;
        if bytes > MOST_BYTES {
            return Err(RedriveError::TooMany);
        }
        let waiting = false;
        // The last one says how often it was tried in the end.
        letters.insert(
            name(&letter),
            Letter {
                letter,
                record,
                waiting,
            },
        );
        Ok(())
    })
    .await?;
    Ok(letters.into_values().collect())
}

/// The header that says which letter a record is a copy of.
pub(super) fn mark(queue: TopicId, letter: &ConsumedRecord) -> (String, Option<Bytes>) {
    let text = format!("{queue}:{}:{}", letter.partition, letter.offset);
    (headers::COPY_OF.to_owned(), Some(Bytes::from(text)))
}

fn read_mark(record: &ConsumedRecord) -> Option<(TopicId, PartitionId, u64)> {
    let text = std::str::from_utf8(record.header(headers::COPY_OF)?).ok()?;
    let mut parts = text.split(':');
    let topic = TopicId(parts.next()?.parse().ok()?);
    let partition = PartitionId(parts.next()?.parse().ok()?);
    Some((topic, partition, parts.next()?.parse().ok()?))
}

/// A copy in the redrive topic that the group's committed offset has passed.
#[derive(Debug, Clone, Copy)]
struct Copy {
    /// The letter: queue, partition, offset.
    of: (TopicId, PartitionId, u64),
    /// Where the copy lies.
    at: (PartitionId, u64),
}

/// The copies that a group has handled, by the names of the letters.
///
/// A handler that failed put the record into the queue anew before its offset was committed. So a
/// letter was handled successfully if the newest entry of it in the queue, read later than the
/// committed offsets, is not newer than the one that was copied.
#[derive(Debug, Default)]
pub(super) struct Handled {
    read_to: BTreeMap<PartitionId, u64>,
    copies: BTreeMap<Name, Copy>,
}

impl Handled {
    /// Takes in what the group has committed by now.
    pub(super) async fn follow(
        &mut self,
        admin: &GroupAdmin,
        group: &str,
    ) -> Result<(), RedriveError> {
        let client = admin.client();
        let name_of_topic = super::redrive_topic(group);
        let topic = client.topic(&name_of_topic).await;
        let topic = topic.map_err(crate::error::AdminError::Rejected)?.id;
        let committed = committed(admin, group).await?;
        let firsts = bounds(client, &name_of_topic, At::Earliest).await?;
        let of_topic = committed.iter().filter(|c| c.topic_id == topic.0);
        let spans = of_topic.map(|c| {
            let partition = PartitionId(c.partition);
            let first = firsts.get(&partition).copied().unwrap_or(0);
            let known = self.read_to.get(&partition).copied().unwrap_or(0);
            (partition, (first.max(known), c.offset))
        });
        let spans: BTreeMap<_, _> = spans.collect();
        let copies = &mut self.copies;
        each(client, &name_of_topic, &spans, |record| {
            let at = (record.partition, record.offset.0);
            let to = spans.get(&record.partition).map_or(0, |(_, to)| *to);
            // What lies behind the committed offset is not handled yet.
            if let (Some(letter), Some(of)) = (DeadLetter::of(&record), read_mark(&record))
                && at.1 < to
            {
                copies.insert(name(&letter), Copy { of, at });
            }
            if copies.len() * NAME_BYTES > MOST_BYTES {
                return Err(RedriveError::TooMany);
            }
            Ok(())
        })
        .await?;
        let read = spans
            .into_iter()
            .map(|(partition, (_, to))| (partition, to));
        self.read_to.extend(read);
        Ok(())
    }

    /// Where the copy lies by which a letter was handled; none if it was not.
    pub(super) fn copy_of(&self, queue: TopicId, letter: &Letter) -> Option<(PartitionId, u64)> {
        let copy = self.copies.get(&name(&letter.letter))?;
        let (of, lies) = (copy.of, &letter.record);
        let newest = of.0 == queue && of.1 == lies.partition && of.2 >= lies.offset.0;
        newest.then_some(copy.at)
    }
}
