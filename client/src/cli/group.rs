//! `group list|describe|seek|reset|copy|delete`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use highwater_proto::v1;
use serde_json::json;

use super::error::PROBLEMS;
use super::output::{RED, coloured, print_json, print_line, print_table, table};
use super::position::Position;
use super::{CliError, GlobalOptions, OutputFormat};
use crate::consumer::Start;
use crate::group::{GroupAdmin, Reset, ResetTo};

pub(super) const RESET_HELP: &str = "\
Where to (--to): earliest, latest, 42 (an offset), +10 or -10 (from the committed offset),
@2026-11-20T10:00Z, @1795168800000 (milliseconds), @-15m (ago), group:NAME (where that group is).

  highwater group reset billing --to @-1h             # shows what would change
  highwater group reset billing --to @-1h --execute";

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups by name
    List {
        /// Only names that contain this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Show groups with offsets and lag; exit code 6 when there are problems
    Describe {
        /// Their names
        #[arg(required = true)]
        groups: Vec<String>,
        /// Members instead of partitions
        #[arg(long)]
        members: bool,
    },
    /// Move committed offsets: shows what would change, until --execute
    #[command(visible_alias = "seek", after_help = RESET_HELP)]
    Reset(ResetArgs),
    /// Make a group with the committed offsets of another
    Copy {
        /// The group to copy
        from: String,
        /// The group to make
        to: String,
    },
    /// Forget groups without members, with their offsets and parked keys
    Delete {
        /// Their names
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

/// Arguments of `group reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The group
    group: String,
    /// Where to; see below
    #[arg(long, allow_hyphen_values = true)]
    to: String,
    /// Only these topics; else all that the group knows
    #[arg(short, long, value_delimiter = ',')]
    topics: Vec<String>,
    /// Only these partitions of the topics
    #[arg(short, long, value_delimiter = ',')]
    partitions: Vec<u32>,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Also while the group has members: they start anew from the new offsets
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(
    command: GroupCommand,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let client = global.connect().await?;
    let admin = client.groups();
    match command {
        GroupCommand::List { filter } => list(&admin, &filter, global).await,
        GroupCommand::Describe { groups, members } => {
            describe(&admin, &groups, members, global).await
        }
        GroupCommand::Reset(args) => {
            let to = target(&args.to, (client.inner.wall_clock)()).map_err(CliError::Usage)?;
            reset(&admin, args, &to, global).await
        }
        GroupCommand::Copy { from, to } => {
            let copied = admin.copy(&from, &to).await;
            let offsets = copied.map_err(CliError::admin(format!("group {to}")))?;
            match global.output {
                OutputFormat::Json => {
                    print_json(&json!({ "from": from, "to": to, "offsets": offsets }))?;
                }
                OutputFormat::Table => print_line(&format!(
                    "Made group {to} with {offsets} offsets of group {from}"
                ))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        GroupCommand::Delete { groups } => delete(&admin, &groups, global).await,
    }
}

/// Reads `--to`.
fn target(text: &str, now_ms: i64) -> Result<ResetTo, String> {
    if let Some(group) = text.strip_prefix("group:") {
        return Ok(ResetTo::Group(group.to_owned()));
    }
    if text.starts_with(['+', '-']) {
        let shift = text
            .parse()
            .map_err(|_| format!("{text:?} is not a shift such as -10"))?;
        return Ok(ResetTo::Shift(shift));
    }
    Ok(match text.parse::<Position>()?.at(now_ms) {
        Start::Latest => ResetTo::Latest,
        Start::Offset(offset) => ResetTo::Offset(offset),
        Start::Time(time) => ResetTo::Time(time),
        _ => ResetTo::Earliest,
    })
}

fn state(state: v1::GroupState) -> String {
    let name = state.as_str_name();
    name.strip_prefix("GROUP_STATE_")
        .unwrap_or(name)
        .to_lowercase()
}

async fn list(
    admin: &GroupAdmin,
    filter: &str,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let (groups, problems) = admin
        .list(filter)
        .await
        .map_err(CliError::admin("groups"))?;
    if global.output == OutputFormat::Json {
        let group = |g: &v1::GroupSummary| {
            json!({
                "group": g.group, "state": state(g.state()), "members": g.members,
                "partitions": g.partitions, "coordinator": g.coordinator,
            })
        };
        let groups: Vec<_> = groups.iter().map(group).collect();
        print_json(&json!({ "groups": groups, "problems": problems }))?;
    } else {
        let mut rows = table(["GROUP", "STATE", "MEMBERS", "PARTITIONS", "COORDINATOR"]);
        for group in &groups {
            rows.add_row([
                group.group.clone(),
                state(group.state()),
                group.members.to_string(),
                group.partitions.to_string(),
                group.coordinator.to_string(),
            ]);
        }
        print_table(&rows)?;
        say(&problems)?;
    }
    Ok(done(&problems))
}

fn say(problems: &[String]) -> std::io::Result<()> {
    for problem in problems {
        print_line(&format!("{} {problem}", coloured("PROBLEM", RED)))?;
    }
    Ok(())
}

fn done(problems: &[String]) -> ExitCode {
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    }
}

async fn describe(
    admin: &GroupAdmin,
    groups: &[String],
    members: bool,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let mut described = Vec::new();
    for group in groups {
        let one = admin.describe(group).await;
        described.push((
            group,
            one.map_err(CliError::admin(format!("group {group}")))?,
        ));
    }
    let problems: Vec<String> = described
        .iter()
        .flat_map(|(_, one)| one.problems.clone())
        .collect();
    if global.output == OutputFormat::Json {
        let all: Vec<_> = described
            .iter()
            .map(|(name, one)| as_json(name, one))
            .collect();
        print_json(&json!({ "groups": all }))?;
        return Ok(done(&problems));
    }
    for (at, (name, one)) in described.iter().enumerate() {
        if at > 0 {
            print_line("")?;
        }
        print_one(name, one, members)?;
    }
    say(&problems)?;
    Ok(done(&problems))
}

fn print_one(name: &str, one: &v1::DescribeGroupResponse, members: bool) -> std::io::Result<()> {
    let summary = one.summary.clone().unwrap_or_default();
    print_line(&format!("GROUP        {name}"))?;
    print_line(&format!("STATE        {}", state(summary.state())))?;
    print_line(&format!("COORDINATOR  {}", summary.coordinator))?;
    print_line(&format!("MEMBERS      {}", one.members.len()))?;
    print_line(&format!(
        "LAG          {}{}",
        one.lag,
        behind(one.lag, one.lag_seconds)
    ))?;
    if one.parked_keys > 0 {
        print_line(&format!("PARKED-KEYS  {}", one.parked_keys))?;
    }
    print_line("")?;
    if members {
        return print_members(&one.members);
    }
    let mut rows = table([
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "MEMBER-ID",
        "CLIENT-ID",
        "HOST",
        "LAG-SECONDS",
    ]);
    for partition in &one.partitions {
        let topic = if partition.topic.is_empty() {
            format!("(deleted {})", partition.topic_id)
        } else {
            partition.topic.clone()
        };
        rows.add_row([
            name.to_owned(),
            topic,
            partition.partition.to_string(),
            or_dash(partition.committed),
            or_dash(partition.log_end_offset),
            or_dash(partition.lag),
            text_or_dash(&partition.member_id),
            text_or_dash(&partition.client_id),
            text_or_dash(&partition.host),
            seconds_or_dash(partition.lag_seconds),
        ]);
    }
    print_table(&rows)
}

/// How far back in time a lag reaches, behind its number of records.
fn behind(lag: u64, seconds: f64) -> String {
    match lag {
        0 => String::new(),
        _ => format!(" ({seconds:.1} s)"),
    }
}
fn seconds_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}
fn text_or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

fn print_members(members: &[v1::GroupMember]) -> std::io::Result<()> {
    let mut rows = table([
        "MEMBER-ID",
        "INSTANCE-ID",
        "CLIENT-ID",
        "HOST",
        "PARTITIONS",
        "LAST-HEARTBEAT",
        "STALLED",
    ]);
    for member in members {
        let stalled = match member.stalled_ms {
            0 => "-".to_owned(),
            ms => format!("{} s", ms / 1_000),
        };
        rows.add_row([
            member.member_id.clone(),
            text_or_dash(&member.instance_id),
            text_or_dash(&member.client_id),
            text_or_dash(&member.host),
            member.assigned.to_string(),
            format!("{} ms ago", member.last_heartbeat_ms),
            stalled,
        ]);
    }
    print_table(&rows)
}

fn as_json(name: &str, one: &v1::DescribeGroupResponse) -> serde_json::Value {
    let summary = one.summary.clone().unwrap_or_default();
    let partition = |p: &v1::GroupPartition| {
        json!({
            "topic": p.topic, "topic_id": p.topic_id, "partition": p.partition,
            "current_offset": p.committed, "log_end_offset": p.log_end_offset,
            "log_start_offset": p.log_start_offset, "lag": p.lag, "lag_seconds": p.lag_seconds,
            "member_id": p.member_id, "client_id": p.client_id, "host": p.host,
            "unowned_ms": p.unowned_ms, "stalled_ms": p.stalled_ms,
        })
    };
    let member = |m: &v1::GroupMember| {
        json!({
            "member_id": m.member_id, "instance_id": m.instance_id, "client_id": m.client_id,
            "host": m.host, "partitions": m.assigned, "last_heartbeat_ms": m.last_heartbeat_ms,
            "stalled_ms": m.stalled_ms,
        })
    };
    json!({
        "group": name, "state": state(summary.state()), "coordinator": summary.coordinator,
        "generation": one.generation, "lag": one.lag, "lag_seconds": one.lag_seconds,
        "parked_keys": one.parked_keys, "problems": one.problems,
        "members": one.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": one.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

async fn reset(
    admin: &GroupAdmin,
    args: ResetArgs,
    to: &ResetTo,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let how = Reset {
        execute: args.execute,
        force: args.force,
    };
    let group = &args.group;
    let reset = admin
        .reset(group, &args.topics, &args.partitions, to, how)
        .await;
    let reset = reset.map_err(CliError::admin(format!("group {group}")))?;
    if global.output == OutputFormat::Json {
        let change = |c: &v1::OffsetChange| {
            json!({
                "topic": c.topic, "partition": c.partition, "from": c.from, "to": c.to,
                "clamped": c.clamped,
            })
        };
        let changes: Vec<_> = reset.changes.iter().map(change).collect();
        print_json(&json!({ "group": group, "executed": reset.executed, "changes": changes }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table([
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "NEW-OFFSET",
        "NOTE",
    ]);
    for change in &reset.changes {
        let note = if change.clamped {
            "nearest end of the log"
        } else {
            ""
        };
        rows.add_row([
            group.clone(),
            change.topic.clone(),
            change.partition.to_string(),
            or_dash(change.from),
            change.to.to_string(),
            note.to_owned(),
        ]);
    }
    print_table(&rows)?;
    if !reset.executed {
        print_line("")?;
        print_line("Nothing was changed. Repeat it with --execute to do it.")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(
    admin: &GroupAdmin,
    groups: &[String],
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let mut deleted = Vec::new();
    let mut failed = None;
    for group in groups {
        match admin.delete(group).await {
            Ok(()) => deleted.push(group.clone()),
            Err(error) => {
                // Say what was done before, then what was not.
                failed = Some(CliError::admin(format!("group {group}"))(error));
                break;
            }
        }
    }
    match global.output {
        OutputFormat::Json => print_json(&json!({ "deleted": deleted }))?,
        OutputFormat::Table => {
            for group in &deleted {
                print_line(&format!("Deleted group {group}"))?;
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

#[cfg(test)]
mod tests {
    use highwater_proto::{Offset, TimestampMs};

    use super::*;

    #[test]
    fn targets_are_read() {
        let at = |text: &str| target(text, 10_000_000);
        assert_eq!(at("earliest"), Ok(ResetTo::Earliest));
        assert_eq!(at("end"), Ok(ResetTo::Latest));
        assert_eq!(at("42"), Ok(ResetTo::Offset(Offset(42))));
        assert_eq!(at("-10"), Ok(ResetTo::Shift(-10)));
        assert_eq!(at("+10"), Ok(ResetTo::Shift(10)));
        assert_eq!(at("@-15m"), Ok(ResetTo::Time(TimestampMs(9_100_000))));
        assert_eq!(at("group:other"), Ok(ResetTo::Group("other".to_owned())));
        for wrong in ["", "-", "+x", "soon", "@"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
