//! The driver: one whole run, from an empty cluster to a report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::bus::Bus;
use crate::client_bus::ClientBus;
use crate::control::ClusterControl;
use crate::evidence::{Observed, ReplicaRead};
use crate::fault::{Fault, Probe};
use crate::journal::Journal;
use crate::journal_task::JournalHandle;
use crate::load::{Load, Loaded};
use crate::plan::Plan;
use crate::pricer::Pricer;
use crate::progress::{Counters, Event, Listener};
use crate::readback::{read_copies, read_to_end};
use crate::report::{Failover, Measured, Report, Sample, Setting};
use crate::verify::{Evidence, Verification, verify};

/// Orders go in here.
pub const INTAKE_TOPIC: &str = "order.intake";
/// Priced orders come out here.
pub const EVENTS_TOPIC: &str = "order.events";
/// Partitions of both topics: alike, so that an order's events share a partition number.
pub const PARTITIONS: u32 = 6;

/// How long a run takes at the rate that is chosen when none is given. A shorter one could not
/// show a broker dying, being replaced and coming back while orders flow.
const DEFAULT_SECONDS: f64 = 18.0;

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The orders.
    pub plan: Plan,
    /// Orders per second; none: as many as make the run last about 18 s.
    pub rate: Option<f64>,
    /// Whether to kill and restart a broker in the middle.
    pub kill: bool,
    /// Where to write the journal. Must not exist; its directory must.
    pub journal: PathBuf,
    /// The wall clock when the run is started, in milliseconds since the Unix epoch.
    pub now_unix_ms: i64,
    /// How long the cluster may take to recover, to catch up, or to hand out the next record.
    pub patience: Duration,
    /// What the report says of the circumstances.
    pub setting: Setting,
}

impl RunConfig {
    /// The rate that is aimed at, in orders per second.
    #[must_use]
    pub fn effective_rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let default = self.plan.count() as f64 / DEFAULT_SECONDS;
        self.rate
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .unwrap_or(default.max(0.1))
    }
}

/// Starts the cluster, connects to it by the client, and runs the workload.
///
/// # Errors
/// When the run could not be carried out. A run that was carried out and broke a promise is a
/// report that did not pass, and no error.
pub async fn run<C: ClusterControl>(
    control: Arc<C>,
    config: RunConfig,
    listener: Listener,
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let brokers = control.start().await.context("the cluster did not start")?;
    let addresses: Vec<String> = brokers.iter().map(|(_, address)| address.clone()).collect();
    let bus = ClientBus::connect(&addresses).await?;
    listener(Event::Ready(addresses));
    let brokers = brokers.into_iter().map(|(broker, _)| broker).collect();
    Driver {
        bus,
        control,
        config,
        listener,
        brokers,
        began,
    }
    .run()
    .await
}

/// One run over any bus. Most callers want [`run`].
pub struct Driver<B, C> {
    /// The brokers' door.
    pub bus: B,
    /// Power over their processes.
    pub control: Arc<C>,
    /// What to do.
    pub config: RunConfig,
    /// Who watches.
    pub listener: Listener,
    /// The brokers' numbers.
    pub brokers: Vec<u32>,
    /// When [`RunConfig::now_unix_ms`] was read.
    pub began: Instant,
}

/// Ends a task with its owner.
struct Owned(AbortHandle);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a run was like while orders flowed.
struct Flowed {
    loaded: Loaded,
    failover: Option<Failover>,
    samples: Vec<Sample>,
    problems: Vec<String>,
}

impl<B: Bus, C: ClusterControl> Driver<B, C> {
    /// The whole run. Not cancellation-safe: dropped half-way it leaves brokers and journal as
    /// they are.
    ///
    /// # Errors
    /// When the run could not be carried out.
    pub async fn run(self) -> anyhow::Result<Report> {
        let replication = if self.brokers.len() >= 3 { 3 } else { 1 };
        for topic in [INTAKE_TOPIC, EVENTS_TOPIC] {
            self.bus
                .create_topic(topic, PARTITIONS, replication)
                .await?;
        }
        let rate = self.config.effective_rate();
        let orders = self.config.plan.count();
        (self.listener)(Event::Sending { orders, rate });
        let Flowed {
            loaded,
            failover,
            samples,
            mut problems,
        } = self.flow(rate).await?;
        let verification = self.judge(&mut problems).await?;
        let measured = Measured {
            orders,
            rate,
            duration_s: loaded.duration.as_secs_f64(),
            latencies: loaded.latencies,
            failover,
            samples,
            problems,
        };
        Ok(Report::new(self.config.setting, measured, verification))
    }

