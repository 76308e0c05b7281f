//! The writer: owns every partition's log of the broker.
//!
//! It takes all jobs that wait, writes appends to one partition together, and freezes a shard's
//! manifests exactly at its barriers. An append that finds no space holds everything behind it
//! until there is some; nothing is lost, since the write-ahead log has it all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::{Disk, Worker};
use highwater_proto::{ShardId, TopicPartition};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::job::{Manifests, Place, Removal, ShardJob, Step, WriteJob};
use crate::append::AppendBatch;
use crate::compact::Replaced;
use crate::error::{AppendError, OpenError};
use crate::layout::{LogIdentity, parse_partition_dir};
use crate::log::PartitionLog;
use crate::manifest::PartitionManifest;

pub(super) type Key = (ShardId, TopicPartition);

/// Appends to one log that are written together.
struct Pending {
    handle: u64,
    sequence: u64,
    batches: Vec<AppendBatch>,
    permit: OwnedSemaphorePermit,
}

pub(super) struct WriteWorker<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) logs: BTreeMap<Key, PartitionLog<D>>,
    /// On their way here from another replica (`aside.rs`).
    pub(super) aside: BTreeMap<Key, PartitionLog<D>>,
    /// Of those that were given up, the ones that lay beside nothing, by the move that brought them to
    /// that replica: the next attempt goes on in their directories.
    pub(super) given_up: BTreeMap<(Key, u64), PartitionLog<D>>,
    /// Deleted, but a durable checkpoint may still name them; by the move that brought them, too: a
    /// partition may have left the shard and come back.
    pub(super) deleted: BTreeMap<(Key, u64), PartitionLog<D>>,
    pending: BTreeMap<(Key, Place), Pending>,
    /// Bytes of the appends that are gathered.
    pending_bytes: usize,
    /// Waiting for space, in order. Bounded by the permits that the jobs hold.
    held: VecDeque<ShardJob>,
    /// The last job of each shard that was done.
    done: BTreeMap<ShardId, u64>,
    /// Through which handle all of a shard was deleted last: who still works through an earlier one has not
    /// noticed that its replica is gone.
    ended: BTreeMap<ShardId, u64>,
}

impl<D: Disk> Worker for WriteWorker<D> {
    type Job = WriteJob<D>;

    fn run(&mut self, jobs: &mut Vec<WriteJob<D>>) -> bool {
        let mut go_on = true;
        let mut write_now = false;
        for job in jobs.drain(..) {
            write_now |= !matches!(job, WriteJob::Shard(_));
            match job {
                WriteJob::Shard(job) => self.take(job),
                WriteJob::Wake | WriteJob::Write => {}
                WriteJob::Retry => self.retry(),
                WriteJob::Stop => go_on = false,
                other => self.answer(other),
            }
        }
        // A barrier may have been set without a wake that found room.
        write_now |= !self.shared.barriers.shards().is_empty();
        if write_now || self.pending_bytes >= self.shared.config.gather_bytes {
            self.flush();
        }
        self.freeze_due();
        self.shared
            .storage_full
            .store(!self.held.is_empty(), Ordering::Release);
        go_on && self.shared.files.faults.first().is_none()
    }
    fn stop(&mut self) {
        self.shared.barriers.stop();
        self.shared.permits.close();
        if self.shared.files.faults.first().is_none() {
            // A clean end leaves nothing that only the kernel knows. A failure is in the hook.
            let _ = self.shared.files.sync(|_| true);
        }
    }
}

