//! Whether this broker's wall clock agrees with the others'. Retention goes by it: a leader whose
//! clock is ahead would delete what is not old.
//!
//! Heartbeats bring every broker's wall clock to the metadata leader, and its answers bring back by
//! how much each is ahead of its own. Before the first answer there is what peers say when they are
//! connected to: whoever leads a shard was voted for by some.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_mutant::mutant;
use highwater_proto::NodeId;
use highwater_proto::internal::ClockOffset;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Clocks that are this far apart, in milliseconds, still agree. A message takes less than that.
const TOLERANCE_MS: u64 = 10_000;
/// What was heard longer ago says nothing.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// What this broker knows of wall clocks.
#[derive(Debug, Default)]
pub struct Clocks {
    /// At the metadata leader: what each broker's clock showed when.
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    /// What the metadata leader last said.
    known: Mutex<Option<Known>>,
    /// What peers' clocks showed when they were last connected to.
    met: Mutex<BTreeMap<NodeId, Heard>>,
    /// The time that brokers had in common when others than this one were last heard of.
    common: Mutex<Option<(Instant, i64)>>,
    /// Why retention stands still, if it does.
    halted: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    theirs_ms: i64,
}

impl Heard {
    /// What it shows now, if nobody has set it since.
    fn now_ms(&self) -> i64 {
        self.theirs_ms.saturating_add(millis(self.at.elapsed()))
    }
}

#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    /// This broker's wall clock then.
    own_ms: i64,
    /// By how much this broker is ahead of the metadata leader.
    own_ahead_ms: i64,
    ahead_ms: BTreeMap<NodeId, i64>,
}

impl Known {
    /// The time that brokers had in common when this was told: their median. `None`: of no other than
    /// `me` anything is known.
    fn common_ms(&self, me: NodeId) -> Option<i64> {
        let others = self.ahead_ms.iter().filter(|(node, _)| **node != me);
        let mut ahead: Vec<i64> = others.map(|(_, ahead)| *ahead).collect();
        if ahead.is_empty() {
            return None;
        }
        ahead.push(self.own_ahead_ms);
        let median = later_median(ahead)?;
        let leader = self.own_ms.saturating_sub(self.own_ahead_ms);
        Some(leader.saturating_add(median))
    }
}

/// Of two in the middle the greater one.
fn later_median(mut times: Vec<i64>) -> Option<i64> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// What the others' clocks say of this broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A majority of the brokers agree with it.
    Agrees,
    /// Others contradict it, by this many milliseconds.
    Disagrees(i64),
    /// Too few were heard lately.
    Unknown,
}

