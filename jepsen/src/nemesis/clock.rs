//! A leader's wall clock jumps. Nothing but retention may go by it, and retention must halt.

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
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"ahead-s": self.ahead()}),
            at_ns: None,
        }))
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