impl<D: Disk> WriteWorker<D> {
    pub(super) fn new(shared: Arc<Shared<D>>) -> Self {
        Self {
            shared,
            logs: BTreeMap::new(),
            aside: BTreeMap::new(),
            given_up: BTreeMap::new(),
            deleted: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            held: VecDeque::new(),
            done: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Does a shard's job, or holds it behind others.
    fn take(&mut self, job: ShardJob) {
        if self
            .ended
            .get(&job.shard)
            .is_some_and(|ended| job.handle < *ended)
        {
            return;
        }
        if matches!(job.step, Step::DeleteAll { .. }) {
            self.ended.insert(job.shard, job.handle);
            self.drop_waiting(job.shard);
            // Who waits for manifests of before gets none: without its logs they would be another state's.
            drop(self.shared.barriers.take_before(job.shard, job.sequence));
            self.perform(job.shard, job.step);
            self.done.insert(job.shard, job.sequence);
            return;
        }
        if self.held.is_empty() && self.shared.barriers.is_before(job.shard, job.sequence) {
            self.flush();
            if self.held.is_empty() {
                self.freeze(job.shard, job.sequence);
            }
        }
        if !self.held.is_empty() {
            self.held.push_back(job);
            return;
        }
        let ShardJob {
            shard,
            handle,
            sequence,
            step,
            permit,
        } = job;
        if let Step::Append {
            partition,
            place,
            batches,
        } = step
        {
            self.gather(
                ((shard, partition), place),
                Pending {
                    handle,
                    sequence,
                    batches,
                    permit,
                },
            );
            return;
        }
        self.flush();
        if self.held.is_empty() {
            self.perform(shard, step);
            self.done.insert(shard, sequence);
        } else {
            self.held.push_back(ShardJob {
                shard,
                handle,
                sequence,
                step,
                permit,
            });
        }
    }
    /// Nothing of what waits of a shard is written any more.
    fn drop_waiting(&mut self, shard: ShardId) {
        self.held.retain(|job| job.shard != shard);
        self.pending.retain(|(key, _), _| key.0 != shard);
        let batches = self.pending.values().flat_map(|waiting| &waiting.batches);
        self.pending_bytes = batches.map(AppendBatch::len).sum();
    }
    fn gather(&mut self, key: (Key, Place), new: Pending) {
        self.pending_bytes += new.batches.iter().map(AppendBatch::len).sum::<usize>();
        match self.pending.entry(key) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            std::collections::btree_map::Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                waiting.sequence = new.sequence;
                waiting.batches.extend(new.batches);
                waiting.permit.merge(new.permit);
            }
        }
    }
    /// Writes what was gathered.
    fn flush(&mut self) {
        self.pending_bytes = 0;
        for ((key, place), pending) in std::mem::take(&mut self.pending) {
            match self.append(key, place, &pending.batches) {
                Ok(()) => {
                    let done = self.done.entry(key.0).or_default();
                    *done = pending.sequence.max(*done);
                }
                Err(AppendError::StorageFull { path }) => {
                    if self.held.is_empty() {
                        tracing::error!(path = %path.display(), "no space left for segments");
                    }
                    let step = Step::Append {
                        partition: key.1,
                        place,
                        batches: pending.batches,
                    };
                    let Pending {
                        handle,
                        sequence,
                        permit,
                        ..
                    } = pending;
                    self.held.push_back(ShardJob {
                        shard: key.0,
                        handle,
                        sequence,
                        step,
                        permit,
                    });
                }
                Err(AppendError::Fault(_)) => return,
                Err(other) => return self.broken(key, other),
            }
        }
    }
    fn append(
        &mut self,
        key: Key,
        place: Place,
        batches: &[AppendBatch],
    ) -> Result<(), AppendError> {
        let logs = match place {
            Place::Own => &mut self.logs,
            Place::Aside => &mut self.aside,
        };
        match logs.get_mut(&key) {
            Some(log) => log.append_all(batches),
            None => {
                let source = io::Error::other("the partition is not open");
                let path = self.shared.config.root.join(key.1.to_string());
                Err(AppendError::Fault(
                    self.shared.files.faults.raise("append", path, source),
                ))
            }
        }
    }
    /// What apply decided cannot be written: this replica no longer holds what it must.
    fn broken(&self, key: Key, error: AppendError) {
        let path = self.shared.config.root.join(key.1.to_string());
        self.shared
            .files
            .faults
            .raise("append", path, io::Error::other(error));
    }
    fn retry(&mut self) {
        for job in std::mem::take(&mut self.held) {
            self.take(job);
        }
        self.flush();
    }

