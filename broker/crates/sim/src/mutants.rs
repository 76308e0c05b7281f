//! Known-bad brokers in the simulation: how many seeds it takes until each is caught.

/// Seeds after which a mutant counts as missed, unless told otherwise.
pub const RANGE: &str = "0..400";

#[cfg(not(feature = "mutant"))]
pub use elsewhere::run;

#[cfg(not(feature = "mutant"))]
mod elsewhere {
    use std::num::NonZeroUsize;
    use std::process::Command;

    use anyhow::{Context, ensure};

    use crate::seeds::Range;

    /// Builds the program with the mutants and hands over to it: they exist under one cargo profile
    /// alone, which is not this program's.
    ///
    /// # Errors
    /// When cargo cannot be run, or does not build it.
    pub fn run(range: Range, jobs: NonZeroUsize, only: Option<&str>) -> anyhow::Result<bool> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--profile", "mutant", "--features", "mutant"]);
        build.args(["-p", "highwater-sim"]);
        ensure!(
            build.status().context("cannot run cargo")?.success(),
            "the mutants do not build"
        );
        let own = std::env::current_exe().context("where this program lies")?;
        let target = own.parent().and_then(|profile| profile.parent());
        let target = target.context("this program lies in no build directory")?;
        let program = target.join("mutant/highwater-sim");
        let mut mutants = Command::new(&program);
        mutants.arg(format!("--mutants={range}"));
        mutants.args(["--jobs", &jobs.to_string()]);
        if let Some(only) = only {
            mutants.args(["--only", only]);
        }
        let status = mutants.status();
        let status = status.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(status.success())
    }
}

#[cfg(feature = "mutant")]
pub use chosen::run;

#[cfg(feature = "mutant")]
mod chosen {
    use std::num::NonZeroUsize;

    use anyhow::ensure;
    use highwater_mutant::{Mutant, VARIABLE};
    use tokio::time::Instant;

    use crate::run::NO_TOPIC;
    use crate::seeds::{Ended, Range, run_each};

    /// The write-ahead log does not rot here: tests of the log and the chaos harness show the first. The others were
    /// one seed each of 15,000, and tests of the broker show them; they are tried by name.
    const ELSEWHERE: [Mutant; 3] = [
        Mutant::TruncatesDamage,
        Mutant::CountsTheOldReplica,
        Mutant::ForgetsArrivals,
    ];

    /// Runs seeds with each mutant until one fails, or with one of them; whether all were caught,
    /// each by a seed that passes when nothing is broken.
    ///
    /// # Errors
    /// When this program cannot be started again, and when there is no such mutant.
    pub fn run(range: Range, jobs: NonZeroUsize, only: Option<&str>) -> anyhow::Result<bool> {
        let wanted = Mutant::ALL.into_iter().filter(|mutant| match only {
            Some(only) => only == mutant.name(),
            None => !ELSEWHERE.contains(mutant),
        });
        let wanted: Vec<Mutant> = wanted.collect();
        ensure!(!wanted.is_empty(), "there is no mutant {only:?}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            println!("| mutant | seeds | s | seed | without it | what gave it away |");
            println!("|---|---|---|---|---|---|");
            let mut all = true;
            for mutant in wanted {
                all &= try_one(mutant, range, jobs).await?;
            }
            Ok(all)
        })
    }

    async fn try_one(mutant: Mutant, range: Range, jobs: NonZeroUsize) -> anyhow::Result<bool> {
        let begun = Instant::now();
        let (mut seeds, mut caught) = (0_u64, None);
        let chosen = [(VARIABLE, mutant.name())];
        run_each(range.seeds(), jobs, &chosen, async |ended| {
            seeds += 1;
            // One that keeps its cluster from being founded shows nothing; the next may get further.
            if !ended.kept && !why(&ended).starts_with(NO_TOPIC) {
                caught = Some(ended);
            }
            Ok(caught.is_none())
        })
        .await?;
        let (name, seconds) = (mutant.name(), begun.elapsed().as_secs());
        let Some(caught) = caught else {
            println!("| `{name}` | {seeds} | {seconds} | MISSED | | |");
            return Ok(false);
        };
        let (seed, why) = (caught.seed, why(&caught));
        let mut passes = false;
        run_each([seed].into_iter(), jobs, &[(VARIABLE, "")], async |ended| {
            passes = ended.kept;
            Ok(true)
        })
        .await?;
        let control = if passes { "passes" } else { "FAILS TOO" };
        println!("| `{name}` | {seeds} | {seconds} | {seed} | {control} | {why} |");
        Ok(passes)
    }

    /// What a seed said when it failed, in one line.
    fn why(ended: &Ended) -> &str {
        let why = ended
            .said
            .lines()
            .find_map(|line| line.strip_prefix("FAILED: "));
        why.unwrap_or_else(|| ended.said.lines().last().unwrap_or_default())
    }
}
