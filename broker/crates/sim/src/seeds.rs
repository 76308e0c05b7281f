//! Many seeds, each in a process of its own, two at a time.

use std::fmt;
use std::num::NonZeroUsize;
use std::process::Output;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A seed that takes more of the processor than this hangs. Its time says nothing: the machine may have
/// other things to do.
const PROCESSOR_SECONDS: u64 = 300;
/// One that takes longer than this hangs without the processor.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Between two lines of progress.
const PROGRESS: usize = 20;

/// `A..B`.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    first: u64,
    end: u64,
}

impl Range {
    /// The seeds, in order.
    pub fn seeds(self) -> impl ExactSizeIterator<Item = u64> {
        let count = usize::try_from(self.end.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (0..count).map(move |at| self.first + at as u64)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
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

/// Lets this process take no more of the processor than a seed may.
///
/// # Errors
/// When the system refuses it.
pub fn bound_processor() -> anyhow::Result<()> {
    let most = Some(PROCESSOR_SECONDS);
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Cpu, limit).context("cannot bound the processor's time")
}

/// How one seed ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub seed: u64,
    /// Whether every promise was kept.
    pub kept: bool,
    /// What it said.
    pub said: String,
}

impl Ended {
    fn of(seed: u64, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            seed,
            kept: output.status.success(),
            said: format!(
                "{}{}{}\n",
                text(&output.stdout),
                text(&output.stderr),
                output.status
            ),
        }
    }

    /// Simulated seconds, as it said.
    #[must_use]
    pub fn simulated(&self) -> f64 {
        let said = self.said.lines().find_map(|line| {
            let (_, told) = line.split_once("; simulated ")?;
            told.split(' ').next()?.parse().ok()
        });
        said.unwrap_or(0.0)
    }
}

/// Runs seeds, each in a process of its own and `jobs` at a time, and hands over how each ended
/// until `each` says that it has seen enough.
///
/// # Errors
/// When this program cannot be started again.
pub async fn run_each(
    mut seeds: impl Iterator<Item = u64>,
    jobs: NonZeroUsize,
    environment: &[(&str, &str)],
    mut each: impl AsyncFnMut(Ended) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program lies")?;
    let mut running: JoinSet<anyhow::Result<Ended>> = JoinSet::new();
    loop {
        while running.len() < jobs.get()
            && let Some(seed) = seeds.next()
        {
            let mut command = Command::new(&program);
            command.arg("--seed").arg(seed.to_string());
            command.envs(environment.iter().copied());
            command.kill_on_drop(true);
            running.spawn(async move {
                match tokio::time::timeout(PATIENCE, command.output()).await {
                    Ok(output) => Ok(Ended::of(seed, &output.context("cannot run a seed")?)),
                    Err(_) => Ok(Ended {
                        seed,
                        kept: false,
                        said: format!("it has not ended after {PATIENCE:?}\n"),
                    }),
                }
            });
        }
        let Some(ended) = running.join_next().await else {
            return Ok(());
        };
        if !each(ended??).await? {
            return Ok(());
        }
    }
}

/// Seeds that have found something once, one a line, with what it was.
const CORPUS: &str = include_str!("../corpus.txt");

/// Those seeds.
///
/// # Errors
/// A line that is none.
pub fn corpus() -> anyhow::Result<Vec<u64>> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#'));
    let seed = |line: &str| {
        let seed = line.split(' ').next().unwrap_or_default();
        seed.parse()
            .with_context(|| format!("corpus.txt: {line:?} does not begin with a seed"))
    };
    lines.map(seed).collect()
}

/// Runs seeds and says which failed; whether none did. With a limit, no seed begins after it.
///
/// # Errors
/// When this program cannot be started again.
pub fn run(
    seeds: impl ExactSizeIterator<Item = u64>,
    jobs: NonZeroUsize,
    limit: Option<Duration>,
) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_all(seeds, jobs, limit))
}

async fn run_all(
    seeds: impl ExactSizeIterator<Item = u64>,
    jobs: NonZeroUsize,
    limit: Option<Duration>,
) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let total = seeds.len();
    let seeds = seeds.take_while(|_| limit.is_none_or(|limit| begun.elapsed() < limit));
    let (mut done, mut failed, mut simulated) = (0_usize, Vec::new(), 0.0);
    run_each(seeds, jobs, &[], async |ended| {
        done += 1;
        simulated += ended.simulated();
        if !ended.kept {
            failed.push(ended.seed);
            report(&ended).await;
        }
        if done % PROGRESS == 0 {
            eprintln!(
                "{done} of {total} seeds, {} failed, {} s",
                failed.len(),
                begun.elapsed().as_secs()
            );
        }
        Ok(true)
    })
    .await?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{done} of {total} seeds, {:.2} simulated hours, {seconds:.0} s, {:.2} seeds/s; {} failed {failed:?}",
        simulated / 3_600.0,
        done as f64 / seconds.max(0.001),
        failed.len()
    );
    Ok(failed.is_empty())
}

/// Says how a seed failed and how to see it again.
async fn report(ended: &Ended) {
    let (seed, commit) = (ended.seed, commit().await);
    println!("seed {seed} FAILED at commit {commit}; see it again with");
    println!("  cargo run --release -p highwater-sim -- --seed {seed} --trace trace.txt");
    print!("{}", ended.said);
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
