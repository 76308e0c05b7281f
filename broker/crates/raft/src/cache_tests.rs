//! Eviction: by budget, never before durability, oldest first over all groups.

use highwater_proto::ShardId;

use super::EntryCache;
use crate::entry::stored_len;
use crate::testing::command;
use crate::types::{Command, Entry, log_id};

const A: ShardId = ShardId(1);
const B: ShardId = ShardId(2);

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: log_id(1, index),
        payload: openraft::EntryPayload::Normal(Command(command("x", 0, 82))),
    };
    range.map(entry).collect()
}

fn cached(cache: &EntryCache, group: ShardId) -> Vec<u64> {
    (0..100)
        .filter(|i| !cache.run(group, *i, i + 1, 1).entries.is_empty())
        .collect()
}

#[test]
fn what_is_not_durable_stays_whatever_the_budget() {
    let cache = EntryCache::new(300);
    cache.insert(A, 1, &entries(0..10));
    cache.insert(B, 1, &entries(0..2));
    assert_eq!(stored_len(&entries(0..1)[0]), 100);
    assert_eq!(cache.bytes(), 1200);
    cache.durable(A, 1, 0..10);
    assert_eq!(
        (cached(&cache, A), cached(&cache, B)),
        (vec![9], vec![0, 1])
    );
    cache.durable(B, 1, 0..2);
    assert_eq!(cache.bytes(), 300);
}

#[test]
fn an_entry_that_replaced_another_is_pinned_by_its_own_submission() {
    let cache = EntryCache::new(0);
    cache.insert(A, 1, &entries(0..4));
    cache.truncate(A, 2);
    cache.insert(A, 3, &entries(2..4));
    cache.durable(A, 1, 0..4);
    assert_eq!(cached(&cache, A), vec![2, 3]);
    cache.durable(A, 3, 2..4);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn runs_are_consecutive_and_say_where_the_next_begins() {
    let cache = EntryCache::new(0);
    cache.insert(A, 1, &entries(5..9));
    let run = cache.run(A, 2, 20, usize::MAX);
    assert_eq!((run.entries.len(), run.next_cached), (0, Some(5)));
    assert_eq!(cache.run(A, 5, 20, usize::MAX).entries.len(), 4);
    assert_eq!(cache.run(A, 5, 20, 250).entries.len(), 2);
    assert_eq!(cache.run(A, 5, 20, 1).entries.len(), 1);
    cache.purge(A, 7);
    assert_eq!(cached(&cache, A), vec![7, 8]);
    cache.forget(A);
    assert_eq!(cache.bytes(), 0);
}
