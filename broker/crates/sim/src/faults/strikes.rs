//! Which faults have struck. One that was planned proves nothing: the node may have been down
//! already, nobody may have sent anything over the link that was cut, no sync may have come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::settings::Kind;
use crate::surroundings::waits;
use crate::trace;

/// A fault's number in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault(pub usize);

/// In which way a fault has struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// A node that ran went down.
    Down,
    /// Messages were lost, or had to wait.
    Messages,
    /// Something else broke.
    Other,
}

/// What a change does to the world.
#[derive(Debug)]
pub enum Effect {
    /// Nothing breaks, or nothing yet.
    None,
    /// It has struck.
    Struck(Strike),
    /// It strikes when this grows.
    Watch(Probe),
    /// What was watched is whole again.
    Over,
}

impl Effect {
    /// It has struck, or it has not.
    #[must_use]
    pub fn struck_if(yes: bool, strike: Strike) -> Self {
        if yes {
            Self::Struck(strike)
        } else {
            Self::None
        }
    }
}

/// What is counted anyway.
#[derive(Debug, Clone)]
pub enum Probe {
    /// Messages between these that were lost or held back.
    Stopped(Vec<(IpAddr, IpAddr)>),
    /// The same of all messages.
    AnyStopped,
    /// Messages that were sent at all.
    Sent,
    /// How often a worker of this node waited for its disk.
    Waits(&'static str),
}

impl Probe {
    fn count(&self) -> u64 {
        match self {
            Self::Stopped(pairs) => trace::stopped(|pair| pairs.contains(&pair)),
            Self::AnyStopped => trace::stopped(|_| true),
            Self::Sent => trace::count("Send"),
            Self::Waits(node) => waits(node),
        }
    }
}

/// The faults of a plan that have begun.
#[derive(Debug, Default)]
pub struct Strikes {
    begun: BTreeMap<Fault, Kind>,
    struck: BTreeSet<(Fault, Strike)>,
    watched: Vec<(Fault, Probe, u64)>,
}

impl Strikes {
    /// A change of a fault was made.
    pub fn note(&mut self, (fault, kind): (Fault, Kind), effect: Effect) {
        self.begun.insert(fault, kind);
        match effect {
            Effect::None => {}
            Effect::Struck(strike) => self.struck(fault, strike),
            Effect::Watch(probe) => {
                let before = probe.count();
                self.watched.push((fault, probe, before));
            }
            Effect::Over => self.watched.retain(|(watched, ..)| *watched != fault),
        }
    }
    /// A fault has struck.
    pub fn struck(&mut self, fault: Fault, strike: Strike) {
        self.struck.insert((fault, strike));
    }
    /// Looks whether what is watched has grown. To be called while it is still broken.
    pub fn look(&mut self) {
        let struck = &mut self.struck;
        self.watched.retain(|(fault, probe, before)| {
            let still = probe.count() == *before;
            if !still {
                struck.insert((*fault, Strike::Messages));
            }
            still
        });
    }
    /// How many faults of each kind have struck, of those that were begun.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (fault, kind) in &self.begun {
            let did = |strike| self.struck.contains(&(*fault, strike));
            let any = did(Strike::Down) || did(Strike::Messages) || did(Strike::Other);
            let struck = match kind {
                // Each alone is another fault.
                Kind::Kingmaker => did(Strike::Down) && did(Strike::Messages),
                _ => any,
            };
            tally.add(&format!("{kind:?}"), (u64::from(struck), 1));
        }
        tally
    }
}

/// By kind: how many have struck, of how many that were begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<String, (u64, u64)>);

impl Tally {
    /// What the line of a tally begins with.
    pub const BEGINS: &'static str = "struck: ";

    fn add(&mut self, kind: &str, (struck, begun): (u64, u64)) {
        let sum = self.0.entry(kind.to_owned()).or_default();
        sum.0 += struck;
        sum.1 += begun;
    }

    /// Adds what a run has said; `None` if that is no tally.
    pub fn add_said(&mut self, said: &str) -> Option<()> {
        let listed = said.strip_prefix(Self::BEGINS)?;
        for part in listed.split(", ").filter(|part| !part.is_empty()) {
            let (kind, counts) = part.split_once(' ')?;
            let (struck, begun) = counts.split_once('/')?;
            self.add(kind, (struck.parse().ok()?, begun.parse().ok()?));
        }
        Some(())
    }

    /// Whether any fault has struck.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.values().any(|(struck, _)| *struck > 0)
    }

    /// Kinds of which none has struck.
    #[must_use]
    pub fn never(&self) -> Vec<String> {
        let never = |kind: &String| self.0.get(kind).is_none_or(|(struck, _)| *struck == 0);
        let kinds = Kind::ALL.iter().map(|kind| format!("{kind:?}"));
        kinds.filter(never).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part =
            |(kind, (struck, begun)): (&String, &(u64, u64))| format!("{kind} {struck}/{begun}");
        let parts: Vec<String> = self.0.iter().map(part).collect();
        write!(f, "{}{}", Self::BEGINS, parts.join(", "))
    }
}

#[cfg(test)]
#[path = "strikes_tests.rs"]
mod tests;
