//! Waiting for a plan, with its progress on standard error: a bar where somebody looks, else a line whenever
//! something changes.

use std::io::IsTerminal as _;
use std::time::Duration;

use highwater_proto::v1;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::CliError;
use super::lifecycle::POLL;
use crate::admin::Admin;

/// Who drives the plan may die: the next one is found within seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two lines that say what is waited for.
const LINES: Duration = Duration::from_secs(5);

/// How many moves have ended, and of how many.
pub(super) fn ended_of(plan: &v1::Plan) -> (usize, usize) {
    let states = plan.moves.iter().map(v1::PlanMove::state);
    let states = states.chain(plan.partitions.iter().map(v1::PlanPartition::state));
    let is_final =
        |state: &v1::MoveState| matches!(state, v1::MoveState::Done | v1::MoveState::Cancelled);
    (states.clone().filter(is_final).count(), states.count())
}

/// What the first move that says something does or waits for.
fn doing(plan: &v1::Plan) -> String {
    let of_shard = plan.moves.iter().find(|step| !step.progress.is_empty());
    if let Some(step) = of_shard {
        return format!("shard {}: {}", step.shard, step.progress);
    }
    let of_partition = plan.partitions.iter().find(|s| !s.progress.is_empty());
    of_partition.map_or_else(String::new, |step| {
        let copied = match step.end_offset {
            0 => String::new(),
            end => format!(", {} of {end} offsets", step.copied_offset),
        };
        let (topic, partition) = (&step.topic, step.partition);
        format!("{topic}-{partition}: {}{copied}", step.progress)
    })
}

/// Waits until the plan has ended, whoever drives it meanwhile.
///
/// # Errors
/// When nobody can say for a long time how far it is.
pub(super) async fn until_ended(mut plan: v1::Plan, admin: &Admin) -> Result<v1::Plan, CliError> {
    let id = plan.id;
    let mut shown = Shown::new(id, ended_of(&plan).1);
    let mut heard = Instant::now();
    while !plan.ended {
        shown.show(&plan);
        sleep(POLL).await;
        match admin.plan().await {
            Ok(Some(now)) if now.id == id => {
                plan = now;
                heard = Instant::now();
            }
            // One plan runs at a time: it has ended, and another one was begun.
            Ok(_) => {
                let text = format!("plan {id} has ended, and another one was begun since");
                shown.finish();
                return Err(CliError::Failed(text));
            }
            Err(error) if heard.elapsed() > SILENCE => {
                shown.finish();
                let waited = SILENCE.as_secs();
                return Err(CliError::Problems(format!(
                    "nobody has said for {waited} s how far plan {id} is ({error}); it goes on by itself \
                     when the cluster can: `highwater cluster plan show --wait`"
                )));
            }
            Err(error) => shown.say(&format!("no answer just now: {error}")),
        }
    }
    shown.finish();
    Ok(plan)
}

/// What was shown last.
enum Shown {
    Bar(ProgressBar),
    Lines {
        plan: u64,
        ended: Option<usize>,
        said: String,
        at: Instant,
    },
}

impl Shown {
    fn new(plan: u64, moves: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            let (ended, said) = (None, String::new());
            let at = Instant::now();
            return Self::Lines {
                plan,
                ended,
                said,
                at,
            };
        }
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(moves as u64), target);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} moves  {wide_msg}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::Bar(bar)
    }

    fn show(&mut self, plan: &v1::Plan) {
        let (done, of) = ended_of(plan);
        let doing = doing(plan);
        match self {
            Self::Bar(bar) => {
                bar.set_position(done as u64);
                bar.set_message(doing);
            }
            Self::Lines {
                plan: id,
                ended,
                said,
                at,
            } => {
                let is_news = *said != doing && at.elapsed() >= LINES;
                if *ended == Some(done) && !is_news {
                    return;
                }
                let first = ended.is_none();
                (*ended, *at) = (Some(done), Instant::now());
                let detail = if doing.is_empty() {
                    String::new()
                } else {
                    format!("; {doing}")
                };
                *said = doing;
                eprintln!("plan {id}: {done} of {of} moves have ended{detail}");
                if first {
                    eprintln!("plan {id}: Ctrl-C ends the waiting, not the plan");
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        match self {
            Self::Bar(bar) => bar.set_message(text.to_owned()),
            Self::Lines { plan, said, .. } if said != text => {
                eprintln!("plan {plan}: {text}");
                text.clone_into(said);
            }
            Self::Lines { .. } => {}
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
