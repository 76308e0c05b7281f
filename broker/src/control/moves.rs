//! Moves of partitions to other shards, carried out where the shard that a partition goes to is led.
//!
//! Everything that was done is in the logs of the two shards and of the metadata group, so whoever leads
//! next goes on from there: each step is asked for again and found done. A step is written down once it
//! is done, and the last one is the entry that says that the partition is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{
    MetadataCommand, MetadataReply, MoveState, MoveStep as Done, PartitionMove,
};
use highwater_proto::internal::{
    LeavingPartitionRequest, LeavingPartitionResponse, PartitionMoveReport,
};
use highwater_proto::{Offset, TopicPartition};
use highwater_shard::{
    FeatureLevel, MoveCommand, MoveStep, ShardCommand, ShardReply, exported_level,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::leaving;
use crate::groups::raise_level;
use crate::node::Broker;
use crate::runtime::Shard;
use crate::runtime::import::{self, Source};
use crate::runtime::standing::Standing;

/// Between two looks when nothing changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Before a step that failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(5);
/// The fence comes when what is left to copy is less than this, in bytes: nothing is written meanwhile.
const CLOSE: u64 = 1 << 20;

/// A move as its plan names it.
#[derive(Debug, Clone, Copy)]
struct Moving {
    plan: u64,
    step: PartitionMove,
}

impl Moving {
    fn tp(&self) -> TopicPartition {
        TopicPartition::new(self.step.topic, self.step.partition)
    }
}

/// How far the moves that this broker carries out are: told with every heartbeat.
#[derive(Debug, Default)]
pub struct Moves(Mutex<BTreeMap<TopicPartition, PartitionMoveReport>>);

impl Moves {
    /// All of them.
    #[must_use]
    pub fn reports(&self) -> Vec<PartitionMoveReport> {
        self.0.lock().values().cloned().collect()
    }
    fn note(&self, moving: &Moving, change: impl FnOnce(&mut PartitionMoveReport)) {
        let mut reports = self.0.lock();
        let report = reports.entry(moving.tp()).or_default();
        if report.plan != moving.plan {
            *report = PartitionMoveReport {
                topic_id: moving.step.topic.0,
                partition: moving.step.partition.0,
                plan: moving.plan,
                ..PartitionMoveReport::default()
            };
        }
        change(report);
    }
    fn say(&self, moving: &Moving, words: &str) {
        self.note(moving, |report| {
            if report.doing != words {
                let (tp, plan) = (moving.tp(), moving.plan);
                tracing::info!(%tp, plan, "move: {words}");
                words.clone_into(&mut report.doing);
            }
        });
    }
    fn end(&self, moving: &Moving) {
        let mut reports = self.0.lock();
        if reports
            .get(&moving.tp())
            .is_some_and(|r| r.plan == moving.plan)
        {
            reports.remove(&moving.tp());
        }
    }
}

/// Runs until the broker stops. What is under way then ends with it.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut changes = broker.cluster.changes();
    let mut tasks: JoinSet<(u64, TopicPartition)> = JoinSet::new();
    let mut running: Vec<(u64, TopicPartition)> = Vec::new();
    loop {
        changes.borrow_and_update();
        while let Some(ended) = tasks.try_join_next() {
            // A task that panics ends the process; one is cancelled only with this loop.
            if let Ok(ended) = ended {
                running.retain(|one| *one != ended);
            }
        }
        for moving in due(&broker) {
            let name = (moving.plan, moving.tp());
            if running.contains(&name) {
                continue;
            }
            running.push(name);
            let broker = Arc::clone(&broker);
            tasks.spawn(async move {
                carry(&broker, moving).await;
                broker.moves.end(&moving);
                name
            });
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
    }
}

/// The moves that may be worked on now and go to shards that are led here.
fn due<E: Env>(broker: &Broker<E>) -> Vec<Moving> {
    let image = broker.cluster.image();
    let Some(plan) = image.running_plan() else {
        return Vec::new();
    };
    let steps = plan.current_partitions().into_iter();
    let led = |step: &PartitionMove| led_here(broker, step).is_some();
    steps
        .filter(led)
        .map(|step| Moving {
            plan: plan.id,
            step,
        })
        .collect()
}

fn led_here<E: Env>(broker: &Broker<E>, step: &PartitionMove) -> Option<Arc<Shard<E::Disk>>> {
    let shard = broker.shards.get(step.to)?;
    shard.group.is_leader().then_some(shard)
}

/// Works on a move until it has ended, or somebody else leads its shard.
async fn carry<E: Env>(broker: &Arc<Broker<E>>, mut moving: Moving) {
    loop {
        let image = broker.cluster.image();
        let plan = image.running_plan().filter(|plan| plan.id == moving.plan);
        let open = plan.and_then(|plan| plan.moving(moving.step.topic, moving.step.partition));
        let (Some(step), Some(shard)) = (open, led_here(broker, &moving.step)) else {
            return;
        };
        moving.step = *step;
        if let Err(waits) = advance(broker, &shard, &moving).await {
            broker.moves.say(&moving, &waits);
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What comes next; `Ok` when it is done.
async fn advance<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    moving: &Moving,
) -> Result<(), String> {
    if moving.step.state == MoveState::Waiting {
        return write_down(broker, moving, Done::Learn).await;
    }
    let tp = moving.tp();
    let here = shard.views.get(tp).filter(|v| v.arrival() == moving.plan);
    let whole = here.is_some_and(|view| view.standing() != Standing::Importing);
    if !whole {
        copy(broker, shard, moving).await?;
        take_over(broker, shard, moving).await?;
    }
    broker
        .moves
        .say(moving, "it is all here; the cluster is told");
    write_down(broker, moving, Done::Done).await
}

async fn write_down<E: Env>(
    broker: &Arc<Broker<E>>,
    moving: &Moving,
    step: Done,
) -> Result<(), String> {
    let command = MetadataCommand::AdvancePartition {
        plan: moving.plan,
        topic: moving.step.topic,
        partition: moving.step.partition,
        step,
    };
    let reply = broker.metadata.propose(&command, DEADLINE).await;
    match reply.map_err(|error| error.to_string())? {
        MetadataReply::Refused(why) => Err(why.message),
        // Until this broker's image has it, the step is not due again.
        _ => seen(broker, moving, step).await,
    }
}

/// Waits until this broker's image has a step that was written down.
async fn seen<E: Env>(broker: &Arc<Broker<E>>, moving: &Moving, step: Done) -> Result<(), String> {
    let until = Instant::now() + DEADLINE;
    let mut changes = broker.cluster.changes();
    loop {
        changes.borrow_and_update();
        let image = broker.cluster.image();
        let plan = image.running_plan().filter(|plan| plan.id == moving.plan);
        let open = plan.and_then(|plan| plan.moving(moving.step.topic, moving.step.partition));
        let waits = open.is_some_and(|open| step == Done::Done || open.state == MoveState::Waiting);
        if !waits {
            return Ok(());
        }
        let changed = tokio::time::timeout_at(until, changes.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err("this broker has not heard yet of what was written down".to_owned());
        }
    }
}

/// Copies round by round until little is left.
async fn copy<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    moving: &Moving,
) -> Result<(), String> {
    loop {
        let (node, leaving) = leaving::ask(broker, request(moving, false)).await?;
        begin(broker, shard, moving, &leaving).await?;
        broker.moves.say(moving, "it is being copied");
        let source = Source::new(node, moving.step.from, moving.tp(), leaving);
        if pull(broker, shard, moving, &source).await? <= CLOSE {
            return Ok(());
        }
    }
}

/// Nothing changes any more where it leaves: the rest is copied, and the state adopted.
async fn take_over<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    moving: &Moving,
) -> Result<(), String> {
    broker
        .moves
        .say(moving, "it is fenced, and the rest is copied");
    let (node, leaving) = leaving::ask(broker, request(moving, true)).await?;
    let state = leaving.state.clone();
    let level = exported_level(&state).map_err(|error| error.to_string())?;
    let source = Source::new(node, moving.step.from, moving.tp(), leaving);
    pull(broker, shard, moving, &source).await?;
    raise(broker, shard, level).await?;
    propose(shard, moving, MoveStep::Adopt { state }).await
}

fn request(moving: &Moving, fence: bool) -> LeavingPartitionRequest {
    LeavingPartitionRequest {
        shard: moving.step.from.0,
        topic_id: moving.step.topic.0,
        partition: moving.step.partition.0,
        plan: moving.plan,
        fence,
    }
}

async fn begin<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    moving: &Moving,
    leaving: &LeavingPartitionResponse,
) -> Result<(), String> {
    raise(broker, shard, FeatureLevel::MOVES).await?;
    match shard.views.get(moving.tp()) {
        Some(view) if view.arrival() == moving.plan => Ok(()),
        Some(_) => Err("what the shard had of it earlier is being removed".to_owned()),
        None => {
            let config = leaving.config.unwrap_or_default();
            propose(shard, moving, MoveStep::Begin { config }).await
        }
    }
}

