//! `cluster rebalance|drain|remove|replace|plan|health|restart-check`; `rolling-restart` is in `rolling.rs`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use highwater_proto::v1;
use highwater_proto::{NodeId, ShardId};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::error::{HEALTH, PROBLEMS};
use super::output::{GREEN, RED, coloured, print_json, print_line, print_table, table};
use super::plan_wait;
use super::rolling::{self, RollArgs};
use super::{CliError, GlobalOptions, OutputFormat};
use crate::admin::Admin;
use crate::lifecycle::NewPlan;

/// Between two looks at something that is waited for.
pub(super) const POLL: Duration = Duration::from_millis(500);

/// What to change, and whether all is well.
#[derive(Debug, Subcommand)]
pub enum LifeCommand {
    /// Spread replicas and leaders evenly over all brokers, new ones included
    #[command(visible_alias = "add")]
    Rebalance(PlanArgs),
    /// Move all replicas away from a broker
    Drain {
        /// Its id
        broker: u32,
        /// How it is done
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Give a broker's lost disk up; started with an empty one, it is filled again
    Replace {
        /// Its id
        broker: u32,
        /// Partitions with one replica on it begin anew, empty
        #[arg(long)]
        accept_loss: bool,
        /// How it is done
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Give a broker's bad replica of one shard up and fill it again from the others
    Repair {
        /// The broker's id
        broker: u32,
        /// The shard, as `cluster health` names it
        shard: u32,
        /// How it is done
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Take a broker without replicas out of the cluster for good
    Remove {
        /// Its id
        broker: u32,
        /// Only check whether it could be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Look at the plan that moves replicas or partitions, or cancel it
    #[command(subcommand)]
    Plan(PlanCommand),
    /// What is wrong and what to do about it; exit code 6 when something is
    Health,
    /// Whether a broker may be restarted now; exit code 6 when not
    RestartCheck {
        /// Its id; without one, all brokers
        broker: Option<u32>,
        /// Wait until it may
        #[arg(long, requires = "broker")]
        wait: bool,
    },
    /// Restart all brokers, one after the other, each as soon as the cluster can spare it
    #[command(after_help = super::rolling::HELP)]
    RollingRestart(RollArgs),
}

/// How a plan is carried out.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Only show what would be moved
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Shards, or partitions, worked on at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) parallel: u32,
    /// Wait until the plan has ended, and say how far it is meanwhile; exit code 1 when it was cancelled
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) wait: bool,
}

/// What to do with the plan.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum PlanCommand {
    /// The plan that runs, or the last one
    Show {
        /// Wait until it has ended, and say how far it is meanwhile
        #[arg(long)]
        wait: bool,
    },
    /// Begin no more moves, and take back those under way
    Cancel,
}

pub(super) async fn run(
    command: LifeCommand,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let admin = global.connect().await?.admin();
    match command {
        LifeCommand::Rebalance(args) => {
            start(
                "rebalance".to_owned(),
                NewPlan::rebalance(),
                args,
                &admin,
                global,
            )
            .await
        }
        LifeCommand::Drain { broker, plan } => {
            let wanted = NewPlan::drain(NodeId(broker));
            start(format!("drain {broker}"), wanted, plan, &admin, global).await
        }
        LifeCommand::Replace {
            broker,
            accept_loss,
            plan,
        } => {
            let wanted = NewPlan::replace(NodeId(broker)).accept_loss(accept_loss);
            start(format!("replace {broker}"), wanted, plan, &admin, global).await
        }
        LifeCommand::Repair {
            broker,
            shard,
            plan,
        } => {
            let wanted = NewPlan::repair(NodeId(broker), ShardId(shard));
            let what = format!("repair {broker} {shard}");
            start(what, wanted, plan, &admin, global).await
        }
        LifeCommand::Remove { broker, dry_run } => remove(broker, dry_run, &admin, global).await,
        LifeCommand::Plan(PlanCommand::Show { wait }) => {
            match admin.plan().await.map_err(CliError::admin("plan"))? {
                Some(plan) if wait => waited_for(plan, &admin, global).await,
                plan => show(plan.as_ref(), global),
            }
        }
        LifeCommand::Plan(PlanCommand::Cancel) => {
            let plan = admin.cancel_plan().await.map_err(CliError::admin("plan"))?;
            show(Some(&plan), global)
        }
        LifeCommand::Health => health(&admin, global).await,
        LifeCommand::RestartCheck { broker, wait } => {
            restart_check(broker.map(NodeId), wait, &admin, global).await
        }
        LifeCommand::RollingRestart(args) => rolling::run(args, &admin, global).await,
    }
}

