//! Recent entries of all groups, in memory under one budget of bytes.
//!
//! Invariant: an entry that is not yet durable is never evicted, since nothing else could serve it.
//! Entries become durable in the order of submission, so eviction follows that order and stops at
//! the first entry that is not durable.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use highwater_proto::ShardId;
use parking_lot::Mutex;

use crate::entry::stored_len;
use crate::types::Entry;

#[derive(Debug)]
struct Cached {
    entry: Entry,
    bytes: usize,
    /// The submission that wrote it: tells it from a truncated entry of the same index.
    submission: u64,
    durable: bool,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<ShardId, BTreeMap<u64, Cached>>,
    /// Every cached entry in order of insertion; some no longer there.
    order: VecDeque<(ShardId, u64, u64)>,
    bytes: usize,
}

/// The cache. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct EntryCache {
    budget: usize,
    inner: Arc<Mutex<Inner>>,
}

/// A run of entries from the cache, and where the next cached one begins.
#[derive(Debug, Default)]
pub(crate) struct CachedRun {
    /// Consecutive from the index asked for; may be empty.
    pub entries: Vec<Entry>,
    /// When empty: the first cached index behind the one asked for.
    pub next_cached: Option<u64>,
}

impl EntryCache {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            inner: Arc::default(),
        }
    }
    /// Takes entries in, pinned until `durable` is called for their submission.
    pub(crate) fn insert(&self, group: ShardId, submission: u64, entries: &[Entry]) {
        let mut inner = self.inner.lock();
        for entry in entries {
            let index = entry.log_id.index();
            let bytes = stored_len(entry);
            let cached = Cached {
                entry: entry.clone(),
                bytes,
                submission,
                durable: false,
            };
            let replaced = inner.groups.entry(group).or_default().insert(index, cached);
            inner.bytes += bytes;
            inner.bytes -= replaced.map_or(0, |old| old.bytes);
            inner.order.push_back((group, index, submission));
        }
    }
    /// The entries of one submission are durable: they may be evicted from now on.
    pub(crate) fn durable(&self, group: ShardId, submission: u64, indexes: Range<u64>) {
        let mut inner = self.inner.lock();
        if let Some(entries) = inner.groups.get_mut(&group) {
            for (_, cached) in entries.range_mut(indexes) {
                cached.durable |= cached.submission == submission;
            }
        }
        inner.evict(self.budget);
        metrics::gauge!("highwater_raft_cache_bytes").set(inner.bytes as f64);
    }
    /// Entries from `from` on, up to `to` (exclusive) and `max_bytes`, at least one if cached.
    pub(crate) fn run(&self, group: ShardId, from: u64, to: u64, max_bytes: usize) -> CachedRun {
        let inner = self.inner.lock();
        let mut run = CachedRun::default();
        let Some(entries) = inner.groups.get(&group) else {
            return run;
        };
        let mut bytes = 0;
        for (expected, (index, cached)) in (from..to).zip(entries.range(from..to)) {
            if *index != expected {
                if run.entries.is_empty() {
                    run.next_cached = Some(*index);
                }
                break;
            }
            bytes += cached.bytes;
            if bytes > max_bytes && !run.entries.is_empty() {
                break;
            }
            run.entries.push(cached.entry.clone());
        }
        run
    }
    /// Drops the entries of a group from `from` on.
    pub(crate) fn truncate(&self, group: ShardId, from: u64) {
        self.inner
            .lock()
            .split(group, |entries| entries.split_off(&from));
    }
    /// Drops the entries of a group below `below`.
    pub(crate) fn purge(&self, group: ShardId, below: u64) {
        self.inner.lock().split(group, |entries| {
            let kept = entries.split_off(&below);
            std::mem::replace(entries, kept)
        });
    }
    /// Drops all entries of a group.
    pub(crate) fn forget(&self, group: ShardId) {
        let mut inner = self.inner.lock();
        inner.split(group, std::mem::take);
        inner.groups.remove(&group);
    }
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl Inner {
    fn split(
        &mut self,
        group: ShardId,
        take: impl FnOnce(&mut BTreeMap<u64, Cached>) -> BTreeMap<u64, Cached>,
    ) {
        if let Some(entries) = self.groups.get_mut(&group) {
            self.bytes -= take(entries)
                .values()
                .map(|cached| cached.bytes)
                .sum::<usize>();
        }
    }
    fn evict(&mut self, budget: usize) {
        while let Some((group, index, submission)) = self.order.front().copied() {
            let entries = self.groups.get_mut(&group);
            let cached = entries.as_ref().and_then(|entries| entries.get(&index));
            // Truncated, purged or replaced: its place in the order means nothing any more.
            let current = cached.is_some_and(|cached| cached.submission == submission);
            if current && (self.bytes <= budget || cached.is_some_and(|cached| !cached.durable)) {
                return;
            }
            self.order.pop_front();
            if current && let Some(gone) = entries.and_then(|entries| entries.remove(&index)) {
                self.bytes -= gone.bytes;
            }
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
