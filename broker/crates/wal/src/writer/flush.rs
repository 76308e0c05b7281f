//! One flush: as many submissions as fit become one group, one vectored write, one sync.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::time::Duration;

use highwater_env::{Disk, DiskFile};
use highwater_mutant::mutant;
use tokio::time::Instant;

use super::group::{Encoded, Frame, Place, group_span};
use super::queue::{Before, Submission};
use super::{Need, Writer};
use crate::file::{WalFile, write_error};
use crate::frame::{FrameKind, PAGE};
use crate::index::{Change, Location};
use crate::{GroupId, WalError};

static ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];

/// Zeroes from the end of a group to the end of its page: a page that is not cached and is written only in
/// part would have to be read first, before the sync that somebody waits for.
fn rest_of_page(end: u64, file_len: u64) -> &'static [u8] {
    let rest = end.next_multiple_of(PAGE).min(file_len).saturating_sub(end);
    let rest = usize::try_from(rest).unwrap_or(0);
    ZEROES.get(..rest).unwrap_or_default()
}

/// Submissions of one flush, in order, each with why it is refused, if it is.
type Batch<F> = Vec<(Submission<F>, Option<WalError>)>;

impl<D: Disk> Writer<D> {
    /// Makes durable and answers all that waits, as far as there is disk space.
    pub(super) fn flush_queue(&mut self) -> Result<(), WalError> {
        while let Some(batch) = self.next_batch()? {
            self.commit(batch)?;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<Batch<D::File>>, WalError> {
        let Some(first) = self.queue.front() else {
            return Ok(None);
        };
        let span = group_span(first.bytes);
        if !self.make_room(span, Need::Entries)? {
            return self.overtaking();
        }
        let limit = self
            .head
            .room()
            .min(span.max(self.config.flush_bytes as u64));
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.queue.front() {
            if group_span(bytes + next.bytes) > limit {
                break;
            }
            bytes += next.bytes;
            taken.extend(self.queue.pop_front());
        }
        Ok(Some(self.judge(taken)))
    }

    /// What may be written although entries wait for disk space: all but entries of groups that wait for
    /// nothing, and purges that free it.
    fn overtaking(&mut self) -> Result<Option<Batch<D::File>>, WalError> {
        let mut taken = Vec::new();
        let mut staying = VecDeque::with_capacity(self.queue.len());
        let mut waiting: BTreeMap<GroupId, Before> = BTreeMap::new();
        let mut bytes = 0;
        for submission in self.queue.drain(..) {
            let last = self.tips.get(&submission.group).and_then(super::Tip::last);
            let fits = bytes + submission.bytes <= self.config.flush_bytes as u64;
            let before = waiting.get(&submission.group).copied().unwrap_or_default();
            if fits && submission.may_overtake(last, before) {
                bytes += submission.bytes;
                taken.push(submission);
            } else {
                waiting.insert(submission.group, submission.waits(before));
                staying.push_back(submission);
            }
        }
        self.queue = staying;
        if taken.is_empty() {
            return Ok(None);
        }
        // They fit into the room that is left or into the file that is kept for them.
        if self.make_room(group_span(bytes), Need::States)? {
            return Ok(Some(self.judge(taken)));
        }
        for submission in taken.into_iter().rev() {
            self.queue.push_front(submission);
        }
        Ok(None)
    }

    /// Refuses what does not follow, and moves the tips on for the rest.
    fn judge(&mut self, taken: Vec<Submission<D::File>>) -> Batch<D::File> {
        let mut batch = Vec::with_capacity(taken.len());
        for submission in taken {
            let tip = self
                .tips
                .get(&submission.group)
                .copied()
                .unwrap_or_default();
            let refusal = match tip.after(submission.group, &submission.ops) {
                Ok(tip) => {
                    self.tips.insert(submission.group, tip);
                    None
                }
                Err(error) => Some(error),
            };
            batch.push((submission, refusal));
        }
        batch
    }

    fn commit(&mut self, batch: Batch<D::File>) -> Result<(), WalError> {
        let written = self.write_batch(&batch);
        for (submission, refusal) in batch {
            // A failed file call is the answer to everybody, also to what was refused.
            submission.complete(written.clone().and_then(|()| refusal.map_or(Ok(()), Err)));
        }
        written
    }

    fn write_batch(&mut self, batch: &Batch<D::File>) -> Result<(), WalError> {
        let accepted = batch.iter().filter(|(_, refusal)| refusal.is_none());
        let frames: Vec<_> = accepted
            .flat_map(|(s, _)| s.ops.iter().map(|op| Frame::of(s.group, op)))
            .collect();
        if frames.is_empty() {
            return Ok(());
        }
        let locations = self.write_group(&frames, self.oldest)?;
        self.index_frames(&frames, locations);
        Ok(())
    }

    /// Writes and syncs one group for which there is room, and moves the head on. `oldest` is the
    /// oldest generation that is needed once the group is durable.
    pub(super) fn write_group(
        &mut self,
        frames: &[Frame<'_>],
        oldest: u64,
    ) -> Result<Vec<Location>, WalError> {
        let head = &mut self.head;
        let place = Place {
            generation: head.generation,
            offset: head.position,
            sequence: head.sequence,
            oldest,
        };
        let encoded = Encoded::new(frames, place);
        let WalFile { file, path, .. } = &*head.file;
        let mut slices = encoded.slices(frames);
        slices.push(IoSlice::new(rest_of_page(
            place.offset + encoded.span,
            head.file.len,
        )));
        file.write_vectored_at(&slices, place.offset)
            .map_err(write_error("write", path))?;
        let started = Instant::now();
        let first = mutant!(
            AckBeforeFsync => if frames.iter().all(Frame::is_of_entries) { Ok(()) } else { file.sync_data() };
            else file.sync_data()
        );
        let synced = mutant!(RetryFsync => first.or_else(|_| file.sync_data()); else first);
        synced.map_err(write_error("sync", path))?;
        let took: Duration = started.elapsed();
        head.position += encoded.span;
        head.sequence += 1;
        head.forget_written();
        self.marked = false;
        self.shared.stats.lock().committed(encoded.span, took);
        Ok(encoded.locations)
    }

    /// Brings the index up to date with frames that are durable.
    pub(super) fn index_frames(&mut self, frames: &[Frame<'_>], locations: Vec<Location>) {
        let mut index = self.shared.index.write();
        index.written(self.head.generation, self.head.position);
        for (frame, location) in frames.iter().zip(locations) {
            let kept = matches!(frame.head.kind, FrameKind::Purge | FrameKind::SetState);
            let value = match frame.body {
                [value] if kept => value.clone(),
                _ => bytes::Bytes::new(),
            };
            index.apply(Change {
                group: crate::GroupId(frame.head.group),
                kind: frame.head.kind,
                slot: frame.head.slot,
                index: frame.head.index,
                location,
                value,
            });
        }
    }
}
