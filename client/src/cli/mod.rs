//! The command line over the client: `topic`, `produce`, `consume`, `group`, `dlq`,
//! `cluster`. The `highwater` binary embeds it.

mod cluster;
mod consume;
mod consume_group;
mod context;
mod dlq;
mod error;
mod format;
mod group;
mod held;
mod interrupt;
mod lifecycle;
mod output;
mod plan_wait;
mod position;
mod produce;
mod rolling;
mod topic;
mod topic_change;
mod topic_move;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use futures_util::future::BoxFuture;

use crate::client::Client;

pub use cluster::ClusterCommand;
pub use consume::ConsumeArgs;
pub use dlq::{DlqCommand, RedriveArgs};
pub use error::{CliError, EXIT_CODES};
pub use group::{GroupCommand, ResetArgs};
pub use lifecycle::{LifeCommand, PlanCommand};
pub use produce::ProduceArgs;
pub use rolling::RollArgs;
pub use topic::TopicCommand;
pub use topic_change::{AddPartitionsArgs, AlterArgs, DeleteArgs, DeleteRecordsArgs};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// Tables and lines for people.
    #[default]
    Table,
    /// JSON: one document, or one line per record.
    Json,
}

/// Options that every verb takes.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalOptions {
    /// First brokers to ask, host:port[,host:port...] or highwater://...
    /// [env: HIGHWATER_BROKERS]
    #[arg(long, global = true, value_name = "ADDRESSES")]
    pub brokers: Option<String>,
    /// A name from ~/.config/highwater/contexts.toml [env: HIGHWATER_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// How results are written
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// How long a call may take, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

impl GlobalOptions {
    /// The connection string by flag, environment, contexts file, in this order; else
    /// `localhost:9094`. A `--context` flag outweighs the environment.
    ///
    /// # Errors
    /// [`CliError`] when the contexts file is wrong or does not have the name.
    pub async fn connection_string(&self) -> Result<String, CliError> {
        context::resolve(self).await
    }

    async fn connect(&self) -> Result<Client, CliError> {
        let builder = Client::builder()
            .request_timeout(Duration::from_secs(self.timeout.max(1)))
            .connection_string(&self.connection_string().await?)
            .map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(builder.connect().await?)
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, describe, change and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Write lines from standard input as records
    #[command(after_help = produce::HELP)]
    Produce(ProduceArgs),
    /// Read records
    #[command(after_help = consume::HELP)]
    Consume(ConsumeArgs),
    /// Look at consumer groups, move their offsets
    #[command(subcommand)]
    Group(GroupCommand),
    /// Look at dead letters, deliver them again
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Look at the cluster, and change who is in it
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

/// Runs one verb to its end. Exit codes are in [`EXIT_CODES`]; [`CliError::exit_code`] gives the
/// code of an error, whose one line is for standard error.
///
/// Not cancellation-safe: dropped, records read from standard input may be lost. After an error
/// a read of standard input may still be pending on a blocking thread: end the process without
/// waiting for the runtime.
///
/// # Errors
/// [`CliError`].
pub fn run(command: Command, global: &GlobalOptions) -> BoxFuture<'_, Result<ExitCode, CliError>> {
    // Boxed here, so that its code is made once, in this crate: a plain async function would be compiled anew
    // by every crate that awaits it.
    Box::pin(dispatch(command, global))
}

async fn dispatch(command: Command, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let done = match command {
        Command::Topic(command) => topic::run(command, global).await,
        Command::Produce(args) => produce::run(args, global).await,
        Command::Consume(args) => consume::run(args, global).await,
        Command::Group(command) => group::run(command, global).await,
        Command::Dlq(command) => dlq::run(command, global).await,
        Command::Cluster(command) => cluster::run(command, global).await,
    };
    match done {
        // Whoever read our output has had enough: that is no failure.
        Err(CliError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        done => done,
    }
}
