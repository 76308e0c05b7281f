//! Checks a history file, whoever wrote it.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use highwater_checker::{Conclusion, Notation, Options, SubVia, check, read};

/// What to check, and how.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The history: one EDN map per line, or one JSON object per line when the name ends in .json
    /// or .jsonl
    history: PathBuf,
    /// How consumers got their partitions, when the history does not show rebalances: with
    /// subscribe, skips and steps back of subscribed processes are no errors
    #[arg(long)]
    sub_via: Option<Via>,
    /// The history does not end with reads of everything: what nobody polled is no error
    #[arg(long)]
    no_final_reads: bool,
    /// Examples of each anomaly
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// Writes the verdict there as JSON too
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Via {
    /// By hand
    Assign,
    /// As members of groups
    Subscribe,
}

pub(super) fn run(arguments: &CheckArgs) -> anyhow::Result<ExitCode> {
    let path = &arguments.history;
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    let extension = path.extension().unwrap_or_default();
    let notation = if extension == "json" || extension == "jsonl" {
        Notation::Json
    } else {
        Notation::Edn
    };
    let history = read(BufReader::with_capacity(1 << 20, file), notation);
    let history = history.with_context(|| format!("{shown} is no history"))?;
    let options = Options {
        final_reads: !arguments.no_final_reads,
        examples: arguments.examples,
        sub_via: match arguments.sub_via {
            Some(Via::Subscribe) => SubVia::Subscribe,
            Some(Via::Assign) | None => SubVia::Assign,
        },
        ..Options::default()
    };
    let verdict = check(&history, &options).with_context(|| format!("{shown} is no history"))?;
    print!("{verdict}");
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", verdict.to_json());
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::from(match verdict.conclusion {
        Conclusion::Pass => 0,
        Conclusion::Fail => 1,
        Conclusion::Unknown => 2,
    }))
}
