//! Who this broker is and whom it lets in: the stored identity beside the image's brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_mutant::mutant;
use highwater_proto::NodeId;
use highwater_proto::internal::HelloRequest;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::identity::{FORMAT_VERSION, Identity};
use crate::control::cluster::Cluster;

/// Identity and membership, shared by the doors and the Raft lanes.
#[derive(Debug)]
pub struct Membership {
    identity: RwLock<Identity>,
    cluster: Arc<Cluster>,
    changed: watch::Sender<()>,
    registered: AtomicBool,
    /// What the metadata leader said last when it did not let this broker in.
    unheard: RwLock<Option<String>>,
}

impl Membership {
    /// Over a stored identity and the image.
    #[must_use]
    pub fn new(identity: Identity, cluster: Arc<Cluster>) -> Self {
        Self {
            identity: RwLock::new(identity),
            cluster,
            changed: watch::Sender::new(()),
            registered: AtomicBool::new(false),
            unheard: RwLock::default(),
        }
    }
    /// The identity as stored.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity.read().clone()
    }
    /// Replaces the identity after it was stored.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write() = identity;
        self.changed.send_replace(());
    }
    /// The cluster id, once there is one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.identity.read().cluster_id.clone()
    }

    /// Waits until there is a cluster id, or the broker stops. Cancellation-safe.
    pub async fn wait_for_cluster(&self, stop: &CancellationToken) {
        let mut changes = self.changed.subscribe();
        while self.cluster_id().is_none() && !stop.is_cancelled() {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }
    /// Takes note that the metadata group knows where this broker is.
    pub fn set_registered(&self) {
        self.registered.store(true, Ordering::Relaxed);
    }
    /// Whether the metadata group knows where this broker is.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    /// Takes note of what the metadata leader said: why it does not hear this broker, or that it does.
    pub fn set_unheard(&self, reason: Option<String>) {
        *self.unheard.write() = reason;
    }
    /// Why this broker is none of the cluster any more; nothing while it is one. A broker that was removed
    /// while it was running hears of it in the image, or else from the metadata leader.
    #[must_use]
    pub fn turned_away(&self) -> Option<String> {
        let own = self.identity.read();
        if self.cluster.image().is_retired(&own.incarnation) {
            return Some(format!(
                "broker {} was removed or replaced, stop it",
                own.node_id
            ));
        }
        let unheard = self.unheard.read();
        let reason = unheard.as_ref()?;
        Some(format!("the cluster does not hear this broker: {reason}"))
    }

    /// The incarnation that the cluster knows under a broker id: of its image, else of its
    /// founders. None for a broker that is not a member, or whose disk is being replaced.
    #[must_use]
    pub fn known_incarnation(&self, node_id: u32) -> Option<String> {
        let image = self.cluster.image();
        if image.cluster_id().is_some() {
            return image.incarnation(NodeId(node_id)).map(str::to_owned);
        }
        self.identity
            .read()
            .founder(node_id)
            .map(|founder| founder.incarnation.clone())
    }

    /// Whether the caller's data directory knows this cluster. A directory gets the cluster's id only once
    /// a member has said that the directory is registered: an image that knows the caller under another
    /// one, or not at all, is an old image. This broker was away meanwhile, or it was itself let in with an
    /// empty disk and hears the cluster's history from its beginning, and the caller may be the very
    /// leader that has the rest of it.
    fn was_taken_in(&self, cluster_id: &str) -> bool {
        !cluster_id.is_empty() && self.cluster_id().as_deref() == Some(cluster_id)
    }

    /// Why a caller must not join; empty if it may.
    #[must_use]
    pub fn refusal(&self, caller: &HelloRequest) -> String {
        let reason = self
            .lasting_refusal(caller)
            .or_else(|| self.refusal_by_image(caller));
        reason.unwrap_or_default()
    }

    /// Why a caller must not join, whatever the cluster has decided since this image.
    #[must_use]
    pub fn lasting_refusal(&self, caller: &HelloRequest) -> Option<String> {
        if caller.format_version > FORMAT_VERSION {
            return Some(format!(
                "it speaks format {}, this cluster {FORMAT_VERSION}; upgrade the cluster first",
                caller.format_version
            ));
        }
        if let Some(ours) = self.cluster_id()
            && !caller.cluster_id.is_empty()
            && caller.cluster_id != ours
        {
            return Some(format!(
                "its data directory belongs to cluster {}, this is cluster {ours}; use another \
                 data directory or other addresses",
                caller.cluster_id
            ));
        }
        let is_retired = self.cluster.image().is_retired(&caller.incarnation);
        is_retired.then(|| {
            format!(
                "the data directory of broker {} was replaced or removed; give it an empty one",
                caller.node_id
            )
        })
    }

    /// Why a caller must not join by this image: a newer one may have given the disk up that this one knows.
    fn refusal_by_image(&self, caller: &HelloRequest) -> Option<String> {
        if self.was_taken_in(&caller.cluster_id) {
            return None;
        }
        let known = self.known_incarnation(caller.node_id)?;
        let is_another = mutant!(WipedBrokerVotes => false; else known != caller.incarnation);
        is_another.then(|| {
            format!(
                "broker {0} is known here with another data directory (incarnation {known}, \
                 not {1}); a wiped or exchanged disk must not vote: bring the old directory \
                 back, or give it up with `highwater cluster replace {0}`",
                caller.node_id, caller.incarnation
            )
        })
    }

    /// Whether a call or a Raft lane of another broker is let in.
    ///
    /// # Errors
    /// The reason, in one line.
    pub fn admit(&self, cluster_id: &str, node: NodeId, incarnation: &str) -> Result<(), String> {
        if self.cluster_id().is_none() {
            return Err("this broker has no cluster yet".to_owned());
        }
        let caller = HelloRequest {
            node_id: node.0,
            incarnation: incarnation.to_owned(),
            cluster_id: cluster_id.to_owned(),
            ..HelloRequest::default()
        };
        let reason = self.refusal(&caller);
        if !reason.is_empty() {
            return Err(reason);
        }
        let member = self.was_taken_in(cluster_id) || self.known_incarnation(node.0).is_some();
        // Without an image nobody is known yet.
        if member || self.cluster.image().cluster_id().is_none() {
            Ok(())
        } else {
            Err(format!("broker {node} is not a member of this cluster"))
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
