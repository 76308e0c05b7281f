//! The command line: one binary, nouns then verbs.

mod demo;
mod demo_args;
mod demo_series;
mod demo_view;
mod dev;
mod exit;
mod order_service;
mod parent;
mod server;
mod signals;

use std::process::ExitCode;

use clap::{ArgMatches, Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use highwater_client::cli::{Command as ClientCommand, GlobalOptions};

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
    /// Runs an order pipeline of a dozen services over three brokers, breaks them, checks everything
    Demo(demo_args::DemoArgs),
    /// One service of the demo
    #[command(hide = true)]
    OrderService(order_service::ServiceArgs),
    /// The checker of the demo
    #[command(hide = true)]
    OrderCheck(order_service::CheckArgs),
    /// Breaks a cluster on purpose, checks what its clients saw, and says whether anything was lost
    Verify(highwater_jepsen::cli::Verify),
    /// Drives a workload through a cluster and prints throughput, latencies and what they cost
    Bench(highwater_load::bench::Bench),
    #[command(flatten)]
    Client(ClientCommand),
    /// Prints the reference of all configuration keys
    Config,
    /// Prints a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The whole command line. The client's verbs take the client's options; the others do not, so that
/// `dev --brokers 3` can mean a number while `produce --brokers` means addresses.
fn command_line() -> clap::Command {
    let client = ClientCommand::augment_subcommands(clap::Command::new("client"));
    let verbs = client
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned());
    verbs.fold(Cli::command(), |command, verb| {
        command.mut_subcommand(verb, with_options)
    })
}

/// Adds the client's options to a verb, which keeps its own description.
fn with_options(verb: clap::Command) -> clap::Command {
    let about = verb.get_about().cloned().unwrap_or_default();
    GlobalOptions::augment_args(verb)
        .about(about)
        .long_about(clap::builder::Resettable::Reset)
}

/// The verb, and the options of a client's verb.
fn parse(matches: &ArgMatches) -> Result<(Command, GlobalOptions), clap::Error> {
    let command = Cli::from_arg_matches(matches)?.command;
    let global = match (&command, matches.subcommand()) {
        (Command::Client(_), Some((_, matches))) => GlobalOptions::from_arg_matches(matches)?,
        _ => GlobalOptions::default(),
    };
    Ok((command, global))
}

/// Parses the command line and runs it to its end.
pub fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let (command, global) = parse(&matches).unwrap_or_else(|error| error.exit());
    match run(command, &global) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, global: &GlobalOptions) -> Result<ExitCode, Failure> {
    match command {
        Command::Server(args) => server::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Demo(args) => demo::run(args),
        Command::OrderService(args) => order_service::service(args),
        Command::OrderCheck(args) => order_service::check(args),
        // Its exit codes are its own: 1 is an anomaly, 2 is "unknown".
        Command::Verify(args) => Ok(highwater_jepsen::cli::execute(args, &["verify"])),
        Command::Bench(args) => bench(args),
        Command::Client(command) => client(command, global),
        Command::Config => {
            print!("{}", crate::config::reference());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut command_line(),
                "highwater",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs the load generator; the brokers that it starts are this executable.
fn bench(args: highwater_load::bench::Bench) -> Result<ExitCode, Failure> {
    use anyhow::Context as _;

    let own = std::env::current_exe().context("cannot find this executable")?;
    let run = highwater_load::bench::run(args, Some(own), &["bench"]);
    runtime()?.block_on(run)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a verb of the client's command line.
fn client(command: ClientCommand, global: &GlobalOptions) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let done = runtime.block_on(highwater_client::cli::run(command, global));
    // A read of standard input may still be pending: it must not keep the process.
    runtime.shutdown_background();
    done.map_err(|error| Failure::with_code(error.code(), error))
}

/// The runtime of every verb: a worker per core.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("highwater")
        .build()
        .map_err(|error| Failure::failed(anyhow::Error::new(error).context("no runtime")))
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
