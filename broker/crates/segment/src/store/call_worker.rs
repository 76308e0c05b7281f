//! The caller: runs what must not hold up writer and syncer on a thread of its own, in order:
//! checking what lies on the disk, and putting back what it lost.

use highwater_env::Worker;

/// A call, or the end.
pub(super) enum CallJob {
    Call(Box<dyn FnOnce() + Send>),
    Stop,
}

pub(super) struct CallWorker;

impl Worker for CallWorker {
    type Job = CallJob;

    fn run(&mut self, jobs: &mut Vec<CallJob>) -> bool {
        for job in jobs.drain(..) {
            match job {
                CallJob::Call(call) => call(),
                CallJob::Stop => return false,
            }
        }
        true
    }
}
