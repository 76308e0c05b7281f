//! One mode's run: services up, orders through, faults in between, everything drained, stopped,
//! and judged by the checker, which is a process of its own.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::RunConfig;
use super::drain::{Drain, Drained};
use super::faults::FaultKind;
use super::load::{Load, LoadCounters, Loaded};
use super::measured::work;
use super::probe;
use super::progress::{Event, Listener};
use super::sampling::Sampling;
use super::scale::{self, Scaler};
use super::schedule::Schedule;
use super::strike::Strike;
use super::supervisor::{Fleet, Supervisor};
use super::usage::Usage;
use super::watch::Watch;
use crate::bus::ClientBus;
use crate::checker::{Facts, Verdict};
use crate::control::ClusterControl;
use crate::domain::topics;
use crate::gateway::door::unix_ms;
use crate::journal::JournalHandle;
use crate::report::{FaultReport, ModeRun, Sample, Scaled};
use crate::services::config::Mode;

/// Ends a task with its owner.
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One mode's run.
pub(super) struct One<'a> {
    pub mode: Mode,
    pub directory: PathBuf,
    pub brokers: Vec<(u32, String)>,
    pub config: &'a RunConfig,
    pub control: Arc<dyn ClusterControl>,
    pub listener: Listener,
}

/// What a run was like while orders flowed.
pub(super) struct Flowed {
    pub loaded: Loaded,
    pub accepted: u64,
    pub samples: Arc<Mutex<Vec<Sample>>>,
    /// Goes on while orders end.
    sampling: Owned<()>,
    /// As well.
    scaling: Option<scale::Running>,
    pub scaled: Vec<Scaled>,
    pub faults: Vec<FaultReport>,
    pub problems: Vec<String>,
    pub start_unix_ms: i64,
}

