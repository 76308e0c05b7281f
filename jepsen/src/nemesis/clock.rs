//! A leader's wall clock is wrong: it jumps, or was wrong when the broker started. Nothing but retention
//! may go by it, and retention must halt.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::whole::Whole;
use super::{Nemesis, Proof, Site, Started};
use crate::cluster::clock_trouble;

/// Between two looks whether the broker has noticed.
const LOOK: Duration = Duration::from_millis(200);

/// A broker that others heard all this time, as they heard each other, must know. They tell each other once
/// a second, and its process looks at its clock once a second.
const KNOWN_AFTER: Duration = Duration::from_secs(6);

/// Seconds: a little more than is tolerated, an hour, a day, a year.
const JUMPS: [i64; 4] = [20, 3_600, 86_400, 31_536_000];

/// See the module.
pub(super) struct ClockJump {
    pick: u64,
    node: Option<u32>,
    noticed: Option<String>,
    whole: Whole,
}

impl ClockJump {
    pub(super) fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            noticed: None,
            whole: Whole::default(),
        }
    }

    fn started(&self, node: u32) -> Started {
        Started {
            nodes: vec![node],
            detail: json!({"ahead-s": self.ahead()}),
            at_ns: None,
        }
    }

    /// How far ahead the clock is, in seconds.
    fn ahead(&self) -> i64 {
        let jump = JUMPS[usize::try_from(self.pick % 4).unwrap_or(0)];
        if (self.pick >> 2).is_multiple_of(2) {
            jump
        } else {
            -jump
        }
    }
}

#[async_trait]
impl Nemesis for ClockJump {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        site.cluster()?.set_clock(node, self.ahead())?;
        self.node = Some(node);
        Ok(Some(self.started(node)))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        let admin = site.cluster()?.admin_address(node).await?;
        while self.noticed.is_none() && Instant::now() < until {
            // One that is down or cut off may not know; it is asked again.
            self.noticed = clock_trouble(admin).await.ok().flatten();
            self.whole.look(site).await?;
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        site.cluster()?.set_clock(node, 0)?;
        let whole = self.whole.longest();
        let overlooked = self.noticed.is_none() && whole >= KNOWN_AFTER;
        let finding = format!(
            "broker {node} did not notice within {:.1} s, the cluster whole, that its clock was {} s ahead",
            whole.as_secs_f64(),
            self.ahead()
        );
        Ok(Proof {
            active: self.noticed.is_some(),
            // One that others do not reach all the while is not told of their clocks.
            refused: self.noticed.is_none(),
            finding: overlooked.then_some(finding),
            detail: json!({
                "ahead-s": self.ahead(), "noticed": self.noticed, "whole-s": whole.as_secs_f64(),
            }),
        })
    }
}

/// A leader dies and starts with another clock, and later again with the right one. Before it has heard of
/// the others' clocks it may lead again.
pub(super) struct WrongStart {
    jump: ClockJump,
    /// Processes with the right clock, and with the wrong one.
    killed: Vec<u32>,
}

impl WrongStart {
    pub(super) fn new(pick: u64) -> Self {
        Self {
            jump: ClockJump::new(pick),
            killed: Vec::new(),
        }
    }

    /// Killed, unless it is dead already, and started with another clock.
    async fn restart(&mut self, site: &Site, node: u32, ahead_s: i64) -> anyhow::Result<u32> {
        let cluster = site.cluster()?;
        let mut broker = cluster.node(node).await?;
        if broker.pid().is_some() {
            self.killed.push(broker.kill().await?);
        }
        cluster.set_clock(node, ahead_s)?;
        broker.start()
    }
}

#[async_trait]
impl Nemesis for WrongStart {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.jump.pick) else {
            return Ok(None);
        };
        self.jump.node = Some(node);
        let at_ns = site.recorder.now_ns();
        self.restart(site, node, self.jump.ahead()).await?;
        Ok(Some(Started {
            at_ns: Some(at_ns),
            ..self.jump.started(node)
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        self.jump.hold(site, until).await
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let proof = self.jump.heal(site).await?;
        let Some(node) = self.jump.node else {
            return Ok(proof);
        };
        let pid = self.restart(site, node, 0).await?;
        let mut detail = proof.detail;
        detail["killed-pids"] = json!(self.killed);
        detail["new-pid"] = json!(pid);
        let restarted = self.killed.len() == 2 && !self.killed.contains(&pid);
        Ok(Proof {
            // Two kills alone are not this fault: that the clock was wrong has to be shown, too.
            active: restarted && proof.active,
            detail,
            ..proof
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.jump.node.into_iter().collect()
    }
}
