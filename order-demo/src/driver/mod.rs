//! The driver: whole runs, from nothing to a report.

mod calibrate;
mod drain;
pub mod faults;
mod keeper;
mod lag;
mod load;
mod measured;
mod one;
mod probe;
pub mod progress;
mod replay;
mod sampling;
pub mod scale;
pub mod schedule;
mod strike;
pub mod supervisor;
mod usage;
mod watch;

use futures_util::future::{BoxFuture, FutureExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::control::ClusterControl;
use crate::plan::Plan;
use crate::report::{ModeRun, Report, Setting};
use crate::services::config::{Mode, Mutant};

use faults::Fault;
use one::One;
use progress::Listener;
use scale::Scaling;
use schedule::Burst;

/// How long a run takes at the rate that is chosen when none is given.
const DEFAULT_SECONDS: f64 = 30.0;

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The orders.
    pub plan: Plan,
    /// Orders per second; none: as many as make the load last about half a minute.
    pub rate: Option<f64>,
    /// Bursts of orders.
    pub bursts: Vec<Burst>,
    /// What is broken.
    pub faults: Vec<Fault>,
    /// The modes to be run, one after the other. The report is about the first.
    pub modes: Vec<Mode>,
    /// How services get further workers.
    pub scaling: Scaling,
    /// A service that is broken on purpose.
    pub mutant: Option<(String, Mutant)>,
    /// The moment of which the state of every order is shown.
    pub replay_at: Option<Duration>,
    /// Partitions of the topics that have 6 in demo scale, the others in proportion; none: demo scale.
    pub partitions: Option<u32>,
    /// How long a call outside takes, the same in every mode; in microseconds.
    pub service_time_us: u64,
    /// How long faults last that are no kills.
    pub fault_lasts: Duration,
    /// The executable that runs services and the checker as subcommands.
    pub executable: PathBuf,
    /// Where everything of the run lies. Must exist.
    pub directory: PathBuf,
    /// How long the cluster or the pipeline may stand still.
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

/// Starts brokers and services, runs every mode, and judges each.
///
/// # Errors
/// When a run could not be carried out. A run that was carried out and broke a promise is a report
/// that did not pass, and no error.
pub fn run(
    control: Arc<dyn ClusterControl>,
    config: RunConfig,
    listener: Listener,
) -> BoxFuture<'static, anyhow::Result<Report>> {
    async move {
        let fsync = calibrate::fsync(&config.directory).context("the disk cannot be calibrated")?;
        let mut brokers = Vec::new();
        if config.modes.iter().any(|mode| mode.has_brokers()) {
            brokers = control.start().await.context("the cluster did not start")?;
            let addresses: Vec<&str> = brokers
                .iter()
                .map(|(_, address)| address.as_str())
                .collect();
            listener(progress::Event::Said(format!(
                "Brokers are ready: {}",
                addresses.join(", ")
            )));
        }
        let mut modes: Vec<ModeRun> = Vec::new();
        for mode in config.modes.clone() {
            let directory = config.directory.join(mode.name());
            std::fs::create_dir_all(&directory)?;
            let one = One {
                mode,
                directory,
                brokers: if mode.has_brokers() {
                    brokers.clone()
                } else {
                    Vec::new()
                },
                config: &config,
                control: Arc::clone(&control),
                listener: Arc::clone(&listener),
            };
            let ran = one.run().await;
            modes.push(ran.with_context(|| format!("the {} run", mode.name()))?);
        }
        Ok(Report::new(config.setting, fsync, modes))
    }
    .boxed()
}
