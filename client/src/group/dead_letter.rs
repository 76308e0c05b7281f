//! Dead letters: what they carry beside the record, and how they get into their queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::{Offset, PartitionId, TimestampMs, TopicId};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::admin::NewTopic;
use crate::client::Client;
use crate::error::{AdminError, Cause, ErrorCode};
use crate::producer::Producer;
use crate::record::{ConsumedRecord, Headers, ProducerRecord};
use crate::topics::TopicChange;

/// Headers of a dead letter, as text unless said otherwise. The record's own headers, key and value
/// are kept.
pub mod headers {
    /// The topic that the record was read from.
    pub const TOPIC: &str = "highwater-dlq-topic";
    /// That topic's id.
    pub const TOPIC_ID: &str = "highwater-dlq-topic-id";
    /// The record's partition.
    pub const PARTITION: &str = "highwater-dlq-partition";
    /// Its offset.
    pub const OFFSET: &str = "highwater-dlq-offset";
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub const TIMESTAMP: &str = "highwater-dlq-timestamp-ms";
    /// Its key, as bytes; absent when it has none, and when it is longer than 32 KiB: the key is there
    /// as the letter's own, too.
    pub const KEY: &str = "highwater-dlq-key";
    /// The group whose handler failed.
    pub const GROUP: &str = "highwater-dlq-group";
    /// How often it was tried; 0: an earlier record of its key was parked.
    pub const ATTEMPTS: &str = "highwater-dlq-attempts";
    /// The last error, 1 KiB at the most.
    pub const ERROR: &str = "highwater-dlq-error";
    /// Of a redriven record: the letter that it is a copy of, as the id of the queue's topic,
    /// partition and offset, with colons between; once for each partition where the letter lies.
    pub const COPY_OF: &str = "highwater-dlq-copy-of";
    /// What all of these begin with.
    pub const PREFIX: &str = "highwater-dlq-";
}

/// Bytes of an error that are kept.
const ERROR_BYTES: usize = 1024;
/// What a dead letter may take beyond its record, in bytes.
const ROOM_BYTES: usize = 64 << 10;
/// A longer key is not repeated in a header: it would take more than there is room for.
const MAX_KEY_HEADER_BYTES: usize = ROOM_BYTES / 2;
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The most that a topic's `max.message.bytes` may be.
const MOST_MESSAGE_BYTES: usize = 64 << 20;
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Where a dead letter comes from, and why it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic that the record was read from.
    pub topic: String,
    /// That topic's id. Topic id, partition and offset name a dead letter, however often it is in
    /// the queue.
    pub topic_id: TopicId,
    /// The record's partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: TimestampMs,
    /// Its key.
    pub key: Option<Bytes>,
    /// The group whose handler failed.
    pub group: String,
    /// How often it was tried; 0: an earlier record of its key was parked.
    pub attempts: u32,
    /// The last error.
    pub error: String,
}

impl DeadLetter {
    /// What a record of a dead letter queue says; absent when it is not one.
    #[must_use]
    pub fn of(record: &ConsumedRecord) -> Option<Self> {
        let text = |name: &str| std::str::from_utf8(record.header(name)?).ok();
        Some(Self {
            topic: text(headers::TOPIC)?.to_owned(),
            topic_id: TopicId(text(headers::TOPIC_ID)?.parse().ok()?),
            partition: PartitionId(text(headers::PARTITION)?.parse().ok()?),
            offset: Offset(text(headers::OFFSET)?.parse().ok()?),
            timestamp: TimestampMs(text(headers::TIMESTAMP)?.parse().ok()?),
            key: record.header(headers::KEY).or(record.key.as_ref()).cloned(),
            group: text(headers::GROUP)?.to_owned(),
            attempts: text(headers::ATTEMPTS)?.parse().ok()?,
            error: text(headers::ERROR).unwrap_or_default().to_owned(),
        })
    }

