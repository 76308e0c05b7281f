//! Step 0b of a produced record: one partition's batches from first sending to outcome. Pure.
//!
//! Batches are numbered when first sent. Those that have a number form a prefix of the queue, and
//! the prefix spans at most [`WINDOW`] batches from the oldest without an outcome on, so that the
//! broker still knows the original offset of any of them.

use std::collections::VecDeque;
use std::time::Duration;

use highwater_proto::NodeId;

use super::verdict::{Outcome, Refusal, RefusalKind};

/// Batches in flight per partition: the broker remembers this many per producer and partition.
pub(crate) const WINDOW: usize = 5;
/// Sequence numbers wrap from `i32::MAX` to 0.
const SEQUENCES: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// To be sent, or to be sent again.
    Waiting,
    /// On a stream; the number tells attempts apart.
    Sent {
        attempt: u64,
        session: u64,
        node: NodeId,
    },
    /// Has its outcome; keeps its place so that the window's span is known.
    Resolved,
}

#[derive(Debug)]
pub(crate) struct Slot<B> {
    pub id: u64,
    /// Taken out when the outcome is known.
    pub body: Option<B>,
    pub records: u32,
    pub deadline: Duration,
    pub sequence: Option<u32>,
    pub state: State,
    /// Some attempt ended without a verdict. Never goes back to false: a later rejection speaks
    /// for its own attempt only, and an earlier one may still arrive behind it.
    pub maybe_written: bool,
    pub last: Option<Refusal>,
}

impl<B> Slot<B> {
    pub(crate) fn open(&self) -> bool {
        self.state != State::Resolved
    }
}

/// What a partition did with a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The numbers have a hole: nothing more can be appended under this epoch.
    pub gap: bool,
    /// The batch waits to be sent again.
    pub again: bool,
}

#[derive(Debug)]
pub(crate) struct Queue<B> {
    pub slots: VecDeque<Slot<B>>,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub next_sequence: u32,
    pub retry_at: Duration,
    pub failures: u32,
    /// A batch came back while later ones are out: all of them come back before any goes again,
    /// so that the order on the stream stays the order of the numbers.
    pub recovering: bool,
    /// The timer that is set for this partition.
    pub timer: Option<Duration>,
    /// Its topic was deleted: nothing is sent any more, and what waits to be has its outcome.
    pub deleted: Option<Refusal>,
}

