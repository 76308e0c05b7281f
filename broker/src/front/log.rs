//! The service `Log`: batches in, batches out.

use std::sync::Arc;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_proto::v1::log_server::Log;
use highwater_proto::v1::{
    ErrorCode, FetchRequest, InitProducerRequest, InitProducerResponse, ListOffsetsRequest,
    ListOffsetsResponse, ProduceRequest, ProduceResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::egress::Responses;
use super::ingress::Held;
use super::{RESPONSES_IN_FLIGHT, convert, fetch, list_offsets, produce};
use crate::node::Broker;

/// Offset queries of one call that are answered at the same time.
const QUERIES_AT_ONCE: usize = 32;

/// The service over one broker.
pub struct LogService<E: Env>(pub Arc<Broker<E>>);

#[tonic::async_trait]
impl<E: Env> Log for LogService<E> {
    async fn init_producer(
        &self,
        _: Request<InitProducerRequest>,
    ) -> Result<Response<InitProducerResponse>, Status> {
        let response = match self.0.producer_ids.next(&self.0.metadata).await {
            Ok(id) => InitProducerResponse {
                error: None,
                producer_id: id.0,
            },
            Err(error) => InitProducerResponse {
                error: Some(convert::error(
                    ErrorCode::ClusterNotReady,
                    error.to_string(),
                    None,
                )),
                producer_id: 0,
            },
        };
        Ok(Response::new(response))
    }

    type ProduceStream = ReceiverStream<Result<ProduceResponse, Status>>;

    async fn produce(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        if self.0.leaving.is_cancelled() {
            return Err(Status::unavailable("this broker is stopping"));
        }
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        self.0.producing.spawn(produce::serve(
            Arc::clone(&self.0),
            request.into_inner(),
            sender,
        ));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type FetchStream = Responses;

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
        Ok(Response::new(Responses::new(receiver)))
    }

    async fn list_offsets(
        &self,
        mut request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        let _held = request.extensions_mut().remove::<Held>();
        // Each query proves leadership by itself, which takes a round to a majority.
        let answers = request.into_inner().queries.into_iter();
        let answers = answers.map(|query| list_offsets::answer(&self.0, query));
        let answers = futures_util::stream::iter(answers).buffered(QUERIES_AT_ONCE);
        let results = answers.collect().await;
        Ok(Response::new(ListOffsetsResponse { results }))
    }
}
