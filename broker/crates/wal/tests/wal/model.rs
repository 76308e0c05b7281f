//! What a log must hold, without files.

use std::collections::BTreeMap;

use highwater_env::Env;
use highwater_wal::{GroupId, LogIndex, Op, Wal, WalReadError};

/// One group.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub entries: BTreeMap<u64, Vec<u8>>,
    pub purged: Option<(u64, Vec<u8>)>,
    pub states: BTreeMap<u8, Vec<u8>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lens = self
            .entries
            .iter()
            .map(|(index, payload)| (index, payload.len()));
        f.debug_map().entries(lens).finish()?;
        write!(f, " purged {:?} states {:?}", self.purged, self.states)
    }
}

impl Group {
    /// Where the next entry goes.
    pub fn next(&self) -> u64 {
        let after_purge = self.purged.as_ref().map(|(upto, _)| upto + 1);
        let after_last = self.entries.last_key_value().map(|(last, _)| last + 1);
        after_last.or(after_purge).unwrap_or(0)
    }
}

/// All groups that have anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub groups: BTreeMap<GroupId, Group>,
}

impl Model {
    pub fn apply(&mut self, id: GroupId, ops: &[Op]) {
        for op in ops {
            let group = self.groups.entry(id).or_default();
            match op {
                Op::Append { index, payload } => {
                    assert!(group.entries.is_empty() || index.0 == group.next());
                    group
                        .entries
                        .insert(index.0, payload.to_contiguous().to_vec());
                }
                Op::Truncate { from } => {
                    group.entries.split_off(&from.0);
                }
                Op::Purge { upto, meta } => {
                    if group.purged.as_ref().is_none_or(|(at, _)| *at <= upto.0) {
                        group.entries = group.entries.split_off(&(upto.0 + 1));
                        group.purged = Some((upto.0, meta.to_vec()));
                    }
                }
                Op::SetState { slot, value } => {
                    group.states.insert(*slot, value.to_vec());
                }
                Op::Forget => {
                    self.groups.remove(&id);
                }
            }
        }
        self.groups.retain(|_, group| *group != Group::default());
    }

    /// What a log holds, all of it read back.
    pub fn of<E: Env>(wal: &Wal<E>) -> Self {
        Self::read(wal).unwrap()
    }

    /// What a log holds, or why it cannot be read.
    pub fn read<E: Env>(wal: &Wal<E>) -> Result<Self, WalReadError> {
        let mut model = Self::default();
        for id in wal.groups() {
            let bounds = wal.bounds(id);
            let mut group = Group::default();
            if let (Some(first), Some(last)) = (bounds.first, bounds.last) {
                let entries = wal.read(id, first, last.next(), usize::MAX)?;
                assert_eq!(entries.len() as u64, last.0 - first.0 + 1);
                group.entries = entries
                    .into_iter()
                    .map(|(at, p)| (at.0, p.to_vec()))
                    .collect();
            }
            group.purged = bounds
                .purged
                .map(|(LogIndex(upto), meta)| (upto, meta.to_vec()));
            group.states = bounds
                .states
                .into_iter()
                .map(|(k, v)| (k, v.to_vec()))
                .collect();
            if group != Group::default() {
                model.groups.insert(id, group);
            }
        }
        Ok(model)
    }
}
