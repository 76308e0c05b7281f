//! The index in memory: where every entry lies, and what each file still holds that is needed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::file::WalFile;
use crate::frame::{FIRST_GROUP, FRAME_HEAD_LEN, FrameKind};
use crate::{GroupId, LogIndex};

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// The generation of its file.
    pub generation: u64,
    /// Where its head starts, in bytes.
    pub offset: u64,
    /// Length of its payload, in bytes.
    pub len: u32,
}

impl Location {
    /// Bytes of the frame.
    pub(crate) fn frame_len(&self) -> u64 {
        FRAME_HEAD_LEN as u64 + u64::from(self.len)
    }
}

/// A small value that is kept in memory too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub value: Bytes,
    pub location: Location,
}

/// A frame as the index sees it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub group: GroupId,
    pub kind: FrameKind,
    pub slot: u8,
    pub index: u64,
    pub location: Location,
    /// The payload of a state or purge point; empty for entries.
    pub value: Bytes,
}

/// What one group has. Entries are consecutive.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex {
    /// The place of the first entry; without entries it means nothing.
    pub first: u64,
    pub entries: VecDeque<Location>,
    pub purged: Option<(u64, Kept)>,
    pub states: BTreeMap<u8, Kept>,
    /// Entries that had rotted when the log was opened; a durable checkpoint covers each of them.
    pub unreadable: BTreeSet<u64>,
}

impl GroupIndex {
    /// One behind the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
    /// Where entry `index` lies.
    pub(crate) fn get(&self, index: u64) -> Option<Location> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at).copied()
    }
    fn get_mut(&mut self, index: u64) -> Option<&mut Location> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }
}

/// What one file in use holds.
#[derive(Debug)]
pub(crate) struct FileUse<F> {
    pub file: Arc<WalFile<F>>,
    /// Where its last durable group ends, in bytes.
    pub end: u64,
    /// Bytes of entries in it that are still needed.
    pub entry_bytes: u64,
    /// Bytes of states and purge points in it that are still needed.
    pub state_bytes: u64,
    /// The highest entry of each group that was written into it.
    pub highest: BTreeMap<GroupId, u64>,
}

/// Everything known of the log.
#[derive(Debug)]
pub(crate) struct Index<F> {
    pub groups: BTreeMap<GroupId, GroupIndex>,
    /// Files in use, by generation.
    pub files: BTreeMap<u64, FileUse<F>>,
}

impl<F> Default for Index<F> {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }
}

impl<F> Index<F> {
    /// Notes that `file` is used as `generation`.
    pub(crate) fn add_file(&mut self, generation: u64, file: Arc<WalFile<F>>) {
        let highest = BTreeMap::new();
        self.files.insert(
            generation,
            FileUse {
                file,
                end: FIRST_GROUP,
                entry_bytes: 0,
                state_bytes: 0,
                highest,
            },
        );
    }

    /// Notes up to where a file is written and durable.
    pub(crate) fn written(&mut self, generation: u64, end: u64) {
        if let Some(used) = self.files.get_mut(&generation) {
            used.end = end;
        }
    }

    /// Notes a durable frame of the writer's. Frames of one group come in their order.
    pub(crate) fn apply(&mut self, change: Change) {
        let Change {
            group: id,
            kind,
            slot,
            index,
            location,
            value,
        } = change;
        let group = self.groups.entry(id).or_default();
        let files = &mut self.files;
        match kind {
            FrameKind::Append => {
                if group.entries.is_empty() {
                    group.first = index;
                }
                group.entries.push_back(location);
                add_entry(files, id, index, &location);
            }
            FrameKind::Relocate => {
                if let Some(place) = group.get_mut(index) {
                    let old = std::mem::replace(place, location);
                    drop_entry(files, &old);
                    add_entry(files, id, index, &location);
                }
            }
            FrameKind::Truncate => {
                group.unreadable.split_off(&index);
                while group.end() > index {
                    let Some(old) = group.entries.pop_back() else {
                        break;
                    };
                    drop_entry(files, &old);
                }
            }
            FrameKind::Purge => {
                if group.purged.as_ref().is_some_and(|(upto, _)| *upto > index) {
                    return;
                }
                while group.first <= index {
                    let Some(old) = group.entries.pop_front() else {
                        break;
                    };
                    group.first += 1;
                    drop_entry(files, &old);
                }
                group.unreadable = group.unreadable.split_off(&index.saturating_add(1));
                add_state(files, &location);
                if let Some((_, old)) = group.purged.replace((index, Kept { value, location })) {
                    drop_state(files, &old.location);
                }
            }
            FrameKind::SetState => {
                add_state(files, &location);
                if let Some(old) = group.states.insert(slot, Kept { value, location }) {
                    drop_state(files, &old.location);
                }
            }
            FrameKind::Forget => self.forget(id),
        }
    }

