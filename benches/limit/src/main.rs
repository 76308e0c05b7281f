//! The null pipeline: what is physically there for three replicas with a sync on each.
//!
//! A client sends commits to a leader; the leader checksums each, writes and syncs it, and at the
//! same time two followers do the same; when all three have it on disk, the client hears of it.
//! Nothing else happens. A window of commits is on its way. Every process is one of its own.

mod node;
mod wire;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use highwater_load::bench::procfs::{Machine, Usage};
use highwater_load::bench::{Calibration, calibrate};
use highwater_load::stats::{Spread, machine};
use serde::Serialize;

/// How far from the possible a broker is: three processes that checksum, write, sync, acknowledge
#[derive(Debug, Parser)]
#[command(name = "highwater-limit", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    /// Bytes of each commit
    #[arg(long, value_delimiter = ',', default_values_t = [64 << 10, 256 << 10, 1 << 20])]
    commits: Vec<usize>,
    /// Commits on their way
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Seconds of each run, after half a second of warm-up
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Runs of each commit size, interleaved
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Grows files instead of writing into recycled ones
    #[arg(long)]
    growing: bool,
    /// Where to write; the temporary directory when absent
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Prints a line of JSON per run
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Writes what it receives, and passes it on if it has followers
    #[command(hide = true)]
    Node(node::Options),
}

/// What a run did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    driver: &'static str,
    commit_bytes: usize,
    growing: bool,
    mb_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    broker_cpu_seconds_per_gb: f64,
    client_cpu_seconds_per_gb: f64,
    bytes_written_per_byte: f64,
    calibration: Calibration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Node(options)) = &arguments.command {
        return node::run(options);
    }
    let base = arguments
        .directory
        .clone()
        .unwrap_or_else(std::env::temp_dir);
    let mut runs = Vec::new();
    for _ in 0..arguments.rounds {
        for &bytes in &arguments.commits {
            let run = one_run(&arguments, &base, bytes)?;
            if arguments.json {
                println!("{}", serde_json::to_string(&run)?);
            }
            runs.push(run);
        }
    }
    if !arguments.json {
        print_table(&arguments, &runs)?;
    }
    Ok(())
}

fn print_table(arguments: &Arguments, runs: &[Run]) -> anyhow::Result<()> {
    println!("machine: {}", machine());
    println!(
        "null pipeline, three processes, sync on all three, window {}, {} files; min / median / max of {}",
        arguments.window,
        if arguments.growing {
            "growing"
        } else {
            "recycled"
        },
        arguments.rounds
    );
    println!(
        "{:>9} {:>26} {:>22} {:>22} {:>22} {:>10}",
        "commit", "acknowledged MB/s", "broker CPU s/GB", "client CPU s/GB", "p50 ms", "written/B"
    );
    for &bytes in &arguments.commits {
        let spread = |of: fn(&Run) -> f64| -> anyhow::Result<Spread> {
            let values: Vec<f64> = runs
                .iter()
                .filter(|run| run.commit_bytes == bytes)
                .map(of)
                .collect();
            Spread::of(&values).context("no runs")
        };
        println!(
            "{:>5} KiB {:>26} {:>22} {:>22} {:>22} {:>10.2}",
            bytes >> 10,
            spread(|run| run.mb_per_second)?.to_string(),
            spread(|run| run.broker_cpu_seconds_per_gb)?.to_string(),
            spread(|run| run.client_cpu_seconds_per_gb)?.to_string(),
            spread(|run| run.p50_ms)?.to_string(),
            spread(|run| run.bytes_written_per_byte)?.median
        );
    }
    Ok(())
}

/// The three processes of a run; they end with it.
struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already cannot be killed, and need not be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Nodes {
    /// Followers first, so that the leader finds them.
    fn start(
        arguments: &Arguments,
        directory: &Path,
        bytes: usize,
    ) -> anyhow::Result<(Self, String)> {
        let mut nodes = Self(Vec::new());
        let mut addresses: Vec<String> = Vec::new();
        for number in (0..3).rev() {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?.to_string();
            drop(listener);
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg("node")
                .args(["--listen", &address])
                .args(["--bytes", &bytes.to_string()])
                .arg("--file")
                .arg(directory.join(format!("node-{number}")))
                .stdout(Stdio::piped());
            if arguments.growing {
                command.arg("--growing");
            }
            if number == 0 {
                for follower in &addresses {
                    command.args(["--follower", follower]);
                }
            }
            let mut child = command.spawn()?;
            let mut ready = [0u8; 6];
            let out = child.stdout.take().context("no standard output")?;
            nodes.0.push(child);
            std::io::Read::read_exact(&mut { out }, &mut ready).context("a node did not start")?;
            addresses.push(address);
        }
        let leader = addresses.pop().context("no leader")?;
        Ok((nodes, leader))
    }
    fn usage(&self) -> Vec<Usage> {
        self.0.iter().map(|child| Usage::of(child.id())).collect()
    }
}

fn one_run(arguments: &Arguments, base: &Path, bytes: usize) -> anyhow::Result<Run> {
    const WARM_UP: Duration = Duration::from_millis(500);
    let directory = tempfile::Builder::new()
        .prefix("highwater-limit-")
        .tempdir_in(base)?;
    let calibration = calibrate(directory.path())?;
    let (nodes, leader) = Nodes::start(arguments, directory.path(), bytes)?;
    let mut client = wire::Client::connect(&leader, arguments.window, bytes)?;
    client.run(WARM_UP)?;
    let (before, own) = (nodes.usage(), Usage::of(std::process::id()));
    let disk = Machine::now(directory.path());
    let started = Instant::now();
    let mut latencies = client.run(Duration::from_secs_f64(arguments.seconds))?;
    let took = started.elapsed().as_secs_f64();
    let machine = Machine::now(directory.path()).since(&disk);
    let (after, own_after) = (nodes.usage(), Usage::of(std::process::id()));
    if latencies.is_empty() {
        bail!("nothing was acknowledged");
    }
    let total = latencies.len() as f64 * bytes as f64;
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| -> f64 {
        let index = (latencies.len() as f64 * part) as usize;
        latencies.get(index).copied().unwrap_or(0.0)
    };
    let used = |of: fn(&Usage) -> f64| -> f64 {
        let pairs = after.iter().zip(&before);
        pairs.map(|(after, before)| of(&after.since(before))).sum()
    };
    Ok(Run {
        driver: "null pipeline",
        commit_bytes: bytes,
        growing: arguments.growing,
        mb_per_second: total / 1e6 / took,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        broker_cpu_seconds_per_gb: used(|usage| usage.cpu_seconds) / (total / 1e9),
        client_cpu_seconds_per_gb: own_after.since(&own).cpu_seconds / (total / 1e9),
        bytes_written_per_byte: machine.disk_bytes as f64 / 3.0 / total,
        calibration,
    })
}
