//! The partitions a member works on, and what is in flight: plain data under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::{PartitionId, TopicId, TopicPartition};
use tokio_util::sync::CancellationToken;

use super::GroupError;
use super::config::NamedPartition;
use super::dispatch::{Dispatcher, Lane};
use super::membership::Membership;
use super::progress::Progress;
use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

/// Names one record that was handed out, under one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub tp: TopicPartition,
    /// Counts the grants that this process was given.
    pub grant: u64,
    pub offset: u64,
    pub bytes: usize,
}

/// How the work on a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    /// It is in the dead letter queue; its key is to be parked under this name.
    DeadLettered(Bytes),
    /// It comes again, to this member or another.
    Abandoned,
}

/// A record to be handled.
#[derive(Debug)]
pub(crate) struct Job {
    pub lane: Lane,
    pub ticket: Ticket,
    pub record: ConsumedRecord,
    /// The id of the topic that the record was first read from.
    pub origin: TopicId,
    /// It came by way of the redrive topic.
    pub redriven: bool,
    /// Cancelled when its partition is given up.
    pub cancel: CancellationToken,
}

/// A partition in work.
#[derive(Debug)]
pub(crate) struct Part {
    pub grant: u64,
    pub topic: Arc<str>,
    pub progress: Progress,
    /// Records in the dead letter queue whose keys the group has not parked yet, by offset, with the
    /// keys' names.
    pub parks: BTreeMap<u64, Bytes>,
    pub cancel: CancellationToken,
    /// Records handed out to a handler or the application, and not finished.
    pub running: usize,
    /// The highest offset that a handler was called with. What lies below is handled before the partition goes: what
    /// is committed ends at the first record that is not, and what has overtaken it would be handled twice.
    pub begun: Option<u64>,
    /// Lanes in which a record was given up with the partition. What is behind it comes again after it.
    pub abandoned: BTreeSet<Lane>,
    /// Reads no further until what was handed out is finished.
    pub held_back: bool,
}

/// Everything that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub membership: Membership,
    pub parts: BTreeMap<TopicPartition, Part>,
    pub names: BTreeMap<NamedPartition, TopicPartition>,
    pub dispatcher: Dispatcher<Job>,
    /// Jobs of partitions that were blocked.
    pub ready: Vec<Job>,
    pub parked: BTreeSet<(TopicPartition, Bytes)>,
    /// Bytes handed out or queued, and not finished.
    pub bytes: usize,
    pub grants: u64,
    /// Partitions of a lost session, for the hook.
    pub lost: Vec<NamedPartition>,
    /// Parked keys are to be listed anew.
    pub relist: bool,
    pub paused_all: bool,
    pub paused: BTreeSet<NamedPartition>,
    pub stopping: bool,
    pub ended: Option<GroupError>,
}

impl Part {
    /// Nothing of it was handed out yet.
    pub(super) fn new(grant: u64, topic: Arc<str>, progress: Progress) -> Self {
        Self {
            grant,
            topic,
            progress,
            parks: BTreeMap::new(),
            cancel: CancellationToken::new(),
            running: 0,
            begun: None,
            abandoned: BTreeSet::new(),
            held_back: false,
        }
    }

    /// Whether a record is to be finished although its partition is given up: a handler was called with a
    /// later one of the partition, and none before it in its lane was given up.
    pub(super) fn is_overtaken(&self, job: &Job) -> bool {
        let Ticket { grant, offset, .. } = job.ticket;
        let overtaken = self.grant == grant && self.begun.is_some_and(|begun| offset < begun);
        overtaken && !self.abandoned.contains(&job.lane)
    }

    /// What the next commit parks: offsets and names. A record is parked when what is committed passes it, never
    /// earlier: what comes again after a member died is then never before what is parked of its key.
    ///
    /// All records without a key count as one parked key, from its first record to its last. They fail in any
    /// order; one that came below the last would be taken for known, or go when those before it are unparked.
    pub(super) fn parks_due(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        let due = self.parks.range(..self.progress.first_open());
        due.map(|(offset, name)| (*offset, name))
    }
}

/// What comes next.
pub(crate) enum Next {
    Job(Job),
    /// One partition cannot be read.
    Trouble(ConsumeError),
    Stopped,
    Ended(GroupError),
}

impl State {
    pub(super) fn new(session_timeout: Duration) -> Self {
        Self {
            membership: Membership::new(session_timeout),
            parts: BTreeMap::new(),
            names: BTreeMap::new(),
            dispatcher: Dispatcher::default(),
            ready: Vec::new(),
            parked: BTreeSet::new(),
            bytes: 0,
            grants: 0,
            lost: Vec::new(),
            relist: false,
            paused_all: false,
            paused: BTreeSet::new(),
            stopping: false,
            ended: None,
        }
    }

    pub(crate) fn started(&mut self, ticket: &Ticket) {
        if let Some(part) = self.parts.get_mut(&ticket.tp)
            && part.grant == ticket.grant
        {
            part.running += 1;
        }
    }

    /// Drops what waits of a partition; what was overtaken stays if it is to be finished.
    pub(super) fn purge(&mut self, tp: TopicPartition, finish: bool) {
        let part = self.parts.get(&tp).filter(|_| finish);
        let stays = |job: &Job| part.is_some_and(|part| part.is_overtaken(job));
        let purged = self.dispatcher.purge(tp, stays);
        let bytes: usize = purged.iter().map(|job| job.ticket.bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Partitions with dead letters whose keys are due to be parked, and are not yet.
    pub(crate) fn with_parks(&self) -> Vec<TopicPartition> {
        let is_due = |part: &Part| part.parks_due().next().is_some();
        let waiting = self.parts.iter().filter(|(_, part)| is_due(part));
        waiting.map(|(tp, _)| *tp).collect()
    }

    /// Names of these partitions, as far as they are worked on.
    pub(crate) fn named(&self, partitions: &[TopicPartition]) -> Vec<NamedPartition> {
        let name = |tp: &TopicPartition| {
            let part = self.parts.get(tp)?;
            Some((Arc::clone(&part.topic), tp.partition))
        };
        partitions.iter().filter_map(name).collect()
    }

    /// Whether handlers work on any of these partitions.
    pub(crate) fn is_running(&self, partitions: &[TopicPartition]) -> bool {
        partitions
            .iter()
            .any(|tp| self.parts.get(tp).is_some_and(|part| part.running > 0))
    }
}

pub(super) fn lane(ordering: super::Ordering, tp: TopicPartition, record: &ConsumedRecord) -> Lane {
    match (ordering, &record.key) {
        (super::Ordering::Partition, _) => Lane::Partition(tp),
        (super::Ordering::Key, Some(key)) if !key.is_empty() => Lane::Key(tp, key.clone()),
        (super::Ordering::Key, _) => Lane::Alone(tp, record.offset.0),
    }
}

pub(super) fn size(record: &ConsumedRecord) -> usize {
    /// What a record takes in memory beside its bytes.
    const FRAME: usize = 128;
    let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter();
    let headers: usize = headers.map(|(key, value)| key.len() + bytes(value)).sum();
    FRAME + bytes(&record.key) + bytes(&record.value) + headers
}

/// A partition's number in messages.
pub(crate) fn shown((topic, partition): &(Arc<str>, PartitionId)) -> String {
    format!("{topic}-{partition}")
}
