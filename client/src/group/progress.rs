//! Which records of a partition are finished, and what may be committed. Pure.
//!
//! Invariant: what may be committed never passes a record that was handed out and is not finished,
//! in whatever order handlers finish.

use std::collections::VecDeque;

use highwater_mutant::mutant;

/// Records of one partition between handing out and commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offsets handed out, ascending, each with whether it is finished; the first one is not.
    entries: VecDeque<(u64, bool)>,
    /// The first offset that is not finished.
    next: u64,
    /// As the group has it.
    committed: Option<u64>,
    /// The log has begun anew here, below what the group has: to be committed first, as a step back.
    rewind: Option<u64>,
}

impl Progress {
    /// Nothing handed out yet; reading begins at `start`. Where nothing was committed, `start`
    /// itself is to be committed at once.
    pub(crate) fn new(start: u64, committed: Option<u64>) -> Self {
        Self {
            entries: VecDeque::new(),
            next: start,
            committed,
            rewind: None,
        }
    }

    /// The log has begun anew at `start`, below what was handled of the one before.
    pub(crate) fn anew(start: u64) -> Self {
        Self {
            rewind: Some(start),
            ..Self::new(start, Some(start))
        }
    }

    /// Where the log has begun anew, until the group has that.
    pub(crate) fn to_rewind(&self) -> Option<u64> {
        self.rewind
    }
    /// The group has it.
    pub(crate) fn rewound(&mut self) {
        self.rewind = None;
    }

    /// Whether an offset lies below what was handled: it is of another log than that was.
    pub(crate) fn is_past(&self, offset: u64) -> bool {
        offset < self.next
    }

    /// Hands a record out. False, and without effect: it was handed out before.
    #[must_use]
    pub(crate) fn hand_out(&mut self, offset: u64) -> bool {
        let behind = self.entries.back().is_some_and(|(last, _)| *last >= offset);
        if behind || offset < self.next {
            return false;
        }
        self.entries.push_back((offset, false));
        mutant!(CommitsFirst => { self.finish(offset); });
        true
    }

    /// A record is finished. Repeating it, or naming one that was not handed out, has no effect.
    pub(crate) fn finish(&mut self, offset: u64) {
        let Ok(at) = self.entries.binary_search_by_key(&offset, |(of, _)| *of) else {
            return;
        };
        if let Some((_, finished)) = self.entries.get_mut(at) {
            *finished = true;
        }
        while let Some(&(first, true)) = self.entries.front() {
            self.entries.pop_front();
            self.next = first + 1;
        }
    }

    /// The first offset that is not finished.
    pub(crate) fn first_open(&self) -> u64 {
        self.next
    }

    /// The first offset that is not finished, if the group does not have it yet.
    pub(crate) fn to_commit(&self) -> Option<u64> {
        let behind = self.committed.is_none_or(|committed| committed < self.next);
        behind.then_some(self.next)
    }

    /// The group has this now.
    pub(crate) fn last_committed(&self) -> Option<u64> {
        self.committed
    }
    pub(crate) fn committed(&mut self, offset: u64) {
        self.committed = Some(self.committed.map_or(offset, |known| known.max(offset)));
    }

    /// Records handed out from the first that is not finished on, finished ones among them.
    pub(crate) fn span(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_start_that_was_never_committed_is_committed_first() {
        assert_eq!(Progress::new(7, None).to_commit(), Some(7));
        assert_eq!(Progress::new(7, Some(7)).to_commit(), None);
        // The log begins behind what was committed: nothing is taken back.
        assert_eq!(Progress::new(9, Some(7)).to_commit(), Some(9));
    }

    #[test]
    fn a_log_that_begins_anew_is_handled_from_its_beginning() {
        let mut progress = Progress::new(7, Some(7));
        assert!(progress.hand_out(7) && !progress.is_past(7) && progress.is_past(6));
        progress = Progress::anew(0);
        assert_eq!(
            (progress.to_rewind(), progress.to_commit()),
            (Some(0), None)
        );
        assert!(progress.hand_out(0));
        progress.finish(0);
        assert_eq!(progress.to_commit(), Some(1));
        progress.rewound();
        assert_eq!(
            (progress.to_rewind(), progress.to_commit()),
            (None, Some(1))
        );
    }

    proptest! {
        /// Offsets with gaps, finished in any order, some twice: what may be committed is the
        /// first unfinished offset, or the one behind the last when all are finished.
        #[test]
        fn commits_stop_at_the_first_unfinished_record(
            gaps in proptest::collection::vec(1_u64..4, 1..60),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..120),
        ) {
            let offsets: Vec<u64> = gaps.iter().scan(10, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut progress = Progress::new(10, Some(10));
            let mut open = BTreeSet::new();
            for &offset in &offsets {
                prop_assert!(progress.hand_out(offset));
                prop_assert!(!progress.hand_out(offset), "twice");
                open.insert(offset);
            }
            let mut last = 10;
            for index in order {
                let offset = *index.get(&offsets);
                progress.finish(offset);
                progress.finish(offset + 1_000);
                open.remove(&offset);
                let first = open.first().copied();
                let next = progress.to_commit().unwrap_or(last);
                prop_assert!(first.is_none_or(|first| next <= first), "passed {first:?}");
                let expected = match first {
                    // Behind the finished one before the first that is open.
                    Some(first) => offsets.iter().take_while(|o| **o < first).last().map_or(10, |o| o + 1),
                    None => offsets.last().unwrap() + 1,
                };
                prop_assert_eq!(next, expected);
                prop_assert!(next >= last, "went back");
                progress.committed(next);
                prop_assert_eq!(progress.to_commit(), None);
                last = next;
            }
            prop_assert!(progress.span() >= open.len());
            prop_assert_eq!(progress.span() == 0, open.is_empty());
        }
    }

    #[cfg(feature = "mutant")]
    #[test]
    fn the_mutant_breaks_its_rule() {
        highwater_mutant::fails(
            highwater_mutant::Mutant::CommitsFirst,
            "group::progress::tests::commits_stop_at_the_first_unfinished_record",
        );
    }
}
