//! Whether an idle group needs heartbeats of its own.
//!
//! A heartbeat wakes a dozen tasks on two brokers, whatever it has to say, and a broker leads many groups that
//! have nothing to say. Once every member of a group has all of it and knows so, the *coalesced* heartbeat of
//! its leader's broker names it: one message to each peer, each beat, for all such groups. A replica that
//! follows that leader in that term takes it for a sign of life ([`Silence`]), and its broker says so. While
//! that is so for all members, heartbeats of the group itself are rare.
//!
//! Nothing of safety rests on this: it neither commits nor confirms a read, and a vote is given by the group's
//! own rules. It only holds elections off, and not for long without a heartbeat of the group: a leader whose
//! broker lives while it does not is found out ([`Pace::trust`]).
//!
//! [`Silence`]: crate::silence::Silence

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_proto::{NodeId, ShardId};
use openraft::{Instant as _, RaftMetrics};
use tokio::time::Instant;

use crate::config::Timings;
use crate::replica::Idle;
use crate::status::node_id;
use crate::types::{LogId, TypeConfig};

/// Beats with nothing new after which the followers know that there is nothing new.
const QUIET: u32 = 3;
/// Beats between two heartbeats of a group for whose members the coalesced ones count.
const REST: u32 = 16;

/// The times that follow from the timings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    beat: Duration,
    lease: Duration,
    /// A leader that no majority answers falls silent for this long, then tries for as long.
    probe: Duration,
}

impl Pace {
    pub(crate) fn new(timings: &Timings) -> Self {
        Self {
            beat: timings.heartbeat,
            lease: timings.election_max,
            // At least the lease and one longest election, so that the others can elect.
            probe: timings.election_max * 2 + timings.election_min * 2 / 3,
        }
    }
    /// A coalesced heartbeat counts for this long after one of the group, or the last answer to one.
    pub(crate) fn trust(&self) -> Duration {
        self.beat * REST + self.lease
    }
    /// What a majority has answered within this time is no older than the lease when openraft looks, a beat later
    /// at most.
    pub(crate) fn fresh(&self) -> Duration {
        self.lease.saturating_sub(self.beat)
    }
    fn is_silent(&self, unanswered: Duration) -> bool {
        let beyond = unanswered.checked_sub(self.lease);
        let turn = beyond.map(|beyond| beyond.as_nanos() / self.probe.as_nanos());
        turn.is_some_and(|turn| turn.is_multiple_of(2))
    }
}

/// A group as its leader sees it at a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    term: u64,
    /// Everyone but the leader.
    peers: BTreeSet<NodeId>,
    last: Option<u64>,
    /// The last entry is committed, and every member has it.
    settled: bool,
    /// The leader is a majority by itself.
    alone: bool,
    /// When that was sent which a majority has answered last; `None`: nothing yet.
    answered: Option<Instant>,
}

impl View {
    pub(crate) fn of(metrics: &RaftMetrics<TypeConfig>) -> Self {
        let index = |id: &Option<LogId>| id.as_ref().map(LogId::index);
        let last = metrics.last_log_index;
        let membership = metrics.membership_config.membership();
        let mut everyone = metrics.replication.iter().flatten();
        Self {
            term: metrics.current_term,
            peers: membership
                .nodes()
                .filter(|(node, _)| **node != metrics.id)
                .map(|(node, _)| node_id(*node))
                .collect(),
            last,
            settled: index(&metrics.local_committed) == last
                && everyone.all(|(_, has)| index(has) == last),
            alone: membership.voter_ids().eq([metrics.id]),
            answered: answered(metrics),
        }
    }
    /// The group, for the coalesced heartbeat.
    pub(crate) fn idle(&self, group: ShardId) -> Idle {
        Idle {
            group,
            term: self.term,
            peers: self.peers.iter().copied().collect(),
        }
    }
}

/// When that was sent which a majority has answered last; `None`: nothing yet.
pub(crate) fn answered(metrics: &RaftMetrics<TypeConfig>) -> Option<Instant> {
    let at = metrics.last_quorum_acked?;
    Instant::now().checked_sub(at.into_inner().elapsed())
}