impl<B> Queue<B> {
    pub(crate) fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            leader: None,
            term: 0,
            next_sequence: 0,
            retry_at: Duration::ZERO,
            failures: 0,
            recovering: false,
            timer: None,
            deleted: None,
        }
    }

    fn in_flight(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot.state, State::Sent { .. }))
    }

    /// Whether a new batch could be numbered right now.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < WINDOW
    }

    /// The batch to send next: its index, or none for now. With `draining`, only what must be
    /// cleared up under the present epoch.
    pub(crate) fn next_to_send(&mut self, now: Duration, draining: bool) -> Option<usize> {
        if now < self.retry_at {
            return None;
        }
        if self.recovering {
            if self.in_flight() {
                return None;
            }
            self.recovering = false;
        }
        let index = self
            .slots
            .iter()
            .position(|slot| slot.state == State::Waiting)?;
        if index >= WINDOW {
            return None;
        }
        if draining {
            // A batch that may be written needs its outcome, and so, for the order, does each
            // before it. What lies behind and is certainly not written waits for the new epoch.
            let last = self
                .slots
                .iter()
                .rposition(|slot| slot.open() && slot.maybe_written)?;
            if index > last {
                return None;
            }
        }
        Some(index)
    }

    /// Numbers the batch, if it has none, and marks it sent. Answers with its sequence.
    pub(crate) fn mark_sent(
        &mut self,
        index: usize,
        attempt: u64,
        session: u64,
        node: NodeId,
    ) -> Option<u32> {
        let slot = self.slots.get_mut(index)?;
        let sequence = *slot.sequence.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence = sequence.wrapping_add(slot.records) % SEQUENCES;
            sequence
        });
        slot.state = State::Sent {
            attempt,
            session,
            node,
        };
        Some(sequence)
    }

    /// The stream `session` is gone: what was sent on it may or may not be written.
    pub(crate) fn give_back(&mut self, session: u64) -> bool {
        self.give_back_if(|of, _| of == session)
    }

    /// `leader` leads: what was sent to others may or may not be written.
    pub(crate) fn give_back_from_others(&mut self, leader: NodeId) -> bool {
        self.give_back_if(|_, node| node != leader)
    }

    fn give_back_if(&mut self, lost: impl Fn(u64, NodeId) -> bool) -> bool {
        let mut any = false;
        for slot in &mut self.slots {
            let State::Sent { session, node, .. } = slot.state else {
                continue;
            };
            if lost(session, node) {
                slot.state = State::Waiting;
                slot.maybe_written = true;
                any = true;
            }
        }
        // Something sent before a batch that is still out must go again first: wait for that one.
        self.recovering |= any;
        any
    }

    /// Ends every batch: unknown where it may be written, rejected otherwise.
    pub(crate) fn end_all(&mut self, refusal: &Refusal, done: &mut Vec<(B, Outcome)>) {
        while !self.slots.is_empty() {
            self.end(0, refusal, done);
        }
    }

    /// Ends what would have to be sent (again) to a topic that was deleted. What is out on a stream may
    /// still have been written before, and is answered there.
    pub(crate) fn end_if_deleted(&mut self, done: &mut Vec<(B, Outcome)>) {
        let Some(refusal) = self.deleted.clone() else {
            return;
        };
        let waits = |slot: &Slot<B>| slot.state == State::Waiting;
        while let Some(index) = self.slots.iter().position(waits) {
            self.end(index, &refusal, done);
        }
        self.slots.retain(Slot::open_or_numbered);
    }

    /// Ends a batch without a verdict of its own: unknown where it may be written, rejected otherwise.
    fn end(&mut self, index: usize, refusal: &Refusal, done: &mut Vec<(B, Outcome)>) -> bool {
        let unknown = self
            .slots
            .get(index)
            .is_some_and(|slot| slot.maybe_written || matches!(slot.state, State::Sent { .. }));
        let outcome = if unknown {
            Outcome::Unknown(refusal.clone())
        } else {
            Outcome::Rejected(refusal.clone())
        };
        self.resolve(index, outcome, done)
    }

    fn index_of(&self, id: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id)
    }

    /// Ends a batch; the numbers have a hole when it had one and was not acknowledged.
    pub(crate) fn resolve(
        &mut self,
        index: usize,
        outcome: Outcome,
        done: &mut Vec<(B, Outcome)>,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let gap = slot.sequence.is_some() && !matches!(outcome, Outcome::Acknowledged { .. });
        slot.state = State::Resolved;
        if let Some(body) = slot.body.take() {
            done.push((body, outcome));
        }
        while self.slots.front().is_some_and(|slot| !slot.open()) {
            self.slots.pop_front();
        }
        gap
    }

    /// An acknowledgement counts for any attempt: the number names the batch.
    pub(crate) fn acknowledged(&mut self, id: u64, outcome: Outcome, done: &mut Vec<(B, Outcome)>) {
        let Some(index) = self.index_of(id) else {
            return;
        };
        if self
            .slots
            .get(index)
            .is_some_and(|slot| slot.open() && slot.sequence.is_some())
        {
            self.failures = 0;
            self.resolve(index, outcome, done);
        }
    }

    /// A verdict other than an acknowledgement, about one attempt. Others than the present attempt
    /// are past: they were counted as unknown when they were given back.
    pub(crate) fn refused(
        &mut self,
        (id, attempt): (u64, u64),
        refusal: Refusal,
        done: &mut Vec<(B, Outcome)>,
    ) -> Option<Effect> {
        let index = self.index_of(id)?;
        // Every batch in front of it has its outcome: nothing can still fill a hole before it.
        let head = self.slots.iter().take(index).all(|slot| !slot.open());
        let slot = self.slots.get_mut(index)?;
        match slot.state {
            State::Sent {
                attempt: present, ..
            } if present == attempt => {}
            _ => return None,
        }
        slot.state = State::Waiting;
        slot.last = Some(refusal.clone());
        let gap = match refusal.kind {
            RefusalKind::Retriable => false,
            RefusalKind::Unknown => {
                slot.maybe_written = true;
                false
            }
            RefusalKind::Gap => head,
            RefusalKind::Fatal | RefusalKind::Past => {
                let unknown = slot.maybe_written || refusal.kind == RefusalKind::Past;
                let outcome = if unknown {
                    Outcome::Unknown(refusal)
                } else {
                    Outcome::Rejected(refusal)
                };
                let gap = self.resolve(index, outcome, done);
                return Some(Effect { gap, again: false });
            }
        };
        self.recovering = true;
        Some(Effect { gap, again: true })
    }

    /// Ends batches whose deadline has passed. Returns whether the numbers have a hole.
    pub(crate) fn expire(&mut self, now: Duration, done: &mut Vec<(B, Outcome)>) -> bool {
        let mut gap = false;
        while let Some(index) = self
            .slots
            .iter()
            .position(|slot| slot.open() && slot.deadline <= now)
        {
            let Some(slot) = self.slots.get(index) else {
                break;
            };
            let refusal = slot.last.clone().unwrap_or_else(Refusal::deadline);
            let numbered = slot.sequence.is_some();
            gap |= self.end(index, &refusal, done);
            if !numbered {
                self.slots.retain(Slot::open_or_numbered);
            }
        }
        gap
    }

    /// Whether some batch still has to be cleared up under the present epoch.
    pub(crate) fn undecided(&self) -> bool {
        self.slots.iter().any(|slot| {
            slot.open() && (slot.maybe_written || matches!(slot.state, State::Sent { .. }))
        })
    }

    /// A new epoch: what remains was certainly never written, and is numbered anew when sent.
    pub(crate) fn renumber(&mut self) {
        self.slots.retain(Slot::open);
        for slot in &mut self.slots {
            slot.sequence = None;
        }
        self.next_sequence = 0;
        self.recovering = false;
        self.retry_at = Duration::ZERO;
    }

    /// When this partition needs to be looked at again.
    pub(crate) fn wakes_at(&self, now: Duration) -> Option<Duration> {
        let deadline = self
            .slots
            .iter()
            .filter(|slot| slot.open())
            .map(|slot| slot.deadline)
            .min()?;
        let waiting = self.slots.iter().any(|slot| slot.state == State::Waiting);
        let retry = (waiting && self.retry_at > now).then_some(self.retry_at);
        Some(retry.map_or(deadline, |retry| retry.min(deadline)))
    }
}

impl<B> Slot<B> {
    fn open_or_numbered(&self) -> bool {
        self.open() || self.sequence.is_some()
    }
}

#[cfg(test)]
#[path = "inflight_tests.rs"]
mod tests;
