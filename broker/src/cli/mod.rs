//! The command line: one binary, nouns then verbs.

mod dev;
mod exit;
mod server;
mod signals;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use exit::Failure;

/// The version, with the commit when the build was given one in `HIGHWATER_COMMIT`.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("HIGHWATER_COMMIT") {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    }
}

/// A replicated commit log: nothing below the high-water mark is ever lost.
#[derive(Parser)]
#[command(name = "highwater", version = version(), after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one broker until it is told to stop
    Server(server::ServerArgs),
    /// Runs a whole cluster on this machine, for development
    Dev(dev::DevArgs),
    /// Prints the reference of all configuration keys
    Config,
    /// Prints a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line and runs it to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Server(args) => server::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Config => {
            print!("{}", highwater_broker::config::reference());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "highwater", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The runtime of every verb: a worker per core.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("highwater")
        .build()
        .map_err(|error| Failure::failed(anyhow::Error::new(error).context("no runtime")))
}
