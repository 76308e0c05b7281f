//! Administrative calls about the life of a cluster: plans that move replicas and partitions, brokers
//! that come and go, health, restarts.

use highwater_proto::v1::{self, lifecycle_client::LifecycleClient};
use highwater_proto::{NodeId, PartitionId, ShardId};

use crate::admin::{Admin, read_error, write_error};
use crate::error::AdminError;
use crate::topics::{Certain, settled};

/// A plan to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlan(v1::StartPlanRequest);

impl NewPlan {
    fn of(kind: v1::PlanKind, broker: u32) -> Self {
        Self(v1::StartPlanRequest {
            kind: kind.into(),
            broker,
            ..Default::default()
        })
    }
    /// Replicas and leaders spread evenly over all brokers.
    #[must_use]
    pub fn rebalance() -> Self {
        Self::of(v1::PlanKind::Rebalance, 0)
    }
    /// A broker gives all its replicas away.
    #[must_use]
    pub fn drain(broker: NodeId) -> Self {
        Self::of(v1::PlanKind::Drain, broker.0)
    }
    /// A broker's disk is lost: an empty one in its place is filled anew.
    #[must_use]
    pub fn replace(broker: NodeId) -> Self {
        Self::of(v1::PlanKind::Replace, broker.0)
    }
    /// A broker's replica of one shard is bad: it is given up and filled anew.
    #[must_use]
    pub fn repair(broker: NodeId, shard: ShardId) -> Self {
        let mut plan = Self::of(v1::PlanKind::Repair, broker.0);
        plan.0.shard = shard.0;
        plan
    }
    /// A partition goes to another shard of as many replicas. Its offsets, its producers and the order of
    /// its records stay; writers wait for a moment at the end.
    #[must_use]
    pub fn move_partition(topic: impl Into<String>, partition: PartitionId, to: ShardId) -> Self {
        let mut plan = Self::of(v1::PlanKind::MovePartition, 0);
        plan.0.topic = topic.into();
        plan.0.partition = partition.0;
        plan.0.shard = to.0;
        plan
    }
    /// The partitions of a topic go to shards of more replicas.
    #[must_use]
    pub fn replicate(topic: impl Into<String>, replication_factor: u32) -> Self {
        let mut plan = Self::of(v1::PlanKind::Replicate, 0);
        plan.0.topic = topic.into();
        plan.0.replication_factor = replication_factor;
        plan
    }
    /// Shards, or partitions, worked on at the same time; 0: the broker's default.
    #[must_use]
    pub fn parallel(mut self, shards: u32) -> Self {
        self.0.parallel = shards;
        self
    }
    /// With [`NewPlan::replace`]: records that no other broker has may be lost.
    #[must_use]
    pub fn accept_loss(mut self, accept: bool) -> Self {
        self.0.accept_loss = accept;
        self
    }
    /// Only says what would be done.
    #[must_use]
    pub fn dry_run(mut self, dry: bool) -> Self {
        self.0.dry_run = dry;
        self
    }
}

impl Admin {
    /// Starts a plan, or says what it would do, and answers with it. Not cancellation-safe:
    /// dropped, it may or may not run; [`Admin::plan`] tells.
    ///
    /// # Errors
    /// [`AdminError`]; one plan runs at a time.
    pub async fn start_plan(&self, plan: NewPlan) -> Result<v1::Plan, AdminError> {
        let request = v1::StartPlanRequest {
            timeout_ms: self.millis(),
            ..plan.0
        };
        let started = self.call(|channel| {
            let request = request.clone();
            async move {
                let answer = LifecycleClient::new(channel).start_plan(request).await;
                answer.map(|answer| answer.map(Certain))
            }
        });
        let started = settled(started.await).map_err(write_error)?;
        Ok(started.plan.unwrap_or_default())
    }

    /// The plan that runs, or the last one that did. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn plan(&self) -> Result<Option<v1::Plan>, AdminError> {
        let shown = self.call(|channel| async move {
            let request = v1::ShowPlanRequest {};
            LifecycleClient::new(channel).show_plan(request).await
        });
        Ok(shown.await.map_err(read_error)?.plan)
    }

    /// Cancels the plan that runs. Not cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn cancel_plan(&self) -> Result<v1::Plan, AdminError> {
        let request = v1::CancelPlanRequest {
            plan: 0,
            timeout_ms: self.millis(),
        };
        let cancelled =
            self.call(
                |channel| async move { LifecycleClient::new(channel).cancel_plan(request).await },
            );
        let cancelled = cancelled.await.map_err(write_error)?;
        Ok(cancelled.plan.unwrap_or_default())
    }

    /// Removes a broker that holds no replicas. Not cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_broker(&self, broker: NodeId, dry_run: bool) -> Result<(), AdminError> {
        let request = v1::RemoveBrokerRequest {
            broker: broker.0,
            dry_run,
            timeout_ms: self.millis(),
        };
        let removed = self.call(|channel| async move {
            LifecycleClient::new(channel).remove_broker(request).await
        });
        removed.await.map(drop).map_err(write_error)
    }

    /// What is wrong with the cluster, the worst first. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn health(&self) -> Result<Vec<v1::Finding>, AdminError> {
        let told = self.call(|channel| async move {
            let request = v1::HealthRequest {};
            LifecycleClient::new(channel).health(request).await
        });
        Ok(told.await.map_err(read_error)?.findings)
    }

    /// Whether a broker, or each of them, may be restarted now. Cancellation-safe.
    ///
    /// # Errors
    /// [`AdminError::Rejected`].
    pub async fn restart_check(
        &self,
        broker: Option<NodeId>,
    ) -> Result<Vec<v1::RestartVerdict>, AdminError> {
        let request = v1::RestartCheckRequest {
            broker: broker.map_or(0, |broker| broker.0),
        };
        let checked = self.call(|channel| async move {
            LifecycleClient::new(channel).restart_check(request).await
        });
        Ok(checked.await.map_err(read_error)?.verdicts)
    }
}