impl Clocks {
    /// At the metadata leader: a broker's wall clock, as it has just come in.
    pub fn heard(&self, node: NodeId, theirs_ms: i64) {
        if theirs_ms != 0 {
            let heard = Heard {
                at: Instant::now(),
                theirs_ms,
            };
            self.heard.lock().insert(node, heard);
        }
    }
    /// A peer's wall clock, as it says when it is connected to.
    pub fn met(&self, node: NodeId, theirs_ms: i64) {
        let heard = Heard {
            at: Instant::now(),
            theirs_ms,
        };
        self.met.lock().insert(node, heard);
    }
    /// At the metadata leader: what is to be told, by its wall clock, which may have jumped since it heard the
    /// others'.
    #[must_use]
    pub fn to_tell(&self, own_ms: i64) -> Vec<ClockOffset> {
        let heard = self.heard.lock();
        let fresh = heard
            .iter()
            .filter(|(_, said)| said.at.elapsed() < FRESH_FOR);
        let offset = |(node, said): (&NodeId, &Heard)| ClockOffset {
            node_id: node.0,
            ahead_ms: said.now_ms().saturating_sub(own_ms),
        };
        fresh.map(offset).collect()
    }
    /// What the metadata leader told broker `me`, with its wall clock when it did.
    pub fn told(&self, me: NodeId, clocks: &[ClockOffset], theirs_ms: i64, own_ms: i64) {
        if theirs_ms == 0 {
            return;
        }
        let ahead = |clock: &ClockOffset| (NodeId(clock.node_id), clock.ahead_ms);
        let known = Known {
            at: Instant::now(),
            own_ms,
            own_ahead_ms: own_ms.saturating_sub(theirs_ms),
            ahead_ms: clocks.iter().map(ahead).collect(),
        };
        // A new leader may have heard nobody else yet: what was known before goes on.
        if let Some(common) = known.common_ms(me) {
            *self.common.lock() = Some((known.at, common));
        }
        *self.known.lock() = Some(known);
    }
    /// What they say of `now_ms`, this broker's wall clock, among the brokers `members`.
    #[must_use]
    pub fn verdict(&self, me: NodeId, members: &[NodeId], now_ms: i64) -> Verdict {
        let others: Vec<NodeId> = members.iter().copied().filter(|id| *id != me).collect();
        if others.is_empty() {
            return Verdict::Agrees;
        }
        let known = self.known.lock().clone();
        match known.filter(|known| known.at.elapsed() < FRESH_FOR) {
            None => Verdict::Unknown,
            Some(known) => {
                let passed = millis(known.at.elapsed());
                // The clock may have jumped since.
                let jumped = now_ms.saturating_sub(known.own_ms.saturating_add(passed));
                let ahead = known.own_ahead_ms.saturating_add(jumped);
                judge(ahead, &others, &known.ahead_ms)
            }
        }
    }
    /// The time for appends, by which they will be judged when they are old: `wall_ms`, this broker's wall
    /// clock, unless the others' contradict it; then theirs. A clock that was set back would make what
    /// is appended now look old as soon as it is right again. Of two times that nobody decides between
    /// it is the later one: who looks too young is kept.
    #[must_use]
    pub fn append_time(&self, wall_ms: i64) -> i64 {
        mutant!(StampsOwnTime => { return wall_ms; });
        let Some((at, common)) = *self.common.lock() else {
            return self.among_met(wall_ms);
        };
        let passed = at.elapsed();
        let theirs = common.saturating_add(millis(passed));
        if wall_ms.abs_diff(theirs) <= TOLERANCE_MS {
            wall_ms
        } else if passed < FRESH_FOR {
            theirs
        } else {
            // The machine may have slept.
            wall_ms.max(theirs)
        }
    }
    /// The same before the metadata leader has told anything.
    fn among_met(&self, wall_ms: i64) -> i64 {
        let met = self.met.lock();
        if met.is_empty() {
            return wall_ms;
        }
        let is_fresh = met.values().all(|said| said.at.elapsed() < FRESH_FOR);
        let mut clocks: Vec<i64> = met.values().map(Heard::now_ms).collect();
        drop(met);
        clocks.push(wall_ms);
        match later_median(clocks) {
            Some(theirs) if wall_ms.abs_diff(theirs) <= TOLERANCE_MS => wall_ms,
            Some(theirs) if is_fresh => theirs,
            // The machine may have slept.
            Some(theirs) => wall_ms.max(theirs),
            None => wall_ms,
        }
    }
    /// Takes note of whether retention stands still. Whether that is news.
    pub fn halt(&self, why: Option<String>) -> bool {
        let mut halted = self.halted.lock();
        let news = halted.is_some() != why.is_some();
        *halted = why;
        news
    }
    /// Why retention stands still, if it does.
    #[must_use]
    pub fn halted(&self) -> Option<String> {
        self.halted.lock().clone()
    }
}

/// `ahead`: of this broker. The brokers are `others` and this one, which agrees with itself.
fn judge(ahead: i64, others: &[NodeId], ahead_ms: &BTreeMap<NodeId, i64>) -> Verdict {
    let apart: Vec<i64> = others
        .iter()
        .filter_map(|node| Some(ahead.saturating_sub(*ahead_ms.get(node)?)))
        .collect();
    let (agreeing, mut contradicting): (Vec<i64>, Vec<i64>) = apart
        .into_iter()
        .partition(|apart| apart.unsigned_abs() <= TOLERANCE_MS);
    if (agreeing.len() + 1) * 2 > others.len() + 1 {
        return Verdict::Agrees;
    }
    contradicting.sort_unstable();
    match contradicting.get(contradicting.len() / 2) {
        Some(apart) => Verdict::Disagrees(*apart),
        None => Verdict::Unknown,
    }
}

#[cfg(test)]
#[path = "clocks_tests.rs"]
mod tests;
