//! `consume --group`: records to standard output as a member of a group. A record is finished when
//! it was written out, so what a crash takes with it is read again.

use std::io::{self, Write};
use std::process::ExitCode;

use futures_util::{FutureExt, StreamExt};

use super::consume::{self, ConsumeArgs};
use super::error::INTERRUPTED;
use super::interrupt::asked_to_end;
use super::{CliError, GlobalOptions, output};
use crate::client::Client;
use crate::consumer::Start;
use crate::group::{CommitMode, GroupConsumer, GroupError, GroupRecord, GroupStart};

/// Records written and not flushed.
const MOST_OPEN: usize = 500;

pub(super) async fn run(
    client: &Client,
    group: &str,
    args: &ConsumeArgs,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let start = match args.start((client.inner.wall_clock)()) {
        Start::Earliest => GroupStart::Earliest,
        Start::Latest => GroupStart::Latest,
        _ => {
            return Err(CliError::Usage(
                "a group begins at start or end, and goes on where it was; move it with \
                 `highwater group reset`"
                    .to_owned(),
            ));
        }
    };
    let mut builder = client.group(group).commit_mode(CommitMode::Explicit);
    builder = builder.topics(args.topics.iter().cloned()).start_at(start);
    if let Some(timeout) = args.session_timeout {
        builder = builder.session_timeout(std::time::Duration::from_secs(timeout));
    }
    let mut consumer = builder.stream()?;
    let bar = output::progress("read", (args.num > 0).then_some(args.num));
    let done = tokio::select! {
        done = copy(&mut consumer, args, global, &bar) => done.map(|()| ExitCode::SUCCESS),
        asked = asked_to_end() => asked.map(|()| ExitCode::from(INTERRUPTED)).map_err(CliError::from),
    };
    bar.finish_and_clear();
    let code = done?;
    // Asked a second time it is gone without leaving; the group waits for its session to end.
    tokio::select! {
        left = consumer.leave() => left?,
        asked = asked_to_end() => asked?,
    }
    Ok(code)
}

async fn copy(
    consumer: &mut GroupConsumer,
    args: &ConsumeArgs,
    global: &GlobalOptions,
    bar: &indicatif::ProgressBar,
) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout());
    let mut open: Vec<GroupRecord> = Vec::new();
    let mut read = 0;
    loop {
        let next = match consumer.next().now_or_never() {
            Some(next) if open.len() < MOST_OPEN => next,
            Some(next) => {
                finish(&mut out, &mut open)?;
                next
            }
            None => {
                finish(&mut out, &mut open)?;
                consumer.next().await
            }
        };
        let Some(record) = next else { break };
        let record = record?;
        consume::write(&record, args, global.output, &mut out)?;
        open.push(record);
        read += 1;
        bar.inc(1);
        if read == args.num && args.num > 0 {
            break;
        }
    }
    finish(&mut out, &mut open)?;
    Ok(())
}

/// What is written out is finished.
fn finish(out: &mut impl Write, open: &mut Vec<GroupRecord>) -> io::Result<()> {
    out.flush()?;
    open.drain(..).for_each(GroupRecord::done);
    Ok(())
}

impl From<GroupError> for CliError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Partition(error) => Self::Consume(error),
            GroupError::Settings(what) => Self::Usage(what),
            error => Self::Failed(error.to_string()),
        }
    }
}
