//! The owner of one service's process: starts it, starts it again when it ends, kills or stops it when
//! it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::supervisor::Fleet;

/// The pause before a service that ended is started again: doubling while it keeps ending early.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A service that ran so long ended for a reason of its own.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a service may take to stop when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// What a keeper can be told.
pub(super) enum Order {
    /// Kill it; tell when it is gone.
    Kill(oneshot::Sender<()>),
    /// Kill it and do not start it again, or start it again after all.
    Hold(bool, oneshot::Sender<()>),
    /// Ask it to stop.
    Stop(oneshot::Sender<bool>),
}

/// The owner of one service's process.
pub(super) struct Keeper {
    pub fleet: Fleet,
    pub service: String,
    /// Of the worker: that of the service, if it is the first.
    pub name: String,
    pub pid: watch::Sender<Option<u32>>,
    pub starts: Arc<AtomicU64>,
}

impl Keeper {
    /// Starts the process, and again whenever it ends, until it is told otherwise.
    pub(super) async fn keep(self, mut orders: mpsc::Receiver<Order>) {
        let mut early = 0;
        loop {
            let mut child = match self.fleet.spawn(&self.service, &self.name) {
                Ok(child) => child,
                Err(error) => {
                    tracing::error!(
                        service = self.name.as_str(),
                        error = format!("{error:#}"),
                        "not started"
                    );
                    sleep(LONGEST_PAUSE).await;
                    continue;
                }
            };
            self.starts.fetch_add(1, Ordering::Relaxed);
            self.pid.send_replace(child.id());
            let started = Instant::now();
            let order = tokio::select! {
                _ = child.wait() => None,
                order = orders.recv() => match order {
                    Some(order) => Some(order),
                    None => return,
                },
            };
            early = if started.elapsed() < SETTLED {
                early + 1
            } else {
                0
            };
            if let Some(Order::Stop(done)) = order {
                let by_itself = stop(&mut child).await;
                self.pid.send_replace(None);
                // The run goes on without an answer too.
                let _ = done.send(by_itself);
                return;
            }
            let _ = child.kill().await;
            self.pid.send_replace(None);
            match order {
                Some(Order::Kill(gone)) => {
                    early = 0;
                    let _ = gone.send(());
                }
                Some(Order::Hold(down, done)) => {
                    early = 0;
                    let _ = done.send(());
                    if down && !held(&mut orders).await {
                        return;
                    }
                }
                _ => {}
            }
            sleep((FIRST_PAUSE * 2_u32.pow(early.min(6))).min(LONGEST_PAUSE)).await;
        }
    }
}

/// Waits until the service may run again. False when it never may.
async fn held(orders: &mut mpsc::Receiver<Order>) -> bool {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Hold(down, done) => {
                let _ = done.send(());
                if !down {
                    return true;
                }
            }
            Order::Kill(gone) => {
                let _ = gone.send(());
            }
            Order::Stop(done) => {
                let _ = done.send(true);
                return false;
            }
        }
    }
    false
}

/// Asks a process to stop. Whether it did.
async fn stop(child: &mut Child) -> bool {
    let pid = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    let Some(pid) = pid else { return true };
    if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_err() {
        return true;
    }
    if timeout(STOP_PATIENCE, child.wait()).await.is_ok() {
        return true;
    }
    let _ = child.kill().await;
    false
}
