//! The service `Lifecycle`: plans, brokers that leave, health, restarts. Answered where the metadata
//! group is led; everybody else names that broker.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata as metadata;
use highwater_metadata::{Image, MetadataCommand, MetadataReply, Refusal};
use highwater_proto::v1::lifecycle_server::Lifecycle;
use highwater_proto::v1::{
    CancelPlanRequest, Error, ErrorCode, Finding, HealthRequest, HealthResponse, LeaderHint,
    MoveState, Plan, PlanKind, PlanMove, PlanPartition, PlanResponse, RemoveBrokerRequest,
    RemoveBrokerResponse, RestartCheckRequest, RestartCheckResponse, RestartVerdict, Severity,
    ShowPlanRequest, StartPlanRequest,
};
use highwater_proto::{NodeId, PartitionId, ShardId, TopicId, TopicPartition};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::convert;
use crate::control::proposer::MetadataError;
use crate::control::{diagnosis, restart};
use crate::node::Broker;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shards worked on at the same time when nobody says.
const DEFAULT_PARALLEL: u32 = 4;
const MOST_PARALLEL: u32 = 64;
/// Longer than an election takes.
const ELECTION: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The service over one broker.
pub struct LifecycleService<E: Env>(pub Arc<Broker<E>>);

/// Goes on only where the newest image is.
pub(super) async fn lead<E: Env>(broker: &Broker<E>) -> Result<(), Error> {
    let group = broker.metadata.group();
    if group.read_barrier().await.is_ok() {
        return Ok(());
    }
    let status = group.status().borrow().clone();
    let leader = status.leader.filter(|leader| *leader != broker.node_id);
    let image = broker.cluster.image();
    let hint = leader
        .and_then(|node| image.broker(node))
        .map(|known| LeaderHint {
            broker_id: known.id.0,
            address: known.address.clone(),
            term: status.term,
            ..LeaderHint::default()
        });
    let (code, text) = match hint {
        Some(_) => (
            ErrorCode::NotLeader,
            "another broker leads the metadata group",
        ),
        None => (
            ErrorCode::ClusterNotReady,
            "the metadata group has no leader right now",
        ),
    };
    Err(convert::error(code, text, hint))
}

/// Writes a command into the metadata log.
pub(super) async fn propose<E: Env>(
    broker: &Broker<E>,
    command: &MetadataCommand,
    timeout: Duration,
) -> Result<(), Error> {
    match broker.metadata.propose(command, timeout).await {
        Ok(MetadataReply::Refused(why)) => Err(convert::error(why.code, why.message, None)),
        Ok(_) => Ok(()),
        Err(MetadataError::Unavailable(text)) => {
            Err(convert::error(ErrorCode::ClusterNotReady, text, None))
        }
        Err(MetadataError::Unknown(text)) => {
            let text = format!("it may or may not have been begun: {text}");
            Err(convert::error(ErrorCode::TimedOut, text, None))
        }
    }
}

impl<E: Env> LifecycleService<E> {
    async fn lead(&self) -> Result<(), Error> {
        lead(&self.0).await
    }

