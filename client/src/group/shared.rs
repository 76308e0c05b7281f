//! What a member's tasks and handles share: the partitions in work, what is in flight, and who is
//! to be woken.
//!
//! One lock guards it all, and the reader's lock is only ever taken inside of it: a record that
//! the reader hands out while the lock is held belongs to the grant that is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::task::AtomicWaker;
use highwater_proto::{PartitionId, TopicId, TopicPartition};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::GroupError;
use super::config::{GroupConfig, NamedPartition};
use super::coordinator::Coordinator;
use super::dead_letter;
use super::dispatch::{Dispatcher, Lane};
use super::membership::{Grant, Membership};
use super::progress::Progress;
use crate::client::Client;
use crate::consumer::{Consumer, Shared as Reader};
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
    /// It is in the dead letter queue; its key is to be parked with the next commit.
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
    /// Records in the dead letter queue whose keys the group has not parked yet, by offset.
    pub parks: BTreeMap<u64, Bytes>,
    pub cancel: CancellationToken,
    /// Records handed out to a handler or the application, and not finished.
    pub running: usize,
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

pub(crate) struct Shared {
    pub client: Client,
    pub config: GroupConfig,
    pub coordinator: Coordinator,
    pub reader: Arc<Reader>,
    pub redrive_topic: String,
    state: Mutex<State>,
    started: Instant,
    /// For the task that follows assignments.
    pub changed: Notify,
    /// For the task that beats: there is something to say.
    pub beat: Notify,
    /// For the task that commits.
    pub due: Notify,
    /// Counts records that ended; for whoever waits for handlers.
    pub settled: watch::Sender<u64>,
    /// For the application or the pump.
    pub waker: AtomicWaker,
    /// One commit at a time.
    pub ledger: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(crate) fn new(client: &Client, config: GroupConfig, reader: Arc<Reader>) -> Self {
        let cluster = Arc::clone(&client.inner.cluster);
        let state = State {
            membership: Membership::new(config.session_timeout),
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
        };
        Self {
            client: client.clone(),
            coordinator: Coordinator::new(cluster, Arc::clone(&config.group)),
            redrive_topic: super::redrive_topic(&config.group),
            config,
            reader,
            state: Mutex::new(state),
            started: Instant::now(),
            changed: Notify::new(),
            beat: Notify::new(),
            due: Notify::new(),
            settled: watch::Sender::new(0),
            waker: AtomicWaker::new(),
            ledger: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
    /// Time since the member was made.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The member is finished for good.
    pub(crate) fn end(&self, error: GroupError) {
        self.lose();
        self.state().ended.get_or_insert(error);
        self.waker.wake();
        self.settled.send_modify(|settled| *settled += 1);
    }

    /// The session is over: nothing is worked on any more, nothing is committed.
    pub(crate) fn lose(&self) {
        {
            let mut state = self.state();
            state.membership.lost();
            let partitions: Vec<_> = state.parts.keys().copied().collect();
            for tp in partitions {
                let name = self.drop_part(&mut state, tp);
                // Who leaves has been told already.
                if !state.stopping {
                    state.lost.extend(name);
                }
            }
        }
        self.changed.notify_one();
        self.beat.notify_one();
        self.waker.wake();
        self.settled.send_modify(|settled| *settled += 1);
    }

    /// Hands out nothing more of a partition, and takes back what no handler has begun.
    pub(crate) fn quiesce(&self, state: &mut State, tp: TopicPartition) {
        self.reader.act(|reader, _| reader.unassign(tp));
        if let Some(part) = state.parts.get(&tp) {
            part.cancel.cancel();
        }
        state.purge(tp);
    }

    /// Forgets a partition.
    pub(crate) fn drop_part(
        &self,
        state: &mut State,
        tp: TopicPartition,
    ) -> Option<NamedPartition> {
        self.quiesce(state, tp);
        let part = state.parts.remove(&tp)?;
        state.parked.retain(|(of, _)| *of != tp);
        let name = (part.topic, tp.partition);
        if state.names.get(&name) == Some(&tp) {
            state.names.remove(&name);
        }
        Some(name)
    }

    /// Begins to work on a partition from `start` on, if it is still wanted.
    pub(crate) fn begin(&self, grant: &Grant, start: u64, parked: &[Bytes]) -> bool {
        let mut state = self.state();
        if state.stopping || !state.membership.take(grant) {
            return false;
        }
        state.grants += 1;
        let name = (Arc::clone(&grant.topic), grant.tp.partition);
        let part = Part {
            grant: state.grants,
            topic: Arc::clone(&grant.topic),
            progress: Progress::new(start, grant.committed),
            parks: BTreeMap::new(),
            cancel: CancellationToken::new(),
            running: 0,
            held_back: false,
        };
        let due = part.progress.to_commit().is_some();
        state.parts.insert(grant.tp, part);
        let keys = parked.iter().map(|key| (grant.tp, key.clone()));
        state.parked.extend(keys);
        let paused = state.paused_all || state.paused.contains(&name);
        state.names.insert(name, grant.tp);
        self.reader.act(|reader, _| {
            reader.assign(grant.tp, Arc::clone(&grant.topic), start);
            reader.set_paused(grant.tp, paused);
        });
        drop(state);
        if due {
            self.due.notify_one();
        }
        true
    }

    /// The work on a record has ended. Answers with the lane's next job.
    pub(crate) fn settle(&self, ticket: Ticket, lane: Option<&Lane>, end: Outcome) -> Option<Job> {
        let next = {
            let mut guard = self.state();
            let state = &mut *guard;
            state.bytes = state.bytes.saturating_sub(ticket.bytes);
            let dead = matches!(end, Outcome::DeadLettered(_));
            if let Some(part) = state.parts.get_mut(&ticket.tp)
                && part.grant == ticket.grant
            {
                part.running = part.running.saturating_sub(1);
                match end {
                    Outcome::Abandoned => {}
                    Outcome::Finished => part.progress.finish(ticket.offset),
                    Outcome::DeadLettered(key) => {
                        part.parks.insert(ticket.offset, key.clone());
                        part.progress.finish(ticket.offset);
                        // Keys may have been listed anew while the record was on its way.
                        state.parked.insert((ticket.tp, key));
                    }
                }
                if part.held_back && part.progress.span() < self.config.in_flight_records / 2 {
                    part.held_back = false;
                    self.apply_pause(state, ticket.tp);
                }
            }
            if dead {
                self.due.notify_one();
            }
            let next = lane.and_then(|lane| state.dispatcher.finish(lane));
            if let Some(next) = &next {
                state.started(&next.ticket);
            }
            next
        };
        self.settled.send_modify(|settled| *settled += 1);
        self.waker.wake();
        next
    }

    /// Tells the reader whether a partition is to be read.
    pub(crate) fn apply_pause(&self, state: &State, tp: TopicPartition) {
        let Some(part) = state.parts.get(&tp) else {
            return;
        };
        let name = (Arc::clone(&part.topic), tp.partition);
        let paused = part.held_back || state.paused_all || state.paused.contains(&name);
        self.reader.act(|reader, _| reader.set_paused(tp, paused));
    }

    /// Pauses or resumes one partition (by name), or all.
    pub(crate) fn set_paused(&self, which: Option<NamedPartition>, paused: bool) {
        let mut state = self.state();
        match which {
            None => {
                state.paused_all = paused;
                if !paused {
                    state.paused.clear();
                }
            }
            Some(name) if paused => {
                state.paused.insert(name);
            }
            Some(name) => {
                state.paused.remove(&name);
            }
        }
        let partitions: Vec<_> = state.parts.keys().copied().collect();
        for tp in partitions {
            self.apply_pause(&state, tp);
        }
    }

    pub(crate) fn assignment(&self) -> Vec<NamedPartition> {
        self.state().names.keys().cloned().collect()
    }

    /// The next record, as it is handed out: queued in its lane (`lanes`), or for the application.
    pub(crate) fn poll_next(
        &self,
        consumer: &mut Consumer,
        lanes: bool,
        context: &mut Context<'_>,
    ) -> Poll<Next> {
        loop {
            // Registered before looking, so that what comes in between wakes this task.
            self.waker.register(context.waker());
            let mut state = self.state();
            if let Some(error) = &state.ended {
                return Poll::Ready(Next::Ended(error.clone()));
            }
            if state.stopping {
                return Poll::Ready(Next::Stopped);
            }
            if let Some(job) = state.ready.pop() {
                return Poll::Ready(Next::Job(job));
            }
            if state.bytes >= self.config.in_flight_bytes {
                return Poll::Pending;
            }
            let record = match consumer.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Next::Stopped),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Next::Trouble(error)),
                Poll::Ready(Some(Ok(record))) => record,
            };
            let Some(job) = self.take_in(&mut state, record) else {
                continue;
            };
            let job = if lanes {
                let lane = job.lane.clone();
                state.dispatcher.push(lane, job)
            } else {
                Some(job)
            };
            if let Some(job) = job {
                state.started(&job.ticket);
                return Poll::Ready(Next::Job(job));
            }
        }
    }

    fn take_in(&self, state: &mut State, record: ConsumedRecord) -> Option<Job> {
        let name = (Arc::clone(&record.topic), record.partition);
        let tp = *state.names.get(&name)?;
        let part = state.parts.get_mut(&tp)?;
        let offset = record.offset.0;
        if !part.progress.hand_out(offset) {
            return None;
        }
        let bytes = size(&record);
        let (grant, cancel) = (part.grant, part.cancel.clone());
        if part.progress.span() >= self.config.in_flight_records {
            part.held_back = true;
            self.apply_pause(state, tp);
        }
        state.bytes += bytes;
        let lane = lane(self.config.ordering, tp, &record);
        let redriven = *record.topic == *self.redrive_topic;
        let (record, origin) = if redriven {
            dead_letter::original(record)
        } else {
            (record, None)
        };
        Some(Job {
            lane,
            ticket: Ticket {
                tp,
                grant,
                offset,
                bytes,
            },
            record,
            origin: origin.unwrap_or(tp.topic),
            redriven,
            cancel,
        })
    }

    /// A partition stands still, or goes on.
    pub(crate) fn set_blocked(&self, tp: TopicPartition, blocked: bool) {
        let mut state = self.state();
        if blocked {
            state.dispatcher.block(tp);
            return;
        }
        let jobs = state.dispatcher.unblock(tp);
        for job in &jobs {
            state.started(&job.ticket);
        }
        state.ready.extend(jobs);
        drop(state);
        self.waker.wake();
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
    pub(crate) fn started(&mut self, ticket: &Ticket) {
        if let Some(part) = self.parts.get_mut(&ticket.tp)
            && part.grant == ticket.grant
        {
            part.running += 1;
        }
    }

    fn purge(&mut self, tp: TopicPartition) {
        let purged = self.dispatcher.purge(tp);
        let bytes: usize = purged.iter().map(|job| job.ticket.bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Partitions with dead letters whose keys are not parked yet.
    pub(crate) fn with_parks(&self) -> Vec<TopicPartition> {
        let waiting = self.parts.iter().filter(|(_, part)| !part.parks.is_empty());
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

fn lane(ordering: super::Ordering, tp: TopicPartition, record: &ConsumedRecord) -> Lane {
    match (ordering, &record.key) {
        (super::Ordering::Partition, _) => Lane::Partition(tp),
        (super::Ordering::Key, Some(key)) if !key.is_empty() => Lane::Key(tp, key.clone()),
        (super::Ordering::Key, _) => Lane::Alone(tp, record.offset.0),
    }
}

fn size(record: &ConsumedRecord) -> usize {
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
