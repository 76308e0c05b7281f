//! `highwater demo`: an order pipeline of real services over three brokers, broken on purpose, and
//! everything checked.
//!
//! The business half lives in highwater-order-demo. This half owns the broker processes; `demo_view`
//! shows how far the run is, `demo_series` runs one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::process::{Cluster, ClusterSpec};
use anyhow::Context as _;
use async_trait::async_trait;
use highwater_order_demo::ClusterControl;
use highwater_order_demo::driver::{self, RunConfig};
use highwater_order_demo::report::{self, Report};
use tokio::sync::Mutex;

use super::demo_args::{DemoArgs, accounts, run_config};
use super::demo_series;
use super::demo_view::Shown;
use super::exit::{Failure, INTERRUPTED};
use super::signals::stop_on_signals;

/// As many brokers as one may lose without losing the majority.
const BROKERS: u32 = 3;

/// How long the cluster may take to form, to recover or to catch up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long brokers may take to stop before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A demo should not fill the disk of the machine that it is tried on.
const SETTINGS: [(&str, &str); 2] = [
    ("wal.budget_bytes", "512MiB"),
    ("storage.reserve_bytes", "128MiB"),
];

/// Runs the demo.
pub fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    if args.full {
        return demo_series::run(&args);
    }
    let (accounts, source) = accounts(&args).map_err(Failure::usage)?;
    if args
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(Failure::usage(anyhow::anyhow!(
            "--rate must be more than 0"
        )));
    }
    let home = Home::new(args.data_dir.as_deref()).map_err(Failure::usage)?;
    let config = run_config(&args, accounts, source, home.path())?;
    let Some((report, home)) = run_in(home, config)? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    print!("{report}");
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.to_json());
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.html {
        let page = report::page(&report);
        fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if report.passed {
        return Ok(ExitCode::SUCCESS);
    }
    say_where(home);
    Ok(ExitCode::FAILURE)
}

/// A run that failed leaves everything for whoever looks into it.
pub fn say_where(home: Home) {
    eprintln!(
        "All data, logs and journals are kept in {}",
        home.keep().display()
    );
}

/// Runs the workload in `home`, which is kept if that fails. `None` when it was interrupted.
pub fn run_in(home: Home, config: RunConfig) -> Result<Option<(Report, Home)>, Failure> {
    match super::runtime()?.block_on(execute(config, home.path())) {
        Ok(report) => Ok(report.map(|report| (report, home))),
        Err(failure) => {
            say_where(home);
            Err(failure)
        }
    }
}

/// Runs the workload over a cluster of its own. `None` when it was interrupted.
async fn execute(config: RunConfig, home: &Path) -> Result<Option<Report>, Failure> {
    let stop = stop_on_signals().context("no signal handlers")?;
    let processes = Arc::new(Processes {
        spec: ClusterSpec {
            executable: std::env::current_exe().context("cannot find this executable")?,
            brokers: BROKERS,
            directory: Some(home.join("brokers")),
            usual_ports: None,
            settings: SETTINGS
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            patience: PATIENCE,
        },
        cluster: Mutex::new(None),
    });
    let shown = Shown::new(config.plan.count());
    let control: Arc<dyn ClusterControl> = Arc::clone(&processes) as _;
    let run = driver::run(control, config, shown.listener());
    let report = stop.run_until_cancelled(run).await;
    shown.finish();
    // Also after a failure: whoever is left is asked to stop before it is killed.
    if let Some(cluster) = processes.cluster.lock().await.take() {
        cluster
            .stop(STOP_PATIENCE)
            .await
            .map_err(anyhow::Error::new)?;
    }
    Ok(report.transpose()?)
}

/// Where everything of a run lies.
pub enum Home {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Home {
    pub fn new(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = wanted else {
            let directory = tempfile::Builder::new().prefix("highwater-demo-").tempdir();
            return Ok(Self::Temporary(
                directory.context("no temporary directory")?,
            ));
        };
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot create {shown}"))?;
        let mut entries = fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?;
        anyhow::ensure!(
            entries.next().is_none(),
            "{shown} is not empty: name another directory"
        );
        Ok(Self::Kept(path.to_owned()))
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.keep(),
        }
    }
}

/// The workload's power over the broker processes.
struct Processes {
    spec: ClusterSpec,
    cluster: Mutex<Option<Cluster>>,
}

#[async_trait]
impl ClusterControl for Processes {
    async fn start(&self) -> anyhow::Result<Vec<(u32, String)>> {
        let cluster = Cluster::start(&self.spec).await?;
        let brokers = cluster
            .brokers()
            .iter()
            .map(|b| (b.spec().node, b.spec().address()));
        let brokers = brokers.collect();
        *self.cluster.lock().await = Some(cluster);
        Ok(brokers)
    }

    async fn kill(&self, broker: u32) -> anyhow::Result<()> {
        let mut cluster = self.cluster.lock().await;
        Ok(cluster
            .as_mut()
            .context("no cluster runs")?
            .kill(broker)
            .await?)
    }

    async fn restart(&self, broker: u32) -> anyhow::Result<()> {
        let mut cluster = self.cluster.lock().await;
        Ok(cluster
            .as_mut()
            .context("no cluster runs")?
            .restart(broker)
            .await?)
    }

    async fn caught_up(&self, broker: u32) -> anyhow::Result<()> {
        let mut cluster = self.cluster.lock().await;
        Ok(cluster
            .as_mut()
            .context("no cluster runs")?
            .wait_caught_up(broker)
            .await?)
    }

    async fn pids(&self) -> Vec<(u32, u32)> {
        let cluster = self.cluster.lock().await;
        let brokers = cluster.as_ref().map(Cluster::brokers).unwrap_or_default();
        let pid = |broker: &crate::process::Broker| Some((broker.spec().node, broker.pid()?));
        brokers.iter().filter_map(pid).collect()
    }
}
