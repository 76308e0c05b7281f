//! Step 0c of a produced record: decides which batch goes where, and what its outcome is. Pure:
//! time, leaders, verdicts and lost streams come in; batches to send and outcomes come out.
//! Before: `accumulator`. After: `lane`, which carries bytes.
//!
//! Invariants, held whatever comes in:
//! - a batch has exactly one outcome;
//! - a batch keeps producer id, epoch and sequence over all attempts, unless every attempt was
//!   certainly rejected and a new epoch began;
//! - a new epoch begins only when no batch of the old one may still be written and unreported;
//! - a new id begins only when nothing that was given up as unknown can still arrive: brokers turn away an old
//!   epoch of an id, and know nothing of an id before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use highwater_proto::{NodeId, TopicPartition};

use super::accumulator::{Accumulator, Closed};
use super::inflight::{Queue, Slot, State};
pub(crate) use super::verdict::{
    AttemptId, Identity, Item, Outcome, Outgoing, Refusal, RefusalKind, Verdict,
};
use crate::backoff::{self, Jitter};
use crate::error::{Cause, ErrorCode};

#[derive(Debug)]
pub(crate) struct Batch<R: Item> {
    pub items: Vec<R>,
    wire: R::Wire,
    bytes: usize,
}

/// Limits and times.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub linger: Duration,
    pub batch_bytes: usize,
    pub delivery_timeout: Duration,
    pub retry_first: Duration,
    pub retry_most: Duration,
    pub seed: u64,
}

/// All batches of one producer. `Duration`s are times since it started.
pub(crate) struct Machine<R: Item> {
    rules: Rules,
    jitter: Jitter,
    accumulator: Accumulator<R>,
    queues: BTreeMap<TopicPartition, Queue<Batch<R>>>,
    /// Partitions that may have something to send, by leader.
    ready: BTreeMap<NodeId, BTreeSet<TopicPartition>>,
    /// Where each leader's turn ended, so that every partition gets its turn.
    cursors: BTreeMap<NodeId, TopicPartition>,
    timers: BTreeSet<(Duration, TopicPartition)>,
    identity: Option<Identity>,
    epoch_needed: bool,
    fenced: Option<Refusal>,
    /// Something sent under the present id ended as unknown: it may still be on its way.
    left_behind: bool,
    done: Vec<(Batch<R>, Outcome)>,
    unresolved: usize,
    next_id: u64,
    next_attempt: u64,
}