    fn forget(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        for entry in &group.entries {
            drop_entry(&mut self.files, entry);
        }
        for kept in group
            .states
            .values()
            .chain(group.purged.as_ref().map(|(_, kept)| kept))
        {
            drop_state(&mut self.files, &kept.location);
        }
    }

    /// Puts a recovered group in place and counts what it holds of each file.
    pub(crate) fn insert_group(&mut self, id: GroupId, group: GroupIndex) {
        for (index, entry) in (group.first..).zip(&group.entries) {
            add_entry(&mut self.files, id, index, entry);
        }
        for kept in group
            .states
            .values()
            .chain(group.purged.as_ref().map(|(_, kept)| kept))
        {
            add_state(&mut self.files, &kept.location);
        }
        self.groups.insert(id, group);
    }

    /// Bytes of the files in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.files.values().map(|f| f.file.len).sum()
    }
    /// Bytes in them that are still needed.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.files
            .values()
            .map(|f| f.entry_bytes + f.state_bytes)
            .sum()
    }
}

type Files<F> = BTreeMap<u64, FileUse<F>>;

fn add_entry<F>(files: &mut Files<F>, group: GroupId, index: u64, at: &Location) {
    if let Some(file) = files.get_mut(&at.generation) {
        file.entry_bytes += at.frame_len();
        let highest = file.highest.entry(group).or_insert(index);
        *highest = index.max(*highest);
    }
}

fn drop_entry<F>(files: &mut Files<F>, at: &Location) {
    if let Some(file) = files.get_mut(&at.generation) {
        file.entry_bytes = file.entry_bytes.saturating_sub(at.frame_len());
    }
}

fn add_state<F>(files: &mut Files<F>, at: &Location) {
    if let Some(file) = files.get_mut(&at.generation) {
        file.state_bytes += at.frame_len();
    }
}

fn drop_state<F>(files: &mut Files<F>, at: &Location) {
    if let Some(file) = files.get_mut(&at.generation) {
        file.state_bytes = file.state_bytes.saturating_sub(at.frame_len());
    }
}

/// The places between which a group has entries, with its purge point and states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first entry, if there is one.
    pub first: Option<LogIndex>,
    /// The last entry, if there is one.
    pub last: Option<LogIndex>,
    /// The purge point with its meta.
    pub purged: Option<(LogIndex, Bytes)>,
    /// The value of each slot that was ever set.
    pub states: BTreeMap<u8, Bytes>,
    /// The last of the entries that had rotted when the log was opened. A durable checkpoint covers
    /// it: the group is to be purged up to there before it is read.
    pub unreadable: Option<LogIndex>,
}

impl From<&GroupIndex> for Bounds {
    fn from(group: &GroupIndex) -> Self {
        let some = !group.entries.is_empty();
        Self {
            first: some.then_some(LogIndex(group.first)),
            last: some.then(|| LogIndex(group.end() - 1)),
            purged: group
                .purged
                .as_ref()
                .map(|(at, k)| (LogIndex(*at), k.value.clone())),
            states: group
                .states
                .iter()
                .map(|(slot, k)| (*slot, k.value.clone()))
                .collect(),
            unreadable: group.unreadable.last().copied().map(LogIndex),
        }
    }
}
