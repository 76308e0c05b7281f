//! Measures the log on a directory: acknowledged MB/s and latency by commit size, the same with
//! many submitters sharing each sync, and how long the log takes to be read back.
//!
//! `cargo run --release -p highwater-wal --example wal_bench -- DIR [MB_PER_ROW]`
//!
//! A warm-up comes first, so that what is measured goes to recycled files.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use highwater_env::OsEnv;
use highwater_proto::Payload;
use highwater_wal::{GroupId, LogIndex, Op, Wal, WalConfig};
use tokio::task::JoinSet;
use tokio::time::Instant;

const GROUP: GroupId = GroupId(1);
const SUBMITTERS: u32 = 64;
/// Bytes written before anything is measured: every file has been in use once.
const WARM_UP: usize = 512 << 20;
const MIB: f64 = (1 << 20) as f64;

type Log = Wal<OsEnv>;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next() else {
        eprintln!("usage: wal_bench DIR [MB_PER_ROW]");
        std::process::exit(2);
    };
    let megabytes: usize = arguments
        .next()
        .and_then(|mb| mb.parse().ok())
        .unwrap_or(256);
    let dir = Path::new(&dir).join("wal-bench");
    let wal = open(&dir);
    let mut next = 0;
    commits(&wal, &mut next, 1 << 20, WARM_UP).await;
    println!("one submitter, one commit at a time");
    println!(
        "{:>10} {:>10} {:>12} {:>12} {:>12}",
        "bytes", "MB/s", "p50 us", "p99 us", "commits"
    );
    for size in [4 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let total = (megabytes << 20).min(size * 20_000);
        let (took, latencies) = commits(&wal, &mut next, size, total).await;
        row(size, total, took, latencies);
    }
    println!("{SUBMITTERS} submitters in groups of their own");
    for size in [4 << 10, 64 << 10] {
        let total = (megabytes << 20).min(size * 100_000);
        let before = wal.stats().fsyncs;
        let (took, latencies) = shared(&wal, size, total).await;
        row(size, total, took, latencies);
        println!("{:>10} syncs", wal.stats().fsyncs - before);
    }
    wal.close().await;
    restart(&dir).await;
    println!("remove {} when done", dir.display());
}

fn open(dir: &Path) -> Log {
    match Wal::open(&OsEnv::default(), dir, WalConfig::default()) {
        Ok((wal, _)) => wal,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

async fn write(wal: &Log, group: GroupId, ops: Vec<Op>) {
    if let Err(error) = wal.write(group, ops).await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn entry(index: u64, payload: &Bytes) -> Op {
    Op::Append {
        index: LogIndex(index),
        payload: Payload::from(payload.clone()),
    }
}

fn purge(upto: u64) -> Op {
    Op::Purge {
        upto: LogIndex(upto),
        meta: Bytes::new(),
    }
}

/// Commits of `size` bytes, one after the other, purged every 64 MiB.
async fn commits(
    wal: &Log,
    next: &mut u64,
    size: usize,
    total: usize,
) -> (Duration, Vec<Duration>) {
    let payload = Bytes::from(vec![0x5a; size]);
    let mut latencies = Vec::with_capacity(total / size);
    let begun = Instant::now();
    for number in 0..total / size {
        let started = Instant::now();
        write(wal, GROUP, vec![entry(*next, &payload)]).await;
        latencies.push(started.elapsed());
        if number % ((64 << 20) / size) == 0 {
            write(wal, GROUP, vec![purge(*next)]).await;
        }
        *next += 1;
    }
    (begun.elapsed(), latencies)
}

/// The same by many submitters at once, each in its group.
async fn shared(wal: &Log, size: usize, total: usize) -> (Duration, Vec<Duration>) {
    let payload = Bytes::from(vec![0xa5; size]);
    let each = (total / size) as u64 / u64::from(SUBMITTERS);
    let begun = Instant::now();
    let mut submitters = JoinSet::new();
    for number in 0..SUBMITTERS {
        let (wal, payload) = (wal.clone(), payload.clone());
        submitters.spawn(async move {
            let group = GroupId(100 + number);
            let mut latencies = Vec::new();
            for index in 0..each {
                let started = Instant::now();
                write(&wal, group, vec![entry(index, &payload)]).await;
                latencies.push(started.elapsed());
            }
            write(&wal, group, vec![Op::Forget]).await;
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = submitters.join_next().await {
        latencies.extend(done.unwrap_or_default());
    }
    (begun.elapsed(), latencies)
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn row(size: usize, total: usize, took: Duration, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let quantile = |percent: usize| {
        let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(at).map_or(0, Duration::as_micros)
    };
    let rate = total as f64 / MIB / took.as_secs_f64();
    println!(
        "{size:>10} {rate:>10.1} {:>12} {:>12} {:>12}",
        quantile(50),
        quantile(99),
        latencies.len()
    );
}

/// Writes 128 MiB that nobody purges, in entries of 16 KiB, and opens the log again.
async fn restart(dir: &Path) {
    let wal = open(dir);
    let payload = Bytes::from(vec![0x33; 16 << 10]);
    for at in 0..128_u64 {
        let ops = (0..64)
            .map(|number| entry(at * 64 + number, &payload))
            .collect();
        write(&wal, GroupId(9), ops).await;
    }
    wal.close().await;
    let begun = Instant::now();
    let (wal, recovery) = match Wal::open(&OsEnv::default(), dir, WalConfig::default()) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    let took = begun.elapsed();
    println!(
        "{} MiB read back in {} ms",
        recovery.bytes_read >> 20,
        took.as_millis()
    );
    write(&wal, GroupId(9), vec![Op::Forget]).await;
    wal.close().await;
}
