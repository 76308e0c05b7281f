//! Where a group's log stands, with everything that was written: what may be appended next.

use crate::{GroupId, LogIndex, Op, WalError};

/// The range of a group's entries and its purge point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    /// The first entry.
    pub first: u64,
    /// One behind the last entry; equal to `first` when there is none.
    pub end: u64,
    pub purged: Option<u64>,
}

impl Tip {
    pub(crate) fn last(&self) -> Option<LogIndex> {
        (self.first < self.end).then(|| LogIndex(self.end - 1))
    }

    /// Where the next entry has to go, if that is determined.
    fn expected(&self) -> Option<u64> {
        if self.first < self.end {
            Some(self.end)
        } else {
            self.purged.map(|upto| upto.saturating_add(1))
        }
    }

    /// The tip after `ops`.
    pub(crate) fn after(mut self, group: GroupId, ops: &[Op]) -> Result<Self, WalError> {
        for op in ops {
            match op {
                Op::Append { index, .. } => self.append(group, *index)?,
                Op::Truncate { from } => self.end = self.end.min(from.0).max(self.first),
                Op::Purge { upto, .. } => self.purge(upto.0),
                Op::SetState { .. } => {}
                Op::Forget => self = Self::default(),
            }
        }
        Ok(self)
    }

    fn append(&mut self, group: GroupId, index: LogIndex) -> Result<(), WalError> {
        let expected = self.expected().unwrap_or(index.0);
        let Some(end) = index.0.checked_add(1).filter(|_| index.0 == expected) else {
            let expected = LogIndex(expected);
            return Err(WalError::OutOfOrder {
                group,
                expected,
                found: index,
            });
        };
        if self.first == self.end {
            self.first = index.0;
        }
        self.end = end;
        Ok(())
    }

    fn purge(&mut self, upto: u64) {
        if self.purged.is_some_and(|purged| purged > upto) {
            return;
        }
        self.purged = Some(upto);
        let next = upto.saturating_add(1);
        self.first = self.first.max(next.min(self.end));
    }
}
