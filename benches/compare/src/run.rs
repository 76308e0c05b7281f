//! Blocks: one workload on one kind of broker, with fresh data. Rounds interleave the kinds, and
//! each result is on disk before the next block begins.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use highwater_load::bench::backend::TopicSpec;
use highwater_load::bench::procfs::Usage;
use highwater_load::bench::workload::Workload;
use highwater_load::bench::{Subject, measure, profiles};
use highwater_load::cluster::find_broker;
use highwater_load::stats::machine;
use serde_json::{Value, json};

use crate::peer::{self, Kind, Places};

/// The name of the block that only looks at idle brokers.
const IDLE: &str = "idle";
const IDLE_SETTLE: Duration = Duration::from_secs(8);
const IDLE_SPAN: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder that install.sh filled
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/installed"))]
    peers: PathBuf,
    /// Highwater's binary; without it the one beside this program is taken, or built
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Where results are appended
    #[arg(long, default_value = "compare.jsonl")]
    out: PathBuf,
    /// How often each workload meets each broker
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Profiles of `highwater bench`, or `idle`
    #[arg(long, value_delimiter = ',', default_values = ["1-topic-16-partitions-1kb", "one-at-a-time", IDLE])]
    workloads: Vec<String>,
    /// Which brokers
    #[arg(long, value_delimiter = ',', default_values_t = Kind::ALL.map(|kind| kind.word().to_owned()))]
    only: Vec<String>,
    /// Seconds of measuring of each block
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of warm-up of each block; a JVM wants 60
    #[arg(long, default_value_t = 8.0)]
    warm_up: f64,
    /// Records outstanding in closed loops that do not say otherwise
    #[arg(long, default_value_t = 4096)]
    window: usize,
    /// No block is begun after this many minutes; the next call goes on
    #[arg(long)]
    minutes: Option<f64>,
}

/// Runs what is missing.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let places = Places {
        peers: options.peers.clone(),
        broker: find_broker(options.broker.clone())?,
    };
    let done = done(options)?;
    let started = Instant::now();
    for round in 1..=options.rounds {
        for workload in &options.workloads {
            for kind in Kind::ALL {
                let key = (round, workload.clone(), kind.name().to_owned());
                if !options.only.iter().any(|word| word == kind.word()) || done.contains(&key) {
                    continue;
                }
                let spent = started.elapsed().as_secs_f64() / 60.0;
                if options.minutes.is_some_and(|most| spent > most) {
                    eprintln!("time is up; the same command goes on from here");
                    return Ok(());
                }
                eprintln!("round {round}, {workload}, {}", kind.name());
                let result = block(options, &places, kind, workload).await;
                let mut line = result.with_context(|| format!("{workload} on {}", kind.name()))?;
                line["round"] = json!(round);
                line["workloadName"] = json!(workload);
                line["driver"] = json!(kind.name());
                line["durability"] = json!(kind.durability());
                append(&options.out, &line)?;
            }
        }
    }
    Ok(())
}

/// Round, workload and broker of each line there is.
fn done(options: &Options) -> anyhow::Result<BTreeSet<(u32, String, String)>> {
    let text = match std::fs::read_to_string(&options.out) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let mut done = BTreeSet::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("the results file is damaged")?;
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let round = u32::try_from(line["round"].as_u64().unwrap_or(0))?;
        done.insert((round, word("workloadName"), word("driver")));
    }
    Ok(done)
}

fn append(out: &PathBuf, line: &Value) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(out)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    Ok(())
}

async fn block(
    options: &Options,
    places: &Places,
    kind: Kind,
    workload: &str,
) -> anyhow::Result<Value> {
    let brokers = peer::start(kind, places).await?;
    let backend = kind.backend(&brokers.connection);
    if workload == IDLE {
        return idle(&brokers, backend.as_ref()).await;
    }
    let mut workload: Workload = profiles::find(workload)?;
    workload.test_duration_minutes = options.seconds / 60.0;
    workload.warmup_duration_minutes = Some(options.warm_up / 60.0);
    workload.window = workload.window.or(Some(options.window));
    let own = std::env::current_exe().context("cannot find this program")?;
    let subject = Subject {
        driver: kind.name().to_owned(),
        backend: backend.as_ref(),
        worker: vec![
            own.display().to_string(),
            "worker".to_owned(),
            kind.word().to_owned(),
            brokers.connection.clone(),
        ],
        brokers: brokers.pids.clone(),
        metrics: brokers.metrics.clone(),
        directory: brokers.directory.clone(),
        processes: 1,
        kill: None,
    };
    let outcome = measure(&subject, &workload).await?;
    let (brokers, clients) = (outcome.costs.brokers(), outcome.costs.clients());
    let whole = &outcome.whole;
    Ok(json!({
        "machine": machine(),
        "calibration": outcome.calibration,
        "recordsPerSecond": outcome.rate(),
        "mbPerSecond": outcome.mb_per_second(),
        "publishP50Ms": whole.publish.percentile_ms(50.0),
        "publishP99Ms": whole.publish.percentile_ms(99.0),
        "endToEndP50Ms": whole.end_to_end.percentile_ms(50.0),
        "endToEndP99Ms": whole.end_to_end.percentile_ms(99.0),
        "brokerCpuSecondsPerGb": outcome.per_gb(brokers.cpu_seconds),
        "clientCpuSecondsPerGb": outcome.per_gb(clients.cpu_seconds),
        "writtenPerByteAndBroker":
            outcome.costs.machine.disk_bytes as f64 / 3.0 / (whole.bytes as f64).max(1.0),
        "flushesPerSecond": outcome.costs.machine.disk_flushes as f64 / outcome.span(),
        "brokerResidentMb": brokers.resident_bytes as f64 / 1e6,
        "failedRecords": whole.failed,
        "unreadRecords": outcome.unread,
        "othersCpu": outcome.costs.others(),
        "stealSeconds": outcome.costs.machine.steal_seconds,
        "failures": outcome.failures,
    }))
}

/// Memory and CPU of brokers that have a topic and nothing to do.
async fn idle(
    brokers: &peer::Brokers,
    backend: &dyn highwater_load::bench::backend::Backend,
) -> anyhow::Result<Value> {
    let topic = TopicSpec {
        name: "idle".to_owned(),
        partitions: 16,
        config: std::collections::BTreeMap::new(),
    };
    backend.create_topic(&topic).await?;
    tokio::time::sleep(IDLE_SETTLE).await;
    let usage = || -> Vec<Usage> { brokers.pids.iter().map(|pid| Usage::of(*pid)).collect() };
    let before = usage();
    tokio::time::sleep(IDLE_SPAN).await;
    let after = usage();
    let cpu: f64 = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.since(before).cpu_seconds)
        .sum();
    let resident: u64 = after.iter().map(|usage| usage.resident_bytes).sum();
    Ok(json!({
        "machine": machine(),
        "brokerResidentMb": resident as f64 / 1e6,
        "cpuPerBrokerPercent": cpu / 3.0 / IDLE_SPAN.as_secs_f64() * 100.0,
    }))
}
