//! Logs on their way here from another replica, as the writer has them: beside the partitions' own until
//! the shard's state is replaced, then in their places, all at one step of the shard's order.

use std::collections::BTreeMap;

use highwater_env::Disk;
use highwater_proto::{ShardId, TopicPartition};

use super::job::{Manifests, NewContent};
use super::write_worker::{Key, WriteWorker, range_of};
use crate::log::PartitionLog;
use crate::manifest::PartitionManifest;

impl<D: Disk> WriteWorker<D> {
    pub(super) fn begin_aside(&mut self, key: Key, arrival: u64) {
        self.give_up(key);
        let own = self.logs.get(&key);
        let log = match own.filter(|own| own.owner().arrival == arrival) {
            Some(own) => own.aside(),
            None => self.beside_nothing(key, arrival),
        };
        self.aside.insert(key, log);
    }
    /// An empty log in a directory of its own. Which one is told by the move; what an earlier attempt left
    /// there is kept as long as a durable checkpoint may name it.
    fn beside_nothing(&mut self, key: Key, arrival: u64) -> PartitionLog<D> {
        if let Some(mut before) = self.given_up.remove(&(key, arrival)) {
            let empty = before.aside();
            before.take_over(empty);
            return before;
        }
        self.empty_log(key, arrival)
    }
    pub(super) fn freeze_aside(&self, shard: ShardId) -> Manifests {
        let frozen = |(key, log): (&Key, &PartitionLog<D>)| (key.1, log.freeze());
        let mut manifests: BTreeMap<TopicPartition, PartitionManifest> =
            range_of(&self.logs, shard).map(frozen).collect();
        manifests.extend(range_of(&self.aside, shard).map(frozen));
        manifests.into_iter().collect()
    }
    pub(super) fn take_aside(&mut self, shard: ShardId, new: NewContent) {
        for key in self.keys_aside(shard) {
            let Some(log) = self.aside.remove(&key) else {
                continue;
            };
            let arrival = log.owner().arrival;
            let own = self.logs.get_mut(&key);
            match own.filter(|own| own.owner().arrival == arrival) {
                Some(own) => own.take_over(log),
                None => {
                    self.delete(key);
                    self.add(log);
                }
            }
        }
        for (partition, log_start) in new.log_starts {
            if let Some(log) = self.logs.get_mut(&(shard, partition)) {
                log.set_log_start(log_start);
            }
        }
        for partition in new.gone {
            self.delete((shard, partition));
        }
        // What an earlier attempt left comes no more: moves are numbered, and this state knows later ones.
        self.delete_given_up(shard);
    }
    pub(super) fn delete_given_up(&mut self, shard: ShardId) {
        let of_shard = |((of, _), _): &(Key, u64)| *of == shard;
        let left: Vec<_> = self.given_up.keys().copied().filter(of_shard).collect();
        for key in left {
            let log = self.given_up.remove(&key);
            self.deleted.extend(log.map(|log| (key, log)));
        }
    }
    pub(super) fn give_up_aside(&mut self, shard: ShardId) {
        for key in self.keys_aside(shard) {
            self.give_up(key);
        }
    }
    fn give_up(&mut self, key: Key) {
        let Some(log) = self.aside.remove(&key) else {
            return;
        };
        let arrival = log.owner().arrival;
        let own = self.logs.get_mut(&key);
        match own.filter(|own| own.owner().arrival == arrival) {
            Some(own) => own.give_up(log),
            None => {
                self.given_up.insert((key, arrival), log);
            }
        }
    }
    fn keys_aside(&self, shard: ShardId) -> Vec<Key> {
        range_of(&self.aside, shard).map(|(key, _)| *key).collect()
    }
}
