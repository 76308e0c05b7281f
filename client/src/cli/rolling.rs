//! `cluster rolling-restart`: one broker after the other, each when the cluster can spare it, the next
//! when the one before is back and has caught up.
//!
//! Nothing is kept between two runs. Before each broker the cluster itself is asked what it can spare,
//! so the command may end anywhere and be begun anew with the brokers that are left.

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use highwater_proto::v1;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::error::INTERRUPTED;
use super::held;
use super::interrupt::asked_to_end;
use super::lifecycle::POLL;
use super::output::{print_json, print_line, print_table, table};
use super::{CliError, GlobalOptions, OutputFormat};
use crate::admin::Admin;

pub(super) const HELP: &str = "\
Example: highwater cluster rolling-restart --exec 'ssh {host} systemctl restart highwater@{id}'

The command is run by sh, once per broker, with {id}, {address} (host:port) and {host} put in; its
output goes to standard error. It should stop the broker with SIGTERM, as service managers do: the
broker then hands its leaderships over first. Without --exec you are told whom to restart.
Ctrl-C ends it at any time, and the command that it runs; what is left to do is printed.";

/// A broker that runs is heard from within this time also by one that has just begun to lead. Until
/// then it is not known which process there is.
const HEARD_WITHIN: Duration = Duration::from_secs(6);

/// How long each wait and each command may take when it is not said, in seconds.
const STEP_TIMEOUT: u64 = 600;

/// How the brokers are restarted.
#[derive(Debug, Clone, Args)]
pub struct RollArgs {
    /// Only these, in this order; else all by id, the one that leads the metadata group last
    #[arg(value_name = "BROKER")]
    order: Vec<u32>,
    /// What restarts a broker; {id}, {address} and {host} are put in
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// How long each wait and each command may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = STEP_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    step_timeout: u64,
    /// Only show who would be restarted, in which order, and how
    #[arg(long)]
    dry_run: bool,
}

/// One broker's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    broker: u32,
    address: String,
    command: Option<String>,
}