impl<R: Item> Machine<R> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            jitter: Jitter::new(rules.seed),
            accumulator: Accumulator::new(rules.linger, rules.batch_bytes),
            rules,
            queues: BTreeMap::new(),
            ready: BTreeMap::new(),
            cursors: BTreeMap::new(),
            timers: BTreeSet::new(),
            identity: None,
            epoch_needed: false,
            fenced: None,
            left_behind: false,
            done: Vec::new(),
            unresolved: 0,
            next_id: 0,
            next_attempt: 0,
        }
    }

    /// Adds a record of `size` bytes; `limit` is the topic's largest batch, and `since` is when its time began to run.
    /// Returns whether the partition's open batch ended, which is when records without a key change partition.
    pub(crate) fn append(
        &mut self,
        tp: TopicPartition,
        item: R,
        (size, limit): (usize, usize),
        (since, now): (Duration, Duration),
    ) -> bool {
        let full = self
            .accumulator
            .append(tp, item, (size, limit), (since, now));
        let any = !full.is_empty();
        for closed in full {
            self.push(closed, now);
        }
        if self.rules.linger.is_zero() {
            self.linger_over(now);
        }
        any
    }

    /// Whether records of the partition wait for more.
    pub(crate) fn is_open(&self, tp: TopicPartition) -> bool {
        self.accumulator.is_open(tp)
    }

    fn push(&mut self, closed: Closed<R>, now: Duration) {
        let Closed {
            tp,
            mut items,
            bytes,
            since,
        } = closed;
        let records = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let body = Batch {
            wire: R::wire(&mut items),
            items,
            bytes,
        };
        self.unresolved += 1;
        if let Some(refusal) = self.fenced.clone() {
            self.unresolved -= 1;
            self.done.push((body, Outcome::Rejected(refusal)));
            return;
        }
        let slot = Slot {
            id: self.next_id,
            body: Some(body),
            records,
            deadline: since + self.rules.delivery_timeout,
            sequence: None,
            state: State::Waiting,
            maybe_written: false,
            last: None,
        };
        self.next_id += 1;
        self.queues
            .entry(tp)
            .or_insert_with(Queue::new)
            .slots
            .push_back(slot);
        self.with(tp, now, |_, _| ());
    }

    /// After anything changed: takes in a batch whose linger time is over when there is room,
    /// says that the partition may have something to send, and sets its timer.
    fn look_at(&mut self, tp: TopicPartition, now: Duration) {
        let room = self.queues.get(&tp).is_none_or(Queue::has_room);
        if room && let Some(closed) = self.accumulator.close_due(tp) {
            self.push(closed, now); // comes back here, with nothing open any more
            return;
        }
        let Some(queue) = self.queues.get_mut(&tp) else {
            return;
        };
        let wake = queue.wakes_at(now);
        if queue.timer != wake {
            if let Some(old) = queue.timer {
                self.timers.remove(&(old, tp));
            }
            if let Some(new) = wake {
                self.timers.insert((new, tp));
            }
            queue.timer = wake;
        }
        if let Some(leader) = queue.leader
            && !queue.slots.is_empty()
        {
            self.ready.entry(leader).or_default().insert(tp);
        }
    }

    /// Runs `change` on a partition and accounts for what it ended.
    fn with<T>(
        &mut self,
        tp: TopicPartition,
        now: Duration,
        change: impl FnOnce(&mut Queue<Batch<R>>, &mut Vec<(Batch<R>, Outcome)>) -> T,
    ) -> Option<T> {
        let queue = self.queues.get_mut(&tp)?;
        let before = self.done.len();
        let answer = change(queue, &mut self.done);
        queue.end_if_deleted(&mut self.done);
        let ended = self.done.get(before..).unwrap_or_default();
        self.unresolved -= ended.len();
        self.left_behind |= ended
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::Unknown(_)));
        self.look_at(tp, now);
        Some(answer)
    }

    fn linger_over(&mut self, now: Duration) {
        for tp in self.accumulator.take_due(now) {
            self.look_at(tp, now);
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.linger_over(now);
        while let Some(&(at, tp)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(queue) = self.queues.get_mut(&tp) {
                queue.timer = None;
            }
            if self.with(tp, now, |queue, done| queue.expire(now, done)) == Some(true) {
                self.epoch_needed = true;
            }
        }
        self.raise_epoch(now);
    }

    /// When [`Machine::tick`] has something to do next.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|&(at, _)| at);
        let linger = self.accumulator.next_due();
        [timer, linger].into_iter().flatten().min()
    }

    /// The partition's leader by what is known now.
    pub(crate) fn set_leader(
        &mut self,
        tp: TopicPartition,
        leader: Option<(NodeId, u64)>,
        now: Duration,
    ) {
        let queue = self.queues.entry(tp).or_insert_with(Queue::new);
        let Some((node, term)) = leader else {
            queue.leader = None; // an election: what is out may still be answered
            return;
        };
        if queue.leader == Some(node) && queue.term == term {
            return;
        }
        let moved = queue.leader != Some(node);
        queue.leader = Some(node);
        queue.term = term;
        if moved {
            queue.give_back_from_others(node);
        }
        queue.retry_at = Duration::ZERO;
        self.look_at(tp, now);
    }

    /// The partition's topic was deleted, for certain: nobody leads it any more, and nobody ever will.
    pub(crate) fn topic_deleted(&mut self, tp: TopicPartition, cause: Cause, now: Duration) {
        let kind = RefusalKind::Fatal;
        let queue = self.queues.entry(tp).or_insert_with(Queue::new);
        queue.leader = None;
        queue.deleted = Some(Refusal { kind, cause });
        self.with(tp, now, |_, _| ());
    }

    /// Partitions that have something to send or to wait for.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.queues.keys().copied()
    }

    /// Brokers that something may be sent to.
    pub(crate) fn leaders(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ready
            .iter()
            .filter(|(_, ready)| !ready.is_empty())
            .map(|(&node, _)| node)
    }

    /// The next batch for `node`, in order, now on the stream `session`.
    pub(crate) fn take(
        &mut self,
        node: NodeId,
        session: u64,
        now: Duration,
    ) -> Option<Outgoing<R::Wire>> {
        let identity = self.identity?;
        if self.fenced.is_some() {
            return None;
        }
        let ready = self.ready.get_mut(&node)?;
        loop {
            let after = self
                .cursors
                .get(&node)
                .map_or(Bound::Unbounded, |tp| Bound::Excluded(*tp));
            let next = ready
                .range((after, Bound::Unbounded))
                .next()
                .or_else(|| ready.first());
            let tp = *next?;
            self.cursors.insert(node, tp);
            let queue = self
                .queues
                .get_mut(&tp)
                .filter(|queue| queue.leader == Some(node));
            let found = queue.and_then(|queue| {
                let index = queue.next_to_send(now, self.epoch_needed)?;
                let attempt = self.next_attempt;
                let sequence = queue.mark_sent(index, attempt, session, node)?;
                let slot = queue.slots.get(index)?;
                let body = slot.body.as_ref()?;
                Some(Outgoing {
                    attempt: AttemptId {
                        tp,
                        batch: slot.id,
                        attempt,
                    },
                    identity,
                    sequence,
                    wire: body.wire.clone(),
                    bytes: body.bytes,
                    deadline: slot.deadline,
                })
            });
            match found {
                Some(outgoing) => {
                    self.next_attempt += 1;
                    return Some(outgoing);
                }
                None => ready.remove(&tp),
            };
        }
    }

    /// A broker's answer.
    pub(crate) fn answered(&mut self, of: AttemptId, verdict: Verdict, now: Duration) {
        let refusal = match verdict {
            Verdict::Acknowledged {
                base_offset,
                append_time,
                duplicate,
            } => {
                let outcome = Outcome::Acknowledged {
                    base_offset,
                    append_time,
                    duplicate,
                };
                self.with(of.tp, now, |queue, done| {
                    queue.acknowledged(of.batch, outcome, done)
                });
                return;
            }
            Verdict::Refused(refusal) => refusal,
        };
        let fence = refusal.fences().then(|| refusal.clone());
        let random = self.jitter.next();
        let (first, most) = (self.rules.retry_first, self.rules.retry_most);
        let effect = self.with(of.tp, now, |queue, done| {
            let effect = queue.refused((of.batch, of.attempt), refusal, done)?;
            if effect.again {
                queue.failures = queue.failures.saturating_add(1);
                queue.retry_at = now + backoff::pause(queue.failures, first, most, random);
            }
            Some(effect)
        });
        if let Some(effect) = effect.flatten() {
            self.epoch_needed |= effect.gap;
            self.look_at(of.tp, now); // its timer follows the pause
            if let Some(refusal) = fence {
                self.end_all(&refusal, now);
                self.fenced = Some(refusal);
            }
        }
    }

    /// A stream ended: what was on it may or may not be written.
    pub(crate) fn session_lost(&mut self, session: u64, now: Duration) {
        let random = self.jitter.next();
        let (first, most) = (self.rules.retry_first, self.rules.retry_most);
        let partitions: Vec<_> = self.queues.keys().copied().collect();
        for tp in partitions {
            self.with(tp, now, |queue, _| {
                if queue.give_back(session) {
                    queue.failures = queue.failures.saturating_add(1);
                    queue.retry_at = now + backoff::pause(queue.failures, first, most, random);
                }
            });
        }
    }

    /// Whether a new producer id is needed now: there is none, or its epochs are used up and nothing sent
    /// under it can still arrive.
    pub(crate) fn wants_identity(&self) -> bool {
        self.fenced.is_none()
            && match self.identity {
                None => true,
                Some(_) => self.is_used_up() && !self.left_behind,
            }
    }

    /// A batch that is numbered anew is a new batch, so everything else must have its outcome.
    fn may_renumber(&self) -> bool {
        self.epoch_needed && !self.queues.values().any(Queue::undecided)
    }

    /// Whether the next epoch is due and the id has none left.
    fn is_used_up(&self) -> bool {
        let next = self.identity.and_then(Identity::with_next_epoch);
        self.identity.is_some() && next.is_none() && self.may_renumber()
    }

    /// The id is this producer's alone, so the next epoch is too: nobody needs to be asked. A producer that
    /// has used up all epochs ends, if what it gave up could be written behind what it would send next.
    fn raise_epoch(&mut self, now: Duration) {
        if self.fenced.is_none() && self.left_behind && self.is_used_up() {
            let message = "this producer has used up its epochs, and a record whose outcome is unknown may \
                           still arrive: start another producer";
            let cause = Cause::Broker {
                code: ErrorCode::ProducerFenced,
                message: message.to_owned(),
            };
            self.abandon(&cause, now);
            return;
        }
        let next = self.identity.and_then(Identity::with_next_epoch);
        if let Some(next) = next
            && self.fenced.is_none()
            && self.may_renumber()
        {
            self.granted(next, now);
        }
    }

    /// A new id or epoch. What has no outcome yet was never written, and is numbered from 0.
    pub(crate) fn granted(&mut self, identity: Identity, now: Duration) {
        if self.identity.is_none_or(|before| before.id != identity.id) {
            self.left_behind = false;
        }
        self.identity = Some(identity);
        self.epoch_needed = false;
        let partitions: Vec<_> = self.queues.keys().copied().collect();
        for tp in partitions {
            self.with(tp, now, |queue, _| queue.renumber());
        }
    }

    /// Closes every open batch. What was added so far has an outcome once
    /// [`Machine::lowest_unresolved`] is not below the answer.
    pub(crate) fn flush(&mut self, now: Duration) -> u64 {
        for closed in self.accumulator.close_all() {
            self.push(closed, now);
        }
        self.next_id
    }

    /// The oldest batch without an outcome; `u64::MAX` when there is none.
    pub(crate) fn lowest_unresolved(&self) -> u64 {
        let open = |queue: &Queue<Batch<R>>| queue.slots.iter().find(|s| s.open()).map(|s| s.id);
        self.queues
            .values()
            .filter_map(open)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Whether nothing waits for an outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.unresolved == 0 && self.accumulator.is_empty()
    }

    /// Ends everything now: unknown where something was sent, rejected otherwise.
    pub(crate) fn abandon(&mut self, cause: &Cause, now: Duration) {
        let refusal = Refusal {
            kind: RefusalKind::Fatal,
            cause: cause.clone(),
        };
        self.flush(now);
        self.end_all(&refusal, now);
        self.fenced = Some(refusal);
    }

    fn end_all(&mut self, refusal: &Refusal, now: Duration) {
        let partitions: Vec<_> = self.queues.keys().copied().collect();
        for tp in partitions {
            self.with(tp, now, |queue, done| queue.end_all(refusal, done));
        }
    }

    /// Batches that ended since the last call, each once.
    pub(crate) fn take_done(&mut self) -> Vec<(Batch<R>, Outcome)> {
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
