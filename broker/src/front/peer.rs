//! The internal door: what other brokers ask of this one.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::internal::peer_server::Peer;
use highwater_proto::internal::{
    CompareRangesRequest, CompareRangesResponse, DescribePartitionsRequest,
    DescribePartitionsResponse, GroupOffsetsRequest, GroupOffsetsResponse, HeartbeatRequest,
    HeartbeatResponse, HelloRequest, HelloResponse, LeavingPartitionRequest,
    LeavingPartitionResponse, ListShardGroupsRequest, ListShardGroupsResponse,
    PartitionPositionsRequest, PartitionPositionsResponse, ProposeRequest, ProposeResponse,
    PullSnapshotRequest, PullSnapshotResponse, ShardCommandRequest, ShardCommandResponse,
    TransferRequest, TransferResponse,
};
use highwater_proto::{NodeId, ShardId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{RESPONSES_IN_FLIGHT, describe, groups};
use crate::control::{controller, heartbeat, leaving, peers, transfer};
use crate::node::{Broker, hello};
use crate::runtime::pull;
use crate::upkeep::compare;

/// The service over one broker.
pub struct PeerService<E: Env>(pub Arc<Broker<E>>);

impl<E: Env> PeerService<E> {
    /// Who is no member, or comes with a disk that does not count, is not heard.
    fn admit<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        peers::admit(&self.0.membership, request.metadata())
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

#[tonic::async_trait]
impl<E: Env> Peer for PeerService<E> {
    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloResponse>, Status> {
        let caller = request.into_inner();
        Ok(Response::new(hello::answer(&self.0, &caller).await))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let timeout = millis(request.timeout_ms);
        let response = match self
            .0
            .metadata
            .propose_forwarded(request.command, timeout)
            .await
        {
            Ok(result) => ProposeResponse {
                result,
                ..ProposeResponse::default()
            },
            Err((certainly_not, leader, error)) => ProposeResponse {
                error,
                certainly_not,
                leader: leader.map(|node| node.0),
                ..ProposeResponse::default()
            },
        };
        Ok(Response::new(response))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        self.admit(&request)?;
        Ok(Response::new(heartbeat::serve(
            &self.0,
            request.into_inner(),
        )))
    }

    async fn shard_command(
        &self,
        request: Request<ShardCommandRequest>,
    ) -> Result<Response<ShardCommandResponse>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let (shard, timeout) = (ShardId(request.shard), millis(request.timeout_ms));
        if let Err(error) = controller::check_forwarded(&request.command) {
            return Ok(Response::new(ShardCommandResponse {
                error,
                certainly_not: true,
                ..ShardCommandResponse::default()
            }));
        }
        let response =
            match controller::propose_here(&self.0, shard, request.command, timeout).await {
                Ok(result) => ShardCommandResponse {
                    result,
                    ..ShardCommandResponse::default()
                },
                Err(failure) => ShardCommandResponse {
                    error: failure.reason,
                    certainly_not: failure.certainly_not,
                    leader: failure.leader.map(|node| node.0),
                    ..ShardCommandResponse::default()
                },
            };
        Ok(Response::new(response))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let moved = transfer::here(&self.0, ShardId(request.shard), NodeId(request.to)).await;
        Ok(Response::new(TransferResponse {
            error: moved.err().unwrap_or_default(),
        }))
    }

    async fn describe_partitions(
        &self,
        request: Request<DescribePartitionsRequest>,
    ) -> Result<Response<DescribePartitionsResponse>, Status> {
        self.admit(&request)?;
        Ok(Response::new(describe::led_here(
            &self.0,
            &request.into_inner(),
        )))
    }

    async fn partition_positions(
        &self,
        request: Request<PartitionPositionsRequest>,
    ) -> Result<Response<PartitionPositionsResponse>, Status> {
        let answer = crate::groups::lag::positions_here(&self.0, request.into_inner()).await;
        Ok(Response::new(answer))
    }

    async fn list_shard_groups(
        &self,
        request: Request<ListShardGroupsRequest>,
    ) -> Result<Response<ListShardGroupsResponse>, Status> {
        Ok(Response::new(groups::list::here(
            &self.0,
            &request.into_inner(),
        )))
    }

    async fn group_offsets(
        &self,
        request: Request<GroupOffsetsRequest>,
    ) -> Result<Response<GroupOffsetsResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(
            groups::reset::offsets_here(&self.0, &request).await,
        ))
    }

    async fn compare_ranges(
        &self,
        request: Request<CompareRangesRequest>,
    ) -> Result<Response<CompareRangesResponse>, Status> {
        self.admit(&request)?;
        let answer = compare::answer(&self.0, &request.into_inner());
        Ok(Response::new(answer))
    }

    async fn leaving_partition(
        &self,
        request: Request<LeavingPartitionRequest>,
    ) -> Result<Response<LeavingPartitionResponse>, Status> {
        self.admit(&request)?;
        let answer = leaving::serve(&self.0, request.into_inner()).await;
        Ok(Response::new(answer))
    }

    type PullSnapshotStream = ReceiverStream<Result<PullSnapshotResponse, Status>>;

    async fn pull_snapshot(
        &self,
        request: Request<PullSnapshotRequest>,
    ) -> Result<Response<Self::PullSnapshotStream>, Status> {
        self.admit(&request)?;
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT.min(4));
        tokio::spawn(pull::serve(
            Arc::clone(&self.0),
            request.into_inner(),
            sender,
        ));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