    fn perform(&mut self, shard: ShardId, step: Step) {
        match step {
            Step::Append { .. } => {}
            Step::Open {
                partitions,
                check,
                done,
            } => {
                // Nobody waits any more: the shard was given up.
                let _ = done.send(self.open(shard, partitions, check));
            }
            Step::Create { partition, arrival } => {
                if !self.logs.contains_key(&(shard, partition)) {
                    self.add(self.empty_log((shard, partition), arrival));
                }
            }
            Step::Trim {
                partition,
                log_start,
            } => {
                if let Some(log) = self.logs.get_mut(&(shard, partition)) {
                    log.set_log_start(log_start);
                }
            }
            Step::BeginAside { partition, arrival } => {
                self.begin_aside((shard, partition), arrival)
            }
            Step::SetCompacted {
                partition,
                compacted,
                next_offset,
            } => {
                if let Some(log) = self.aside.get_mut(&(shard, partition)) {
                    log.set_compacted(compacted, next_offset);
                }
            }
            Step::FreezeAside { done } => {
                // Nobody waits any more: it was given up.
                let _ = done.send(self.freeze_aside(shard));
            }
            Step::TakeAside { new, done } => {
                self.take_aside(shard, new);
                let _ = done.send(());
            }
            Step::GiveUpAside => self.give_up_aside(shard),
            Step::Delete { partition } => {
                self.delete((shard, partition));
            }
            Step::DeleteAll { named, done } => {
                self.delete_all(shard, named);
                let _ = done.send(());
            }
        }
    }
    fn open(
        &mut self,
        shard: ShardId,
        partitions: Manifests,
        check: bool,
    ) -> Result<(), OpenError> {
        for (partition, manifest) in partitions {
            let owner = LogIdentity {
                shard,
                partition,
                arrival: manifest.arrival,
            };
            let dir = owner.dir(&self.shared.config.root);
            let config = self.shared.config.segments;
            let log = PartitionLog::open(&self.shared.files, owner, &dir, &manifest, config)?;
            if check {
                log.check_files()?;
            }
            self.add(log);
        }
        Ok(())
    }
    /// A log without records, in the directory of the move that brought it.
    pub(super) fn empty_log(&self, (shard, partition): Key, arrival: u64) -> PartitionLog<D> {
        let owner = LogIdentity {
            shard,
            partition,
            arrival,
        };
        let dir = owner.dir(&self.shared.config.root);
        let config = self.shared.config.segments;
        PartitionLog::create(&self.shared.files, owner, &dir, config)
    }
    /// Ends a partition; its files stay while a durable checkpoint may name them.
    pub(super) fn delete(&mut self, key: Key) {
        if let Some(log) = self.logs.remove(&key) {
            self.shared.readers.write().remove(&key);
            self.deleted.insert((key, log.owner().arrival), log);
        }
    }
    pub(super) fn add(&mut self, log: PartitionLog<D>) {
        let LogIdentity {
            shard, partition, ..
        } = log.owner();
        let key = (shard, partition);
        self.shared.readers.write().insert(key, log.reader());
        self.logs.insert(key, log);
    }
    fn delete_all(&mut self, shard: ShardId, named: Vec<(TopicPartition, u64)>) {
        self.give_up_aside(shard);
        self.delete_given_up(shard);
        for (partition, arrival) in named {
            let key = (shard, partition);
            let is_open = |log: &PartitionLog<D>| log.owner().arrival == arrival;
            if !self.logs.get(&key).is_some_and(is_open) {
                let log = self.empty_log(key, arrival);
                self.deleted.entry((key, arrival)).or_insert(log);
            }
        }
        let keys: Vec<Key> = range_of(&self.logs, shard).map(|(key, _)| *key).collect();
        for key in keys {
            self.delete(key);
        }
    }

    /// Answers the shard's barriers before its job `sequence`.
    fn freeze(&mut self, shard: ShardId, sequence: u64) {
        let due = self.shared.barriers.take_before(shard, sequence);
        if due.is_empty() {
            return;
        }
        let manifests: Manifests = range_of(&self.logs, shard)
            .map(|(key, log)| (key.1, log.freeze()))
            .collect();
        for done in due {
            // A ticket that was dropped wants nothing.
            let _ = done.send(manifests.clone());
        }
    }
    /// Answers barriers behind which nothing has come yet.
    fn freeze_due(&mut self) {
        if !self.pending.is_empty() || self.shared.files.faults.first().is_some() {
            return;
        }
        for shard in self.shared.barriers.shards() {
            if self.held.iter().all(|job| job.shard != shard) {
                let done = self.done.get(&shard).copied().unwrap_or(0);
                self.freeze(shard, done + 1);
            }
        }
    }

