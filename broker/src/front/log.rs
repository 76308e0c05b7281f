//! The service `Log`: batches in, batches out.

use std::sync::Arc;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_proto::v1::log_server::Log;
use highwater_proto::v1::{
    ErrorCode, FetchRequest, FetchResponse, InitProducerRequest, InitProducerResponse,
    ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{RESPONSES_IN_FLIGHT, convert, fetch, list_offsets, produce};
use crate::node::Broker;

/// The largest producer epoch; after it a producer gets a new id.
const LAST_EPOCH: u32 = i16::MAX as u32 - 1;

/// Offset queries of one call that are answered at the same time.
const QUERIES_AT_ONCE: usize = 32;

/// The service over one broker.
pub struct LogService<E: Env>(pub Arc<Broker<E>>);

#[tonic::async_trait]
impl<E: Env> Log for LogService<E> {
    async fn init_producer(
        &self,
        request: Request<InitProducerRequest>,
    ) -> Result<Response<InitProducerResponse>, Status> {
        let request = request.into_inner();
        let response = match request.producer_id {
            Some(id) if request.producer_epoch < LAST_EPOCH => InitProducerResponse {
                error: None,
                producer_id: id,
                producer_epoch: request.producer_epoch + 1,
            },
            // A new producer, or one whose epochs are used up: a fresh id fences by itself.
            _ => match self.0.producer_ids.next(&self.0.metadata).await {
                Ok(id) => InitProducerResponse {
                    producer_id: id.0,
                    ..Default::default()
                },
                Err(error) => InitProducerResponse {
                    error: Some(convert::error(
                        ErrorCode::ClusterNotReady,
                        error.to_string(),
                        None,
                    )),
                    ..Default::default()
                },
            },
        };
        Ok(Response::new(response))
    }

    type ProduceStream = ReceiverStream<Result<ProduceResponse, Status>>;

    async fn produce(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        tokio::spawn(produce::serve(
            Arc::clone(&self.0),
            request.into_inner(),
            sender,
        ));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;

    async fn fetch(
        &self,
        request: Request<Streaming<FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        tokio::spawn(fetch::serve(
            Arc::clone(&self.0),
            request.into_inner(),
            sender,
        ));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        // Each query proves leadership by itself, which takes a round to a majority.
        let answers = request.into_inner().queries.into_iter();
        let answers = answers.map(|query| list_offsets::answer(&self.0, query));
        let answers = futures_util::stream::iter(answers).buffered(QUERIES_AT_ONCE);
        let results = answers.collect().await;
        Ok(Response::new(ListOffsetsResponse { results }))
    }
}
