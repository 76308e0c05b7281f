//! Who is handled next: in order within a lane (a key), lanes side by side. Pure.
//!
//! Invariants: of one lane at most one run of items is started and not finished, also across a
//! partition that was given up and came back; items of a lane start in the order in which they were
//! pushed; nothing of a blocked partition starts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use highwater_proto::TopicPartition;

/// What is handled in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Records of a partition with one key.
    Key(TopicPartition, Bytes),
    /// One record without a key: it has no order to keep.
    Alone(TopicPartition, u64),
    /// All records of a partition, where that was asked for.
    Partition(TopicPartition),
}

impl Lane {
    pub(crate) fn partition(&self) -> TopicPartition {
        match self {
            Self::Key(tp, _) | Self::Alone(tp, _) | Self::Partition(tp) => *tp,
        }
    }
}

#[derive(Debug)]
struct State<T> {
    running: bool,
    queue: VecDeque<T>,
}

/// Items by lane.
#[derive(Debug)]
pub(crate) struct Dispatcher<T> {
    lanes: BTreeMap<Lane, State<T>>,
    blocked: BTreeSet<TopicPartition>,
}

impl<T> Default for Dispatcher<T> {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            blocked: BTreeSet::new(),
        }
    }
}

impl<T> Dispatcher<T> {
    /// Adds an item; answers with it if it is to be started now.
    pub(crate) fn push(&mut self, lane: Lane, item: T) -> Option<T> {
        let blocked = self.blocked.contains(&lane.partition());
        let state = self.lanes.entry(lane).or_insert_with(|| State {
            running: false,
            queue: VecDeque::new(),
        });
        if state.running || blocked || !state.queue.is_empty() {
            state.queue.push_back(item);
            return None;
        }
        state.running = true;
        Some(item)
    }

    /// The lane's item that was started is finished; answers with the one to start next.
    pub(crate) fn finish(&mut self, lane: &Lane) -> Option<T> {
        let blocked = self.blocked.contains(&lane.partition());
        let state = self.lanes.get_mut(lane)?;
        state.running = false;
        if state.queue.is_empty() {
            self.lanes.remove(lane);
            return None;
        }
        if blocked {
            return None;
        }
        state.running = true;
        state.queue.pop_front()
    }

    /// Starts further items of a lane whose item is at work, in order, as long as `joins`: they run
    /// with it, and count as finished with it.
    pub(crate) fn join(&mut self, lane: &Lane, most: usize, joins: impl Fn(&T) -> bool) -> Vec<T> {
        let mut joined = Vec::new();
        if self.blocked.contains(&lane.partition()) {
            return joined;
        }
        let Some(state) = self.lanes.get_mut(lane).filter(|state| state.running) else {
            return joined;
        };
        while joined.len() < most && state.queue.front().is_some_and(&joins) {
            joined.extend(state.queue.pop_front());
        }
        joined
    }

    /// Takes out what was not started of a partition, but for what `stays`: that still starts, in its lane's order.
    /// Of a blocked partition nothing stays.
    pub(crate) fn purge(&mut self, tp: TopicPartition, stays: impl Fn(&T) -> bool) -> Vec<T> {
        let mut purged = Vec::new();
        let blocked = self.blocked.remove(&tp);
        self.lanes.retain(|lane, state| {
            if lane.partition() == tp {
                let goes = |item: &T| blocked || !stays(item);
                let first = state.queue.iter().position(goes);
                purged.extend(state.queue.drain(first.unwrap_or(state.queue.len())..));
            }
            state.running || !state.queue.is_empty()
        });
        purged
    }

    /// Starts nothing more of a partition.
    pub(crate) fn block(&mut self, tp: TopicPartition) {
        self.blocked.insert(tp);
    }

