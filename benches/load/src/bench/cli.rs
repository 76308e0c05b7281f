//! The command line: `highwater bench`, `highwater-load bench`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::coordinate::{Subject, measure};
use super::highwater::Highwater;
use super::workload::{KeyDistributor, Workload};
use super::{plot, profiles, report, worker};
use crate::cluster::{Cluster, find_broker};

/// How long a killed broker stays away.
const AWAY: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  highwater bench                                  a short run of the default profile
  highwater bench profiles                         what profiles there are
  highwater bench --profile one-at-a-time
  highwater bench --workload 1-topic-16-partitions-1kb.yaml --json out.json --plot out.html
  highwater bench --bootstrap highwater://a:9094 --rate 20000 --payload 256 --seconds 60
  highwater bench plot a.json b.json --out both.html";

/// Drives a workload through a cluster and prints what it took.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the profiles
    Profiles {
        /// Prints this one as a workload file
        name: Option<String>,
    },
    /// Draws result files as one page
    Plot {
        /// Result files
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// The page to write
        #[arg(long, default_value = "bench.html")]
        out: PathBuf,
    },
    /// Produces or consumes, as told on standard input
    #[command(hide = true)]
    Worker {
        /// The cluster
        connection: String,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// A workload file of the OpenMessaging Benchmark
    #[arg(long, value_name = "YAML", conflicts_with = "profile")]
    workload: Option<PathBuf>,
    /// A profile by name; see `bench profiles`
    #[arg(long, default_value = profiles::DEFAULT)]
    profile: String,
    /// A running cluster; without it three brokers are started for the run, and end with it
    #[arg(long, value_name = "CONNECTION")]
    bootstrap: Option<String>,
    /// Process ids of a running cluster's brokers, for their CPU and writes
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    broker_pid: Vec<u32>,
    /// A setting of the brokers that are started; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Seconds of measuring, instead of the workload's
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds of warm-up, instead of the workload's
    #[arg(long)]
    warm_up: Option<f64>,
    /// Records per second of all producers, open loop; 0: closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// Records outstanding per producer in a closed loop
    #[arg(long)]
    window: Option<usize>,
    /// Bytes of each payload
    #[arg(long, value_name = "BYTES")]
    payload: Option<usize>,
    /// Topics
    #[arg(long)]
    topics: Option<u32>,
    /// Partitions of each topic
    #[arg(long)]
    partitions: Option<u32>,
    /// Producers of each topic
    #[arg(long)]
    producers: Option<u32>,
    /// Consumers of each subscription
    #[arg(long)]
    consumers: Option<u32>,
    /// NO_KEY, KEY_ROUND_ROBIN, RANDOM_NANO or ZIPF
    #[arg(long, value_parser = parse_keys)]
    keys: Option<KeyDistributor>,
    /// Processes that share the producers, and as many that share the consumers
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Writes the result, with the fields of the OpenMessaging Benchmark
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the result
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn parse_keys(text: &str) -> Result<KeyDistributor, String> {
    let word = serde_json::Value::String(text.to_owned());
    serde_json::from_value(word).map_err(|error| error.to_string())
}

/// Runs to the end. `verb` are the words between the name of this executable and the arguments;
/// `broker` is the binary of the brokers, when it is not to be looked for.
///
/// # Errors
/// What kept it from running.
pub fn run<'a>(
    bench: Bench,
    broker: Option<PathBuf>,
    verb: &'a [&'a str],
) -> BoxFuture<'a, anyhow::Result<()>> {
    // Boxed here, so that its code is made once, in this crate.
    Box::pin(dispatch(bench, broker, verb))
}

async fn dispatch(bench: Bench, broker: Option<PathBuf>, verb: &[&str]) -> anyhow::Result<()> {
    match bench.command {
        None => drive(&bench.run, broker, verb).await,
        Some(Command::Worker { connection }) => worker::serve(&Highwater { connection }).await,
        Some(Command::Profiles { name: None }) => {
            print!("{}", profiles::list()?);
            Ok(())
        }
        Some(Command::Profiles { name: Some(name) }) => {
            print!("{}", profiles::text(&name)?);
            Ok(())
        }
        Some(Command::Plot { results, out }) => {
            let mut values = Vec::new();
            for path in &results {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let value = serde_json::from_str(&text)
                    .with_context(|| format!("{} is no result", path.display()))?;
                values.push(value);
            }
            write(&out, &plot::page(&values))
        }
    }
}

