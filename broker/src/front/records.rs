//! The service `Records`: the thin door, one record at a time, for languages without an SDK.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use highwater_env::{Clock, Env};
use highwater_metadata::Topic;
use highwater_proto::batch::{BatchBuilder, Compression, DecodeLimits, RecordBatch, split_batches};
use highwater_proto::partitioner::partition_for_key;
use highwater_proto::v1::records_server::Records;
use highwater_proto::v1::{
    Error, ErrorCode, FetchResponse, Header, OffsetQuery, PartitionBatch, PublishRequest,
    PublishResponse, ReadRequest, ReadResponse, Subscribe, offset_query, read_request,
};
use highwater_proto::{
    BatchSequence, PartitionId, Payload, ProducerEpoch, ProducerId, TimestampMs,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::credit::Credit;
use super::ingress::Held;
use super::subscription::{self, Outlet};
use super::{convert, list_offsets, produce};
use crate::node::Broker;

/// Bytes that the thin door reads ahead of its client.
const WINDOW: u64 = 4 << 20;
/// Records waiting for a slow reader; each may be as large as a batch.
const RECORDS_IN_FLIGHT: usize = 16;
/// Responses that wait to be taken apart.
const BATCHES_IN_FLIGHT: usize = 4;

/// The service over one broker.
pub struct RecordsService<E: Env> {
    broker: Arc<Broker<E>>,
    /// Spreads records without a key over partitions.
    next_partition: AtomicU32,
}

impl<E: Env> RecordsService<E> {
    /// The service over `broker`.
    #[must_use]
    pub fn new(broker: Arc<Broker<E>>) -> Self {
        Self {
            broker,
            next_partition: AtomicU32::new(0),
        }
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, Error> {
        self.broker
            .cluster
            .image()
            .topic_by_name(name)
            .cloned()
            .ok_or_else(|| {
                let text = format!("no topic is named '{name}'");
                convert::error(ErrorCode::UnknownTopic, text, None)
            })
    }

    fn partition(&self, topic: &Topic, request: &PublishRequest) -> PartitionId {
        let count = topic.partition_count();
        match (request.partition, &request.key) {
            (Some(partition), _) => PartitionId(partition),
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                let next = self.next_partition.fetch_add(1, Ordering::Relaxed);
                PartitionId(next.checked_rem(count).unwrap_or(0))
            }
        }
    }
}

#[tonic::async_trait]
impl<E: Env> Records for RecordsService<E> {
    async fn publish(
        &self,
        mut request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let held = request.extensions_mut().remove::<Held>();
        let request = request.into_inner();
        let topic = match self.topic(&request.topic) {
            Ok(topic) => topic,
            Err(error) => return Ok(Response::new(refused(error))),
        };
        let partition = self.partition(&topic, &request);
        let deadline = produce::deadline(request.timeout_ms);
        let batch = match one_record(request, self.broker.env.clock().now_ms()) {
            Ok(batch) => batch,
            Err(error) => return Ok(Response::new(refused(error))),
        };
        let batch = PartitionBatch {
            topic_id: topic.id().0,
            partition: partition.0,
            batch,
        };
        let decided = async {
            let slot = produce::hand_in(&self.broker, batch, deadline).await;
            drop(held);
            produce::settle(&self.broker, slot, deadline).await
        };
        let result = self.broker.producing.track_future(decided).await;
        Ok(Response::new(PublishResponse {
            outcome: result.outcome,
            error: result.error,
            partition: partition.0,
            offset: result.base_offset,
        }))
    }

    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (sender, receiver) = mpsc::channel(RECORDS_IN_FLIGHT);
        let request = request.into_inner();
        match self.topic(&request.topic) {
            Ok(topic) => {
                let reader = Reader {
                    broker: Arc::clone(&self.broker),
                    topic,
                    sender,
                };
                tokio::spawn(reader.run(request));
            }
            Err(error) => {
                let last = ReadResponse {
                    error: Some(error),
                    ..ReadResponse::default()
                };
                // The channel is fresh and its receiver is in our hands.
                let _ = sender.try_send(Ok(last));
            }
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn refused(error: Error) -> PublishResponse {
    PublishResponse {
        outcome: highwater_proto::v1::Outcome::Rejected.into(),
        error: Some(error),
        ..PublishResponse::default()
    }
}

/// A batch of the one record that was published.
fn one_record(request: PublishRequest, now_ms: i64) -> Result<Bytes, Error> {
    let invalid = |text: String| convert::error(ErrorCode::InvalidRequest, text, None);
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(producer) = request.producer {
        let epoch = u16::try_from(producer.epoch)
            .map_err(|_| invalid(format!("producer epoch {} is too large", producer.epoch)))?;
        builder = builder.producer(
            ProducerId(producer.id),
            ProducerEpoch(epoch),
            BatchSequence(producer.sequence),
        );
    }
    let headers: Vec<(Vec<u8>, Option<Bytes>)> = request
        .headers
        .into_iter()
        .map(|h| (h.key.into_bytes(), h.value))
        .collect();
    let appended = builder.append(
        TimestampMs(request.timestamp_ms.unwrap_or(now_ms)),
        request.key.as_deref(),
        request.value.as_deref(),
        headers
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref())),
    );
    appended.map_err(|error| invalid(error.to_string()))?;
    Ok(builder.build())
}

/// One read stream.
struct Reader<E: Env> {
    broker: Arc<Broker<E>>,
    topic: Arc<Topic>,
    sender: mpsc::Sender<Result<ReadResponse, Status>>,
}

impl<E: Env> Reader<E> {
    async fn run(self, request: ReadRequest) {
        if let Err(Some(error)) = self.read(&request).await {
            let last = ReadResponse {
                error: Some(error),
                ..ReadResponse::default()
            };
            // A client that has gone needs no error.
            let _ = self.sender.send(Ok(last)).await;
        }
    }

    /// `Err(None)`: the client has gone.
    async fn read(&self, request: &ReadRequest) -> Result<(), Option<Error>> {
        let offset = self.start(request).await?;
        let (responses, mut batches) = mpsc::channel(BATCHES_IN_FLIGHT);
        let credit = Arc::new(Credit::default());
        credit.add(WINDOW);
        let subscribe = Subscribe {
            subscription_id: 0,
            topic_id: self.topic.id().0,
            partition: request.partition,
            offset,
            max_bytes: 0,
            allow_follower: false,
        };
        let outlet = Outlet {
            id: 0,
            credit: Arc::clone(&credit),
            outflow: self.broker.outflow(),
            responses,
        };
        let follow = subscription::run(Arc::clone(&self.broker), subscribe, outlet);
        let deliver = async {
            let mut left = if request.limit == 0 {
                u64::MAX
            } else {
                request.limit
            };
            while let Some((Ok(response), _room)) = batches.recv().await {
                credit.add(response.pieces.iter().map(|p| p.len() as u64).sum());
                self.deliver(response, offset, &mut left).await?;
                if left == 0 {
                    return Ok(());
                }
            }
            Ok(())
        };
        tokio::pin!(deliver);
        tokio::select! {
            delivered = &mut deliver => return delivered,
            () = follow => {}
            // Nothing else would notice it while the partition is idle.
            () = self.sender.closed() => return Err(None),
        }
        // Its last words, an error among them, may still be on their way.
        deliver.await
    }

    async fn start(&self, request: &ReadRequest) -> Result<u64, Option<Error>> {
        let at = match request.from {
            Some(read_request::From::Offset(offset)) => return Ok(offset),
            Some(read_request::From::Latest(_)) => offset_query::At::Latest(true),
            Some(read_request::From::TimestampMs(ms)) => offset_query::At::TimestampMs(ms),
            Some(read_request::From::Earliest(_)) | None => offset_query::At::Earliest(true),
        };
        let query = OffsetQuery {
            topic_id: self.topic.id().0,
            partition: request.partition,
            at: Some(at),
        };
        let found = list_offsets::answer(&self.broker, query).await;
        found
            .error
            .map_or(Ok(found.offset), |error| Err(Some(error)))
    }

    async fn deliver(
        &self,
        response: FetchResponse,
        from: u64,
        left: &mut u64,
    ) -> Result<(), Option<Error>> {
        if let Some(error) = response.error {
            return Err(Some(error));
        }
        let stored = response
            .pieces
            .into_iter()
            .collect::<Payload>()
            .to_contiguous();
        for batch in split_batches(stored) {
            let batch = batch.map_err(|error| Some(damaged(&error.to_string())))?;
            for record in open(&batch)? {
                if record.offset < from {
                    continue;
                }
                self.sender.send(Ok(record)).await.map_err(|_gone| None)?;
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn damaged(cause: &str) -> Error {
    convert::error(ErrorCode::Damaged, cause, None)
}

fn open(batch: &RecordBatch) -> Result<Vec<ReadResponse>, Option<Error>> {
    let records = batch
        .records(&DecodeLimits::default())
        .map_err(|error| Some(damaged(&error.to_string())))?;
    let mut opened = Vec::new();
    for record in records {
        let record = record.map_err(|error| Some(damaged(&error.to_string())))?;
        let header = |(key, value): (Bytes, Option<Bytes>)| Header {
            key: String::from_utf8_lossy(&key).into_owned(),
            value,
        };
        opened.push(ReadResponse {
            error: None,
            offset: record.offset.0,
            timestamp_ms: record.timestamp.0,
            key: record.key,
            value: record.value,
            headers: record.headers.into_iter().map(header).collect(),
        });
    }
    Ok(opened)
}