pub(super) async fn run(
    args: RollArgs,
    admin: &Admin,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let cluster = admin.describe_cluster().await;
    let cluster = cluster.map_err(CliError::admin("cluster"))?;
    let steps = plan(&args, &cluster).map_err(CliError::Usage)?;
    if args.dry_run {
        let verdicts = admin.restart_check(None).await;
        let verdicts = verdicts.map_err(CliError::admin("restart-check"))?;
        show(&steps, &verdicts, global)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupted = pin!(asked_to_end());
    for (done, step) in steps.iter().enumerate() {
        let mut turn = Turn {
            admin,
            json: matches!(global.output, OutputFormat::Json),
            patience: Duration::from_secs(args.step_timeout),
            place: format!("{}/{}", done + 1, steps.len()),
            step,
            waits_for: String::new(),
        };
        let left = rest(&args, global, steps.get(done..).unwrap_or_default());
        tokio::select! {
            restarted = turn.take() => restarted.map_err(|error| with_rest(error, &left))?,
            asked = &mut interrupted => {
                asked?;
                turn.say("interrupted", &format!("go on with: {left}"))?;
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The brokers in their order. A line of text when that cannot be.
fn plan(args: &RollArgs, cluster: &v1::DescribeClusterResponse) -> Result<Vec<Step>, String> {
    let mut order = args.order.clone();
    if order.is_empty() {
        // The leader last: it is followed to the next broker once, not twice.
        order = cluster.brokers.iter().map(|broker| broker.id).collect();
        order.sort_by_key(|id| (cluster.metadata_leader == Some(*id), *id));
    }
    let mut steps: Vec<Step> = Vec::with_capacity(order.len());
    for id in order {
        let known = cluster.brokers.iter().find(|broker| broker.id == id);
        let known = known.ok_or_else(|| {
            format!("there is no broker {id}; `highwater cluster members` shows all")
        })?;
        if steps.iter().any(|step| step.broker == id) {
            return Err(format!("broker {id} is named twice"));
        }
        let command = args.exec.as_deref();
        steps.push(Step {
            broker: id,
            address: known.address.clone(),
            command: command.map(|text| filled(text, known)).transpose()?,
        });
    }
    Ok(steps)
}

/// The command for one broker. What a broker says of itself becomes part of a shell's line only if it
/// means nothing to a shell.
fn filled(template: &str, broker: &v1::Broker) -> Result<String, String> {
    let address = broker.address.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-_[]%".contains(c);
    let bare = address.trim_start_matches('[');
    if !address.chars().all(plain) || bare.starts_with('-') {
        return Err(format!(
            "broker {} has the address {address:?}, which cannot be put into a command",
            broker.id
        ));
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(template
        .replace("{id}", &broker.id.to_string())
        .replace("{address}", address)
        .replace("{host}", host))
}

/// The command that does what is left, in the same cluster and in the same way.
fn rest(args: &RollArgs, global: &GlobalOptions, left: &[Step]) -> String {
    let mut words = "highwater cluster rolling-restart".to_owned();
    for step in left {
        words.push_str(&format!(" {}", step.broker));
    }
    let patience = args.step_timeout.to_string();
    let patience = (args.step_timeout != STEP_TIMEOUT).then_some(&patience);
    for (option, value) in [
        ("--brokers", global.brokers.as_ref()),
        ("--context", global.context.as_ref()),
        ("--step-timeout", patience),
        ("--exec", args.exec.as_ref()),
    ] {
        if let Some(value) = value {
            words.push_str(&format!(" {option} '{}'", value.replace('\'', r"'\''")));
        }
    }
    words
}

fn with_rest(error: CliError, left: &str) -> CliError {
    match error {
        CliError::Problems(text) => CliError::Problems(format!("{text}; go on with: {left}")),
        CliError::Failed(text) => CliError::Failed(format!("{text}; go on with: {left}")),
        other => other,
    }
}

fn show(steps: &[Step], verdicts: &[v1::RestartVerdict], global: &GlobalOptions) -> io::Result<()> {
    let now = |step: &Step| {
        let verdict = verdicts.iter().find(|v| v.broker == step.broker);
        match verdict.map(|verdict| (verdict.safe, verdict.reasons.first())) {
            Some((true, _)) => "may be restarted".to_owned(),
            Some((false, Some(reason))) => format!("must stay: {reason}"),
            _ => "unknown".to_owned(),
        }
    };
    if matches!(global.output, OutputFormat::Json) {
        let step = |step: &Step| {
            json!({
                "broker": step.broker, "address": step.address, "now": now(step),
                "command": step.command,
            })
        };
        return print_json(&json!(steps.iter().map(step).collect::<Vec<_>>()));
    }
    let mut rows = table(["BROKER", "ADDRESS", "NOW", "COMMAND"]);
    for step in steps {
        rows.add_row([
            step.broker.to_string(),
            step.address.clone(),
            now(step),
            step.command.clone().unwrap_or_else(|| "by you".to_owned()),
        ]);
    }
    print_table(&rows)
}

/// What a broker must become before the roll goes on.
enum Awaited {
    /// The others are a majority without it; and it answers, or has not for so long that it is down.
    MayGo { absent_since: Option<Instant> },
    /// Another process than the one that was started then, and every broker may be restarted again:
    /// what it holds has caught up.
    Back { before: i64, gone: bool },
}

/// One broker's turn, under way.
struct Turn<'a> {
    admin: &'a Admin,
    json: bool,
    patience: Duration,
    place: String,
    step: &'a Step,
    /// What was last said to be waited for.
    waits_for: String,
}

impl Turn<'_> {
    async fn take(&mut self) -> Result<(), CliError> {
        let absent_since = None;
        let now = self.wait(Awaited::MayGo { absent_since }).await?;
        // Of one that is down, whatever comes is another process.
        let before = if now.present { now.started_at_ms } else { 0 };
        match &self.step.command {
            Some(command) => {
                self.say("restarting", command)?;
                self.execute(command).await?;
            }
            None => self.say("restart it now", &self.step.address)?,
        }
        let gone = false;
        self.wait(Awaited::Back { before, gone }).await?;
        self.say("done", "it is back and has caught up")?;
        Ok(())
    }

    /// Waits, saying for what whenever that changes.
    async fn wait(&mut self, mut awaited: Awaited) -> Result<v1::RestartVerdict, CliError> {
        let deadline = Instant::now() + self.patience;
        loop {
            // The metadata group may have no leader just now, as the broker that led it went.
            let reason = match self.admin.restart_check(None).await {
                Ok(verdicts) => match lacking(self.step.broker, &mut awaited, &verdicts) {
                    Ok(verdict) => return Ok(verdict.clone()),
                    Err(reason) => reason,
                },
                Err(error) => {
                    if let Awaited::MayGo { absent_since } = &mut awaited {
                        *absent_since = None;
                    }
                    error.to_string()
                }
            };
            if reason != self.waits_for {
                self.say("waiting", &reason)?;
                self.waits_for.clone_from(&reason);
            }
            if Instant::now() + POLL >= deadline {
                let (broker, waited) = (self.step.broker, self.patience.as_secs());
                let what = match awaited {
                    Awaited::MayGo { .. } => "could not be restarted",
                    Awaited::Back { .. } => "did not come back whole",
                };
                return Err(CliError::Problems(format!(
                    "broker {broker} {what} within {waited} s: {reason}"
                )));
            }
            sleep(POLL).await;
        }
    }

    async fn execute(&self, command: &str) -> Result<(), CliError> {
        let broker = self.step.broker;
        let failed = |why: String| {
            CliError::Failed(format!("broker {broker}: `{command}` {why}; it stops here"))
        };
        let mut child =
            held::start(command).map_err(|error| failed(format!("cannot be run: {error}")))?;
        // Whoever drops it, and however this process ends, ends the command.
        let held = child.stdin.take();
        match timeout(self.patience, child.wait()).await {
            Ok(ended) => {
                let status = ended?;
                match status.success() {
                    true => Ok(()),
                    false => Err(failed(format!("ended with {status}"))),
                }
            }
            Err(_elapsed) => {
                drop(held);
                child.wait().await?;
                let waited = self.patience.as_secs();
                Err(failed(format!(
                    "did not end within {waited} s and was ended"
                )))
            }
        }
    }

    fn say(&self, event: &str, detail: &str) -> io::Result<()> {
        let broker = self.step.broker;
        if self.json {
            let place = &self.place;
            let line = json!({"broker": broker, "place": place, "event": event, "detail": detail});
            return print_line(&line.to_string());
        }
        print_line(&format!(
            "[{}] broker {broker}: {event}: {detail}",
            self.place
        ))
    }
}

/// The broker's verdict when nothing is missing any more, or what is.
fn lacking<'a>(
    id: u32,
    awaited: &mut Awaited,
    verdicts: &'a [v1::RestartVerdict],
) -> Result<&'a v1::RestartVerdict, String> {
    let found = verdicts.iter().find(|verdict| verdict.broker == id);
    let verdict = found.ok_or_else(|| format!("broker {id} is no member any more"))?;
    let unsafe_one = match awaited {
        Awaited::MayGo { absent_since } => {
            let since = absent_since.get_or_insert_with(Instant::now);
            if verdict.present {
                *absent_since = None;
            } else if since.elapsed() < HEARD_WITHIN {
                return Err(format!("broker {id} has not been heard from"));
            }
            Some(verdict).filter(|verdict| !verdict.safe)
        }
        Awaited::Back { before, gone } => {
            *gone |= !verdict.present;
            if !verdict.present {
                return Err(format!("broker {id} does not answer yet"));
            }
            // One that does not say when it was started is an older release.
            let unknown = verdict.started_at_ms == 0;
            let another = verdict.started_at_ms != *before && !unknown;
            if !(another || unknown && *gone) {
                return Err(format!("broker {id} has not been restarted yet"));
            }
            verdicts.iter().find(|verdict| !verdict.safe)
        }
    };
    match unsafe_one {
        None => Ok(verdict),
        Some(verdict) => Err(match verdict.reasons.as_slice() {
            [] => "the cluster does not say why".to_owned(),
            [only] => only.clone(),
            [first, more @ ..] => format!("{first}; and {} more reasons", more.len()),
        }),
    }
}

#[cfg(test)]
#[path = "rolling_tests.rs"]
mod tests;
