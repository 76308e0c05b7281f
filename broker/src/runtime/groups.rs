//! What this broker shows of the consumer groups of a shard: the state after the last entry applied.
//!
//! The shard's state machine alone changes it, in apply. Members wait here for news of their group,
//! the coordinator for groups that need its attention.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use highwater_shard::groups::Group;
use highwater_shard::{FeatureLevel, ShardState};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

/// One group.
pub struct GroupView {
    /// `None`: it is gone.
    state: RwLock<Option<Arc<Group>>>,
    news: Notify,
}

impl GroupView {
    /// The group as of now; `None` when it is gone.
    #[must_use]
    pub fn state(&self) -> Option<Arc<Group>> {
        self.state.read().clone()
    }
    /// Waits until members may have to know something that happened after this call was made.
    /// Call, then check, then await. Cancellation-safe.
    pub fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }
}

/// All groups of one shard.
#[derive(Default)]
pub struct GroupViews {
    groups: RwLock<BTreeMap<Arc<str>, Arc<GroupView>>>,
    /// Changed since the coordinator looked; bounded by the number of groups.
    changed: Mutex<BTreeSet<Arc<str>>>,
    attention: Notify,
    rules: AtomicU32,
    elapsed_ms: AtomicU64,
}

impl GroupViews {
    /// One group.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<GroupView>> {
        self.groups.read().get(name).cloned()
    }
    /// The state of one group.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<Arc<Group>> {
        self.get(name)?.state()
    }
    /// All groups, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Arc<Group>)> {
        let groups = self.groups.read();
        groups
            .iter()
            .filter_map(|(name, view)| Some((Arc::clone(name), view.state()?)))
            .collect()
    }
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.read().len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The rules that the shard follows.
    #[must_use]
    pub fn rules(&self) -> FeatureLevel {
        FeatureLevel(self.rules.load(Ordering::Acquire))
    }
    /// The shard's clock in milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms.load(Ordering::Acquire)
    }
    /// The groups that changed since the last call.
    #[must_use]
    pub fn take_changed(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *self.changed.lock())
    }
    /// Waits until some group has changed. For one waiter. Cancellation-safe.
    pub async fn changed(&self) {
        self.attention.notified().await;
    }

    pub(super) fn publish(&self, name: &Arc<str>, state: Option<Arc<Group>>, news: bool) {
        let known = self.get(name);
        match (known, state) {
            (Some(view), None) => {
                self.groups.write().remove(name);
                *view.state.write() = None;
                view.news.notify_waiters();
            }
            (Some(view), state) => {
                *view.state.write() = state;
                if news {
                    view.news.notify_waiters();
                }
            }
            (None, Some(state)) => {
                let view = GroupView {
                    state: RwLock::new(Some(state)),
                    news: Notify::new(),
                };
                self.groups.write().insert(Arc::clone(name), Arc::new(view));
            }
            (None, None) => {}
        }
        if news {
            self.changed.lock().insert(Arc::clone(name));
            self.attention.notify_one();
        }
    }
    pub(super) fn follow(&self, state: &ShardState) {
        self.rules.store(state.rules().0, Ordering::Release);
        self.elapsed_ms.store(state.elapsed_ms(), Ordering::Release);
    }
    /// Shows another state, as after a checkpoint was installed.
    pub(super) fn adopt(&self, state: &ShardState) {
        self.follow(state);
        let known: Vec<Arc<str>> = self.groups.read().keys().cloned().collect();
        for name in known.iter().filter(|name| state.group(name).is_none()) {
            self.publish(name, None, true);
        }
        for (name, group) in state.groups() {
            self.publish(name, Some(Arc::clone(group)), true);
        }
    }
}
