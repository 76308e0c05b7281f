//! Faults that are set, which of them strike, and how often they did.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::control::{Fault, FaultId, FaultKind, FaultStatus};

/// What the faults make of a sync.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SyncVerdict {
    /// How much later it happens.
    pub delay: Duration,
    /// Whether it then fails.
    pub fails: bool,
}

/// The faults of a mount.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<FaultStatus>>,
    /// How many rules there are, so that paths are not put together for nothing.
    count: AtomicUsize,
    next: AtomicU64,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) -> FaultId {
        let id = FaultId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let mut rules = self.rules.lock();
        rules.push(FaultStatus {
            id,
            fault,
            struck: 0,
        });
        self.count.store(rules.len(), Ordering::Release);
        id
    }
    pub(crate) fn remove(&self, id: FaultId) -> Option<FaultStatus> {
        let mut rules = self.rules.lock();
        let at = rules.iter().position(|rule| rule.id == id)?;
        let removed = rules.remove(at);
        self.count.store(rules.len(), Ordering::Release);
        Some(removed)
    }
    pub(crate) fn clear(&self) -> Vec<FaultStatus> {
        let mut rules = self.rules.lock();
        self.count.store(0, Ordering::Release);
        std::mem::take(&mut *rules)
    }
    pub(crate) fn all(&self) -> Vec<FaultStatus> {
        self.rules.lock().clone()
    }

    /// What happens to a sync of the file or directory at `path`.
    pub(crate) fn on_sync(&self, path: impl FnOnce() -> String) -> SyncVerdict {
        let mut verdict = SyncVerdict::default();
        self.strike(path, |kind| match kind {
            FaultKind::SyncError => {
                verdict.fails = true;
                true
            }
            FaultKind::SlowSync { millis } => {
                verdict.delay += Duration::from_millis(millis);
                true
            }
            FaultKind::NoSpace | FaultKind::DiskFull => false,
        });
        verdict
    }
    /// Whether there is no space for `path`.
    pub(crate) fn on_growth(&self, path: impl FnOnce() -> String) -> bool {
        let mut full = false;
        self.strike(path, |kind| {
            let strikes = matches!(kind, FaultKind::NoSpace | FaultKind::DiskFull);
            full |= strikes;
            strikes
        });
        full
    }
    /// Whether whoever asks how much space there is at `path` is told of none. A question is no
    /// strike: it is not counted.
    pub(crate) fn tells_full(&self, path: impl FnOnce() -> String) -> bool {
        let mut full = false;
        self.strike(path, |kind| {
            full |= kind == FaultKind::DiskFull;
            false
        });
        full
    }

    /// Offers each rule that matches and is not used up; counts those that strike.
    fn strike(&self, path: impl FnOnce() -> String, mut strikes: impl FnMut(FaultKind) -> bool) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let path = path();
        for rule in self.rules.lock().iter_mut() {
            let left = rule.fault.times.is_none_or(|times| rule.struck < times);
            if left && fits(&rule.fault.pattern, &path) && strikes(rule.fault.kind) {
                rule.struck += 1;
            }
        }
    }
}

/// Whether a text matches a pattern with `*` (any characters) and `?` (one character).
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut place) = (0, 0);
    // The last star, and the text that it has not swallowed yet.
    let mut star = None;
    while place < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star_at, swallowed)) = star else {
                    return false;
                };
                star = Some((star_at, swallowed + 1));
                at = star_at + 1;
                place = swallowed + 1;
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
