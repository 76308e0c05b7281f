//! Up to where the log of a group is on the disk of every member. What lies below need not be kept for
//! anybody; who leads tells the others.

use openraft::RaftMetrics;
use tokio::sync::watch;

use crate::types::{LogId, TypeConfig};

/// A count of entries: every member has those with a lower index. 0 while it is not known. It is a
/// statement about the past that stays true but for a member that lost its disk or came later, and
/// such a one is filled from a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Everywhere(watch::Sender<u64>);

impl Everywhere {
    /// What is known now.
    pub(crate) fn count(&self) -> u64 {
        *self.0.borrow()
    }
    /// To wait for a change.
    #[cfg(test)]
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
    /// What the leader says. It falls when a member comes that has less.
    pub(crate) fn told(&self, count: u64) {
        self.0
            .send_if_modified(|known| std::mem::replace(known, count) != count);
    }
    /// What this replica sees of its followers, if it leads.
    pub(crate) fn observe(&self, metrics: &RaftMetrics<TypeConfig>) {
        if let Some(replication) = &metrics.replication {
            self.told(common(replication.values().map(Option::as_ref)));
        }
    }
}

/// How many entries all have of whom only the last one is known.
fn common<'a>(last: impl Iterator<Item = Option<&'a LogId>>) -> u64 {
    let counts = last.map(|last| last.map_or(0, |last| last.index() + 1));
    counts.min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    #[test]
    fn who_is_not_heard_of_yet_has_nothing() {
        let last = [Some(log_id(3, 9)), Some(log_id(2, 7)), Some(log_id(3, 12))];
        assert_eq!(common(last.iter().map(Option::as_ref)), 8);
        let last = [Some(log_id(3, 9)), None];
        assert_eq!(common(last.iter().map(Option::as_ref)), 0);
        assert_eq!(common(std::iter::empty()), 0);
    }
}