    /// Orders are sent, priced, and a broker dies and comes back.
    async fn flow(&self, rate: f64) -> anyhow::Result<Flowed> {
        let counters = Arc::new(Counters::default());
        let probe = Arc::new(Probe::default());
        let busy = Arc::new(Mutex::new(BTreeMap::new()));
        let mut problems = Vec::new();
        let (journal, writing) = JournalHandle::open(&self.config.journal).await?;
        let pricing = tokio::spawn(self.pricer(&counters).run());
        let pricing = Owned(pricing.abort_handle());
        let start = Instant::now();
        let since = i64::try_from(start.saturating_duration_since(self.began).as_millis());
        let load = Load {
            plan: Arc::new(self.config.plan.clone()),
            topic: INTAKE_TOPIC.to_owned(),
            rate,
            start,
            start_unix_ms: self.config.now_unix_ms.saturating_add(since.unwrap_or(0)),
            journal,
            counters: Arc::clone(&counters),
            probe: Arc::clone(&probe),
            busy: Arc::clone(&busy),
        };
        let samples = Arc::new(Mutex::new(Vec::new()));
        let sampling = tokio::spawn(sample(
            Arc::clone(&counters),
            Arc::clone(&samples),
            Arc::clone(&self.listener),
        ));
        let sampling = Owned(sampling.abort_handle());
        let fault = self.fault(&counters, busy, probe);
        // When the load fails, the fault must not go on killing brokers behind our back.
        let fault = fault.map(|fault| {
            let owned = Owned(fault.abort_handle());
            (fault, owned)
        });

        let loading = tokio::spawn(Arc::new(load).run(self.bus.sender()));
        let loaded = loading.await.context("the load stopped")?;
        writing.await.context("the journal stopped")??;
        let loaded = loaded?;
        problems.extend(
            loaded
                .complaints
                .iter()
                .map(|why| format!("an order failed: {why}")),
        );
        let failover = match fault {
            Some((fault, _owned)) => finish_fault(fault, &mut problems).await?,
            None => None,
        };
        (self.listener)(Event::Draining);
        self.drain(&counters, &mut problems).await?;
        drop((pricing, sampling));
        let samples = std::mem::take(
            &mut *samples
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        Ok(Flowed {
            loaded,
            failover,
            samples,
            problems,
        })
    }

    fn pricer(&self, counters: &Arc<Counters>) -> Pricer<B> {
        Pricer {
            bus: self.bus.clone(),
            intake: INTAKE_TOPIC.to_owned(),
            events: EVENTS_TOPIC.to_owned(),
            counters: Arc::clone(counters),
            settling: self.config.patience,
            patience: self.config.patience,
        }
    }

    fn fault(
        &self,
        counters: &Arc<Counters>,
        busy: Arc<Mutex<BTreeMap<u32, u64>>>,
        probe: Arc<Probe>,
    ) -> Option<JoinHandle<anyhow::Result<Failover>>> {
        if !self.config.kill {
            return None;
        }
        let fault = Fault {
            bus: self.bus.clone(),
            control: Arc::clone(&self.control),
            topic: INTAKE_TOPIC.to_owned(),
            orders: self.config.plan.count(),
            counters: Arc::clone(counters),
            busy,
            probe,
            listener: Arc::clone(&self.listener),
            patience: self.config.patience,
        };
        Some(tokio::spawn(fault.run()))
    }

    /// Waits until everything in the intake topic is priced, as long as pricing goes on.
    async fn drain(&self, counters: &Counters, problems: &mut Vec<String>) -> anyhow::Result<()> {
        let goal: u64 = self.bus.ends(INTAKE_TOPIC).await?.values().sum();
        loop {
            let before = counters.priced();
            if before >= goal {
                return Ok(());
            }
            let moved = counters.until(|now| now.priced() > before);
            if timeout(self.config.patience, moved).await.is_err() {
                problems.push(format!("pricing stood still at {before} of {goal} orders"));
                return Ok(());
            }
        }
    }

    /// Reads everything back and hands it to the checker, with the journal from the disk.
    async fn judge(&self, problems: &mut Vec<String>) -> anyhow::Result<Verification> {
        (self.listener)(Event::Reading { broker: None });
        let (intake, intake_ends) = self.read_back(INTAKE_TOPIC, problems).await?;
        let (events, events_ends) = self.read_back(EVENTS_TOPIC, problems).await?;
        let mut replicas: Vec<ReplicaRead> = Vec::new();
        for broker in &self.brokers {
            (self.listener)(Event::Reading {
                broker: Some(*broker),
            });
            for (topic, ends) in [(INTAKE_TOPIC, &intake_ends), (EVENTS_TOPIC, &events_ends)] {
                let patience = self.config.patience;
                match read_copies(&self.bus, topic, ends, *broker, patience).await {
                    Ok(copies) => replicas.extend(copies),
                    Err(error) => problems.push(format!("{error:#}")),
                }
            }
        }
        (self.listener)(Event::Verifying);
        let path = &self.config.journal;
        let journal = tokio::fs::read(path).await;
        let journal = journal.with_context(|| format!("cannot read {}", path.display()))?;
        let journal = Journal::parse(&journal)?;
        let plan = self.config.plan.clone();
        let judged = tokio::task::spawn_blocking(move || {
            verify(&Evidence {
                plan: &plan,
                journal: &journal,
                intake: &intake,
                events: &events,
                replicas: &replicas,
            })
        });
        judged.await.context("the checker stopped")
    }

    async fn read_back(
        &self,
        topic: &str,
        problems: &mut Vec<String>,
    ) -> anyhow::Result<(Vec<Observed>, BTreeMap<u32, u64>)> {
        let ends = self.bus.ends(topic).await?;
        let mut records = Vec::new();
        let patience = self.config.patience;
        let read = read_to_end(&self.bus, topic, &ends, None, patience, |record| {
            records.push(record)
        });
        if let Err(error) = read.await {
            problems.push(format!("{error:#}"));
        }
        Ok((records, ends))
    }
}

async fn finish_fault(
    fault: JoinHandle<anyhow::Result<Failover>>,
    problems: &mut Vec<String>,
) -> anyhow::Result<Option<Failover>> {
    match fault.await.context("the fault stopped")? {
        Ok(failover) => {
            if failover.failover_ms.is_none() {
                let shard = failover.shard;
                problems.push(format!(
                    "shard {shard} acknowledged nothing new after the kill"
                ));
            }
            Ok(Some(failover))
        }
        Err(error) => {
            problems.push(format!("{error:#}"));
            Ok(None)
        }
    }
}

async fn sample(counters: Arc<Counters>, samples: Arc<Mutex<Vec<Sample>>>, listener: Listener) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    let mut second = 0;
    loop {
        ticks.tick().await;
        let sample = counters.sample(second);
        second += 1;
        samples
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(sample);
        listener(Event::Sample(sample));
    }
}
