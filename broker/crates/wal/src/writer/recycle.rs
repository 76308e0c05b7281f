//! Recycling: the oldest file is freed once everything in it that is still needed lies in a newer
//! synced file. Idle groups and groups that cannot purge therefore neither pin the log nor lose
//! their votes.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_env::Disk;
use highwater_mutant::mutant;

use super::group::{Frame, group_span};
use super::{Need, Writer};
use crate::frame::{FIRST_GROUP, FrameKind};
use crate::index::{FileUse, Index, Kept};
use crate::{GroupId, LogIndex, WalError, read};

/// The most bytes rewritten by one step, so that a flush never waits long for it.
const STEP_BYTES: u64 = 1 << 20;
/// A file is emptied early when at most this part of it is needed, once the log has
/// [`EARLY_FILES`] files: otherwise one idle group keeps a long log that has to be read at start.
const EARLY_PART: u64 = 8;
const EARLY_FILES: usize = 4;

/// The oldest file being emptied.
#[derive(Debug)]
pub(super) struct Relocating {
    generation: u64,
    /// Entries that lay in it when this began. Those purged meanwhile are skipped.
    entries: VecDeque<(GroupId, u64)>,
}

/// A pass over the log to bring it below its budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    /// The generation that was being written when it began.
    end: u64,
    /// How many bytes were needed then.
    needed: u64,
}

impl Pass {
    /// Before the first.
    pub(super) const NONE: Self = Self {
        end: 0,
        needed: u64::MAX,
    };
}

/// Something to be written again.
struct Item {
    group: GroupId,
    kind: FrameKind,
    slot: u8,
    index: u64,
    value: Bytes,
}

impl Item {
    fn bytes(&self) -> u64 {
        crate::frame::FRAME_HEAD_LEN as u64 + self.value.len() as u64
    }
}

impl<D: Disk> Writer<D> {
    /// Rewrites a part of the oldest file, if that is worth it, or frees it. `false`: nothing to
    /// do, or nothing that can be done now.
    pub(super) fn recycle_step(&mut self) -> Result<bool, WalError> {
        let Some(mut work) = self.relocating.take().or_else(|| self.choose()) else {
            return Ok(false);
        };
        let limit = STEP_BYTES.min(self.config.file_bytes / 4);
        let Some(mut items) = self.next_entries(&mut work, limit) else {
            return Ok(false);
        };
        let mut last = work.entries.is_empty();
        let bytes: u64 = items.iter().map(Item::bytes).sum();
        if last {
            last = next_states(
                &self.shared.index.read(),
                &work,
                limit.max(bytes + 1),
                &mut items,
            );
        }
        let bytes: u64 = items.iter().map(Item::bytes).sum();
        if !self.make_room(group_span(bytes), Need::States)? {
            return Ok(false);
        }
        self.rewrite(
            &items,
            if last {
                work.generation + 1
            } else {
                self.oldest
            },
        )?;
        if last {
            self.free_oldest(work.generation)?;
        } else {
            self.relocating = Some(work);
        }
        Ok(true)
    }

    /// The oldest file, if it should be emptied.
    fn choose(&mut self) -> Option<Relocating> {
        let index = self.shared.index.read();
        let (&generation, oldest) = index.files.first_key_value()?;
        if generation == self.head.generation {
            return None;
        }
        if !self.renewals.wants(generation) && !self.worth_emptying(&index, oldest) {
            self.pass = self.is_wasteful(&index, generation)?;
        }
        let mut entries = VecDeque::new();
        if oldest.entry_bytes > 0 {
            if self.shared.stats.lock().recycling_blocked {
                return None;
            }
            for id in oldest.highest.keys() {
                let Some(group) = index.groups.get(id) else {
                    continue;
                };
                let here = (group.first..).zip(&group.entries);
                let here = here.filter(|(_, at)| at.generation == generation);
                entries.extend(here.map(|(index, _)| (*id, index)));
            }
        }
        Some(Relocating {
            generation,
            entries,
        })
    }

    /// Whether the oldest file should be emptied, given what is in it and in the whole log.
    fn worth_emptying(&self, index: &Index<D::File>, oldest: &FileUse<D::File>) -> bool {
        let needed = oldest.entry_bytes + oldest.state_bytes;
        if oldest.entry_bytes == 0 && needed * 4 <= oldest.file.len {
            return true;
        }
        index.files.len() >= EARLY_FILES && needed * EARLY_PART <= oldest.file.len
    }

