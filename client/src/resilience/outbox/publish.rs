//! Sends one batch under given numbers until the cluster says where it is stored.

use bytes::Bytes;
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::v1::{self, log_client::LogClient};
use highwater_proto::{BatchSequence, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};
use tokio::time::{Instant, sleep, timeout};

use super::OUTBOX_HEADER;
use super::state::Identity;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::connect::Purpose;
use crate::error::{Cause, CodeClass, ErrorCode, SendError, classify};
use crate::record::ProducerRecord;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Published {
    /// Stored from this offset on, now or by an earlier attempt.
    At(u64),
    /// Stored, too long ago for its offset to be known.
    Before,
    /// Certainly not stored under these numbers: the cluster does not know the producer any more.
    Forgotten,
}

/// One batch with its numbers, ready to be sent.
pub(super) struct Numbered {
    pub tp: TopicPartition,
    pub bytes: Bytes,
}

pub(super) fn build(
    tp: TopicPartition,
    (identity, sequence): (Identity, u32),
    outbox: &str,
    rows: &[(u64, ProducerRecord)],
    now_ms: i64,
) -> Result<Numbered, Cause> {
    let mut builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(identity.id),
        ProducerEpoch(identity.epoch),
        BatchSequence(sequence),
    );
    for (id, record) in rows {
        let row = format!("{outbox}/{id}");
        let headers = record
            .headers
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_deref()))
            .chain([(OUTBOX_HEADER.as_bytes(), Some(row.as_bytes()))]);
        let timestamp = record.timestamp.unwrap_or(TimestampMs(now_ms));
        builder
            .append(
                timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                headers,
            )
            .map_err(|error| Cause::Encoding(error.to_string()))?;
    }
    let bytes = builder.build();
    Ok(Numbered { tp, bytes })
}

/// Sends until `deadline`. Every attempt carries the same numbers, so any of them may be the one
/// that is stored. Cancellation-safe in the same sense: repeat it with the same numbers.
pub(super) async fn publish(
    client: &Client,
    batch: &Numbered,
    deadline: Instant,
) -> Result<Published, SendError> {
    let cluster = &client.inner.cluster;
    let mut failures: u32 = 0;
    let mut maybe_written = false;
    loop {
        let cause = match attempt(cluster, batch).await {
            Ok(Ok(base)) => return Ok(Published::At(base)),
            Ok(Err((outcome, error))) => {
                let cause = Cause::broker(&error);
                match (error.code(), outcome) {
                    // Only a claim uses its numbers, so what used them before is this very batch.
                    (ErrorCode::DuplicateSequence, _) => return Ok(Published::Before),
                    (ErrorCode::UnknownProducer, v1::Outcome::Rejected) if !maybe_written => {
                        return Ok(Published::Forgotten);
                    }
                    (code, v1::Outcome::Rejected) => {
                        if classify(code) == CodeClass::Fatal {
                            return Err(if maybe_written {
                                SendError::Unknown(cause)
                            } else {
                                SendError::Rejected(cause)
                            });
                        }
                    }
                    _ => maybe_written = true,
                }
                cause
            }
            Err(NoVerdict { cause, sent }) => {
                maybe_written |= sent;
                cause
            }
        };
        failures = failures.saturating_add(1);
        let pause = cluster.pause(failures);
        if Instant::now() + pause >= deadline {
            return Err(SendError::Unknown(cause));
        }
        tracing::debug!(partition = %batch.tp, %cause, failures, "outbox batch: trying on");
        sleep(pause).await;
    }
}

struct NoVerdict {
    cause: Cause,
    sent: bool,
}

type Verdict = Result<u64, (v1::Outcome, v1::Error)>;

async fn attempt(cluster: &Cluster, batch: &Numbered) -> Result<Verdict, NoVerdict> {
    let not_sent = |cause| NoVerdict { cause, sent: false };
    let tp = batch.tp;
    let view = cluster.view();
    let leader = view.leader(tp.topic, tp.partition);
    let address = leader.and_then(|(node, _)| cluster.address(node));
    let address = address
        .ok_or_else(|| not_sent(Cause::Transport(format!("partition {tp} has no leader"))))?;
    let channel = cluster
        .pool
        .channel(&address, Purpose::Produce)
        .map_err(|reason| not_sent(Cause::Transport(reason)))?;
    let limit = cluster.timings.request_timeout;
    let request = v1::ProduceRequest {
        correlation_id: 1,
        timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
        batches: vec![v1::PartitionBatch {
            topic_id: tp.topic.0,
            partition: tp.partition.0,
            batch: batch.bytes.clone(),
        }],
    };
    let mut log = LogClient::new(channel);
    let call = async {
        let mut responses = log.produce(tokio_stream::once(request)).await?.into_inner();
        responses.message().await
    };
    // The broker answers within the limit, if only with "unknown".
    let answered = match timeout(limit + limit / 4, call).await {
        Ok(answered) => answered,
        Err(_) => {
            cluster.pool.forget(&address, Purpose::Produce);
            let cause = Cause::Deadline(format!("{address} did not answer"));
            return Err(NoVerdict { cause, sent: true });
        }
    };
    let response = answered.map_err(|status| NoVerdict {
        cause: Cause::status(&status),
        sent: !crate::rpc::never_sent(&status),
    })?;
    let result = response.and_then(|response| response.results.into_iter().next());
    let result = result.ok_or_else(|| NoVerdict {
        cause: Cause::Transport("the stream ended without a result".to_owned()),
        sent: true,
    })?;
    let outcome = result.outcome();
    if outcome == v1::Outcome::Acknowledged {
        return Ok(Ok(result.base_offset));
    }
    let error = result.error.unwrap_or_default();
    if let Some(hint) = &error.leader {
        cluster.hint(tp.topic, tp.partition, hint);
    }
    Ok(Err((outcome, error)))
}
