//! Workers: state machines with a bounded queue, driven by an owned thread in production and by a
//! task in simulation, so that both run the same code.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::mpsc;

/// A state machine that takes jobs in order. Its calls may block (file calls do).
pub trait Worker: Send + 'static {
    /// What it takes.
    type Job: Send + 'static;
    /// Takes every job that was waiting, in order; `jobs` is drained. Returning `false` stops the
    /// worker.
    fn run(&mut self, jobs: &mut Vec<Self::Job>) -> bool;
    /// Called once, after the last job, when every handle is gone or the worker stopped itself.
    fn stop(&mut self) {}
}

/// The job type of a worker.
pub type Job<W> = <W as Worker>::Job;

/// The most jobs handed to [`Worker::run`] at once.
const MAX_JOBS_PER_RUN: usize = 4096;

/// How workers are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// An owned, named thread for each worker.
    Threads,
    /// A task of the current runtime for each worker (simulation: one thread, deterministic).
    Tasks,
}

/// What [`slow_tasks`] was given.
static SLOWNESS: OnceLock<fn(&str) -> Duration> = OnceLock::new();

/// Has every worker that is driven as a task wait, before it does the jobs it took, for what
/// `slowness` says to its name. For simulations, where file calls take no time by themselves: what
/// a disk takes is told here, and everything else goes on meanwhile.
pub fn slow_tasks(slowness: fn(&str) -> Duration) {
    // The first one stays: a process is a simulation or it is none.
    let _ = SLOWNESS.set(slowness);
}

/// The sending side of a worker's queue, and its join.
#[derive(Debug)]
pub struct WorkerHandle<J> {
    queue: mpsc::Sender<J>,
}

impl<J> Clone for WorkerHandle<J> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

/// Waits for a worker to end after its last handle was dropped.
#[derive(Debug)]
pub enum WorkerJoin {
    /// A thread.
    Thread(std::thread::JoinHandle<()>),
    /// A task.
    Task(tokio::task::JoinHandle<()>),
}

impl Workers {
    /// Starts `worker` with a queue of `capacity` jobs.
    ///
    /// # Errors
    /// Those of the operating system when it refuses a thread.
    pub fn spawn<W: Worker>(
        self,
        name: &str,
        capacity: usize,
        mut worker: W,
    ) -> io::Result<(WorkerHandle<W::Job>, WorkerJoin)> {
        let (queue, mut jobs) = mpsc::channel(capacity);
        let join = match self {
            Self::Threads => {
                let body = move || {
                    let mut batch = Vec::new();
                    while jobs.blocking_recv_many(&mut batch, MAX_JOBS_PER_RUN) > 0 {
                        if !worker.run(&mut batch) {
                            break;
                        }
                    }
                    worker.stop();
                };
                #[allow(clippy::disallowed_methods)] // the one place that owns threads
                let thread = std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(body)?;
                WorkerJoin::Thread(thread)
            }
            Self::Tasks => {
                let name = name.to_owned();
                WorkerJoin::Task(tokio::spawn(async move {
                    let mut batch = Vec::new();
                    while jobs.recv_many(&mut batch, MAX_JOBS_PER_RUN).await > 0 {
                        let slowness = SLOWNESS.get().map_or(Duration::ZERO, |of| of(&name));
                        if !slowness.is_zero() {
                            tokio::time::sleep(slowness).await;
                        }
                        if !worker.run(&mut batch) {
                            break;
                        }
                    }
                    worker.stop();
                }))
            }
        };
        Ok((WorkerHandle { queue }, join))
    }
}

/// The worker has stopped; the job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker has stopped")]
pub struct WorkerStopped;

impl<J> WorkerHandle<J> {
    /// Hands over a job, waiting while the queue is full. Cancellation-safe: a dropped future has
    /// not handed over the job.
    ///
    /// # Errors
    /// [`WorkerStopped`].
    pub async fn send(&self, job: J) -> Result<(), WorkerStopped> {
        self.queue.send(job).await.map_err(|_| WorkerStopped)
    }
    /// Hands over a job if there is room now.
    ///
    /// # Errors
    /// The job, when the queue is full or the worker has stopped.
    pub fn try_send(&self, job: J) -> Result<(), mpsc::error::TrySendError<J>> {
        self.queue.try_send(job)
    }
}

impl WorkerJoin {
    /// Waits until the worker has ended. All its handles must be dropped first.
    pub async fn join(self) {
        match self {
            Self::Thread(thread) => {
                // panic = "abort": a worker that panicked took the process with it.
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            Self::Task(task) => {
                let _ = task.await;
            }
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
