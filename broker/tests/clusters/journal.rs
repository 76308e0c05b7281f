//! What was acknowledged, and whether every replica still has exactly that.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::{
    Client, ConsumedRecord, Delivery, NewTopic, NodeId, Offset, Producer, ProducerRecord, ReadFrom,
    SendError, Start,
};
use tokio::time::timeout;

use super::fleet::PATIENCE;

/// Acknowledged records: (partition, offset) to value.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    pub topic: String,
    pub stored: BTreeMap<(u32, u64), String>,
}

/// Makes a topic, waiting as long as a busy machine may need.
pub async fn make_topic(client: &Client, topic: NewTopic) {
    let admin = client.admin().timeout(PATIENCE);
    admin.create_topic(topic).await.expect("created");
}

impl Journal {
    pub fn of(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            stored: BTreeMap::new(),
        }
    }

    /// Notes an acknowledgement. An offset is given once.
    pub fn note(&mut self, delivery: &Delivery, value: &str) {
        let place = (delivery.partition.0, delivery.offset.0);
        let before = self.stored.insert(place, value.to_owned());
        assert_eq!(before, None, "offset {place:?} was given twice");
    }

    /// Produces `count` values that no other record has, keyed, all in flight at once.
    pub async fn produce(&mut self, producer: &Producer, count: usize) {
        let first = self.stored.len();
        for (value, outcome) in send(producer, &self.topic, first..first + count).await {
            self.note(&outcome.expect("acknowledged"), &value);
        }
    }

    /// Reads every partition from its start, from one broker or from leaders, and compares: every
    /// acknowledged record at its offset, none missing, none twice, offsets dense.
    ///
    /// `unknown` are values whose outcome was not known: each may be there once.
    pub async fn check(&self, client: &Client, from: ReadFrom, unknown: &[String]) {
        let mut seen: BTreeMap<String, (u32, u64)> = BTreeMap::new();
        let mut found = 0;
        for (partition, end) in (0_u32..).zip(ends(client, &self.topic).await) {
            let records = read(client, &self.topic, partition, end, from).await;
            assert_eq!(records.len() as u64, end, "{}-{partition}", self.topic);
            for (offset, record) in (0_u64..).zip(records) {
                assert_eq!(record.offset.0, offset, "offsets are dense");
                let value = text(&record);
                match self.stored.get(&(partition, offset)) {
                    Some(stored) => assert_eq!(&value, stored, "at {partition}/{offset}"),
                    None => assert!(unknown.contains(&value), "never acknowledged: {value}"),
                }
                found += usize::from(self.stored.contains_key(&(partition, offset)));
                let before = seen.insert(value.clone(), (partition, offset));
                assert_eq!(before, None, "{value} is stored twice");
            }
        }
        assert_eq!(found, self.stored.len(), "every acknowledged record");
    }

    /// [`Self::check`] of the leaders and of each of these brokers.
    pub async fn check_everywhere(&self, client: &Client, brokers: &[u32]) {
        self.check_with(client, brokers, &[]).await;
    }

    /// [`Self::check_everywhere`] when the outcome of some values is not known.
    pub async fn check_with(&self, client: &Client, brokers: &[u32], unknown: &[String]) {
        self.check(client, ReadFrom::Leader, unknown).await;
        for broker in brokers {
            let from = ReadFrom::Broker(NodeId(*broker));
            self.check(client, from, unknown).await;
        }
    }
}

/// Sends values made of these numbers, as fast as the producer takes them; each with its outcome.
pub async fn send(
    producer: &Producer,
    topic: &str,
    numbers: std::ops::Range<usize>,
) -> Vec<(String, Result<Delivery, SendError>)> {
    let mut acks = Vec::with_capacity(numbers.len());
    for number in numbers {
        let value = format!("value {number} of {topic}");
        let record = ProducerRecord::to(topic)
            .key(format!("key {number}"))
            .value(value.clone());
        acks.push((value, producer.enqueue(record).await));
    }
    let mut outcomes = Vec::with_capacity(acks.len());
    for (value, ack) in acks {
        let outcome = match ack {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        outcomes.push((value, outcome));
    }
    outcomes
}

/// The ends of all partitions, with patience for elections.
pub async fn ends(client: &Client, topic: &str) -> Vec<u64> {
    super::fleet::eventually("the ends of all partitions", async || {
        client.end_offsets(topic).await.ok()
    })
    .await
    .into_iter()
    .map(|Offset(offset)| offset)
    .collect()
}

/// Reads a partition from its start up to `end`.
pub async fn read(
    client: &Client,
    topic: &str,
    partition: u32,
    end: u64,
    from: ReadFrom,
) -> Vec<ConsumedRecord> {
    let builder =
        client
            .consumer()
            .read_from(from)
            .assign(topic, partition, Start::Offset(Offset(0)));
    let mut consumer = builder.build().await.expect("assigned");
    let mut records = Vec::new();
    while records
        .last()
        .map_or(0, |r: &ConsumedRecord| r.offset.0 + 1)
        < end
    {
        let what = || format!("{topic}-{partition} from {from:?} after {}", records.len());
        let next = timeout(PATIENCE, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing more of {}", what()));
        records.push(next.expect("a stream without end").expect("a record"));
    }
    // Nothing may come after what was promised; a moment is enough to see it.
    let more = timeout(Duration::from_millis(1), consumer.next()).await;
    assert!(more.is_err(), "more than the end: {more:?}");
    records
}

/// A record's value as text.
pub fn text(record: &ConsumedRecord) -> String {
    let value = record.value.as_deref().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}
