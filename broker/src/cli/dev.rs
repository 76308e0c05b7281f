//! `highwater dev`: a whole cluster on this machine, until Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::{ADMIN_PORT, GRPC_PORT};
use crate::process::{Cluster, ClusterSpec};
use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use tokio_util::sync::CancellationToken;

use super::exit::Failure;
use super::signals::stop_on_signals;

/// How long a cluster may take to form.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long brokers may take to stop before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked at whether every broker still runs.
const WATCH: Duration = Duration::from_millis(250);

/// Room for a laptop: a cluster for development should not fill a disk by keeping log.
const DEV_SETTINGS: [(&str, &str); 2] = [
    ("wal.budget_bytes", "1GiB"),
    ("storage.reserve_bytes", "256MiB"),
];

#[derive(Args)]
pub struct DevArgs {
    /// How many brokers
    #[arg(
        long,
        default_value = "3",
        value_parser = PossibleValuesParser::new(["1", "3"]).map(|n| if n == "1" { 1_u32 } else { 3 })
    )]
    brokers: u32,
    /// Keeps the data here; without it the data goes away at the end
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Sets any configuration key on every broker; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the cluster.
pub fn run(args: DevArgs) -> Result<ExitCode, Failure> {
    super::runtime()?.block_on(async {
        let stop = stop_on_signals().context("no signal handlers")?;
        let spec = cluster_spec(&args)?;
        let started = Instant::now();
        let Some(cluster) = stop.run_until_cancelled(Cluster::start(&spec)).await else {
            return Ok(ExitCode::from(super::exit::INTERRUPTED));
        };
        let mut cluster = cluster.map_err(anyhow::Error::new)?;
        print_ready(&cluster, started.elapsed());
        watch(&mut cluster, &stop).await;
        eprintln!("Stopping.");
        if !cluster
            .stop(STOP_PATIENCE)
            .await
            .map_err(anyhow::Error::new)?
        {
            eprintln!("A broker had to be killed. What it acknowledged is on disk all the same.");
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn cluster_spec(args: &DevArgs) -> Result<ClusterSpec, Failure> {
    let mut settings: Vec<(String, String)> = DEV_SETTINGS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    settings.push((
        "defaults.replication_factor".to_owned(),
        args.brokers.to_string(),
    ));
    for setting in &args.set {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Failure::usage(anyhow::anyhow!(
                "--set {setting} has no value: write --set SECTION.KEY=VALUE"
            )));
        };
        settings.push((key.trim().to_owned(), value.to_owned()));
    }
    Ok(ClusterSpec {
        executable: std::env::current_exe().context("cannot find this executable")?,
        brokers: args.brokers,
        directory: args.data_dir.clone(),
        usual_ports: Some((GRPC_PORT, ADMIN_PORT)),
        settings,
        patience: PATIENCE,
    })
}

/// The ready line, for people and for scripts that wait for it, then what to try first.
fn print_ready(cluster: &Cluster, took: Duration) {
    let brokers = cluster.brokers().len();
    let addresses = cluster.addresses();
    let durability = match brokers {
        1 => "acknowledged = fsynced by the one broker".to_owned(),
        all => format!("acknowledged = fsynced by {} of {all} brokers", all / 2 + 1),
    };
    println!(
        "ready in {:.1} s: {addresses} ({durability})",
        took.as_secs_f64()
    );
    for broker in cluster.brokers() {
        println!(
            "  broker {}  {}  admin http://{}  log {}",
            broker.spec().node,
            broker.spec().address(),
            broker.spec().admin_address(),
            broker.spec().log.display()
        );
    }
    let directory = cluster.directory().display();
    if cluster.is_temporary() {
        println!("  data in {directory}, removed at the end; keep it with --data-dir");
    } else {
        println!("  data in {directory}");
    }
    if !addresses.contains(&format!(":{GRPC_PORT}")) {
        println!("  the usual port is taken: clients need --brokers {addresses}");
    }
    println!("Ctrl-C stops the cluster.");
}

/// Until `stop`, or until no broker runs. Says once of each broker that it ended.
async fn watch(cluster: &mut Cluster, stop: &CancellationToken) {
    let mut reported = Vec::new();
    while stop
        .run_until_cancelled(tokio::time::sleep(WATCH))
        .await
        .is_some()
    {
        for (node, status) in cluster.ended() {
            if !reported.contains(&node) {
                eprintln!("Broker {node} ended ({status}); its log says why.");
                reported.push(node);
            }
        }
        if reported.len() == cluster.brokers().len() {
            eprintln!("No broker is left.");
            return;
        }
    }
}
