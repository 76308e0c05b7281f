//! Streams to brokers that outlast one batch: a relay sends many small requests, and opening a
//! stream costs both sides more than a small request does.

use std::collections::BTreeMap;

use highwater_proto::v1::{self, log_client::LogClient};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::publish::Numbered;
use crate::cluster::Cluster;
use crate::connect::Purpose;
use crate::error::Cause;

/// Nothing is known of a request beyond whether it may have reached the broker.
pub(super) struct NoVerdict {
    pub cause: Cause,
    pub sent: bool,
}

/// The offset of a batch, or why it has none.
pub(super) type Verdict = Result<u64, (v1::Outcome, v1::Error)>;

/// One stream, with no request under way.
struct Lane {
    requests: mpsc::Sender<v1::ProduceRequest>,
    responses: Streaming<v1::ProduceResponse>,
    /// Requests sent.
    sent: u64,
}

/// Idle streams by address. A request takes one out, or opens one, and puts it back when it was
/// answered: a stream on which anything went wrong is dropped.
#[derive(Default)]
pub(super) struct Lanes(Mutex<BTreeMap<String, Vec<Lane>>>);

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lanes").field(&self.0.lock().len()).finish()
    }
}

impl Lanes {
    /// Sends batches to a broker in one request; a verdict for each.
    pub(super) async fn request(
        &self,
        cluster: &Cluster,
        address: &str,
        batches: &[&Numbered],
    ) -> Result<Vec<Verdict>, NoVerdict> {
        let limit = cluster.timings.request_timeout;
        let request = v1::ProduceRequest {
            correlation_id: 1,
            timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            batches: batches.iter().map(|batch| wire(batch)).collect(),
        };
        let idle = self.0.lock().get_mut(address).and_then(Vec::pop);
        let call = async {
            match idle {
                Some(lane) => lane.ask(request).await,
                None => Lane::open(cluster, address, request).await,
            }
        };
        // The broker answers within the limit, if only with "unknown".
        let Ok(answered) = timeout(limit + limit / 4, call).await else {
            cluster.pool.forget(address, Purpose::Produce);
            let cause = Cause::Deadline(format!("{address} did not answer"));
            return Err(NoVerdict { cause, sent: true });
        };
        let (lane, response) = answered?;
        if response.results.len() != batches.len() {
            return Err(unanswered());
        }
        let mut lanes = self.0.lock();
        lanes.entry(address.to_owned()).or_default().push(lane);
        drop(lanes);
        let results = batches.iter().zip(response.results);
        Ok(results
            .map(|(batch, result)| verdict(cluster, batch, result))
            .collect())
    }
}

impl Lane {
    async fn open(
        cluster: &Cluster,
        address: &str,
        mut request: v1::ProduceRequest,
    ) -> Result<(Self, v1::ProduceResponse), NoVerdict> {
        let channel = cluster.pool.channel(address, Purpose::Produce);
        let channel = channel.map_err(|reason| NoVerdict {
            cause: Cause::Transport(reason),
            sent: false,
        })?;
        request.correlation_id = 1;
        let (requests, queue) = mpsc::channel(1);
        // There is room for one, and the receiver is here.
        let _ = requests.try_send(request);
        let opened = LogClient::new(channel)
            .produce(ReceiverStream::new(queue))
            .await;
        let lane = Self {
            requests,
            responses: opened.map_err(|status| failed(&status))?.into_inner(),
            sent: 1,
        };
        lane.answer().await
    }

    async fn ask(
        mut self,
        mut request: v1::ProduceRequest,
    ) -> Result<(Self, v1::ProduceResponse), NoVerdict> {
        self.sent += 1;
        request.correlation_id = self.sent;
        // A failure shows as a stream without an answer.
        let _ = self.requests.send(request).await;
        self.answer().await
    }

    async fn answer(mut self) -> Result<(Self, v1::ProduceResponse), NoVerdict> {
        let answer = self.responses.message().await;
        let response = answer.map_err(|status| failed(&status))?;
        match response {
            Some(response) if response.correlation_id == self.sent => Ok((self, response)),
            _ => Err(unanswered()),
        }
    }
}

fn wire(batch: &Numbered) -> v1::PartitionBatch {
    v1::PartitionBatch {
        topic_id: batch.tp.topic.0,
        partition: batch.tp.partition.0,
        batch: batch.bytes.clone(),
    }
}

fn failed(status: &Status) -> NoVerdict {
    NoVerdict {
        cause: Cause::status(status),
        sent: !crate::rpc::never_sent(status),
    }
}

fn unanswered() -> NoVerdict {
    NoVerdict {
        cause: Cause::Transport("the stream ended without a result".to_owned()),
        sent: true,
    }
}

fn verdict(cluster: &Cluster, batch: &Numbered, result: v1::BatchResult) -> Verdict {
    let outcome = result.outcome();
    if outcome == v1::Outcome::Acknowledged {
        return Ok(result.base_offset);
    }
    let error = result.error.unwrap_or_default();
    if let Some(hint) = &error.leader {
        cluster.hint(batch.tp.topic, batch.tp.partition, hint);
    }
    Err((outcome, error))
}
