//! Which submissions to the log have ended, when some may end before earlier ones.

use std::collections::BTreeSet;

/// Submissions that have ended: numbered from 1, in any order.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    /// All up to this one.
    upto: u64,
    /// Of those behind it.
    ahead: BTreeSet<u64>,
}

impl Completions {
    /// Notes one; answers with the last of those that have all ended.
    pub(crate) fn completed(&mut self, submission: u64) -> u64 {
        self.ahead.insert(submission);
        while self.ahead.first() == Some(&(self.upto + 1)) {
            self.ahead.pop_first();
            self.upto += 1;
        }
        self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_speaks_for_those_before_it_only_when_they_have_ended() {
        let mut completions = Completions::default();
        let reached = [2, 1, 5, 3, 4].map(|submission| completions.completed(submission));
        assert_eq!(reached, [0, 2, 2, 3, 5]);
    }
}
