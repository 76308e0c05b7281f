//! Further workers for a service whose group stays behind, as long as it does: processes that share the
//! group's partitions with the first one. Only for services that keep nothing in mind between two
//! messages ([`Role::scales`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::lag;
use super::progress::{Event, Listener};
use super::supervisor::Supervisor;
use crate::bus::ClientBus;
use crate::domain::role::Role;
use crate::gateway::door::unix_ms;
use crate::report::Scaled;

/// How often lags are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Looks whose mean must reach the bound. One commit lies between two looks, and a lag that a commit
/// takes away is none.
const ABOVE: usize = 4;
/// Looks whose mean must be below a quarter of the bound before a worker is stopped.
const GONE: usize = 12;
const POLL: Duration = Duration::from_millis(20);
/// How long workers may take to take over what one that was stopped had.
const PATIENCE: Duration = Duration::from_secs(60);

/// When services get further workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    /// Workers of one service at the most, its first one included; 1: no service gets any.
    pub most: u32,
    /// Messages that a group has not committed, from which on it gets one.
    pub lag: u64,
}

impl Scaling {
    /// The lag is gone: it is below a quarter of the bound.
    const fn is_gone(self, lag: u64) -> bool {
        lag < self.lag.div_ceil(4)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// So many messages behind, as the mean of the last looks.
    Start {
        behind: u64,
    },
    Stop,
}

/// Decides for one service. Pure.
#[derive(Debug)]
struct Decider {
    scaling: Scaling,
    lags: VecDeque<u64>,
}

impl Decider {
    fn new(scaling: Scaling) -> Self {
        Self {
            scaling,
            lags: VecDeque::new(),
        }
    }

    /// What to do after another look, while there are so many workers. Each step begins a new series
    /// of looks: what it changes has to show first.
    fn look(&mut self, lag: u64, workers: u32) -> Option<Step> {
        self.lags.push_back(lag);
        if self.lags.len() > GONE {
            self.lags.pop_front();
        }
        let mean = |looks: usize| {
            let enough = self.lags.len() >= looks;
            enough.then(|| self.lags.iter().rev().take(looks).sum::<u64>() / looks as u64)
        };
        // What is gone by now needs nobody any more.
        let above =
            mean(ABOVE).filter(|mean| *mean >= self.scaling.lag && !self.scaling.is_gone(lag));
        let gone = mean(GONE).is_some_and(|mean| self.scaling.is_gone(mean));
        let step = match above {
            Some(behind) if workers < self.scaling.most => Step::Start { behind },
            _ if gone && workers > 1 => Step::Stop,
            _ => return None,
        };
        self.lags.clear();
        Some(step)
    }
}

/// A further worker that is there.
struct Worker {
    number: u32,
    /// Its place in what was done.
    at: usize,
    /// When it was decided to start it, in milliseconds since 1970.
    decided_ms: i64,
    /// It has handled a message.
    works: bool,
}

/// A scaler at work. Dropped, it does nothing more; workers that are there stay.
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    done: Arc<Mutex<Vec<Scaled>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Ends it: what was done, and why it could not go on, if so.
    pub(super) async fn finish(mut self) -> (Vec<Scaled>, Option<String>) {
        self.stop.cancel();
        let problem = match (&mut self.task).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("scaling: {error:#}")),
            Err(error) => Some(format!("scaling stopped: {error}")),
        };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut *done), problem)
    }
}

/// Watches the groups and starts and stops workers.
pub(super) struct Scaler {
    pub scaling: Scaling,
    pub bus: ClientBus,
    pub supervisor: Arc<Supervisor>,
    pub listener: Listener,
    /// When the first order is due.
    pub start: Instant,
    /// What was done, in order.
    pub done: Arc<Mutex<Vec<Scaled>>>,
}

impl Scaler {
    /// Begins to watch.
    pub(super) fn watch(self) -> Running {
        let (stop, done) = (CancellationToken::new(), Arc::clone(&self.done));
        Running {
            task: tokio::spawn(self.run(stop.clone())),
            stop,
            done,
        }
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let roles = Role::ALL.into_iter().filter(|role| role.scales());
        try_join_all(roles.map(|role| self.follow(role, &stop))).await?;
        Ok(())
    }

