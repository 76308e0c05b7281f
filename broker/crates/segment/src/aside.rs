//! A log beside a partition's own: what another replica has, on its way here. It takes the place of the
//! partition's log at once, when it is whole, or goes; until then nobody sees it, and the log that is
//! there stays as it is.

use std::sync::atomic::Ordering;

use highwater_env::Disk;
use highwater_proto::Offset;

use crate::log::PartitionLog;
use crate::reader::View;

impl<D: Disk> PartitionLog<D> {
    /// An empty log in the same directory. Nothing that a durable manifest names is written over, because
    /// its files have another version.
    #[must_use]
    pub fn aside(&self) -> Self {
        let shared = &self.shared;
        let version = shared.versions.take();
        let place = (shared.dir.clone(), shared.config);
        let content = (View::default(), Offset(0));
        let log = Self::with_view(&shared.files, shared.owner, place, content);
        Self { version, ..log }
    }
    /// Puts the content of a log that was begun by [`Self::aside`] in the place of this one's. What was
    /// here waits for [`Self::take_unlinkable`].
    pub fn take_over(&mut self, aside: Self) {
        let next_offset = aside.next_offset();
        let new = std::mem::take(&mut *aside.shared.view.write());
        let mut view = self.shared.view.write();
        let gone = std::mem::replace(&mut view.segments, new.segments);
        view.log_start = new.log_start;
        view.compacted = new.compacted;
        view.resets += 1;
        self.shared
            .next_offset
            .store(next_offset.0, Ordering::Release);
        drop(view);
        self.retired.extend(gone.into_values());
        self.retired.extend(aside.retired);
        self.growing = aside.growing;
        self.shared.versions.give_back(aside.version);
        self.version = aside.version;
    }
    /// Gives up a log that was begun by [`Self::aside`]. Its files wait for [`Self::take_unlinkable`].
    pub fn give_up(&mut self, aside: Self) {
        let new = std::mem::take(&mut *aside.shared.view.write());
        self.retired.extend(new.segments.into_values());
        self.retired.extend(aside.retired);
        self.shared.versions.give_back(aside.version);
    }
}
