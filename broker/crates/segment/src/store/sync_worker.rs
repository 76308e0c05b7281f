//! The syncer: makes a checkpoint's files durable and removes files, beside the writer, so that a
//! slow sync does not hold up appends.

use std::sync::Arc;

use highwater_env::{Disk, Worker};

use super::Shared;
use super::job::SyncJob;

pub(super) struct SyncWorker<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Worker for SyncWorker<D> {
    type Job = SyncJob;

    fn run(&mut self, jobs: &mut Vec<SyncJob>) -> bool {
        for job in jobs.drain(..) {
            // A caller that no longer waits still gets its work done.
            match job {
                SyncJob::Sync { shard, done } => {
                    let result = match self.shared.files.faults.first() {
                        Some(fault) => Err(fault),
                        None => self.shared.files.sync(|owner| owner.shard == shard),
                    };
                    let _ = done.send(result);
                }
                SyncJob::Remove { removal, done } => {
                    let _ = done.send(removal.carry_out(self.shared.files.disk()));
                }
                SyncJob::Stop => return false,
            }
        }
        self.shared.files.faults.first().is_none()
    }
}

impl<D: Disk> SyncWorker<D> {
    pub(super) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }
}
