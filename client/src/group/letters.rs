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
use crate::error::{AdminError, Cause, ErrorCode, OffsetsError};
use crate::offsets::At;
use crate::record::{ConsumedRecord, Headers};

/// Bytes of letters that are held in memory.
const MOST_BYTES: usize = 256 << 20;
/// What the name of a letter takes in memory, with where it is.
const NAME_BYTES: usize = 128;

/// Topic id, partition and offset name a letter, however often it is in the queue.
pub(super) type Name = (TopicId, PartitionId, Offset);

pub(super) fn name(letter: &DeadLetter) -> Name {
    (letter.topic_id, letter.partition, letter.offset)
}

/// Offsets by partition.
pub(super) type Places = BTreeMap<PartitionId, u64>;

/// A letter, and where it lies in the queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub letter: Letter,
    /// Its last entry in each partition where it has one. Entries of one partition are in the order in
    /// which they came; nothing is known of the order of two partitions.
    pub entries: Places,
}

/// Offsets of a topic's partitions; none of a topic that does not exist.
async fn bounds(client: &Client, topic: &str, at: At) -> Result<Places, RedriveError> {
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

/// Whether a topic exists.
pub(super) async fn exists(client: &Client, topic: &str) -> Result<bool, RedriveError> {
    match client.topic(topic).await {
        Ok(_) => Ok(true),
        Err(Cause::UnknownTopic(_)) => Ok(false),
        Err(cause) => Err(AdminError::Rejected(cause).into()),
    }
}

/// Reads a group's queue from these places (else from its beginning) to its present end: each letter
/// once, by where it comes from. Answers also with that end.
pub(super) async fn read(
    client: &Client,
    group: &str,
    from: &Places,
    wanted: impl Fn(&DeadLetter) -> bool,
) -> Result<(Vec<Queued>, Places), RedriveError> {
    let topic = super::dlq_topic(group);
    let firsts = bounds(client, &topic, At::Earliest).await?;
    let ends = bounds(client, &topic, At::Latest).await?;
    let begin = |p: &PartitionId| firsts.get(p).max(from.get(p)).copied().unwrap_or(0);
    let spans = ends.iter().map(|(p, end)| (*p, (begin(p), *end))).collect();
    let mut letters: BTreeMap<Name, Queued> = BTreeMap::new();
    let mut bytes = 0;
    each(client, &topic, &spans, |record| {
        let Some(letter) = DeadLetter::of(&record).filter(|letter| wanted(letter)) else {
            return Ok(());
        };
        bytes += record.value.as_ref().map_or(0, Bytes::len) + 512;
        if bytes > MOST_BYTES {
            return Err(RedriveError::TooMany);
        }
        add(&mut letters, letter, record);
        Ok(())
    })
    .await?;
    Ok((letters.into_values().collect(), ends))
}

fn add(letters: &mut BTreeMap<Name, Queued>, letter: DeadLetter, record: ConsumedRecord) {
    let (name, entry) = (name(&letter), (record.partition, record.offset.0));
    let time = record.timestamp;
    let new = Letter {
        letter,
        record,
        waiting: false,
    };
    let Some(known) = letters.get_mut(&name) else {
        let entries = Places::from([entry]);
        letters.insert(
            name,
            Queued {
                letter: new,
                entries,
            },
        );
        return;
    };
    known.entries.insert(entry.0, entry.1);
    let shown = &known.letter.record;
    // The last one says how often it was tried in the end.
    if shown.partition == entry.0 || shown.timestamp <= time {
        known.letter = new;
    }
}

/// The headers that say of which entries in the queue a record is a copy.
pub(super) fn marks(queue: TopicId, of: &Queued) -> Headers {
    let mark = |(partition, offset): (&PartitionId, &u64)| {
        let text = format!("{queue}:{partition}:{offset}");
        (headers::COPY_OF.to_owned(), Some(Bytes::from(text)))
    };
    of.entries.iter().map(mark).collect()
}

fn read_marks(record: &ConsumedRecord) -> impl Iterator<Item = ((TopicId, PartitionId), u64)> {
    let marks = record.headers.iter();
    let marks = marks.filter(|(name, _)| name == headers::COPY_OF);
    marks.filter_map(|(_, value)| read_mark(value.as_deref()?))
}

fn read_mark(text: &[u8]) -> Option<((TopicId, PartitionId), u64)> {
    let mut parts = std::str::from_utf8(text).ok()?.split(':');
    let topic = TopicId(parts.next()?.parse().ok()?);
    let partition = PartitionId(parts.next()?.parse().ok()?);
    Some(((topic, partition), parts.next()?.parse().ok()?))
}

/// The letters of which the group has handled copies, by their names.
///
/// A handler that failed put the record into the queue anew before its offset was committed. So a
/// letter was handled successfully if, in each partition of the queue where it lies, its last entry,
/// read later than the committed offsets, is one that was copied: among them is the one that came last.
#[derive(Debug, Default)]
pub(super) struct Handled {
    read_to: Places,
    /// The last entry copied, by queue and partition.
    copies: BTreeMap<Name, BTreeMap<(TopicId, PartitionId), u64>>,
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
        let topic = topic.map_err(AdminError::Rejected)?.id;
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
            let to = spans.get(&record.partition).map_or(0, |(_, to)| *to);
            // What lies behind the committed offset is not handled yet.
            if let Some(letter) = DeadLetter::of(&record).filter(|_| record.offset.0 < to) {
                let copied = copies.entry(name(&letter)).or_default();
                for (place, offset) in read_marks(&record) {
                    let last = copied.entry(place).or_default();
                    *last = offset.max(*last);
                }
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

    /// Whether a letter of this queue was handled by way of a copy.
    pub(super) fn covers(&self, queue: TopicId, letter: &Queued) -> bool {
        let Some(copied) = self.copies.get(&name(&letter.letter.letter)) else {
            return false;
        };
        letter.entries.iter().all(|(partition, last)| {
            let copied = copied.get(&(queue, *partition));
            copied.is_some_and(|copied| copied >= last)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use highwater_proto::TimestampMs;

    use super::*;

    const QUEUE: TopicId = TopicId(9);

    /// An entry of one letter in the queue.
    fn entry(
        partition: u32,
        offset: u64,
        time: i64,
        attempts: u32,
    ) -> (DeadLetter, ConsumedRecord) {
        let record = ConsumedRecord {
            topic: Arc::from("g.dlq"),
            partition: PartitionId(partition),
            offset: Offset(offset),
            timestamp: TimestampMs(time),
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let letter = DeadLetter {
            topic: "orders".to_owned(),
            topic_id: TopicId(1),
            partition: PartitionId(0),
            offset: Offset(5),
            timestamp: TimestampMs(1),
            key: None,
            group: "g".to_owned(),
            attempts,
            error: String::new(),
        };
        (letter, record)
    }

    fn queued(entries: &[(DeadLetter, ConsumedRecord)]) -> Queued {
        let mut letters = BTreeMap::new();
        for (letter, record) in entries.iter().cloned() {
            add(&mut letters, letter, record);
        }
        assert_eq!(letters.len(), 1, "one letter");
        letters.into_values().next().unwrap()
    }

    /// As if the group had handled a copy of all that was queued.
    fn handle(handled: &mut Handled, of: &Queued) {
        let mut record = of.letter.record.clone();
        record.headers = marks(QUEUE, of);
        let copied = handled.copies.entry(name(&of.letter.letter)).or_default();
        copied.extend(read_marks(&record));
    }

    #[test]
    fn a_letter_is_handled_when_a_copy_of_each_of_its_last_entries_was() {
        let mut handled = Handled::default();
        let first = queued(&[entry(2, 7, 10, 3)]);
        assert!(!handled.covers(QUEUE, &first));
        handle(&mut handled, &first);
        assert!(handled.covers(QUEUE, &first));
        assert!(
            !handled.covers(TopicId(8), &first),
            "of a queue before this"
        );
        // It failed again, and its letter went elsewhere, by a clock that is behind.
        let again = queued(&[entry(2, 7, 10, 3), entry(1, 4, 5, 3)]);
        assert!(!handled.covers(QUEUE, &again));
        handle(&mut handled, &again);
        assert!(handled.covers(QUEUE, &again));
        let back = queued(&[entry(1, 4, 5, 3), entry(2, 7, 10, 3), entry(2, 9, 11, 3)]);
        assert!(!handled.covers(QUEUE, &back));
    }

    #[test]
    fn the_newest_entry_is_shown() {
        let shown = |entries: &[_]| queued(entries).letter.letter.attempts;
        assert_eq!(
            shown(&[entry(0, 1, 10, 1), entry(0, 2, 9, 2)]),
            2,
            "by order"
        );
        assert_eq!(
            shown(&[entry(0, 1, 10, 1), entry(1, 1, 11, 2)]),
            2,
            "by time"
        );
        assert_eq!(
            shown(&[entry(0, 1, 10, 1), entry(1, 1, 9, 2)]),
            1,
            "by time"
        );
    }
}