impl One<'_> {
    pub(super) async fn run(self) -> anyhow::Result<ModeRun> {
        let plan = self.plan();
        std::fs::write(self.directory.join("plan.json"), serde_json::to_vec(&plan)?)?;
        let bus = self.topics().await?;
        let patience = self.config.patience;
        self.say(format!("Starting the services ({})", self.mode.name()));
        let supervisor = Arc::new(Supervisor::start(self.fleet(), patience).await?);
        let watch = Watch::new()?;
        let _watching = bus
            .as_ref()
            .map(|bus| Owned(tokio::spawn(watch.clone().follow(bus.client().clone()))));
        let usage = Arc::new(Mutex::new(Usage::default()));
        // What brokers did before this mode is not its cost.
        self.look(&usage, &supervisor).await;
        usage.lock().unwrap_or_else(PoisonError::into_inner).begin();
        let mut flowed = self.flow(&supervisor, bus.as_ref(), &watch, &usage).await?;
        let drained = match &bus {
            Some(bus) => {
                self.drain(bus, &supervisor, &watch, flowed.accepted)
                    .await?
            }
            None => Drained::default(),
        };
        flowed.problems.extend(drained.problems.iter().cloned());
        flowed.sampling.0.abort();
        if let Some(scaling) = flowed.scaling.take() {
            let (scaled, problem) = scaling.finish().await;
            flowed.scaled = scaled;
            flowed.problems.extend(problem);
        }
        let replay = match (&bus, self.config.replay_at) {
            (Some(bus), Some(at)) => {
                let patience = self.config.patience;
                Some(super::replay::replay(bus, at, flowed.start_unix_ms, patience).await?)
            }
            _ => None,
        };
        self.look(&usage, &supervisor).await;
        let work = work(&supervisor).await;
        self.say("Stopping the services".to_owned());
        for name in supervisor.stop().await? {
            flowed
                .problems
                .push(format!("{name} did not stop and was killed"));
        }
        let verdict = self.judge(&drained).await?;
        let cpu_s = usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .seconds();
        let mut run = self.measured((flowed, drained.unaided), &watch, verdict, cpu_s);
        run.replay = replay;
        run.work = work;
        Ok(run)
    }

    fn say(&self, what: String) {
        (self.listener)(Event::Said(what));
    }

    /// Poison can be parked where there is a queue for it.
    fn plan(&self) -> crate::plan::Plan {
        let plan = self.config.plan.clone();
        match self.mode {
            Mode::Event => plan,
            _ => plan.with_poison(0),
        }
    }

    fn fleet(&self) -> Fleet {
        Fleet {
            executable: self.config.executable.clone(),
            directory: self.directory.clone(),
            brokers: self
                .brokers
                .iter()
                .map(|(_, address)| address.clone())
                .collect(),
            mode: self.mode,
            mutant: self.config.mutant.clone(),
            rate_limit: 100_000.0,
            service_time_us: self.config.service_time_us,
        }
    }

    async fn topics(&self) -> anyhow::Result<Option<ClientBus>> {
        if !self.mode.has_brokers() {
            return Ok(None);
        }
        let addresses: Vec<String> = self.brokers.iter().map(|(_, a)| a.clone()).collect();
        let bus = ClientBus::connect(&addresses).await?;
        let replication = if self.brokers.len() >= 3 { 3 } else { 1 };
        if self.mode == Mode::MonolithReplicated {
            let (topic, partitions) = topics::MONOLITH;
            bus.create_topic(topic, partitions, replication, &[])
                .await?;
            return Ok(None);
        }
        for (topic, partitions) in topics::ALL {
            let partitions = match self.config.partitions {
                Some(wanted) => topics::scaled(partitions, wanted),
                None => partitions,
            };
            let kept = topics::kept(topic);
            bus.create_topic(topic, partitions, replication, kept)
                .await?;
        }
        let probes = (probe::TOPIC, probe::PARTITIONS);
        bus.create_topic(probes.0, probes.1, replication, &[])
            .await?;
        Ok(Some(bus))
    }

    async fn flow(
        &self,
        supervisor: &Arc<Supervisor>,
        bus: Option<&ClientBus>,
        watch: &Watch,
        usage: &Arc<Mutex<Usage>>,
    ) -> anyhow::Result<Flowed> {
        let rate = self.config.effective_rate();
        let plan = Arc::new(self.plan());
        (self.listener)(Event::Sending {
            orders: plan.count(),
            rate,
        });
        let (journal, writing) = JournalHandle::open(&self.directory.join("journal")).await?;
        let counters = Arc::new(LoadCounters::default());
        let (start, start_unix_ms) = (Instant::now(), unix_ms());
        let load = Arc::new(Load {
            plan,
            schedule: self.schedule(),
            start,
            start_unix_ms,
            journal,
            counters: Arc::clone(&counters),
            supervisor: Arc::clone(supervisor),
            loaded: Mutex::new(Loaded::empty()?),
        });
        let samples = Arc::new(Mutex::new(Vec::new()));
        let sampling = Sampling {
            counters: Arc::clone(&counters),
            watch: watch.clone(),
            listener: Arc::clone(&self.listener),
            samples: Arc::clone(&samples),
            bus: bus.cloned(),
            control: Arc::clone(&self.control),
            brokers: self.brokers.clone(),
        };
        let sampling = Owned(tokio::spawn(sampling.run()));
        let scaling = self.scaling(supervisor, bus, start);
        let strikes = self.strikes(supervisor, bus, start);
        let mut loading = Owned(tokio::spawn(Arc::clone(&load).run()));
        let loaded = self.loading(&mut loading.0, usage, supervisor).await;
        loaded.context("the load stopped")??;
        let (faults, mut problems) = finish(strikes).await?;
        let accepted = counters.accepted.load(Ordering::Acquire);
        let loaded = std::mem::replace(
            &mut *load.loaded.lock().unwrap_or_else(PoisonError::into_inner),
            Loaded::empty()?,
        );
        drop(load);
        // The last late wish to cancel may still hold the load, and with it the journal.
        writing.await.context("the journal stopped")??;
        problems.extend(
            loaded
                .complaints
                .iter()
                .map(|why| format!("an order failed: {why}")),
        );
        Ok(Flowed {
            loaded,
            accepted,
            samples,
            sampling,
            scaling,
            scaled: Vec::new(),
            faults,
            problems,
            start_unix_ms,
        })
    }

    fn scaling(
        &self,
        supervisor: &Arc<Supervisor>,
        bus: Option<&ClientBus>,
        start: Instant,
    ) -> Option<scale::Running> {
        let bus = bus.filter(|_| self.mode == Mode::Event && self.config.scaling.most > 1)?;
        let scaler = Scaler {
            scaling: self.config.scaling,
            bus: bus.clone(),
            supervisor: Arc::clone(supervisor),
            listener: Arc::clone(&self.listener),
            start,
            done: Arc::default(),
        };
        Some(scaler.watch())
    }

    /// Waits for the load, with a look at the kernel's books every second.
    async fn loading(
        &self,
        load: &mut JoinHandle<anyhow::Result<()>>,
        usage: &Mutex<Usage>,
        supervisor: &Supervisor,
    ) -> Result<anyhow::Result<()>, tokio::task::JoinError> {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut *load => return done,
                _ = ticks.tick() => self.look(usage, supervisor).await,
            }
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            rate: self.config.effective_rate(),
            bursts: self.config.bursts.clone(),
        }
    }

    async fn look(&self, usage: &Mutex<Usage>, supervisor: &Supervisor) {
        let brokers = if self.mode.has_brokers() {
            self.control.pids().await
        } else {
            Vec::new()
        };
        let brokers = brokers
            .into_iter()
            .map(|(n, pid)| (format!("broker-{n}"), pid));
        let own = ("driver".to_owned(), std::process::id());
        let all = brokers.chain(supervisor.pids()).chain([own]);
        usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .look(all);
    }

    fn strikes(
        &self,
        supervisor: &Arc<Supervisor>,
        bus: Option<&ClientBus>,
        start: Instant,
    ) -> Vec<(String, Owned<anyhow::Result<FaultReport>>)> {
        #[allow(clippy::cast_precision_loss)]
        let length = self.config.plan.count() as f64 / self.config.effective_rate();
        let strike = Strike {
            control: Arc::clone(&self.control),
            bus: bus.cloned(),
            supervisor: Arc::clone(supervisor),
            listener: Arc::clone(&self.listener),
            patience: self.config.patience,
            lasts: self.config.fault_lasts,
            start,
        };
        let names = supervisor.fleet().names();
        let possible = |kind: &FaultKind| {
            (self.mode == Mode::Event || !kind.needs_broker())
                && kind
                    .service()
                    .is_none_or(|service| names.contains(&service))
        };
        let faults = self
            .config
            .faults
            .iter()
            .filter(|fault| possible(&fault.kind));
        faults
            .map(|fault| {
                let usual = Duration::from_secs_f64(length * fault.kind.share());
                let at = fault.at.unwrap_or(usual);
                let task = tokio::spawn(strike.clone().run(fault.clone(), at));
                (fault.kind.name(), Owned(task))
            })
            .collect()
    }

    async fn drain(
        &self,
        bus: &ClientBus,
        supervisor: &Supervisor,
        watch: &Watch,
        accepted: u64,
    ) -> anyhow::Result<Drained> {
        self.say("All orders have an outcome; draining".to_owned());
        let drain = Drain {
            client: bus.client(),
            supervisor,
            watch,
            listener: &self.listener,
            patience: self.config.patience,
            poison: self.config.plan.poison(),
        };
        drain.run(accepted).await
    }

    /// Writes down what only the driver knows, and lets the checker judge.
    async fn judge(&self, drained: &Drained) -> anyhow::Result<Verdict> {
        self.say("Checking, in a process of its own".to_owned());
        let facts = Facts {
            mode: self.mode,
            brokers: self.brokers.clone(),
            parked: drained.parked,
            dead: drained.dead.clone(),
            committed: drained.committed.clone(),
        };
        std::fs::write(
            self.directory.join("facts.json"),
            serde_json::to_vec_pretty(&facts)?,
        )?;
        let path = self.directory.join("verdict.json");
        let checked = Command::new(&self.config.executable)
            .arg("order-check")
            .arg("--run")
            .arg(&self.directory)
            .arg("--json")
            .arg(&path)
            .kill_on_drop(true)
            .output();
        let checked = checked.await.context("the checker cannot be started")?;
        let text = std::fs::read(&path).with_context(|| {
            let said = String::from_utf8_lossy(&checked.stderr);
            format!(
                "the checker came to no verdict ({}): {said}",
                checked.status
            )
        })?;
        let verdict: Verdict = serde_json::from_slice(&text)?;
        anyhow::ensure!(
            checked.status.success() == verdict.passed,
            "the checker says one thing and its exit code another"
        );
        Ok(verdict)
    }
}

async fn finish(
    strikes: Vec<(String, Owned<anyhow::Result<FaultReport>>)>,
) -> anyhow::Result<(Vec<FaultReport>, Vec<String>)> {
    let (mut faults, mut problems) = (Vec::new(), Vec::new());
    for (name, mut task) in strikes {
        match (&mut task.0).await.context("a fault stopped")? {
            Ok(report) => faults.push(report),
            Err(error) => problems.push(format!("{name}: {error:#}")),
        }
    }
    Ok((faults, problems))
}
