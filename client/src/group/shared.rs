//! What a member's tasks and handles share: the partitions in work, what is in flight, and who is
//! to be woken.
//!
//! One lock guards it all, and the reader's lock is only ever taken inside of it: a record that
//! the reader hands out while the lock is held belongs to the grant that is in force.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::task::AtomicWaker;
use highwater_proto::{PartitionId, TopicPartition};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::GroupError;
use super::config::{GroupConfig, NamedPartition};
use super::coordinator::Coordinator;
use super::dead_letter;
use super::dispatch::Lane;
use super::membership::Grant;
use super::progress::Progress;
use super::state::{Job, Next, Outcome, Part, State, Ticket, lane, size};
use crate::client::Client;
use crate::consumer::{Consumer, Shared as Reader};
use crate::error::ConsumeError;
use crate::record::ConsumedRecord;

/// How long a partition that cannot be read stands still before it is tried again.
const UNREADABLE: Duration = Duration::from_secs(5);

/// What tasks and handles of one member share.
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
        let state = State::new(config.session_timeout);
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
    pub(crate) fn instant(&self, since_made: Duration) -> Instant {
        self.started + since_made
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
        state.purge(tp, true);
    }

    /// Forgets a partition.
    pub(crate) fn drop_part(
        &self,
        state: &mut State,
        tp: TopicPartition,
    ) -> Option<NamedPartition> {
        self.quiesce(state, tp);
        state.purge(tp, false);
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
        let progress = Progress::new(start, grant.committed);
        let part = Part::new(state.grants, Arc::clone(&grant.topic), progress);
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

    /// How many of these records of a lane, from the first on, a handler may be called with; takes note of it. Of a
    /// partition that is given up, only what was overtaken.
    pub(crate) fn begin_work<'a, 'b>(&self, jobs: &'a [&'b Job]) -> &'a [&'b Job] {
        let mut state = self.state();
        let Some(first) = jobs.first().map(|job| &job.ticket) else {
            return jobs;
        };
        let part = state.parts.get_mut(&first.tp);
        let Some(part) = part.filter(|part| part.grant == first.grant) else {
            return &[];
        };
        let goes = |job: &&&Job| !part.cancel.is_cancelled() || part.is_overtaken(job);
        let count = jobs.iter().take_while(goes).count();
        let jobs = jobs.get(..count).unwrap_or_default();
        part.begun = part.begun.max(jobs.last().map(|job| job.ticket.offset));
        jobs
    }

    /// Ends when a record's partition is given up, and the record with it.
    pub(crate) async fn given_up(&self, job: &Job) {
        job.cancel.cancelled().await;
        let is_finished = {
            let state = self.state();
            let part = state.parts.get(&job.ticket.tp);
            part.is_some_and(|part| part.is_overtaken(job))
        };
        if is_finished {
            std::future::pending().await
        }
    }

    /// A record is given up with its partition: nothing behind it in its lane is begun.
    pub(crate) fn abandon(&self, job: &Job) {
        let mut state = self.state();
        let part = state.parts.get_mut(&job.ticket.tp);
        if let Some(part) = part.filter(|part| part.grant == job.ticket.grant) {
            part.abandoned.insert(job.lane.clone());
        }
    }

    /// Takes further jobs that wait in a job's lane to run with it, so many at the most.
    pub(crate) fn join(&self, first: &Job, most: usize) -> Vec<Job> {
        let mut state = self.state();
        // What came after the partition went and came back is another grant's.
        let grant = first.ticket.grant;
        let joined = state
            .dispatcher
            .join(&first.lane, most, |job| job.ticket.grant == grant);
        for job in &joined {
            state.started(&job.ticket);
        }
        joined
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
        let part = state.parts.get(&tp)?;
        let offset = record.offset.0;
        if part.progress.is_past(offset) {
            self.begin_anew(state, tp, offset);
        }
        let part = state.parts.get_mut(&tp)?;
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

    /// The log of a partition has begun anew below what the group has handled, because all replicas of it were lost.
    /// What is at work is of the one before, and counts no more.
    fn begin_anew(&self, state: &mut State, tp: TopicPartition, offset: u64) {
        state.purge(tp, false);
        state.grants += 1;
        let grant = state.grants;
        let Some(part) = state.parts.get_mut(&tp) else {
            return;
        };
        tracing::warn!(
            group = &*self.config.group,
            topic = &*part.topic,
            partition = tp.partition.0,
            handled = part.progress.first_open(),
            offset,
            "the log has begun anew below what the group has handled: going on from its beginning"
        );
        part.cancel.cancel();
        *part = Part::new(grant, Arc::clone(&part.topic), Progress::anew(offset));
        self.apply_pause(state, tp);
        self.due.notify_one();
    }

    /// Reads on where a partition could not be read, after a while.
    pub(crate) async fn read_on_later(self: Arc<Self>, error: ConsumeError) {
        let ConsumeError::Partition {
            topic, partition, ..
        } = error
        else {
            return;
        };
        sleep(UNREADABLE).await;
        let state = self.state();
        let name = (Arc::from(topic), PartitionId(partition));
        if let Some(&tp) = state.names.get(&name) {
            self.reader.act(|reader, _| reader.go_on(tp));
        }
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