async fn raise<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    level: FeatureLevel,
) -> Result<(), String> {
    if shard.groups.rules() >= level {
        return Ok(());
    }
    let deadline = Instant::now() + DEADLINE;
    let raised = raise_level(broker, shard, (level, deadline)).await;
    raised.map_err(|error| error.to_string())
}

/// Copies what the source has and the copy lacks; how many bytes that was.
async fn pull<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    moving: &Moving,
    source: &Source,
) -> Result<u64, String> {
    if broker.gate.is_storage_full() {
        return Err("this broker's disk is too full for it".to_owned());
    }
    let view = shard.views.get(moving.tp());
    let view = view.filter(|view| view.arrival() == moving.plan);
    let view = view.ok_or("the copy has not begun yet")?;
    let from = view.high_watermark();
    let progress = |copied: Offset| {
        broker.moves.note(moving, |report| {
            report.copied_offset = copied.0;
            report.end_offset = source.end().0;
        });
    };
    progress(from);
    let (view, progress) = (&view, &progress);
    let step = |batches| async move {
        let imported = propose(shard, moving, MoveStep::Import { batches }).await;
        progress(view.high_watermark());
        imported
    };
    let snapshots = &broker.shard_context.snapshots;
    import::pull(snapshots, source, from, step).await
}

async fn propose<D: highwater_env::Disk>(
    shard: &Shard<D>,
    moving: &Moving,
    step: MoveStep,
) -> Result<(), String> {
    let command = ShardCommand::Move(Box::new(MoveCommand {
        tp: moving.tp(),
        plan: moving.plan,
        step,
    }));
    let proposed = shard.group.propose(command.encode());
    let reply = match tokio::time::timeout(DEADLINE, proposed).await {
        Ok(reply) => reply.map_err(|error| format!("shard {}: {error}", shard.id))?,
        Err(_elapsed) => return Err(format!("shard {} has no verdict yet", shard.id)),
    };
    match ShardReply::decode(&reply).map_err(|error| error.to_string())? {
        ShardReply::Done => Ok(()),
        ShardReply::Refused(why) => Err(format!("shard {}: {why}", shard.id)),
        other => Err(format!("unexpected {other:?}")),
    }
}
