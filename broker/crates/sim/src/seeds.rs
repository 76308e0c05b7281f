//! Many seeds, each in a process of its own, two at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::process::Output;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::faults::Tally;

/// A seed that takes more of the processor than this hangs. Its time says nothing: the machine may have
/// other things to do.
const PROCESSOR_SECONDS: u64 = 300;
/// One that takes longer than this hangs without the processor.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Between two lines of progress.
const PROGRESS: usize = 20;
/// Of this many runs one may prove too little; where it is more, too much is broken at a time.
const UNKNOWN_OF: usize = 50;

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

    fn number_behind(&self, what: &str) -> Option<f64> {
        let said = self.said.lines();
        let mut told = said.filter_map(|line| Some(line.split_once(what)?.1));
        told.find_map(|told| told.split([' ', ';']).next()?.parse().ok())
    }
    /// Simulated seconds, as it said.
    #[must_use]
    pub fn simulated(&self) -> f64 {
        self.number_behind("; simulated ").unwrap_or(0.0)
    }
    /// MiB that it needed at the most.
    #[must_use]
    pub fn peak_mib(&self) -> f64 {
        self.number_behind("; peak ").unwrap_or(0.0)
    }
    /// Whether too little went well, or nothing broke, so that it proves nothing.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.said.lines().any(|line| line.starts_with("UNKNOWN: "))
    }
    /// What its trace was.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        let told = self.said.split_once(" digest ")?.1;
        told.split(';').next()
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

/// How many seeds are run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Many {
    /// At a time.
    pub jobs: NonZeroUsize,
    /// None begins after this.
    pub limit: Option<Duration>,
    /// It is a failure when fewer were run.
    pub at_least: usize,
    /// Each is run twice, and must give the same trace.
    pub twice: bool,
}

/// What many seeds have shown.
#[derive(Default)]
struct Shown {
    runs: usize,
    failed: Vec<u64>,
    unknown: Vec<u64>,
    digests: BTreeMap<u64, String>,
    struck: Tally,
    simulated: f64,
    peak_mib: f64,
}

impl Shown {
    async fn take(&mut self, ended: &Ended) {
        self.runs += 1;
        self.simulated += ended.simulated();
        self.peak_mib = self.peak_mib.max(ended.peak_mib());
        for line in ended.said.lines() {
            // Other lines are no tally.
            let _ = self.struck.add_said(line);
        }
        let digest = ended.digest().unwrap_or_default();
        let first = self.digests.entry(ended.seed);
        let first = first.or_insert_with(|| digest.to_owned());
        let differs = first.as_str() != digest;
        if differs {
            println!(
                "seed {} does not repeat itself: {first}, {digest}",
                ended.seed
            );
        }
        if !ended.kept {
            report(ended).await;
        }
        if !ended.kept || differs {
            self.failed.push(ended.seed);
        } else if ended.is_unknown() {
            self.unknown.push(ended.seed);
        }
    }

    /// Says it; whether it is good enough.
    fn conclude(mut self, many: Many, total: usize, seconds: f64) -> bool {
        self.failed.dedup();
        self.unknown.sort_unstable();
        self.unknown.dedup();
        let (done, failed, unknown) = (self.digests.len(), self.failed.len(), self.unknown.len());
        println!("{}", self.struck);
        println!("never struck: {}", self.struck.never().join(", "));
        println!(
            "{unknown} unknown {:?}: too little went well, or nothing broke",
            self.unknown
        );
        let runs = self.runs as f64;
        println!(
            "{done} of {total} seeds, {:.2} simulated hours, {seconds:.0} s, {:.2} runs/s, {:.0} MiB at the \
             most; {failed} failed {:?}",
            self.simulated / 3_600.0,
            runs / seconds.max(0.001),
            self.peak_mib,
            self.failed
        );
        let too_many = unknown > done.div_ceil(UNKNOWN_OF);
        if too_many {
            println!("FAILED: more than one run of {UNKNOWN_OF} proves nothing");
        }
        let too_few = done < many.at_least;
        if too_few {
            println!("FAILED: fewer than {} seeds were run", many.at_least);
        }
        self.failed.is_empty() && !too_many && !too_few
    }
}

/// Runs seeds and says which failed; whether none did, enough were run and few enough prove nothing.
///
/// # Errors
/// When this program cannot be started again.
pub fn run(seeds: impl ExactSizeIterator<Item = u64>, many: Many) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_all(seeds, many))
}

async fn run_all(seeds: impl ExactSizeIterator<Item = u64>, many: Many) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let total = seeds.len();
    let times = if many.twice { 2 } else { 1 };
    let seeds = seeds.take_while(|_| many.limit.is_none_or(|limit| begun.elapsed() < limit));
    let seeds = seeds.flat_map(|seed| std::iter::repeat_n(seed, times));
    let mut shown = Shown::default();
    run_each(seeds, many.jobs, &[], async |ended| {
        shown.take(&ended).await;
        if shown.runs % PROGRESS == 0 {
            eprintln!(
                "{} of {} runs, {} failed, {} s",
                shown.runs,
                total * times,
                shown.failed.len(),
                begun.elapsed().as_secs()
            );
        }
        Ok(true)
    })
    .await?;
    Ok(shown.conclude(many, total, begun.elapsed().as_secs_f64()))
}

/// Says how a seed failed and how to see it again.
async fn report(ended: &Ended) {
    let (seed, commit) = (ended.seed, commit().await);
    println!("seed {seed} FAILED at commit {commit}; see it again with");
    println!("  cargo run --release -p highwater-sim -- --seed {seed} --trace trace.txt");
    print!("{}", ended.said);
}

/// The commit that the working directory is at, to repeat a seed with. It may have moved on since this program was
/// built: then that is said.
async fn commit() -> String {
    let Some(name) = git(&["describe", "--always", "--dirty"]).await else {
        return "unknown".to_owned();
    };
    let committed = git(&["log", "-1", "--format=%ct"]).await;
    let committed: Option<u64> = committed.and_then(|seconds| seconds.parse().ok());
    let built = std::env::current_exe().and_then(|program| program.metadata()?.modified());
    let built = built.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    match (built, committed) {
        (Some(built), Some(committed)) if built.as_secs() >= committed => name,
        _ => format!("{name} or before (this program is older)"),
    }
}

async fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().await.ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}