    /// Whether the log is over its budget while at most half of what was written is needed: what
    /// is written again is then paid for by what becomes free. A log that is needed grows until its groups
    /// purge. One pass over the log is made, and another only when less is needed than before.
    fn is_wasteful(&self, index: &Index<D::File>, generation: u64) -> Option<Pass> {
        let needed = index.live_bytes();
        let unwritten = self.head.room() + FIRST_GROUP * index.files.len() as u64;
        let written = index.used_bytes().saturating_sub(unwritten);
        if index.used_bytes() <= self.config.budget_bytes || needed * 2 > written {
            return None;
        }
        if generation < self.pass.end {
            return Some(self.pass);
        }
        (needed < self.pass.needed).then_some(Pass {
            end: self.head.generation,
            needed,
        })
    }

    /// Reads the next entries of the file, `None` when one of them is unreadable: it is left to
    /// the group to purge it, once its replica is whole again.
    fn next_entries(&mut self, work: &mut Relocating, limit: u64) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(&(group, at)) = work.entries.front() {
            let (location, run) = {
                let index = self.shared.index.read();
                let location = index.groups.get(&group).and_then(|g| g.get(at));
                let Some(location) = location.filter(|l| l.generation == work.generation) else {
                    work.entries.pop_front();
                    continue;
                };
                let (from, to) = (LogIndex(at), LogIndex(at.saturating_add(1)));
                (location, read::plan(&index, group, from, to, usize::MAX))
            };
            if !items.is_empty() && bytes + location.frame_len() > limit {
                break;
            }
            let mut found = Vec::new();
            if let Err(error) = run.iter().try_for_each(|run| run.read(&mut found)) {
                tracing::error!(%error, "the oldest write-ahead log file cannot be recycled");
                self.shared.stats.lock().recycling_blocked = true;
                return None;
            }
            bytes += location.frame_len();
            work.entries.pop_front();
            items.extend(found.into_iter().map(|(index, value)| Item {
                group,
                kind: FrameKind::Relocate,
                slot: 0,
                index: index.0,
                value,
            }));
        }
        Some(items)
    }

    fn rewrite(&mut self, items: &[Item], oldest: u64) -> Result<(), WalError> {
        let frames: Vec<_> = items
            .iter()
            .map(|item| {
                let body = std::slice::from_ref(&item.value);
                Frame::new(item.group, item.kind, item.slot, LogIndex(item.index), body)
            })
            .collect();
        let locations = self.write_group(&frames, oldest)?;
        self.index_frames(&frames, locations);
        let entries = items.iter().filter(|item| item.kind == FrameKind::Relocate);
        self.shared.stats.lock().relocated_bytes += entries.map(Item::bytes).sum::<u64>();
        Ok(())
    }

    /// Gives the oldest file back: a durable group says that it is not needed.
    fn free_oldest(&mut self, generation: u64) -> Result<(), WalError> {
        self.oldest = generation + 1;
        let freed = self.shared.index.write().files.remove(&generation);
        if let Some(freed) = freed {
            self.pool.put(freed.file, self.config.max_free_files)?;
            let mut stats = self.shared.stats.lock();
            stats.recycled_files += 1;
            stats.recycling_blocked = false;
        }
        self.shared.refresh(self.pool.len());
        Ok(())
    }
}

/// Adds states and purge points that lie in the file, up to `limit` bytes of items in all but at
/// least one. Whether these are all.
fn next_states<F>(index: &Index<F>, work: &Relocating, limit: u64, items: &mut Vec<Item>) -> bool {
    let mut bytes: u64 = items.iter().map(Item::bytes).sum();
    let start = items.len();
    for (&group, entries) in &index.groups {
        let purged = entries
            .purged
            .iter()
            .map(|(at, kept)| (FrameKind::Purge, 0, *at, kept));
        let states = entries
            .states
            .iter()
            .map(|(at, kept)| (FrameKind::SetState, *at, 0, kept));
        for (kind, slot, index, kept) in purged.chain(states) {
            let Kept { value, location } = kept;
            if location.generation != work.generation {
                continue;
            }
            mutant!(RecycleDropsVote => {
                if kind == FrameKind::SetState {
                    continue;
                }
            });
            bytes += location.frame_len();
            if items.len() > start && bytes > limit {
                return false;
            }
            items.push(Item {
                group,
                kind,
                slot,
                index,
                value: value.clone(),
            });
        }
    }
    true
}
