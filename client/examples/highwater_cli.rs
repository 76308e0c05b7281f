//! The client's verbs alone, without a broker in the binary: how to embed them.

use std::process::ExitCode;

use clap::Parser;
use highwater_client::cli::{self, Command, EXIT_CODES, GlobalOptions};

#[derive(Debug, Parser)]
#[command(name = "highwater", after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(cli::run(arguments.command, &arguments.global));
    // A read of standard input may still be pending: nobody waits for it.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.exit_code()
    })
}