pub(super) async fn start(
    what: String,
    wanted: NewPlan,
    args: PlanArgs,
    admin: &Admin,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let wanted = wanted.parallel(args.parallel).dry_run(args.dry_run);
    let started = admin.start_plan(wanted).await;
    let plan = started.map_err(CliError::admin(what))?;
    if args.wait {
        return waited_for(plan, admin, global).await;
    }
    let code = show(Some(&plan), global)?;
    if global.output == OutputFormat::Table && !plan.ended && !args.dry_run {
        print_line("")?;
        print_line(
            "It goes on by itself: `highwater cluster plan show --wait` says how far it is,",
        )?;
        print_line("`highwater cluster plan cancel` ends it.")?;
    }
    Ok(code)
}

/// A plan that was cancelled, by whomever, is not what was waited for.
async fn waited_for(
    plan: v1::Plan,
    admin: &Admin,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let plan = plan_wait::until_ended(plan, admin).await?;
    show(Some(&plan), global)?;
    if plan.cancelled {
        let text = format!("plan {} was cancelled before all was done", plan.id);
        return Err(CliError::Failed(text));
    }
    Ok(ExitCode::SUCCESS)
}

fn words(plan: &v1::Plan) -> String {
    match plan.kind() {
        v1::PlanKind::Rebalance => "rebalance".to_owned(),
        v1::PlanKind::Drain => format!("drain broker {}", plan.broker),
        v1::PlanKind::Replace => format!("replace broker {}", plan.broker),
        v1::PlanKind::Repair => format!("repair shard {} on broker {}", plan.shard, plan.broker),
        v1::PlanKind::MovePartition => format!(
            "move partition {} of topic {} to shard {}",
            plan.partition, plan.topic, plan.shard
        ),
        v1::PlanKind::Replicate => format!(
            "give topic {} {} replicas",
            plan.topic, plan.replication_factor
        ),
        v1::PlanKind::Unspecified => "unknown".to_owned(),
    }
}

fn state(state: v1::MoveState) -> &'static str {
    match state {
        v1::MoveState::Expelling => "expelling",
        v1::MoveState::Waiting => "waiting",
        v1::MoveState::Learning => "learning",
        v1::MoveState::Done => "done",
        v1::MoveState::Cancelled => "cancelled",
        v1::MoveState::Unspecified => "unknown",
    }
}

fn show(plan: Option<&v1::Plan>, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    if matches!(global.output, OutputFormat::Json) {
        print_json(&plan.map_or(json!(null), as_json))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(plan) = plan else {
        print_line("There never was a plan.")?;
        return Ok(ExitCode::SUCCESS);
    };
    let (done, of) = plan_wait::ended_of(plan);
    let status = match (plan.id, plan.ended, plan.cancelled) {
        (0, _, _) if of == 0 => "dry run: nothing would be moved".to_owned(),
        (0, _, _) => format!("dry run: {of} moves"),
        (_, true, false) if of == 0 => "ended: nothing had to be moved".to_owned(),
        (_, true, true) => "cancelled".to_owned(),
        (_, true, false) => format!("ended: {of} moves"),
        (_, false, cancelled) => {
            let how = if cancelled {
                "being cancelled"
            } else {
                "running"
            };
            format!("{how}: {done} of {of} moves have ended")
        }
    };
    if plan.id != 0 {
        print_line(&format!("PLAN    {}", plan.id))?;
    }
    print_line(&format!("WHAT    {}", words(plan)))?;
    print_line(&format!("STATUS  {status}"))?;
    if !plan.moves.is_empty() {
        print_line("")?;
        print_moves(plan)?;
    }
    if !plan.partitions.is_empty() {
        print_line("")?;
        print_partitions(plan)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The state of a step; of a dry run there is none yet.
fn planned<'a>(plan: &v1::Plan, state: &'a str) -> &'a str {
    if plan.id == 0 { "planned" } else { state }
}

fn print_moves(plan: &v1::Plan) -> std::io::Result<()> {
    let mut rows = table(["SHARD", "PARTITIONS", "FROM", "TO", "STATE", "PROGRESS"]);
    for step in &plan.moves {
        let from = step
            .remove
            .map_or_else(|| "-".to_owned(), |id| id.to_string());
        let progress = if step.lost && step.progress.is_empty() {
            "its only replica is lost: it begins anew".to_owned()
        } else {
            step.progress.clone()
        };
        rows.add_row([
            step.shard.to_string(),
            step.partitions.to_string(),
            from,
            step.add.to_string(),
            planned(plan, state(step.state())).to_owned(),
            progress,
        ]);
    }
    print_table(&rows)
}

fn print_partitions(plan: &v1::Plan) -> std::io::Result<()> {
    let mut rows = table([
        "TOPIC",
        "PARTITION",
        "FROM",
        "TO",
        "STATE",
        "COPIED",
        "PROGRESS",
    ]);
    for step in &plan.partitions {
        let copied = match step.end_offset {
            0 => "-".to_owned(),
            end => format!("{} of {end}", step.copied_offset),
        };
        rows.add_row([
            step.topic.clone(),
            step.partition.to_string(),
            step.from_shard.to_string(),
            step.to_shard.to_string(),
            planned(plan, state_of_partition(step.state())).to_owned(),
            copied,
            step.progress.clone(),
        ]);
    }
    print_table(&rows)
}

fn state_of_partition(of: v1::MoveState) -> &'static str {
    match of {
        v1::MoveState::Learning => "copying",
        other => state(other),
    }
}

