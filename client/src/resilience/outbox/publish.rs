//! Sends one batch under given numbers until the cluster says where it is stored.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::v1;
use highwater_proto::{BatchSequence, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};
use tokio::time::{Instant, sleep};

use super::OUTBOX_HEADER;
use super::lanes::{Lanes, NoVerdict, Verdict};
use super::state::Identity;
use crate::client::Client;
use crate::cluster::Cluster;
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
    rows: &[(u64, &ProducerRecord)],
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

/// Bytes of batches that share one request, if there is more than one.
const TOGETHER_BYTES: usize = 1 << 20;

/// Sends all batches, those of one broker together, until each has its verdict or `deadline`.
/// Batches without a verdict after that are sent on one by one, under the same numbers.
/// Cancellation-safe as [`publish`] is.
pub(super) fn publish_all<'a>(
    client: &'a Client,
    lanes: &'a Lanes,
    batches: &'a [Numbered],
    deadline: Instant,
) -> BoxFuture<'a, Vec<Result<Published, SendError>>> {
    async move {
        let cluster = &client.inner.cluster;
        cluster.called(batches.len());
        let requests = together(cluster, batches);
        let sent = requests.iter().map(|(address, places)| async move {
            let members: Vec<&Numbered> = places.iter().filter_map(|at| batches.get(*at)).collect();
            (places, lanes.request(cluster, address, &members).await)
        });
        let mut stored: BTreeMap<usize, u64> = BTreeMap::new();
        let mut in_doubt = BTreeSet::new();
        for (places, verdicts) in join_all(sent).await {
            match verdicts {
                Ok(verdicts) => {
                    for (at, verdict) in places.iter().zip(verdicts) {
                        match verdict {
                            Ok(base) => {
                                stored.insert(*at, base);
                            }
                            Err((v1::Outcome::Rejected, _)) => {}
                            Err(_) => {
                                in_doubt.insert(*at);
                            }
                        }
                    }
                }
                Err(NoVerdict { sent, .. }) => in_doubt.extend(places.iter().filter(|_| sent)),
            }
        }
        let rest = batches.iter().enumerate().map(|(at, batch)| {
            let (base, in_doubt) = (stored.get(&at).copied(), in_doubt.contains(&at));
            async move {
                match base {
                    Some(base) => Ok(Published::At(base)),
                    None => publish(client, lanes, batch, deadline, in_doubt).await,
                }
            }
        });
        join_all(rest).await
    }
    .boxed()
}

/// Which batches go into one request: a broker's address, and their places. Batches whose leader
/// is not known are in none.
fn together(cluster: &Cluster, batches: &[Numbered]) -> Vec<(String, Vec<usize>)> {
    let view = cluster.view();
    let mut open: BTreeMap<String, (usize, Vec<usize>)> = BTreeMap::new();
    let mut requests = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        let leader = view.leader(batch.tp.topic, batch.tp.partition);
        let Some(address) = leader.and_then(|(node, _)| cluster.address(node)) else {
            continue;
        };
        let (bytes, places) = open.entry(address.clone()).or_default();
        if !places.is_empty() && *bytes + batch.bytes.len() > TOGETHER_BYTES {
            requests.push((address, std::mem::take(places)));
            *bytes = 0;
        }
        *bytes += batch.bytes.len();
        places.push(at);
    }
    let rest = open
        .into_iter()
        .map(|(address, (_, places))| (address, places));
    requests.extend(rest.filter(|(_, places)| !places.is_empty()));
    requests
}

/// Sends until `deadline`. `maybe_written`: an earlier attempt may be stored. Every attempt carries the
/// same numbers, so any of them may be the one that is stored. Cancellation-safe in the same sense:
/// repeat it with the same numbers.
pub(super) async fn publish(
    client: &Client,
    lanes: &Lanes,
    batch: &Numbered,
    deadline: Instant,
    mut maybe_written: bool,
) -> Result<Published, SendError> {
    let cluster = &client.inner.cluster;
    let mut failures: u32 = 0;
    loop {
        if let Some(cause) = cluster.view().deleted(batch.tp.topic) {
            return Err(given_up(maybe_written, cause));
        }
        // An attempt that reached nobody was no call, and the next one is no retry of it.
        let mut called = true;
        let cause = match attempt(cluster, lanes, batch).await {
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
                            return Err(given_up(maybe_written, cause));
                        }
                    }
                    _ => maybe_written = true,
                }
                cause
            }
            Err(NoVerdict { cause, sent }) => {
                maybe_written |= sent;
                called = sent;
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
        if called && !cluster.allowed(deadline).await {
            return Err(SendError::Unknown(cause));
        }
    }
}

fn given_up(maybe_written: bool, cause: Cause) -> SendError {
    if maybe_written {
        SendError::Unknown(cause)
    } else {
        SendError::Rejected(cause)
    }
}

async fn attempt(cluster: &Cluster, lanes: &Lanes, batch: &Numbered) -> Result<Verdict, NoVerdict> {
    let not_sent = |cause| NoVerdict { cause, sent: false };
    let tp = batch.tp;
    let view = cluster.view();
    let leader = view.leader(tp.topic, tp.partition);
    let address = leader.and_then(|(node, _)| cluster.address(node));
    let address = address
        .ok_or_else(|| not_sent(Cause::Transport(format!("partition {tp} has no leader"))))?;
    let verdicts = lanes.request(cluster, &address, &[batch]).await?;
    verdicts.into_iter().next().ok_or_else(|| NoVerdict {
        cause: Cause::Transport("the answer is empty".to_owned()),
        sent: true,
    })
}
