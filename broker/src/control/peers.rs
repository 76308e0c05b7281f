//! Channels to the other brokers' internal door, one per broker, made when first needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::NodeId;
use highwater_proto::internal::members_client::MembersClient;
use highwater_proto::internal::peer_client::PeerClient;
use highwater_raft::Peers;
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::clocks::Clocks;
use super::cluster::Cluster;
use crate::node::channel::lazy_channel;
use crate::node::identity::Founder;
use crate::node::membership::Membership;

/// The client of another broker's internal door.
pub type Peer = PeerClient<InterceptedService<Channel, Introduce>>;
/// The client of the part of it that is about members.
pub type Members = MembersClient<InterceptedService<Channel, Introduce>>;

/// Says with each call who calls.
#[derive(Debug, Clone)]
pub struct Introduce(Arc<Membership>);

/// Cluster, broker and incarnation of the caller.
const HEADERS: [&str; 3] = [
    "highwater-cluster",
    "highwater-node",
    "highwater-incarnation",
];

impl Interceptor for Introduce {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let me = self.0.identity();
        let values = [
            me.cluster_id.unwrap_or_default(),
            me.node_id.to_string(),
            me.incarnation,
        ];
        for (name, value) in HEADERS.into_iter().zip(values) {
            let value = value.parse().map_err(|_| Status::internal(name))?;
            request.metadata_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// Whether the caller is a member of this broker's cluster, in the incarnation that counts.
///
/// # Errors
/// Why not.
pub fn admit(membership: &Membership, metadata: &MetadataMap) -> Result<NodeId, Status> {
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    let [cluster, node, incarnation] = HEADERS.map(text);
    let node = node.and_then(|node| node.parse().ok()).map(NodeId);
    let (Some(cluster), Some(node), Some(incarnation)) = (cluster, node, incarnation) else {
        return Err(Status::unauthenticated("the call does not say who calls"));
    };
    let admitted = membership.admit(cluster, node, incarnation);
    admitted.map(|()| node).map_err(Status::permission_denied)
}

/// Snapshots move whole batches.
const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// Where brokers are: as the image says, or, before there is one, as the founders were heard.
#[derive(Debug)]
pub struct Addresses {
    cluster: Arc<Cluster>,
    founders: Mutex<Vec<Founder>>,
    clocks: Arc<Clocks>,
}

impl Addresses {
    /// Addresses of the image, over those of `founders`.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, founders: Vec<Founder>, clocks: Arc<Clocks>) -> Self {
        Self {
            cluster,
            founders: Mutex::new(founders),
            clocks,
        }
    }
    /// Replaces the founders once they are known.
    pub fn set_founders(&self, founders: Vec<Founder>) {
        *self.founders.lock() = founders;
    }
}

impl Peers for Addresses {
    fn address(&self, node: NodeId) -> Option<String> {
        if let Some(broker) = self.cluster.image().broker(node) {
            return Some(broker.address.clone());
        }
        let founders = self.founders.lock();
        founders
            .iter()
            .find(|f| f.node_id == node.0)
            .map(|f| f.address.clone())
    }
    fn heard_clock(&self, node: NodeId, wall_ms: i64) {
        self.clocks.met(node, wall_ms);
    }
    fn is_retired(&self, incarnation: &str) -> bool {
        self.cluster.image().is_retired(incarnation)
    }
}

/// Clients of the internal service.
#[derive(Debug)]
pub struct PeerClients<E: Env> {
    env: E,
    addresses: Arc<Addresses>,
    introduce: Introduce,
    channels: Mutex<HashMap<NodeId, (String, Channel)>>,
}

impl<E: Env> PeerClients<E> {
    /// Clients over the given addresses.
    #[must_use]
    pub fn new(env: E, addresses: Arc<Addresses>, membership: Arc<Membership>) -> Self {
        Self {
            env,
            addresses,
            introduce: Introduce(membership),
            channels: Mutex::default(),
        }
    }
    /// A client for `node`; the channel is shared by all calls.
    ///
    /// # Errors
    /// In one line, when nobody knows where the broker is.
    pub fn client(&self, node: NodeId) -> Result<Peer, String> {
        let channel = self.channel(node)?;
        Ok(
            PeerClient::with_interceptor(channel, self.introduce.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }
    /// A client for the members service of `node`, over the same channel.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn members(&self, node: NodeId) -> Result<Members, String> {
        let channel = self.channel(node)?;
        let introduce = self.introduce.clone();
        Ok(MembersClient::with_interceptor(channel, introduce))
    }
    fn channel(&self, node: NodeId) -> Result<Channel, String> {
        let Some(address) = self.addresses.address(node) else {
            return Err(format!("the address of broker {node} is not known"));
        };
        let mut channels = self.channels.lock();
        let fresh = channels
            .get(&node)
            .is_none_or(|(known, _)| *known != address);
        if fresh {
            let channel = lazy_channel(self.env.net(), &address)
                .map_err(|error| format!("broker {node} at {address}: {error}"))?;
            channels.insert(node, (address, channel));
        }
        let Some((_, channel)) = channels.get(&node) else {
            return Err(format!("broker {node} has no channel"));
        };
        Ok(channel.clone())
    }
    /// What a broker says to a call, within a deadline. Where a call failed the next one connects anew.
    ///
    /// # Errors
    /// In one line. Whatever was asked for may or may not have been done.
    pub async fn answer<T>(
        &self,
        node: NodeId,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.forget(node);
                Err(format!("broker {node}: {}", status.message()))
            }
            Err(_elapsed) => Err(format!("broker {node} did not answer in time")),
        }
    }
    /// Drops the channel after a failure, so that the next call connects anew.
    pub fn forget(&self, node: NodeId) {
        self.channels.lock().remove(&node);
    }
}