    /// Jobs that ask for what may be removed.
    fn answer(&mut self, job: WriteJob<D>) {
        self.flush();
        match job {
            WriteJob::Replace { new, done } => {
                let LogIdentity {
                    shard, partition, ..
                } = new.shared.owner;
                let log = self.logs.get_mut(&(shard, partition));
                let outcome = log.map_or(Replaced::Stale, |log| log.replace(&new));
                let _ = done.send((outcome, new));
            }
            WriteJob::TakeUnlinkable {
                shard,
                durable,
                done,
            } => {
                let _ = done.send(self.unlinkable(shard, &durable));
            }
            WriteJob::RemoveOrphans {
                shard,
                durable,
                done,
            } => {
                let orphans = self.orphans(shard, &durable);
                let _ = done.send(orphans.carry_out(self.shared.files.disk()));
            }
            WriteJob::RemoveOrphanPartitions { named, done } => {
                let orphans = self.orphan_partitions(&named);
                let _ = done.send(orphans.carry_out(self.shared.files.disk()));
            }
            _ => {}
        }
    }
    fn unlinkable(&mut self, shard: ShardId, durable: &Manifests) -> Removal {
        let durable: BTreeMap<_, _> = durable.iter().map(|(p, m)| (*p, m)).collect();
        let nothing = PartitionManifest::default();
        let mut removal = Removal::default();
        for (key, log) in self.logs.range_mut((shard, TopicPartition::default())..) {
            if key.0 != shard {
                break;
            }
            // What another move brought lies in another directory.
            let arrival = log.owner().arrival;
            let named = durable.get(&key.1).filter(|m| m.arrival == arrival);
            removal
                .files
                .extend(log.take_unlinkable(named.unwrap_or(&&nothing)));
        }
        let named = |partition: &TopicPartition, arrival: u64| {
            let manifest = durable.get(partition);
            manifest.is_some_and(|manifest| manifest.arrival == arrival)
        };
        let deleted = self.deleted.keys().copied();
        let gone: Vec<(Key, u64)> = deleted
            .filter(|((of, partition), arrival)| *of == shard && !named(partition, *arrival))
            .collect();
        for key in gone {
            if let Some(log) = self.deleted.remove(&key) {
                removal.directories.push(log.dir().to_owned());
                log.close_for_removal();
            }
        }
        removal
    }
    fn orphans(&self, shard: ShardId, durable: &Manifests) -> Removal {
        let mut removal = Removal::default();
        for (partition, manifest) in durable {
            let log = self.logs.get(&(shard, *partition));
            let Some(log) = log.filter(|log| log.owner().arrival == manifest.arrival) else {
                continue;
            };
            match log.orphans(manifest) {
                Ok(found) => removal.files.extend(found),
                Err(error) => tracing::warn!(%partition, %error, "cannot look for orphan files"),
            }
        }
        removal
    }
    fn orphan_partitions(&self, named: &BTreeSet<(TopicPartition, u64)>) -> Removal {
        let root: &Path = &self.shared.config.root;
        let used: BTreeSet<(TopicPartition, u64)> = self
            .logs
            .values()
            .chain(self.aside.values())
            .chain(self.given_up.values())
            .chain(self.deleted.values())
            .map(|log| (log.owner().partition, log.owner().arrival))
            .collect();
        let mut directories = match self.shared.files.disk().read_dir(root) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(root = %root.display(), %error, "cannot look for orphans");
                Vec::new()
            }
        };
        directories.retain(|path| {
            parse_partition_dir(path).is_some_and(|p| !named.contains(&p) && !used.contains(&p))
        });
        Removal {
            files: Vec::new(),
            directories,
        }
    }
}

/// The entries of one shard.
pub(super) fn range_of<V>(
    map: &BTreeMap<Key, V>,
    shard: ShardId,
) -> impl Iterator<Item = (&Key, &V)> {
    map.range((shard, TopicPartition::default())..)
        .take_while(move |(key, _)| key.0 == shard)
}