/// What a leader does at a beat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// A heartbeat goes to each follower.
    pub heartbeat: bool,
    /// The coalesced heartbeat to each follower's broker names the group.
    pub coalesced: bool,
}

/// A leadership of a group, from beat to beat.
#[derive(Debug)]
pub(crate) struct Cover {
    pace: Pace,
    term: u64,
    /// When it was first seen.
    since: Instant,
    last: Option<u64>,
    /// Beats in a row with nothing new.
    quiet: u32,
    heartbeat: Option<Instant>,
    /// When the last coalesced heartbeat was sent that counted at a peer.
    counted: BTreeMap<NodeId, Instant>,
    /// When the last one was sent that counted at all peers.
    covered: Option<Instant>,
    /// A majority has not answered for so long that the others are let elect.
    silent: bool,
    /// The last beat at which heartbeats of the group were rare.
    rested: Option<Instant>,
}

impl Cover {
    pub(crate) fn new(timings: &Timings) -> Self {
        Self::of(Pace::new(timings))
    }
    fn of(pace: Pace) -> Self {
        Self {
            pace,
            term: 0,
            since: Instant::now(),
            last: None,
            quiet: 0,
            heartbeat: None,
            counted: BTreeMap::new(),
            covered: None,
            silent: false,
            rested: None,
        }
    }

    /// To be called at each beat while the replica leads.
    pub(crate) fn beat(&mut self, now: Instant, view: &View) -> Next {
        if self.term != view.term {
            *self = Self {
                term: view.term,
                since: now,
                ..Self::of(self.pace)
            };
        }
        let nothing_new = view.settled && self.last == view.last;
        self.quiet = if nothing_new { self.quiet + 1 } else { 0 };
        self.last = view.last;
        let all = view
            .peers
            .iter()
            .map(|peer| self.counted.get(peer).copied());
        self.covered = self.covered.max(all.min().flatten());

        let Pace { beat, .. } = self.pace;
        let ago = |at: Instant| now.saturating_duration_since(at);
        let answered = ago(view.answered.map_or(self.since, |at| at.max(self.since)));
        let covered = self.covered.map(ago);
        let unanswered = covered.map_or(answered, |covered| covered.min(answered));
        self.silent = !view.alone && self.pace.is_silent(unanswered);
        if self.silent || view.peers.is_empty() {
            return Next::default();
        }
        let coalesced = self.quiet >= QUIET && answered < self.pace.trust();
        let is_covered = covered.is_some_and(|covered| covered < beat * 5 / 2);
        let is_recent = self
            .heartbeat
            .is_some_and(|at| ago(at) + beat / 2 < beat * REST);
        let rests = coalesced && is_covered;
        if rests {
            self.rested = Some(now);
        }
        let heartbeat = !(rests && is_recent);
        if heartbeat {
            self.heartbeat = Some(now);
        }
        Next {
            heartbeat,
            coalesced,
        }
    }

    /// To be called at each beat while it does not: what was so of a leadership is over with it.
    pub(crate) fn ended(&mut self) {
        (self.silent, self.rested, self.covered) = (false, None, None);
    }

    /// A coalesced heartbeat that was sent at `at` counts at a peer.
    pub(crate) fn counts(&mut self, peer: NodeId, term: u64, at: Instant) {
        if term == self.term {
            let last = self.counted.entry(peer).or_insert(at);
            *last = at.max(*last);
        }
    }
    /// Whether this leader says nothing, because no majority has answered, so that the others can elect.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }
    /// Heartbeats of the group are rare, or were within the last lease: openraft may hold that no majority has
    /// answered this leader for longer than that.
    pub(crate) fn has_rested(&self, now: Instant) -> bool {
        self.rested
            .is_some_and(|at| now.saturating_duration_since(at) < self.pace.lease)
    }
    /// All members heard this leader less than a lease ago.
    pub(crate) fn is_covered(&self, now: Instant) -> bool {
        self.covered
            .is_some_and(|at| now.saturating_duration_since(at) < self.pace.lease)
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
