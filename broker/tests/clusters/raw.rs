//! The public protocol without the client's help: what a broker says to whoever speaks it badly.

use highwater_client::Client;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::v1::log_client::LogClient;
use highwater_proto::v1::{
    BatchResult, ErrorCode, InitProducerRequest, Outcome, PartitionBatch, ProduceRequest,
};
use highwater_proto::{BatchSequence, ProducerEpoch, ProducerId, TimestampMs};
use tonic::transport::Channel;

use super::fleet::{Fleet, eventually};

/// A batch of one record for each value.
pub fn batch(values: &[&str]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        append(&mut builder, value.as_bytes());
    }
    builder
}

/// Adds a record without a key.
pub fn append(builder: &mut BatchBuilder, value: &[u8]) {
    let none: [(&[u8], Option<&[u8]>); 0] = [];
    builder
        .append(TimestampMs(1), None, Some(value), none)
        .expect("appended");
}

/// One partition, and a connection to its leader.
pub struct Raw {
    pub log: LogClient<Channel>,
    pub topic: u64,
    pub partition: u32,
}

impl Raw {
    pub async fn to_leader(fleet: &Fleet, client: &Client, topic: &str, partition: u32) -> Self {
        let node = fleet.leader(client, topic, partition).await;
        Self::to(fleet, client, topic, (partition, node)).await
    }

    /// A connection to this broker, whoever leads.
    pub async fn to(
        fleet: &Fleet,
        client: &Client,
        topic: &str,
        (partition, node): (u32, u32),
    ) -> Self {
        let topic = client.topic(topic).await.expect("known").id.0;
        let log = LogClient::connect(fleet.uri(node)).await.expect("a door");
        let log = log.max_decoding_message_size(64 << 20);
        Self {
            log,
            topic,
            partition,
        }
    }

    /// Sends one request with these batches, all for the partition.
    pub async fn send(&mut self, batches: Vec<bytes::Bytes>, timeout_ms: u32) -> Vec<BatchResult> {
        let (topic_id, partition) = (self.topic, self.partition);
        let batches = batches.into_iter().map(|batch| PartitionBatch {
            topic_id,
            partition,
            batch,
        });
        let request = ProduceRequest {
            correlation_id: 7,
            timeout_ms,
            batches: batches.collect(),
        };
        let requests = tokio_stream::once(request);
        let mut replies = self.log.produce(requests).await.expect("open").into_inner();
        let reply = replies.message().await.expect("no error").expect("a reply");
        assert_eq!(reply.correlation_id, 7);
        reply.results
    }

    /// Sends one batch.
    pub async fn one(&mut self, batch: impl Into<bytes::Bytes>) -> BatchResult {
        let mut results = self.send(vec![batch.into()], 10_000).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// A new producer id of the cluster.
    pub async fn producer(&mut self) -> ProducerId {
        let log = self.log.clone();
        eventually("a producer id", async || {
            let request = InitProducerRequest {};
            let response = log.clone().init_producer(request).await.ok()?.into_inner();
            let fine = response.error.is_none();
            fine.then_some(ProducerId(response.producer_id))
        })
        .await
    }
}

/// A batch of `count` records by a producer.
pub fn numbered(id: ProducerId, epoch: u16, sequence: u32, count: usize) -> bytes::Bytes {
    let values: Vec<String> = (0..count)
        .map(|n| format!("{id} {epoch} {sequence} {n}"))
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    batch(&values)
        .producer(id, ProducerEpoch(epoch), BatchSequence(sequence))
        .build()
}

/// The offset of an acknowledged batch.
pub fn acknowledged(result: &BatchResult) -> u64 {
    assert_eq!(result.outcome(), Outcome::Acknowledged, "{result:?}");
    assert_eq!(result.error, None);
    result.base_offset
}

/// Checks that a batch was certainly not written, for this reason, said in one line.
pub fn rejected(result: &BatchResult, code: ErrorCode) {
    assert_eq!(result.outcome(), Outcome::Rejected, "{result:?}");
    said(result.error.as_ref(), code);
}

/// Nobody says whether it is written.
pub fn undecided(result: &BatchResult, code: ErrorCode) {
    assert_eq!(result.outcome(), Outcome::Unknown, "{result:?}");
    said(result.error.as_ref(), code);
}

/// Checks an error's code, and that its message is one line.
pub fn said(error: Option<&highwater_proto::v1::Error>, code: ErrorCode) {
    let error = error.expect("an error");
    eprintln!("  says: {} ({})", error.message, error.code().as_str_name());
    assert_eq!(error.code(), code, "{}", error.message);
    assert!(!error.message.is_empty() && !error.message.contains('\n'));
}