    /// The same, with patience for an election. Another broker is named if it answers: one that led and is
    /// gone is remembered for as long as nobody can take its place.
    async fn lead_soon(&self) -> Result<(), Error> {
        let until = Instant::now() + ELECTION;
        loop {
            let Err(mut error) = self.lead().await else {
                return Ok(());
            };
            if let Some(leader) = error.leader.take()
                && diagnosis::answers(&self.0, NodeId(leader.broker_id)).await
            {
                error.leader = Some(leader);
                return Err(error);
            }
            if Instant::now() > until {
                return Err(error);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn propose(&self, command: &MetadataCommand, timeout_ms: u32) -> Result<(), Error> {
        let timeout = match timeout_ms {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)),
        };
        propose(&self.0, command, timeout).await
    }

    async fn start(&self, request: StartPlanRequest) -> Result<Option<Plan>, Error> {
        self.lead().await?;
        let kind = self.kind(&request)?;
        let parallel = match request.parallel {
            0 => DEFAULT_PARALLEL,
            asked => asked.min(MOST_PARALLEL),
        };
        let image = self.0.cluster.image();
        let refused = |why: Refusal| convert::error(why.code, why.message, None);
        image.check_established(kind).map_err(refused)?;
        if request.dry_run {
            let plan = image.preview(kind, parallel, request.accept_loss);
            let plan = plan.map_err(refused)?;
            return Ok(Some(Plan {
                id: 0,
                ..shown(&self.0, &plan)
            }));
        }
        let command = MetadataCommand::StartPlan {
            kind,
            parallel,
            accept_loss: request.accept_loss,
        };
        self.propose(&command, request.timeout_ms).await?;
        Ok(self.plan())
    }

    fn kind(&self, request: &StartPlanRequest) -> Result<metadata::PlanKind, Error> {
        let broker = NodeId(request.broker);
        match request.kind() {
            PlanKind::Rebalance => Ok(metadata::PlanKind::Rebalance),
            PlanKind::Drain => Ok(metadata::PlanKind::Drain(broker)),
            PlanKind::Replace if self.answers(broker, request.dry_run) => {
                let text = format!(
                    "broker {broker} answers; stop it first, or drain it if its disk is to be kept"
                );
                Err(convert::error(ErrorCode::InvalidRequest, text, None))
            }
            PlanKind::Replace => Ok(metadata::PlanKind::Replace(broker)),
            PlanKind::Repair => Ok(metadata::PlanKind::Repair(broker, ShardId(request.shard))),
            PlanKind::MovePartition => Ok(metadata::PlanKind::MovePartition(
                self.topic(&request.topic)?,
                PartitionId(request.partition),
                ShardId(request.shard),
            )),
            PlanKind::Replicate => Ok(metadata::PlanKind::Replicate(
                self.topic(&request.topic)?,
                request.replication_factor,
            )),
            PlanKind::Unspecified => {
                let text = "no kind of plan that this release knows";
                Err(convert::error(ErrorCode::InvalidRequest, text, None))
            }
        }
    }
    fn topic(&self, name: &str) -> Result<TopicId, Error> {
        let image = self.0.cluster.image();
        image
            .topic_by_name(name)
            .map(|topic| topic.id())
            .ok_or_else(|| {
                let text = format!("no topic is named '{name}'; `highwater topic list` shows all");
                convert::error(ErrorCode::UnknownTopic, text, None)
            })
    }
    fn answers(&self, broker: NodeId, dry_run: bool) -> bool {
        !dry_run && self.0.liveness.alive().contains(&broker)
    }

    fn plan(&self) -> Option<Plan> {
        let image = self.0.cluster.image();
        image.plan().map(|plan| shown(&self.0, plan))
    }

    async fn cancel(&self, request: CancelPlanRequest) -> Result<Option<Plan>, Error> {
        self.lead().await?;
        let image = self.0.cluster.image();
        let plan = match (request.plan, image.running_plan()) {
            (0, Some(running)) => running.id,
            (0, None) => {
                let text = "no plan is running; `highwater cluster plan show` shows the last one";
                return Err(convert::error(ErrorCode::InvalidRequest, text, None));
            }
            (plan, _) => plan,
        };
        self.propose(&MetadataCommand::CancelPlan { plan }, request.timeout_ms)
            .await?;
        Ok(self.plan())
    }

    async fn remove(&self, request: RemoveBrokerRequest) -> Result<(), Error> {
        self.lead().await?;
        let broker = NodeId(request.broker);
        let command = MetadataCommand::RemoveBroker { broker };
        if request.dry_run {
            let checked = self.0.cluster.image().validate(&command);
            return checked.map_err(|why| convert::error(why.code, why.message, None));
        }
        self.propose(&command, request.timeout_ms).await
    }
}

#[tonic::async_trait]
impl<E: Env> Lifecycle for LifecycleService<E> {
    async fn start_plan(
        &self,
        request: Request<StartPlanRequest>,
    ) -> Result<Response<PlanResponse>, Status> {
        Ok(answer(self.start(request.into_inner()).await))
    }

    async fn show_plan(
        &self,
        _request: Request<ShowPlanRequest>,
    ) -> Result<Response<PlanResponse>, Status> {
        Ok(answer(self.lead().await.map(|()| self.plan())))
    }

    async fn cancel_plan(
        &self,
        request: Request<CancelPlanRequest>,
    ) -> Result<Response<PlanResponse>, Status> {
        Ok(answer(self.cancel(request.into_inner()).await))
    }

    async fn remove_broker(
        &self,
        request: Request<RemoveBrokerRequest>,
    ) -> Result<Response<RemoveBrokerResponse>, Status> {
        let error = self.remove(request.into_inner()).await.err();
        Ok(Response::new(RemoveBrokerResponse { error }))
    }

    async fn health(
        &self,
        _request: Request<HealthRequest>,
    ) -> Result<Response<HealthResponse>, Status> {
        let findings = match self.lead_soon().await {
            Ok(()) => diagnosis::findings(&self.0),
            // Nobody leads: that is what is wrong.
            Err(error) if error.leader.is_none() => {
                diagnosis::without_metadata_leader(&self.0).await
            }
            Err(error) => {
                return Ok(Response::new(HealthResponse {
                    error: Some(error),
                    findings: Vec::new(),
                }));
            }
        };
        let findings = findings.into_iter().map(|found| Finding {
            severity: severity(found.severity).into(),
            what: found.what,
            cure: found.cure,
        });
        Ok(Response::new(HealthResponse {
            error: None,
            findings: findings.collect(),
        }))
    }

