//! Renewing the log: it goes on in another file, and everything that is needed of those before it is
//! written again, by the rules of recycling. What has rotted in them is then nobody's.

use highwater_env::Disk;
use tokio::sync::oneshot;

use super::{Need, Writer};
use crate::frame::FIRST_GROUP;
use crate::{RenewError, WalError};

/// Who waits for a renewal, and what for.
#[derive(Default)]
pub(super) struct Renewals {
    /// Not begun yet.
    asked: Vec<oneshot::Sender<Result<(), RenewError>>>,
    /// Wait until no generation below `below` is needed.
    begun: Vec<oneshot::Sender<Result<(), RenewError>>>,
    /// Files of older generations are emptied however much of them is needed.
    below: u64,
}

impl Renewals {
    pub(super) fn ask(&mut self, answer: oneshot::Sender<Result<(), RenewError>>) {
        self.asked.push(answer);
    }
    /// Whether a file is to be emptied for somebody who waits.
    pub(super) fn wants(&self, generation: u64) -> bool {
        let waited_for = !self.begun.is_empty() || !self.asked.is_empty();
        waited_for && generation < self.below
    }
    fn take(&mut self) -> Vec<oneshot::Sender<Result<(), RenewError>>> {
        let mut waiting = std::mem::take(&mut self.begun);
        waiting.append(&mut self.asked);
        waiting
    }
}

impl<D: Disk> Writer<D> {
    /// Goes on in another file for those who ask for a renewal, if there is one.
    pub(super) fn begin_renewal(&mut self) -> Result<(), WalError> {
        if self.renewals.asked.is_empty() {
            return Ok(());
        }
        // What was unreadable may have been purged since.
        self.shared.stats.lock().recycling_blocked = false;
        if self.oldest < self.renewals.below {
            // An earlier one has not got through: another file each time would only make the log longer.
            return Ok(());
        }
        if self.head.position > FIRST_GROUP {
            let Some(file) = self.next_file(Need::States)? else {
                return Ok(());
            };
            self.rotate(file)?;
        }
        self.renewals.below = self.head.generation;
        let mut asked = std::mem::take(&mut self.renewals.asked);
        self.renewals.begun.append(&mut asked);
        Ok(())
    }

    /// Answers those whose renewal is done.
    pub(super) fn end_renewal(&mut self) {
        if self.oldest < self.renewals.below {
            return;
        }
        for answer in std::mem::take(&mut self.renewals.begun) {
            let _ = answer.send(Ok(()));
        }
    }

    /// Answers all others when nothing more can be done now.
    pub(super) fn put_renewal_off(&mut self) {
        let unreadable = self.shared.stats.lock().recycling_blocked;
        for answer in self.renewals.take() {
            let _ = answer.send(Err(RenewError::NotYet { unreadable }));
        }
    }

    /// Answers all with the error that ended the log.
    pub(super) fn fail_renewal(&mut self, error: &WalError) {
        for answer in self.renewals.take() {
            let _ = answer.send(Err(error.clone().into()));
        }
    }
}