fn as_json(plan: &v1::Plan) -> serde_json::Value {
    let step = |step: &v1::PlanMove| {
        json!({
            "shard": step.shard, "partitions": step.partitions, "from": step.remove,
            "to": step.add, "state": state(step.state()), "lost": step.lost, "progress": step.progress,
        })
    };
    let partition = |step: &v1::PlanPartition| {
        json!({
            "topic": step.topic, "partition": step.partition, "from_shard": step.from_shard,
            "to_shard": step.to_shard, "state": state_of_partition(step.state()),
            "copied_offset": step.copied_offset, "end_offset": step.end_offset,
            "progress": step.progress,
        })
    };
    json!({
        "plan": plan.id, "what": words(plan), "ended": plan.ended, "cancelled": plan.cancelled,
        "parallel": plan.parallel, "moves": plan.moves.iter().map(step).collect::<Vec<_>>(),
        "partitions": plan.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

async fn remove(
    broker: u32,
    dry_run: bool,
    admin: &Admin,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let removed = admin.remove_broker(NodeId(broker), dry_run).await;
    removed.map_err(CliError::admin(format!("remove {broker}")))?;
    let status = if dry_run {
        "could be removed"
    } else {
        "removed"
    };
    match global.output {
        OutputFormat::Json => print_json(&json!({ "broker": broker, "status": status }))?,
        OutputFormat::Table => print_line(&format!("broker {broker} {status}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn health(admin: &Admin, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let findings = admin.health().await.map_err(CliError::admin(HEALTH))?;
    let word = |found: &v1::Finding| match found.severity() {
        v1::Severity::Critical => "critical",
        v1::Severity::Warning => "warning",
        _ => "note",
    };
    let wrong = |found: &v1::Finding| found.severity() > v1::Severity::Note;
    let healthy = !findings.iter().any(wrong);
    match global.output {
        OutputFormat::Json => {
            let found =
                |f: &v1::Finding| json!({"severity": word(f), "what": f.what, "cure": f.cure});
            let findings: Vec<_> = findings.iter().map(found).collect();
            print_json(&json!({ "healthy": healthy, "findings": findings }))?;
        }
        OutputFormat::Table => {
            for found in &findings {
                let colour = if wrong(found) { RED } else { GREEN };
                let word = coloured(&word(found).to_uppercase(), colour);
                print_line(&format!("{word}  {}", found.what))?;
                print_line(&format!("  -> {}", found.cure))?;
            }
            if healthy {
                print_line(&coloured("Nothing is wrong.", GREEN))?;
            }
        }
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

async fn restart_check(
    broker: Option<NodeId>,
    wait: bool,
    admin: &Admin,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let deadline = Instant::now() + Duration::from_secs(global.timeout);
    let (verdicts, safe) = loop {
        let checked = admin.restart_check(broker).await;
        let verdicts = checked.map_err(CliError::admin("restart-check"))?;
        let safe = verdicts.iter().all(|verdict| verdict.safe);
        if safe || !wait || Instant::now() + POLL >= deadline {
            break (verdicts, safe);
        }
        sleep(POLL).await;
    };
    match global.output {
        OutputFormat::Json => {
            let verdict = |v: &v1::RestartVerdict| json!({"broker": v.broker, "safe": v.safe, "reasons": v.reasons, "notes": v.notes});
            print_json(&json!(verdicts.iter().map(verdict).collect::<Vec<_>>()))?;
        }
        OutputFormat::Table => print_verdicts(&verdicts)?,
    }
    Ok(if safe {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

fn print_verdicts(verdicts: &[v1::RestartVerdict]) -> std::io::Result<()> {
    const SHOWN: usize = 5;
    for verdict in verdicts {
        let (word, colour) = if verdict.safe {
            ("may be restarted", GREEN)
        } else {
            ("must stay", RED)
        };
        print_line(&format!(
            "broker {} {}",
            verdict.broker,
            coloured(word, colour)
        ))?;
        for reason in verdict.reasons.iter().take(SHOWN) {
            print_line(&format!("  -> {reason}"))?;
        }
        if verdict.reasons.len() > SHOWN {
            let more = verdict.reasons.len() - SHOWN;
            print_line(&format!("  -> and {more} more reasons"))?;
        }
        for note in &verdict.notes {
            print_line(&format!("  note: {note}"))?;
        }
    }
    Ok(())
}