    async fn restart_check(
        &self,
        request: Request<RestartCheckRequest>,
    ) -> Result<Response<RestartCheckResponse>, Status> {
        let response = match self.lead().await {
            Ok(()) => match restart::check(&self.0, request.into_inner().broker) {
                Ok(verdicts) => RestartCheckResponse {
                    error: None,
                    verdicts: verdicts.into_iter().map(verdict).collect(),
                },
                Err(text) => RestartCheckResponse {
                    error: Some(convert::error(ErrorCode::InvalidRequest, text, None)),
                    verdicts: Vec::new(),
                },
            },
            Err(error) => RestartCheckResponse {
                error: Some(error),
                verdicts: Vec::new(),
            },
        };
        Ok(Response::new(response))
    }
}

fn severity(severity: diagnosis::Severity) -> Severity {
    match severity {
        diagnosis::Severity::Note => Severity::Note,
        diagnosis::Severity::Warning => Severity::Warning,
        diagnosis::Severity::Critical => Severity::Critical,
    }
}

fn verdict(verdict: restart::Verdict) -> RestartVerdict {
    RestartVerdict {
        broker: verdict.broker.0,
        safe: verdict.reasons.is_empty(),
        reasons: verdict.reasons,
        notes: verdict.notes,
        present: verdict.present,
        started_at_ms: verdict.started_at_ms,
    }
}

fn answer(plan: Result<Option<Plan>, Error>) -> Response<PlanResponse> {
    Response::new(match plan {
        Ok(plan) => PlanResponse { error: None, plan },
        Err(error) => PlanResponse {
            error: Some(error),
            plan: None,
        },
    })
}

fn shown<E: Env>(broker: &Broker<E>, plan: &metadata::Plan) -> Plan {
    let image = broker.cluster.image();
    let under_way: Vec<_> = plan.current().into_iter().map(|step| step.shard).collect();
    let shown = |step: &metadata::Move| PlanMove {
        shard: step.shard.0,
        add: step.add.0,
        remove: step.remove.map(|node| node.0),
        lost: step.lost,
        state: state(step.state).into(),
        progress: if !step.state.is_final() && under_way.contains(&step.shard) {
            broker.progress.of(step.shard)
        } else {
            String::new()
        },
        partitions: image.shard(step.shard).map_or(0, |shard| shard.partitions),
    };
    let partitions = plan.partitions.iter();
    Plan {
        id: plan.id,
        parallel: plan.parallel,
        cancelled: plan.cancelled,
        ended: plan.is_ended(),
        moves: plan.moves.iter().map(shown).collect(),
        partitions: partitions
            .map(|step| partition(broker, &image, (plan.id, step)))
            .collect(),
        ..purpose(&image, plan.kind)
    }
}

/// What a plan is for.
fn purpose(image: &Image, kind: metadata::PlanKind) -> Plan {
    let of = |kind: PlanKind, broker: NodeId| Plan {
        kind: kind.into(),
        broker: broker.0,
        ..Plan::default()
    };
    match kind {
        metadata::PlanKind::Rebalance => of(PlanKind::Rebalance, NodeId(0)),
        metadata::PlanKind::Drain(node) => of(PlanKind::Drain, node),
        metadata::PlanKind::Replace(node) => of(PlanKind::Replace, node),
        metadata::PlanKind::Repair(node, shard) => Plan {
            shard: shard.0,
            ..of(PlanKind::Repair, node)
        },
        metadata::PlanKind::MovePartition(topic, partition, shard) => Plan {
            topic: name(image, topic),
            partition: partition.0,
            shard: shard.0,
            ..of(PlanKind::MovePartition, NodeId(0))
        },
        metadata::PlanKind::Replicate(topic, replication_factor) => Plan {
            topic: name(image, topic),
            replication_factor,
            ..of(PlanKind::Replicate, NodeId(0))
        },
    }
}

fn name(image: &Image, topic: TopicId) -> String {
    let known = image.topic(topic);
    known.map_or_else(String::new, |topic| topic.name().to_owned())
}

fn partition<E: Env>(
    broker: &Broker<E>,
    image: &Image,
    (plan, step): (u64, &metadata::PartitionMove),
) -> PlanPartition {
    let tp = TopicPartition::new(step.topic, step.partition);
    let open = !step.state.is_final();
    let said = open.then(|| broker.reports.of_move(plan, tp)).flatten();
    let said = said.unwrap_or_default();
    PlanPartition {
        topic: name(image, step.topic),
        partition: step.partition.0,
        from_shard: step.from.0,
        to_shard: step.to.0,
        state: state(step.state).into(),
        progress: said.doing,
        copied_offset: said.copied_offset,
        end_offset: said.end_offset,
    }
}

fn state(state: metadata::MoveState) -> MoveState {
    match state {
        metadata::MoveState::Expelling => MoveState::Expelling,
        metadata::MoveState::Waiting => MoveState::Waiting,
        metadata::MoveState::Learning => MoveState::Learning,
        metadata::MoveState::Done => MoveState::Done,
        metadata::MoveState::Cancelled => MoveState::Cancelled,
    }
}