    fn headers(&self) -> Headers {
        let text = |name: &str, value: String| (name.to_owned(), Some(Bytes::from(value)));
        let mut headers = vec![
            text(headers::TOPIC, self.topic.clone()),
            text(headers::TOPIC_ID, self.topic_id.to_string()),
            text(headers::PARTITION, self.partition.to_string()),
            text(headers::OFFSET, self.offset.to_string()),
            text(headers::TIMESTAMP, self.timestamp.to_string()),
            text(headers::GROUP, self.group.clone()),
            text(headers::ATTEMPTS, self.attempts.to_string()),
            text(headers::ERROR, cut(&self.error).to_owned()),
        ];
        let key = self.key.as_ref();
        if let Some(key) = key.filter(|key| key.len() <= MAX_KEY_HEADER_BYTES) {
            headers.push((headers::KEY.to_owned(), Some(key.clone())));
        }
        headers
    }
}

/// The first bytes of a text, whole characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn own_headers(headers: &Headers) -> Headers {
    let own = headers
        .iter()
        .filter(|(name, _)| !name.starts_with(headers::PREFIX));
    own.cloned().collect()
}

/// The record that a redriven one was before, and its topic's id; the record itself if it does not
/// say.
pub(crate) fn original(record: ConsumedRecord) -> (ConsumedRecord, Option<TopicId>) {
    let Some(letter) = DeadLetter::of(&record) else {
        return (record, None);
    };
    let original = ConsumedRecord {
        topic: Arc::from(letter.topic),
        partition: letter.partition,
        offset: letter.offset,
        timestamp: letter.timestamp,
        key: record.key,
        value: record.value,
        headers: own_headers(&record.headers),
    };
    (original, Some(letter.topic_id))
}

/// A dead letter as a record for `topic`.
pub(crate) fn to_record(topic: String, letter: &DeadLetter, of: &ConsumedRecord) -> ProducerRecord {
    let mut headers = own_headers(&of.headers);
    headers.extend(letter.headers());
    ProducerRecord {
        topic,
        partition: None,
        key: of.key.clone(),
        value: of.value.clone(),
        headers,
        timestamp: None,
    }
}

