//! openraft's network over lanes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use highwater_proto::internal::{RaftKind, RaftRequest};
use highwater_proto::{NodeId, ShardId};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::StreamAppendResult;
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use crate::adapter::SnapshotHandle;
use crate::append_stream::append_stream;
use crate::codec::{
    CodecError, SnapshotBody, decode_append_reply, decode_snapshot_reply, decode_transfer_reply,
    decode_vote_reply, encode_transfer, encode_vote_request,
};
use crate::config::Timings;
use crate::everywhere::Everywhere;
use crate::lane::client::Lane;
use crate::lane::{LaneError, LaneKind};
use crate::status::node_id;
use crate::types::{
    AppendRequest, AppendResponse, Node, Snapshot, SnapshotResponse, TransferRequest,
    TransferResponse, TypeConfig, Vote, VoteRequest, VoteResponse,
};

pub(crate) type RpcError = RPCError<TypeConfig>;

/// Gives out lanes; the same to all groups.
pub(crate) trait Lanes: Send + Sync + 'static {
    /// The lane of a kind to a peer. `address` is where the group's members say it is.
    fn lane(&self, peer: NodeId, kind: LaneKind, address: &str) -> Lane;
    /// The same, if it is there.
    fn existing(&self, peer: NodeId, kind: LaneKind) -> Option<Lane>;
}

/// One group's way to its peers.
pub(crate) struct Network {
    pub(crate) node: NodeId,
    pub(crate) group: ShardId,
    pub(crate) lanes: Arc<dyn Lanes>,
    pub(crate) timings: Timings,
    pub(crate) everywhere: Everywhere,
}

impl Network {
    fn peer(&self, target: u64, node: &Node, kind: LaneKind) -> Peer {
        let peer = node_id(target);
        Peer {
            node: self.node,
            peer,
            group: self.group,
            data: self.lanes.lane(peer, kind, &node.addr),
            control: self.lanes.lane(peer, LaneKind::Heartbeat, &node.addr),
            timings: self.timings,
            everywhere: self.everywhere.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, LaneKind::Data)
    }
    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, LaneKind::Heartbeat)
    }
}

/// One group's way to one peer.
pub(crate) struct Peer {
    node: NodeId,
    peer: NodeId,
    group: ShardId,
    /// Carries appends: the data lane, or the heartbeat lane for heartbeats.
    data: Lane,
    control: Lane,
    timings: Timings,
    everywhere: Everywhere,
}

impl Peer {
    pub(crate) fn lane(&self) -> &Lane {
        &self.data
    }
    pub(crate) fn everywhere(&self) -> u64 {
        self.everywhere.count()
    }
    pub(crate) fn timings(&self) -> &Timings {
        &self.timings
    }
    pub(crate) fn request(&self, kind: RaftKind, body: Bytes) -> RaftRequest {
        RaftRequest {
            id: 0,
            group: self.group.0,
            kind: kind.into(),
            body,
            entries: Vec::new(),
        }
    }
    /// The error as openraft understands it: it waits before it tries an unreachable peer again.
    pub(crate) fn error(&self, action: RPCTypes, error: LaneError) -> RpcError {
        match error {
            LaneError::Deadline(timeout) => RPCError::Timeout(Timeout {
                action,
                id: self.node.0.into(),
                target: self.peer.0.into(),
                timeout,
            }),
            LaneError::Broken(_) | LaneError::Refused(_) => {
                RPCError::Unreachable(Unreachable::from_string(error))
            }
        }
    }
    async fn control_call(
        &self,
        kind: RaftKind,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let answer = self.control.call(self.request(kind, body), deadline).await;
        answer.map_err(|error| self.error(RPCTypes::Vote, error))
    }
}

pub(crate) fn garbled(error: CodecError) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RpcError> {
        let request = crate::append_stream::encode(self, request);
        let answer = self.data.call(request, option.hard_ttl()).await;
        let body = answer.map_err(|error| self.error(RPCTypes::AppendEntries, error))?;
        decode_append_reply(body).map_err(garbled)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        // openraft's deadline is the heartbeat interval: right for heartbeats, which it enforces
        // itself, and far too short for an append that waits for a slow disk.
        let peer: &'s Self = self;
        std::future::ready(Ok(append_stream(peer, input))).boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        let body = encode_vote_request(&request);
        let body = self
            .control_call(RaftKind::Vote, body, option.hard_ttl())
            .await?;
        decode_vote_reply(body).map_err(garbled)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        let body = encode_vote_request(&request);
        let body = self
            .control_call(RaftKind::PreVote, body, option.hard_ttl())
            .await?;
        decode_vote_reply(body).map_err(garbled)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferResponse, RpcError> {
        let body = encode_transfer(&request);
        let body = self
            .control_call(RaftKind::TransferLeader, body, option.hard_ttl())
            .await?;
        decode_transfer_reply(&request, body).map_err(garbled)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig>> {
        let stored = snapshot.snapshot.stored;
        let body = SnapshotBody {
            vote,
            raft_meta: stored.raft_meta,
            manifest: stored.manifest,
        };
        let request = self.request(RaftKind::Snapshot, body.encode());
        metrics::counter!("highwater_raft_snapshots_sent_total").increment(1);
        let answer = tokio::select! {
            answer = self.data.call(request, self.timings.install_deadline) => answer,
            closed = cancel => return Err(closed.into()),
        };
        let body = answer.map_err(|error| self.error(RPCTypes::InstallSnapshot, error))?;
        decode_snapshot_reply(body).map_err(|error| garbled(error).into())
    }
}