    /// Goes on with a partition; answers with what is to be started now.
    pub(crate) fn unblock(&mut self, tp: TopicPartition) -> Vec<T> {
        if !self.blocked.remove(&tp) {
            return Vec::new();
        }
        let idle = self
            .lanes
            .iter_mut()
            .filter(|(lane, state)| lane.partition() == tp && !state.running);
        idle.filter_map(|(_, state)| {
            let item = state.queue.pop_front()?;
            state.running = true;
            Some(item)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use highwater_proto::{PartitionId, TopicId};
    use proptest::prelude::*;

    use super::*;

    fn lane(partition: u32, key: u8) -> Lane {
        let tp = TopicPartition::new(TopicId(1), PartitionId(partition));
        Lane::Key(tp, Bytes::copy_from_slice(&[key]))
    }

    #[test]
    fn what_waits_in_a_lane_joins_its_item_in_order() {
        let mut dispatcher = Dispatcher::default();
        let (one, other) = (lane(0, 1), lane(0, 2));
        assert_eq!(dispatcher.push(one.clone(), 1), Some(1));
        assert_eq!(dispatcher.push(other.clone(), 9), Some(9));
        for item in 2..8 {
            assert_eq!(dispatcher.push(one.clone(), item), None);
        }
        assert_eq!(dispatcher.join(&one, 3, |_| true), [2, 3, 4]);
        assert_eq!(dispatcher.join(&one, 9, |item| *item < 6), [5]);
        assert!(dispatcher.join(&other, 3, |_| true).is_empty());
        dispatcher.block(one.partition());
        assert!(dispatcher.join(&one, 3, |_| true).is_empty());
        assert!(dispatcher.finish(&one).is_none());
        // Nothing of the lane is at work: nothing can be joined.
        assert!(dispatcher.join(&one, 3, |_| true).is_empty());
        assert_eq!(dispatcher.unblock(one.partition()), [6]);
        assert_eq!(dispatcher.finish(&one), Some(7));
    }

    #[test]
    fn what_stays_starts_in_its_lane_and_the_rest_goes() {
        let mut dispatcher = Dispatcher::default();
        let (one, other) = (lane(0, 1), lane(0, 2));
        assert_eq!(dispatcher.push(one.clone(), 1), Some(1));
        assert_eq!(dispatcher.push(other.clone(), 2), Some(2));
        for (lane, item) in [(&one, 3), (&other, 4), (&one, 5), (&one, 6)] {
            assert_eq!(dispatcher.push(lane.clone(), item), None);
        }
        let mut gone = dispatcher.purge(one.partition(), |item| *item < 4);
        gone.sort_unstable();
        assert_eq!(gone, [4, 5, 6]);
        assert_eq!(dispatcher.finish(&one), Some(3));
        assert_eq!(dispatcher.finish(&one), None);
        assert_eq!(dispatcher.finish(&other), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u32, u8),
        Finish(prop::sample::Index),
        Purge(u32),
        Block(u32),
        Unblock(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0_u32..3, 0_u8..4).prop_map(|(p, k)| Step::Push(p, k)),
            5 => any::<prop::sample::Index>().prop_map(Step::Finish),
            1 => (0_u32..3).prop_map(Step::Purge),
            1 => (0_u32..3).prop_map(Step::Block),
            1 => (0_u32..3).prop_map(Step::Unblock),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        #[test]
        fn keys_keep_their_order_one_at_a_time(steps in steps()) {
            let mut dispatcher: Dispatcher<(Lane, u64)> = Dispatcher::default();
            let mut number = 0;
            let mut running: Vec<(Lane, u64)> = Vec::new();
            let mut waiting: BTreeMap<Lane, VecDeque<u64>> = BTreeMap::new();
            let mut blocked = BTreeSet::new();
            for step in steps {
                let mut started = Vec::new();
                match step {
                    Step::Push(p, k) => {
                        number += 1;
                        waiting.entry(lane(p, k)).or_default().push_back(number);
                        started.extend(dispatcher.push(lane(p, k), (lane(p, k), number)));
                    }
                    Step::Finish(index) if !running.is_empty() => {
                        let (of, _) = running.swap_remove(index.index(running.len()));
                        started.extend(dispatcher.finish(&of));
                    }
                    Step::Finish(_) => {}
                    Step::Purge(p) => {
                        let tp = lane(p, 0).partition();
                        let mut purged: Vec<u64> = dispatcher.purge(tp, |_| false).into_iter().map(|(_, n)| n).collect();
                        let mut expected: Vec<u64> = waiting.iter_mut()
                            .filter(|(of, _)| of.partition() == tp)
                            .flat_map(|(_, queue)| queue.drain(..))
                            .collect();
                        purged.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(purged, expected);
                        blocked.remove(&p);
                    }
                    Step::Block(p) => {
                        dispatcher.block(lane(p, 0).partition());
                        blocked.insert(p);
                    }
                    Step::Unblock(p) => {
                        blocked.remove(&p);
                        started.extend(dispatcher.unblock(lane(p, 0).partition()));
                    }
                }
                for (of, number) in started {
                    prop_assert!(!blocked.contains(&of.partition().partition.0), "blocked");
                    prop_assert!(!running.iter().any(|(other, _)| *other == of), "two of a key");
                    prop_assert_eq!(waiting.get_mut(&of).and_then(VecDeque::pop_front), Some(number));
                    running.push((of, number));
                }
                // Nothing waits for nothing.
                for (of, queue) in &waiting {
                    let idle = !running.iter().any(|(other, _)| other == of);
                    let free = !blocked.contains(&of.partition().partition.0);
                    prop_assert!(queue.is_empty() || !idle || !free, "{of:?} stands still");
                }
            }
        }
    }
}