/// Makes a group's queue and the topic by which letters come back, if they are not there, and lets both take what the
/// records of `source` can become.
pub(crate) async fn create_topics(
    client: &Client,
    group: &str,
    source: &str,
) -> Result<(), AdminError> {
    let source = client.topic(source).await.map_err(AdminError::Rejected)?;
    let limit = source
        .max_message_bytes()
        .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES);
    let limit = (limit + ROOM_BYTES).min(MOST_MESSAGE_BYTES);
    let replicas = source.partitions.first().map_or(0, |p| p.replicas.len());
    let replicas = u32::try_from(replicas).unwrap_or(0);
    for name in [super::dlq_topic(group), super::redrive_topic(group)] {
        let topic = NewTopic::named(name.as_str())
            .partitions(source.partition_count())
            .replication_factor(replicas)
            .config(MAX_MESSAGE_BYTES, limit.to_string());
        match client.admin().create_topic(topic).await {
            Ok(_) => {}
            Err(error) if error.cause().code() == Some(ErrorCode::TopicExists) => {
                raise_limit(client, &name, limit).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_gone(cause: &Cause) -> bool {
    let gone = [ErrorCode::UnknownTopic, ErrorCode::TopicDeleted];
    matches!(cause, Cause::UnknownTopic(_)) || cause.code().is_some_and(|code| gone.contains(&code))
}

/// A topic that was made for smaller records takes larger ones.
async fn raise_limit(client: &Client, name: &str, limit: usize) -> Result<(), AdminError> {
    let topic = client.topic(name).await.map_err(AdminError::Rejected)?;
    let present = topic.max_message_bytes();
    if present.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES) >= limit {
        return Ok(());
    }
    let change = TopicChange::of(name).set(MAX_MESSAGE_BYTES, limit.to_string());
    client.admin().alter_topic(change).await.map(|_| ())
}

/// The way into a group's dead letter queue.
pub(super) struct DeadLetters {
    client: Client,
    group: Arc<str>,
    producer: Producer,
    /// Topics whose records the queue takes; none while it may be gone.
    ready: Mutex<BTreeSet<String>>,
}

impl DeadLetters {
    pub(super) fn new(client: &Client, group: &Arc<str>) -> Self {
        Self {
            client: client.clone(),
            group: Arc::clone(group),
            // One letter fits, however large it is.
            producer: client.producer().buffer_bytes(MOST_MESSAGE_BYTES).build(),
            ready: Mutex::default(),
        }
    }

    /// Puts a record into the queue; answers when it is on the disks of a majority. Tries for
    /// ever: the record's partition does not go on without it. Dropped, it may be there or not.
    pub(super) async fn put(
        &self,
        topic_id: TopicId,
        record: &ConsumedRecord,
        attempts: u32,
        error: &str,
    ) {
        let letter = DeadLetter {
            topic: record.topic.to_string(),
            topic_id,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.clone(),
            group: self.group.to_string(),
            attempts,
            error: error.to_owned(),
        };
        let topic = super::dlq_topic(&self.group);
        let mut failures: u32 = 0;
        loop {
            let done = self.try_put(&topic, &letter, record).await;
            let Err(cause) = done else { return };
            self.ready.lock().clear();
            failures = failures.saturating_add(1);
            tracing::error!(
                group = &*self.group,
                topic = letter.topic,
                partition = letter.partition.0,
                offset = letter.offset.0,
                cause,
                "not in the dead letter queue yet: trying on"
            );
            let random = self.client.inner.cluster.random();
            let (first, most) = (Duration::from_millis(50), Duration::from_secs(5));
            sleep(crate::backoff::pause(failures, first, most, random)).await;
        }
    }

    async fn try_put(
        &self,
        topic: &str,
        letter: &DeadLetter,
        record: &ConsumedRecord,
    ) -> Result<(), String> {
        let is_ready = self.ready.lock().contains(&letter.topic);
        if !is_ready {
            match create_topics(&self.client, &self.group, &letter.topic).await {
                Ok(()) => drop(self.ready.lock().insert(letter.topic.clone())),
                // Redriven, and its topic is gone: it goes into the queue as that is.
                Err(error) if is_gone(error.cause()) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut record = to_record(topic.to_owned(), letter, record);
        if record.key.is_none() {
            // Always the same, so that it is known which of a record's letters came last.
            let queue = self.client.topic(topic).await;
            let count = queue.map_err(|cause| cause.to_string())?.partition_count();
            let partition = letter.partition.0.checked_rem(count);
            record.partition = partition.map(PartitionId);
        }
        let sent = self.producer.send(record).await;
        sent.map(|_| ()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_comes_back_as_the_record_it_was() {
        let before = ConsumedRecord {
            topic: Arc::from("orders"),
            partition: PartitionId(3),
            offset: Offset(77),
            timestamp: TimestampMs(1_000),
            key: Some(Bytes::from_static(b"k\xff")),
            value: None,
            headers: vec![
                ("h".to_owned(), None),
                ("h".to_owned(), Some(Bytes::from("2"))),
            ],
        };
        let letter = DeadLetter {
            topic: "orders".to_owned(),
            topic_id: TopicId(9),
            partition: before.partition,
            offset: before.offset,
            timestamp: before.timestamp,
            key: before.key.clone(),
            group: "g".to_owned(),
            attempts: 3,
            error: "ü".repeat(1_000),
        };
        let record = to_record("g.dlq".to_owned(), &letter, &before);
        let stored = ConsumedRecord {
            topic: Arc::from("g.dlq"),
            partition: PartitionId(0),
            offset: Offset(1),
            timestamp: TimestampMs(5),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        let read = DeadLetter::of(&stored).unwrap();
        assert_eq!(read.error.len(), 1_024);
        assert_eq!(
            (read.offset, read.attempts, &read.key),
            (letter.offset, 3, &letter.key)
        );
        let (after, id) = original(stored.clone());
        assert_eq!((&after, id), (&before, Some(TopicId(9))));
        assert!(record.headers.iter().any(|(name, _)| name == headers::KEY));
        // A long key is there once.
        let long = Some(Bytes::from(vec![7; MAX_KEY_HEADER_BYTES + 1]));
        let (mut longer, mut long_before) = (letter.clone(), before.clone());
        (longer.key, long_before.key) = (long.clone(), long.clone());
        let long_record = to_record("g.dlq".to_owned(), &longer, &long_before);
        let long_stored = ConsumedRecord {
            key: long_record.key,
            headers: long_record.headers,
            ..stored.clone()
        };
        assert_eq!(long_stored.header(headers::KEY), None);
        assert_eq!(DeadLetter::of(&long_stored).unwrap().key, long);
        // Dead again: the old headers give way.
        let again = to_record("g.dlq".to_owned(), &letter, &stored);
        assert_eq!(again.headers.len(), record.headers.len());
        assert_eq!(original(before.clone()), (before, None));
    }
}
