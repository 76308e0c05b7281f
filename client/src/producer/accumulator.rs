//! Step 0a of a produced record: collects records into one open batch per partition. Pure.
//! Before: `Producer::enqueue`. After: `machine`, which numbers and sends closed batches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_proto::TopicPartition;

/// What a batch's header takes, in bytes.
const BATCH_OVERHEAD_BYTES: usize = 61;

/// Records that will travel together.
#[derive(Debug)]
pub(crate) struct Closed<R> {
    pub tp: TopicPartition,
    pub items: Vec<R>,
    /// Upper bound of the encoded size.
    pub bytes: usize,
    /// Since when the one that has waited longest wants its outcome.
    pub since: Duration,
}

#[derive(Debug)]
struct Open<R> {
    items: Vec<R>,
    bytes: usize,
    opened: Duration,
    /// Since when the one that has waited longest wants its outcome: before it came here it may have waited for room.
    since: Duration,
    /// The linger time has passed: it goes as soon as its partition has room.
    due: bool,
}

/// Open batches. `Duration`s are times since the producer started.
#[derive(Debug)]
pub(crate) struct Accumulator<R> {
    linger: Duration,
    batch_bytes: usize,
    open: BTreeMap<TopicPartition, Open<R>>,
    lingering: BTreeSet<(Duration, TopicPartition)>,
}

impl<R> Accumulator<R> {
    pub(crate) fn new(linger: Duration, batch_bytes: usize) -> Self {
        Self {
            linger,
            batch_bytes,
            open: BTreeMap::new(),
            lingering: BTreeSet::new(),
        }
    }

    /// Adds a record of at most `size` bytes encoded. Answers with batches that are now full: the
    /// open one when the record does not fit into it, and the record's own when it fills it.
    /// `limit` is the topic's largest batch in bytes; the record wants its outcome since `since`.
    pub(crate) fn append(
        &mut self,
        tp: TopicPartition,
        item: R,
        (size, limit): (usize, usize),
        (since, now): (Duration, Duration),
    ) -> Vec<Closed<R>> {
        let limit = self.batch_bytes.min(limit);
        let mut full = Vec::new();
        if self
            .open
            .get(&tp)
            .is_some_and(|open| open.bytes + size > limit)
        {
            full.extend(self.close(tp));
        }
        let open = self.open.entry(tp).or_insert_with(|| {
            self.lingering.insert((now + self.linger, tp));
            Open {
                items: Vec::new(),
                bytes: BATCH_OVERHEAD_BYTES,
                opened: now,
                since,
                due: false,
            }
        });
        open.items.push(item);
        open.bytes += size;
        open.since = open.since.min(since);
        if open.bytes >= limit {
            full.extend(self.close(tp));
        }
        full
    }

    /// Closes the partition's open batch.
    pub(crate) fn close(&mut self, tp: TopicPartition) -> Option<Closed<R>> {
        let open = self.open.remove(&tp)?;
        self.lingering.remove(&(open.opened + self.linger, tp));
        Some(Closed {
            tp,
            items: open.items,
            bytes: open.bytes,
            since: open.since,
        })
    }

    /// Closes it only when its linger time has passed.
    pub(crate) fn close_due(&mut self, tp: TopicPartition) -> Option<Closed<R>> {
        if self.open.get(&tp)?.due {
            self.close(tp)
        } else {
            None
        }
    }

    /// Partitions whose linger time passed by `now`; each is named once.
    pub(crate) fn take_due(&mut self, now: Duration) -> Vec<TopicPartition> {
        let mut due = Vec::new();
        while let Some(&(at, tp)) = self.lingering.first() {
            if at > now {
                break;
            }
            self.lingering.pop_first();
            if let Some(open) = self.open.get_mut(&tp) {
                open.due = true;
                due.push(tp);
            }
        }
        due
    }

    /// When the next linger time ends.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.lingering.first().map(|&(at, _)| at)
    }

    /// Closes everything, partition by partition.
    pub(crate) fn close_all(&mut self) -> Vec<Closed<R>> {
        let partitions: Vec<_> = self.open.keys().copied().collect();
        partitions
            .into_iter()
            .filter_map(|tp| self.close(tp))
            .collect()
    }

    /// Whether records of the partition wait for more.
    pub(crate) fn is_open(&self, tp: TopicPartition) -> bool {
        self.open.contains_key(&tp)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
