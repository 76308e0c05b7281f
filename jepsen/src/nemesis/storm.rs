//! Rebalances one upon the other: members join a group in crowds, and leave it or vanish. They take
//! partitions and finish nothing, so they commit nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use highwater_client::group::{CommitMode, GroupConsumer};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::whole::Whole;
use super::{Nemesis, Proof, Site, Started};

/// So that those that vanish are soon expelled.
const SESSION: Duration = Duration::from_secs(6);
/// Members at a time, at most.
const CROWD: usize = 12;
/// A whole cluster gives somebody partitions within this time: a coordinator is elected and loaded.
const SERVED_AFTER: Duration = Duration::from_secs(12);
/// How long a leave is waited for; it counts as a crash after that.
const LEAVE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct RebalanceStorm {
    random: StdRng,
    group: Option<String>,
    crowd: Vec<GroupConsumer>,
    joins: u32,
    left: u32,
    vanished: u32,
    assigned: Arc<AtomicU64>,
    whole: Whole,
}

impl RebalanceStorm {
    pub(super) fn new(pick: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(pick),
            group: None,
            crowd: Vec::new(),
            joins: 0,
            left: 0,
            vanished: 0,
            assigned: Arc::default(),
            whole: Whole::default(),
        }
    }

    fn join(&mut self, site: &Site, group: &str) -> anyhow::Result<()> {
        let assigned = Arc::clone(&self.assigned);
        let member = site
            .client
            .group(group)
            .topic(&site.topic)
            .session_timeout(SESSION)
            .rebalance_timeout(SESSION)
            .commit_mode(CommitMode::Explicit)
            .on_assigned(move |_| {
                assigned.fetch_add(1, Ordering::Relaxed);
                async {}
            })
            .stream()?;
        self.crowd.push(member);
        self.joins += 1;
        Ok(())
    }

    async fn lose_one(&mut self) {
        if self.crowd.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.crowd.len());
        let member = self.crowd.swap_remove(at);
        if self.random.random_bool(0.7) {
            // Whether the coordinator heard of it is its own affair.
            let left = tokio::time::timeout(LEAVE, member.leave()).await;
            self.left += u32::from(matches!(left, Ok(Ok(()))));
        } else {
            drop(member);
            self.vanished += 1;
        }
    }
}

#[async_trait]
impl Nemesis for RebalanceStorm {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let count = site.groups.len();
        if count == 0 {
            return Ok(None);
        }
        let at = self.random.random_range(0..count);
        self.group = site.groups.get(at).cloned();
        Ok(Some(Started {
            detail: json!({"group": self.group}),
            ..Started::default()
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(group) = self.group.clone() else {
            return Ok(());
        };
        while Instant::now() < until {
            let joins = self.crowd.len() < CROWD && self.random.random_bool(0.6);
            if joins {
                self.join(site, &group)?;
            } else {
                self.lose_one().await;
            }
            if self.assigned.load(Ordering::Relaxed) == 0 {
                self.whole.look(site).await?;
            }
            let pause = Duration::from_millis(self.random.random_range(20..300));
            sleep_until(until.min(Instant::now() + pause)).await;
        }
        Ok(())
    }

    async fn heal(&mut self, _site: &Site) -> anyhow::Result<Proof> {
        while !self.crowd.is_empty() {
            self.lose_one().await;
        }
        let assigned = self.assigned.load(Ordering::Relaxed);
        let group = self.group.clone().unwrap_or_default();
        let joins = self.joins;
        let nothing = format!("nobody of {joins} who joined group {group} got a partition");
        let detail = json!({
            "joins": joins, "left": self.left, "vanished": self.vanished, "assignments": assigned,
        });
        // Without a coordinator nobody can join.
        let proof = (assigned > 0, assigned == 0 && joins > 0);
        Ok(self.whole.proof(proof, SERVED_AFTER, &nothing, detail))
    }
}
