//! Many seeds, each in a process of its own, two at a time.

use std::process::Output;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Seeds that run at a time; each keeps one processor busy.
const AT_ONCE: usize = 2;

/// `A..B`.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    first: u64,
    end: u64,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no range of seeds such as 0..100");
        let (first, end) = text.split_once("..").ok_or_else(wanted)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wanted());
        Ok(Self {
            first: number(first)?,
            end: number(end)?,
        })
    }
}

/// Runs a range of seeds and says which failed; whether none did.
///
/// # Errors
/// When this program cannot be started again.
pub fn run(range: Range) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_all(range))
}

async fn run_all(range: Range) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("where this program lies")?;
    let begun = Instant::now();
    let mut seeds = range.first..range.end;
    let total = range.end.saturating_sub(range.first);
    let mut running: JoinSet<(u64, std::io::Result<Output>)> = JoinSet::new();
    let (mut done, mut failed) = (0_u64, Vec::new());
    loop {
        while running.len() < AT_ONCE
            && let Some(seed) = seeds.next()
        {
            let mut command = Command::new(&program);
            command.arg("--seed").arg(seed.to_string());
            command.kill_on_drop(true);
            running.spawn(async move { (seed, command.output().await) });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (seed, output) = ended?;
        let output = output.context("cannot run a seed")?;
        done += 1;
        if !output.status.success() {
            failed.push(seed);
            println!(
                "seed {seed} FAILED at commit {} ({})",
                commit().await,
                output.status
            );
            print!("{}", String::from_utf8_lossy(&output.stdout));
            print!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let passed = Duration::from_secs(begun.elapsed().as_secs());
        eprintln!(
            "{done} of {total} seeds, {} failed, {passed:?}",
            failed.len()
        );
    }
    println!("{done} seeds, {} failed {failed:?}", failed.len());
    Ok(failed.is_empty())
}

/// The commit that the working directory is at, to repeat a seed with.
async fn commit() -> String {
    let mut command = Command::new("git");
    let output = command.args(["describe", "--always", "--dirty"]).output();
    match output.await {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}
