//! `highwater demo`: real orders through three brokers, one of them killed, everything checked.
//!
//! The business half lives in highwater-order-demo. This half owns the processes: it starts the
//! brokers, kills and restarts one when it is asked to, and shows how far the run is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use highwater_broker::process::{Cluster, ClusterSpec};
use highwater_order_demo::ClusterControl;
use highwater_order_demo::account::{Account, read_accounts};
use highwater_order_demo::driver::{self, RunConfig};
use highwater_order_demo::generate::generate_accounts;
use highwater_order_demo::order::RunId;
use highwater_order_demo::plan::Plan;
use highwater_order_demo::progress::{Event, Listener};
use highwater_order_demo::report::{Report, Setting};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Mutex;

use super::exit::{Failure, INTERRUPTED};
use super::signals::stop_on_signals;

/// As many brokers as one may lose without losing the majority.
const BROKERS: u32 = 3;

/// Orders of a run without a file of accounts.
const DEFAULT_ORDERS: usize = 7_000;

/// How long the cluster may take to form, to recover or to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long brokers may take to stop before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A demo should not fill the disk of the machine that it is tried on.
const SETTINGS: [(&str, &str); 2] = [
    ("wal.budget_bytes", "512MiB"),
    ("storage.reserve_bytes", "128MiB"),
];

#[derive(Args)]
pub struct DemoArgs {
    /// A table of accounts, one order each; without it accounts are generated
    #[arg(long, value_name = "PATH")]
    orders: Option<PathBuf>,
    /// How many orders; accounts are repeated under fresh order ids
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Orders per second; without it a run takes about 18 s
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Generates these accounts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Kills no broker
    #[arg(long)]
    no_kill: bool,
    /// Writes the report there as JSON too
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Keeps the brokers' data, their logs and the journal here; must be empty or not exist
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
}

/// Runs the demo.
pub fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
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
    let report = match super::runtime()?.block_on(execute(config, home.path())) {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(ExitCode::from(INTERRUPTED)),
        Err(failure) => {
            say_where(home);
            return Err(failure);
        }
    };
    print!("{report}");
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.to_json());
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if report.passed {
        return Ok(ExitCode::SUCCESS);
    }
    say_where(home);
    Ok(ExitCode::FAILURE)
}

/// A run that failed leaves everything for whoever looks into it.
fn say_where(home: Home) {
    eprintln!(
        "The brokers' data and logs and the journal are kept in {}",
        home.keep().display()
    );
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
    let shown = Progress::new(config.plan.count());
    let run = driver::run(Arc::clone(&processes), config, shown.listener());
    let report = stop.run_until_cancelled(run).await;
    shown.bar.finish_and_clear();
    // Also after a failure: whoever is left is asked to stop before it is killed.
    if let Some(cluster) = processes.cluster.lock().await.take() {
        cluster
            .stop(STOP_PATIENCE)
            .await
            .map_err(anyhow::Error::new)?;
    }
    Ok(report.transpose()?)
}

fn accounts(args: &DemoArgs) -> anyhow::Result<(Vec<Account>, String)> {
    let Some(path) = &args.orders else {
        let accounts = generate_accounts(args.seed, DEFAULT_ORDERS);
        return Ok((accounts, format!("{DEFAULT_ORDERS} generated")));
    };
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("{shown} cannot be read"))?;
    let accounts =
        read_accounts(file).with_context(|| format!("{shown} is no table of accounts"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let source = format!("{} from {name}", accounts.len());
    Ok((accounts, source))
}

fn run_config(
    args: &DemoArgs,
    accounts: Vec<Account>,
    source: String,
    home: &Path,
) -> Result<RunConfig, Failure> {
    let count = args.count.unwrap_or(accounts.len() as u64);
    let plan = Plan::new(RunId(rand::random()), accounts, count)
        .ok_or_else(|| Failure::usage(anyhow::anyhow!("there is no account to order for")))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let seeds = match args.orders {
        Some(_) => BTreeMap::new(),
        None => BTreeMap::from([("accounts".to_owned(), args.seed)]),
    };
    Ok(RunConfig {
        plan,
        rate: args.rate,
        kill: !args.no_kill,
        journal: home.join("journal"),
        now_unix_ms: i64::try_from(now.as_millis()).context("the clock is far off")?,
        patience: PATIENCE,
        setting: Setting {
            machine: machine(),
            commit: option_env!("HIGHWATER_COMMIT").map(str::to_owned),
            source,
            seeds,
        },
    })
}

/// Processor, cores and system, as far as they can be found out.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    format!(
        "{model}, {cores} cores, {} {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// Where everything of a run lies.
enum Home {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Home {
    fn new(wanted: Option<&Path>) -> anyhow::Result<Self> {
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

    fn path(&self) -> &Path {
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
}

/// What is shown while a run goes on: a bar on a terminal, and a line for each event anywhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(orders: u64) -> Self {
        let style = "{bar:40} {human_pos}/{human_len} acknowledged, {elapsed}";
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: ProgressBar::new(orders).with_style(style),
        }
    }

    fn listener(&self) -> Listener {
        let bar = self.bar.clone();
        Arc::new(move |event| {
            if let Event::Sample(sample) = &event {
                bar.set_position(sample.acknowledged);
            }
            if let Some(line) = describe(&event) {
                bar.suspend(|| eprintln!("{line}"));
            }
        })
    }
}

/// An event in words; none for those that only move the bar.
fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::Sample(_) => return None,
        Event::Ready(addresses) => format!("Brokers are ready: {}", addresses.join(", ")),
        Event::Sending { orders, rate } => format!("Sending {orders} orders, {rate:.0} per second"),
        Event::Killed { broker, shard } => {
            format!("Broker {broker}, the leader of shard {shard}, was killed (kill -9)")
        }
        Event::Recovered { failover_ms } => {
            format!("Shard acknowledges again after {failover_ms:.0} ms")
        }
        Event::Restarted { broker } => format!("Broker {broker} runs again"),
        Event::CaughtUp { broker } => format!("Broker {broker} has caught up"),
        Event::Draining => "All orders have an outcome; pricing the rest".to_owned(),
        Event::Reading { broker: None } => "Reading everything back".to_owned(),
        Event::Reading {
            broker: Some(broker),
        } => {
            format!("Reading the copies of broker {broker}")
        }
        Event::Verifying => "Checking".to_owned(),
    })
}
