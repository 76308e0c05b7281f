//! Frames of all files in order, become the groups' present state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::frame::FrameKind;
use crate::index::{Change, GroupIndex, Index, Kept, Location};
use crate::writer::Tip;
use crate::{GroupId, LogIndex, WalOpenError};

/// A group on the way. Entries may have gaps until all is read: those of a recycled file come
/// later, where they were written again.
#[derive(Default)]
struct Partial {
    entries: BTreeMap<u64, Location>,
    purged: Option<(u64, Kept)>,
    states: BTreeMap<u8, Kept>,
}

#[derive(Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, Partial>,
}

impl Replay {
    pub(super) fn apply_all(&mut self, changes: Vec<Change>) {
        changes.into_iter().for_each(|change| self.apply(change));
    }

    fn apply(&mut self, change: Change) {
        let Change {
            group: id,
            kind,
            slot,
            index,
            location,
            value,
        } = change;
        let group = self.groups.entry(id).or_default();
        match kind {
            FrameKind::Append | FrameKind::Relocate => {
                group.entries.insert(index, location);
            }
            FrameKind::Truncate => {
                group.entries.split_off(&index);
            }
            FrameKind::Purge => {
                if group.purged.as_ref().is_some_and(|(upto, _)| *upto > index) {
                    return;
                }
                group.entries = match index.checked_add(1) {
                    Some(first) => group.entries.split_off(&first),
                    None => BTreeMap::new(),
                };
                group.purged = Some((index, Kept { value, location }));
            }
            FrameKind::SetState => {
                group.states.insert(slot, Kept { value, location });
            }
            FrameKind::Forget => {
                self.groups.remove(&id);
            }
        }
    }

    /// Fills the index, and says where each group stands.
    pub(super) fn finish<F>(
        self,
        dir: &Path,
        index: &mut Index<F>,
    ) -> Result<BTreeMap<GroupId, Tip>, WalOpenError> {
        let mut tips = BTreeMap::new();
        for (id, partial) in self.groups {
            let Partial {
                entries,
                purged,
                states,
            } = partial;
            let after_purge = purged.as_ref().map(|(upto, _)| upto.saturating_add(1));
            let known = entries.first_key_value().map(|(first, _)| *first);
            let first = after_purge.or(known).unwrap_or(0);
            for (expected, at) in (first..).zip(entries.keys()) {
                if expected != *at {
                    let missing = LogIndex(expected);
                    return Err(WalOpenError::Gap {
                        dir: dir.to_owned(),
                        group: id,
                        missing,
                    });
                }
            }
            let end = first.saturating_add(entries.len() as u64);
            let purged_upto = purged.as_ref().map(|(upto, _)| *upto);
            tips.insert(
                id,
                Tip {
                    first,
                    end,
                    purged: purged_upto,
                },
            );
            let entries = entries.into_values().collect();
            index.insert_group(
                id,
                GroupIndex {
                    first,
                    entries,
                    purged,
                    states,
                    unreadable: BTreeSet::new(),
                },
            );
        }
        Ok(tips)
    }
}
