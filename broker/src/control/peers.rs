//! Channels to the other brokers' internal door, one per broker, made when first needed.

use std::collections::HashMap;
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::NodeId;
use highwater_proto::internal::peer_client::PeerClient;
use highwater_raft::Peers;
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::cluster::Cluster;
use crate::node::channel::lazy_channel;
use crate::node::identity::Founder;

/// Snapshots move whole batches.
const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// Where brokers are: as the image says, or, before there is one, as the founders were heard.
#[derive(Debug)]
pub struct Addresses {
    cluster: Arc<Cluster>,
    founders: Mutex<Vec<Founder>>,
}

impl Addresses {
    /// Addresses of the image, over those of `founders`.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, founders: Vec<Founder>) -> Self {
        Self {
            cluster,
            founders: Mutex::new(founders),
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
}

/// Clients of the internal service.
#[derive(Debug)]
pub struct PeerClients<E: Env> {
    env: E,
    addresses: Arc<Addresses>,
    channels: Mutex<HashMap<NodeId, (String, Channel)>>,
}

impl<E: Env> PeerClients<E> {
    /// Clients over the given addresses.
    #[must_use]
    pub fn new(env: E, addresses: Arc<Addresses>) -> Self {
        Self {
            env,
            addresses,
            channels: Mutex::default(),
        }
    }
    /// A client for `node`; the channel is shared by all calls.
    ///
    /// # Errors
    /// In one line, when nobody knows where the broker is.
    pub fn client(&self, node: NodeId) -> Result<PeerClient<Channel>, String> {
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
        Ok(PeerClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
    /// Drops the channel after a failure, so that the next call connects anew.
    pub fn forget(&self, node: NodeId) {
        self.channels.lock().remove(&node);
    }
}
