//! The fake's Log service.

use std::pin::Pin;

use futures_util::Stream;
use highwater_client::ErrorCode;
use highwater_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::log::Appended;
use super::{Fault, Node, error};

pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::log_server::Log for Node {
    type ProduceStream = Answers<v1::ProduceResponse>;
    type FetchStream = Answers<v1::FetchResponse>;

    async fn init_producer(
        &self,
        _: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut state = self.state.lock();
        state.init_calls += 1;
        state.next_producer += 1;
        Ok(Response::new(v1::InitProducerResponse {
            error: None,
            producer_id: state.next_producer,
        }))
    }

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (answers, stream) = mpsc::channel(64);
        tokio::spawn(serve(self.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let (answers, stream) = mpsc::channel(64);
        tokio::spawn(super::fetch::serve(
            self.clone(),
            request.into_inner(),
            answers,
        ));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let results = request
            .into_inner()
            .queries
            .into_iter()
            .map(|query| self.offset(&query))
            .collect();
        Ok(Response::new(v1::ListOffsetsResponse { results }))
    }
}

async fn serve(
    node: Node,
    mut requests: Streaming<v1::ProduceRequest>,
    answers: mpsc::Sender<Result<v1::ProduceResponse, Status>>,
) {
    let mut changed = node.changed.subscribe();
    while let Ok(Some(request)) = requests.message().await {
        while node.state.lock().hold {
            if changed.changed().await.is_err() {
                return;
            }
        }
        let fault = node.next_fault();
        if fault == Fault::Swallow {
            continue;
        }
        if fault == Fault::ResetBefore {
            let _ = answers.send(Err(Status::unavailable("reset"))).await;
            return;
        }
        let results = request
            .batches
            .into_iter()
            .map(|batch| node.result(batch, fault))
            .collect();
        if fault == Fault::ResetAfter {
            let _ = answers.send(Err(Status::unavailable("reset"))).await;
            return;
        }
        let correlation_id = request.correlation_id;
        if answers
            .send(Ok(v1::ProduceResponse {
                correlation_id,
                results,
            }))
            .await
            .is_err()
        {
            return;
        }
    }
}

fn refused(outcome: v1::Outcome, error: v1::Error) -> v1::BatchResult {
    v1::BatchResult {
        outcome: outcome.into(),
        error: Some(error),
        ..Default::default()
    }
}

impl Node {
    fn next_fault(&self) -> Fault {
        let mut state = self.state.lock();
        state
            .faults
            .get_mut(&self.id)
            .and_then(|faults| faults.pop_front())
            .unwrap_or(Fault::None)
    }

    fn result(&self, batch: v1::PartitionBatch, fault: Fault) -> v1::BatchResult {
        let mut state = self.state.lock();
        match fault {
            Fault::Reject(code) => return refused(v1::Outcome::Rejected, error(code, None)),
            Fault::LoseUnknown => {
                return refused(v1::Outcome::Unknown, error(ErrorCode::TimedOut, None));
            }
            _ => {}
        }
        let Some(partition) = state.partition(batch.topic_id, batch.partition) else {
            return refused(
                v1::Outcome::Rejected,
                error(ErrorCode::UnknownPartition, None),
            );
        };
        if partition.leader != self.id {
            let (leader, term) = (partition.leader, partition.term);
            let hint = state.hint(leader, term);
            return refused(
                v1::Outcome::Rejected,
                error(ErrorCode::NotLeader, Some(hint)),
            );
        }
        let appended = partition.append(batch.batch);
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        if fault == Fault::AnswerUnknown {
            return refused(v1::Outcome::Unknown, error(ErrorCode::LeadershipLost, None));
        }
        match appended {
            Appended::Rejected(code) => refused(v1::Outcome::Rejected, error(code, None)),
            Appended::New(base) | Appended::Duplicate(base) => v1::BatchResult {
                outcome: v1::Outcome::Acknowledged.into(),
                error: None,
                base_offset: base,
                duplicate: matches!(appended, Appended::Duplicate(_)),
                log_append_time_ms: -1,
                log_start_offset: 0,
            },
        }
    }

    fn offset(&self, query: &v1::OffsetQuery) -> v1::OffsetResult {
        let mut state = self.state.lock();
        let failed = |error| v1::OffsetResult {
            error: Some(error),
            ..Default::default()
        };
        let Some(partition) = state.partition(query.topic_id, query.partition) else {
            return failed(error(ErrorCode::UnknownPartition, None));
        };
        if partition.leader != self.id {
            let (leader, term) = (partition.leader, partition.term);
            let hint = state.hint(leader, term);
            return failed(error(ErrorCode::NotLeader, Some(hint)));
        }
        let (offset, timestamp_ms) = match query.at {
            Some(v1::offset_query::At::TimestampMs(time)) => partition
                .stored
                .iter()
                .find(|stored| stored.max_timestamp >= time)
                .map_or((partition.end(), -1), |stored| {
                    (stored.base, stored.max_timestamp)
                }),
            Some(v1::offset_query::At::Latest(_)) => (partition.end(), -1),
            _ => (partition.log_start, -1),
        };
        v1::OffsetResult {
            error: None,
            offset,
            timestamp_ms,
            leader_epoch: 1,
        }
    }
}