/// The workload with what the command line says otherwise.
fn workload(args: &RunArgs) -> anyhow::Result<Workload> {
    let mut workload = match &args.workload {
        Some(path) => Workload::read(path)?,
        None => profiles::find(&args.profile)?,
    };
    if let Some(seconds) = args.seconds {
        workload.test_duration_minutes = seconds / 60.0;
    }
    if let Some(seconds) = args.warm_up {
        workload.warmup_duration_minutes = Some(seconds / 60.0);
    }
    let numbers = [
        (&mut workload.topics, args.topics),
        (&mut workload.partitions_per_topic, args.partitions),
        (&mut workload.producers_per_topic, args.producers),
        (&mut workload.consumer_per_subscription, args.consumers),
    ];
    for (field, told) in numbers {
        *field = told.unwrap_or(*field);
    }
    workload.producer_rate = args.rate.unwrap_or(workload.producer_rate);
    workload.window = args.window.or(workload.window);
    workload.message_size = args.payload.unwrap_or(workload.message_size);
    workload.key_distributor = args.keys.unwrap_or(workload.key_distributor);
    workload.check()?;
    Ok(workload)
}

async fn drive(args: &RunArgs, broker: Option<PathBuf>, verb: &[&str]) -> anyhow::Result<()> {
    let workload = workload(args)?;
    if let Some(payload) = workload.payload_file.as_ref().filter(|file| !file.exists()) {
        eprintln!("{} is not there: random bytes instead", payload.display());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut words = vec![program.display().to_string()];
    words.extend(verb.iter().map(|&word| word.to_owned()));
    words.push("worker".to_owned());
    let outcome = match &args.bootstrap {
        Some(connection) => {
            if workload.kill_leader_after_seconds.is_some() {
                bail!("a leader is killed only in a cluster that was started for the run");
            }
            let backend = Highwater {
                connection: connection.clone(),
            };
            words.push(connection.clone());
            let subject = Subject {
                driver: "Highwater".to_owned(),
                backend: &backend,
                worker: words,
                brokers: args.broker_pid.clone(),
                metrics: Vec::new(),
                directory: std::env::temp_dir(),
                processes: args.processes,
                kill: None,
            };
            measure(&subject, &workload).await?
        }
        None => on_own_cluster(args, &workload, &find_broker(broker)?, words).await?,
    };
    print!("{}", report::text(&outcome));
    let json = outcome.to_json();
    if let Some(path) = &args.json {
        write(path, &serde_json::to_string_pretty(&json)?)?;
    }
    if let Some(path) = &args.plot {
        write(path, &plot::page(&[json]))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

/// Starts three brokers for the run.
async fn on_own_cluster(
    args: &RunArgs,
    workload: &Workload,
    broker: &Path,
    mut words: Vec<String>,
) -> anyhow::Result<super::Outcome> {
    let mut cluster = Cluster::start(broker, &args.set, &[]).await?;
    let connection = cluster.connection_string();
    words.push(connection.clone());
    let backend = Highwater { connection };
    let (kill, mut kills) = mpsc::channel(1);
    let subject = Subject {
        driver: "Highwater".to_owned(),
        backend: &backend,
        worker: words,
        brokers: cluster.pids(),
        metrics: cluster
            .brokers()
            .iter()
            .map(|one| one.admin.clone())
            .collect(),
        directory: cluster.directory().to_owned(),
        processes: args.processes,
        kill: Some(kill),
    };
    let reaper = async {
        while let Some(place) = kills.recv().await {
            let victim = cluster.brokers().get_mut(place).context("no such broker")?;
            eprintln!("killing broker {}", place + 1);
            victim.kill().await?;
            tokio::time::sleep(AWAY).await;
            victim.start()?;
        }
        anyhow::Ok(())
    };
    tokio::pin!(reaper);
    let measured = measure(&subject, workload);
    tokio::pin!(measured);
    loop {
        tokio::select! {
            outcome = &mut measured => return outcome,
            killed = &mut reaper => killed?,
        }
    }
}
