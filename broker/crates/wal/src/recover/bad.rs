//! Frames whose payload rotted below a position known durable: what may be done without, and what may
//! not.
//!
//! What each such frame did is known from its head. It is done without when nothing of it is needed:
//! it was superseded, cut, purged or forgotten later in the log, or it is an entry that a durable
//! checkpoint covers. A vote, a purge point or an entry that nothing replaces is lost: the log is not
//! opened.

use super::scan::BadFrame;
use crate::config::Covered;
use crate::frame::FrameKind;
use crate::index::Index;
use crate::{LogIndex, WalOpenError};

/// Decides over the bad frames of a log whose index is filled. Entries that are in the index and
/// unreadable are noted there.
pub(super) fn judge<F>(
    index: &mut Index<F>,
    bad: &[BadFrame],
    covered: &Covered,
) -> Result<(), WalOpenError> {
    for frame in bad {
        let id = frame.change.group;
        let Some(group) = index.groups.get_mut(&id) else {
            continue;
        };
        let (at, here) = (frame.change.index, frame.change.location);
        let needed = match frame.change.kind {
            FrameKind::Append | FrameKind::Relocate => {
                let there = group.get(at) == Some(here);
                let held = there && covered(id).is_some_and(|upto| upto >= LogIndex(at));
                if held {
                    group.unreadable.insert(at);
                }
                there && !held
            }
            FrameKind::SetState => {
                let kept = group.states.get(&frame.change.slot);
                kept.is_some_and(|kept| kept.location == here)
            }
            FrameKind::Purge => {
                let kept = group.purged.as_ref();
                kept.is_some_and(|(_, kept)| kept.location == here)
            }
            FrameKind::Truncate | FrameKind::Forget => true,
        };
        if needed {
            return Err(WalOpenError::Damaged {
                file: frame.place.file.clone(),
                offset: frame.place.offset,
                durable_to: frame.durable_to,
                what: frame.place.what,
            });
        }
    }
    Ok(())
}
