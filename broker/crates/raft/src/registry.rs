//! The groups that run here.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::ShardId;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::inbound::Inbound;
use crate::replica::Control;

/// The started groups, for the lanes that come in.
pub(crate) struct Registry {
    groups: RwLock<BTreeMap<u32, Arc<dyn Control>>>,
    /// Lanes that come in end when it becomes true.
    closed: watch::Sender<bool>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            groups: RwLock::default(),
            closed: watch::Sender::new(false),
        }
    }
    pub(crate) fn get(&self, group: u32) -> Option<Arc<dyn Inbound>> {
        let found = self.groups.read().get(&group).cloned();
        found.map(|group| group as Arc<dyn Inbound>)
    }
    pub(crate) fn control(&self, group: u32) -> Option<Arc<dyn Control>> {
        self.groups.read().get(&group).cloned()
    }
    pub(crate) fn all(&self) -> Vec<Arc<dyn Control>> {
        self.groups.read().values().cloned().collect()
    }
    pub(crate) fn remove(&self, group: ShardId) {
        self.groups.write().remove(&group.0);
    }
    pub(crate) fn insert(&self, group: ShardId, control: Arc<dyn Control>) {
        self.groups.write().insert(group.0, control);
    }
    /// Becomes true when no lane may come in any more.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }
    /// Lets no lane in any more.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }
}
