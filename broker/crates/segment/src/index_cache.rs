//! Loaded indexes of sealed segments, bounded over all partitions: a process may only have so many
//! memory maps, and a rebuilt index is heap.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::index_file::SealedIndex;

#[derive(Default)]
struct State {
    /// Never iterated: order comes from `by_use`.
    loaded: HashMap<u64, (Arc<SealedIndex>, u64)>,
    by_use: BTreeMap<u64, u64>,
    tick: u64,
}

/// Indexes by segment id; the longest unused goes first.
pub(crate) struct IndexCache {
    capacity: usize,
    state: Mutex<State>,
}

impl IndexCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            state: Mutex::default(),
        }
    }
    pub(crate) fn get(&self, id: u64) -> Option<Arc<SealedIndex>> {
        let state = &mut *self.state.lock();
        state.tick += 1;
        let (index, used) = state.loaded.get_mut(&id)?;
        state.by_use.remove(used);
        *used = state.tick;
        state.by_use.insert(state.tick, id);
        Some(index.clone())
    }
    pub(crate) fn put(&self, id: u64, index: Arc<SealedIndex>) {
        self.forget(id);
        let state = &mut *self.state.lock();
        while state.loaded.len() >= self.capacity {
            let Some((_, oldest)) = state.by_use.pop_first() else {
                break;
            };
            state.loaded.remove(&oldest);
        }
        state.tick += 1;
        state.by_use.insert(state.tick, id);
        state.loaded.insert(id, (index, state.tick));
    }
    pub(crate) fn forget(&self, id: u64) {
        let state = &mut *self.state.lock();
        if let Some((_, used)) = state.loaded.remove(&id) {
            state.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_proto::Offset;

    use super::*;
    use crate::sparse_index::SparseIndexes;

    #[test]
    fn the_longest_unused_goes_first() {
        let cache = IndexCache::new(2);
        let index = || {
            Arc::new(SealedIndex::in_memory(
                Offset(0),
                1,
                &SparseIndexes::default(),
            ))
        };
        cache.put(1, index());
        cache.put(2, index());
        assert!(cache.get(1).is_some());
        cache.put(3, index());
        let held: Vec<bool> = (1..=3).map(|id| cache.get(id).is_some()).collect();
        assert_eq!(held, [true, false, true]);
        cache.forget(1);
        cache.put(3, index());
        assert_eq!(cache.state.lock().by_use.len(), 1);
    }
}
