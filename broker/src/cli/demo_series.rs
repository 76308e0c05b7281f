//! `highwater demo --full`: one run after the other, each appended to a file when it has ended.

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use highwater_order_demo::gateway::door::unix_ms;
use highwater_order_demo::series::{self, Done};

use super::demo::{Home, run_in, say_where};
use super::demo_args::{DemoArgs, block_config};
use super::exit::{Failure, INTERRUPTED};

/// Goes on with the series, and shows what it says so far.
pub fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let mut left = args.blocks.unwrap_or(u64::MAX);
    let mut results = series::load(&args.results).map_err(Failure::usage)?;
    while left > 0
        && let Some(block) = series::next(&results)
    {
        left -= 1;
        eprintln!(
            "Block {}: {} orders, {:.0} per second",
            block.name, block.count, block.rate
        );
        let home = Home::new(None).map_err(Failure::usage)?;
        let config = block_config(args, &block, home.path())?;
        let Some((report, home)) = run_in(home, config)? else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let done = Done::of(&block, &report, unix_ms());
        series::append(&args.results, &done)?;
        eprintln!("{}", if done.passed { "passed" } else { "FAILED" });
        if !done.passed {
            eprint!("{report}");
            say_where(home);
        }
        results.push(done);
    }
    print!("{}", series::summary(&results));
    write(args, &results)?;
    Ok(if results.iter().all(|done| done.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(args: &DemoArgs, results: &[Done]) -> Result<(), Failure> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(results).context("the results")?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.html {
        let page = series::page(results);
        fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