    async fn follow(&self, role: Role, stop: &CancellationToken) -> anyhow::Result<()> {
        // A worker without a partition would have nothing to do.
        let topic = self.bus.client().topic(role.topic()).await?;
        let scaling = Scaling {
            most: self.scaling.most.min(topic.partition_count()),
            ..self.scaling
        };
        let mut decider = Decider::new(scaling);
        let mut further: Vec<Worker> = Vec::new();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            for worker in &mut further {
                self.note_first(role, worker).await;
            }
            if last {
                return Ok(());
            }
            // While a broker dies nobody may know the lag. Then nothing is done.
            let place = timeout(LOOK * 2, lag::place(self.bus.client(), role)).await;
            let Ok(Ok(place)) = place else { continue };
            self.note_gone(&further, scaling.is_gone(place.behind));
            let workers = u32::try_from(further.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            match decider.look(place.behind, workers) {
                Some(Step::Start { behind }) => {
                    further.push(self.begin(role, workers + 1, behind)?);
                }
                Some(Step::Stop) => {
                    if let Some(worker) = further.pop() {
                        self.end(role, worker).await?;
                    }
                }
                None => {}
            }
        }
    }

    fn say(&self, what: String) {
        (self.listener)(Event::Said(what));
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Scaled)) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scaled) = done.get_mut(at) {
            change(scaled);
        }
    }

    /// Since when the lag has been gone, counted from each decision; forgotten when it comes back.
    fn note_gone(&self, further: &[Worker], gone: bool) {
        let now = self.start.elapsed().as_secs_f64();
        for worker in further {
            self.change(worker.at, |scaled| {
                scaled.gone_s = match gone {
                    true => scaled.gone_s.or(Some(now - scaled.at_s)),
                    false => None,
                };
            });
        }
    }

    /// Starts a worker.
    fn begin(&self, role: Role, number: u32, behind: u64) -> anyhow::Result<Worker> {
        let name = role.worker(number);
        let (decided_ms, at_s) = (unix_ms(), self.start.elapsed().as_secs_f64());
        self.supervisor.add(role, number)?;
        self.say(format!(
            "{role} is {behind} messages behind: {name} is started"
        ));
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(Scaled {
            service: role.name().to_owned(),
            at_s,
            behind,
            ..Scaled::default()
        });
        Ok(Worker {
            number,
            at: done.len() - 1,
            decided_ms,
            works: false,
        })
    }

    /// Notes when a new worker has handled its first message: it says so itself, to the millisecond,
    /// whenever it is asked.
    async fn note_first(&self, role: Role, worker: &mut Worker) {
        if worker.works {
            return;
        }
        let name = role.worker(worker.number);
        let stats = self.supervisor.stats(&name).await;
        let Some(first) = stats.map(|stats| stats.first_ms).filter(|first| *first > 0) else {
            return;
        };
        worker.works = true;
        // What the new one has was given up by whoever gave up something last.
        let mut went = Vec::new();
        for other in 1..worker.number {
            let stats = self.supervisor.stats(&role.worker(other)).await;
            went.extend(stats.map(|stats| stats.went_ms));
        }
        let meanwhile = worker.decided_ms..=first;
        let went = went
            .into_iter()
            .filter(|went| meanwhile.contains(went))
            .max();
        let assigned = since(worker.decided_ms, first);
        self.change(worker.at, |scaled| {
            scaled.assigned_ms = Some(assigned);
            scaled.pause_ms = went.map(|went| since(went, first));
        });
        self.say(format!(
            "{name} handled its first message after {assigned:.0} ms"
        ));
    }

    /// Stops a worker and returns when the others have what it had.
    async fn end(&self, role: Role, worker: Worker) -> anyhow::Result<()> {
        let name = role.worker(worker.number);
        let decided = unix_ms();
        let stopped = self.start.elapsed().as_secs_f64();
        self.say(format!("{role} has caught up: {name} is stopped"));
        let by_itself = self.supervisor.retire(&name).await?;
        anyhow::ensure!(by_itself, "{name} did not stop and was killed");
        let back = async {
            loop {
                for other in 1..worker.number {
                    let stats = self.supervisor.stats(&role.worker(other)).await;
                    let came = stats.map(|stats| stats.came_ms);
                    if let Some(came) = came.filter(|came| *came >= decided) {
                        return came;
                    }
                }
                sleep(POLL).await;
            }
        };
        let back = timeout(PATIENCE, back).await.ok();
        self.change(worker.at, |scaled| {
            scaled.stopped_s = Some(stopped - scaled.at_s);
            scaled.handed_back_ms = back.map(|back| since(decided, back));
        });
        Ok(())
    }
}

/// Between two readings of the wall clock, in milliseconds.
#[allow(clippy::cast_precision_loss)]
fn since(from: i64, to: i64) -> f64 {
    to.saturating_sub(from).max(0) as f64
}

#[cfg(test)]
#[path = "scale_tests.rs"]
mod tests;
