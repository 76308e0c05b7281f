//! The command line, as `highwater-jepsen` and as `highwater verify`.

mod check;
mod mutants;
mod progress;
mod recovery;
mod run;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a run that could not be made at all.
const TROUBLE: u8 = 3;

/// As a shell reports a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// What there is to say about exit codes.
pub const EXIT_CODES: &str = "\
Exit codes: 0 valid; 1 an anomaly was found, or something was skipped with --require-all;
2 unknown, because too little happened or a fault was not proven active; 3 the run could not be
made; 130 interrupted twice.";

/// Breaks a cluster on purpose and checks what its clients saw
#[derive(Debug, Parser)]
#[command(name = "highwater-jepsen", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    verify: Verify,
}

/// Everything that follows the program's name, or the verb `verify`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Verify {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a history, also one that another harness wrote
    Check(check::CheckArgs),
    /// Runs known-bad brokers, each of which must be caught
    Mutants(mutants::MutantsArgs),
    /// Prints what recoveries took, from the ledger of a soak
    Recovery(recovery::RecoveryArgs),
    /// Serves one file system that can lose power
    #[command(hide = true)]
    Powerfs(PowerfsArgs),
}

#[derive(Debug, Args)]
struct PowerfsArgs {
    /// A directory for the content of the files
    #[arg(long)]
    backing: PathBuf,
    /// Where to mount
    #[arg(long)]
    mount: PathBuf,
    /// The socket for control
    #[arg(long)]
    control: PathBuf,
}

/// Parses the command line of the program and runs it to its end.
#[must_use]
pub fn main() -> ExitCode {
    execute(Cli::parse().verify, &[])
}

/// Runs to the end. `verb` are the words between the name of this executable and the arguments.
#[must_use]
pub fn execute(verify: Verify, verb: &[&str]) -> ExitCode {
    let done = match verify.command {
        None => run::run(&verify.run, verb),
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Mutants(arguments)) => mutants::run(arguments, verb),
        Some(Command::Recovery(arguments)) => recovery::run(&arguments),
        Some(Command::Powerfs(arguments)) => powerfs(arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("highwater-jepsen: {error:#}");
        ExitCode::from(TROUBLE)
    })
}

fn powerfs(arguments: PowerfsArgs) -> anyhow::Result<ExitCode> {
    use rustix::process::{Signal, set_parent_process_death_signal};

    // A harness that is killed takes its disks with it. SIGTERM, so that they are unmounted.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    highwater_powerfs::serve(&highwater_powerfs::Options {
        backing: arguments.backing,
        mount: arguments.mount,
        control: arguments.control,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The words that start this executable as a server of a file system.
fn disk_server(verb: &[&str]) -> anyhow::Result<Vec<OsString>> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut words: Vec<OsString> = vec![own.into()];
    words.extend(verb.iter().map(Into::into));
    words.push("powerfs".into());
    Ok(words)
}

/// The runtime of a run.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("jepsen")
        .build()
        .context("no runtime")
}

/// A token that the first Ctrl-C or SIGTERM cancels. The second ends the process; what it leaves
/// behind goes with the next run.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    // Its owner is the process: it ends with it, or ends it.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            cancel.cancel();
        }
    });
    Ok(stop)
}
