//! The program `highwater-powerfs`: one mount, until it is told to end.

use std::path::PathBuf;

use clap::Parser;

/// A file system that knows what is durable, and loses the rest on command.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A directory for the content of the files.
    #[arg(long)]
    backing: PathBuf,
    /// Where to mount: an empty directory.
    #[arg(long)]
    mount: PathBuf,
    /// The Unix socket for control.
    #[arg(long)]
    control: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    highwater_powerfs::serve(&highwater_powerfs::Options {
        backing: arguments.backing,
        mount: arguments.mount,
        control: arguments.control,
    })?;
    Ok(())
}
