//! The sharpest test of fsync before acknowledgement.
//!
//! Of three brokers one hears nothing for a while, so the other two acknowledge alone. Then one of
//! these two dies and the other loses power: what it had acknowledged must be on its disk, because
//! it now elects a leader with the laggard, and nobody else is there to know better.

use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::LossReport;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::partition::drops;
use super::power::loss;
use super::{Nemesis, Proof, Site, Started};
use crate::cluster::network::Drops;
use crate::schedule::{Kind, Planned};

/// Between two looks at who leads, and how much longer an election may take than the fault was to last.
const LOOK: Duration = Duration::from_millis(50);
const LONGER: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Laggard {
    pick: u64,
    table: String,
    lasts: Duration,
    /// Who hears nothing, who loses power, who dies.
    cast: Option<(u32, u32, u32)>,
    drops: Drops,
    cut_off: bool,
    dead: Vec<u32>,
    dropped: u64,
    report: Option<LossReport>,
    restarted: Vec<u32>,
    /// When it began to hear nothing, and when it heard again, in nanoseconds since the start of the run.
    from_ns: u64,
    joined_ns: Option<u64>,
    /// Records that the other two acknowledged without it.
    acknowledged: usize,
    /// Whether it, or the one that had lost power, was elected before the third was back, and whether that was
    /// waited for.
    elected: bool,
    waited: bool,
}

impl Laggard {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            lasts: Duration::from_millis(planned.lasts_ms),
            cast: None,
            drops: Drops::new(),
            cut_off: false,
            dead: Vec::new(),
            dropped: 0,
            report: None,
            restarted: Vec::new(),
            from_ns: 0,
            joined_ns: None,
            acknowledged: 0,
            elected: false,
            waited: false,
        }
    }

    /// Who is left has elected one of the two.
    fn look_for_leader(&mut self, site: &Site) {
        let Some(((lags, loses, _), joined)) = self.cast.zip(self.joined_ns) else {
            return;
        };
        let since = site.leaders.changes().into_iter();
        let mut since = since.filter(|change| change.time_ns >= joined);
        self.elected = since.any(|change| [Some(lags), Some(loses)].contains(&change.leader));
    }

    async fn join_again(&mut self, site: &Site) -> anyhow::Result<()> {
        if self.cut_off {
            let network = site.cluster()?.network()?;
            self.dropped += network
                .dropped(&self.table, &self.drops)
                .await?
                .values()
                .sum::<u64>();
            network.stop_dropping(&self.table, &self.drops).await?;
            self.cut_off = false;
        }
        Ok(())
    }

    async fn start_again(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        site.cluster()?.node(node).await?.start()?;
        self.dead.retain(|dead| *dead != node);
        self.restarted.push(node);
        Ok(())
    }
}

#[async_trait]
impl Nemesis for Laggard {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, dies)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let &[lags, loses] = site.others(dies, self.pick).as_slice() else {
            return Ok(None);
        };
        self.cast = Some((lags, loses, dies));
        self.drops = drops(Kind::IsolateLeader, lags, &[loses, dies], 0);
        self.cut_off = true;
        site.cluster()?
            .network()?
            .drop_packets(&self.table, &self.drops)
            .await?;
        self.from_ns = site.recorder.now_ns();
        Ok(Some(Started {
            nodes: vec![lags, loses, dies],
            detail: json!({"lags": lags, "loses-power": loses, "dies": dies}),
            at_ns: None,
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some((_, loses, dies)) = self.cast else {
            return Ok(());
        };
        // Three fifths alone, so that leaders of the laggard move and much is acknowledged by two.
        sleep_until(until.checked_sub(self.lasts * 2 / 5).unwrap_or(until)).await;
        let cluster = site.cluster()?;
        // Without either of them nobody could have acknowledged anything.
        let now_ns = site.recorder.now_ns();
        self.acknowledged = site.shared.acknowledged_within(self.from_ns, now_ns);
        for node in [dies, loses] {
            cluster.node(node).await?.kill().await?;
            self.dead.push(node);
        }
        self.report = Some(cluster.lose_power(loses, loss(self.pick)).await?);
        self.join_again(site).await?;
        self.start_again(site, loses).await?;
        self.joined_ns = Some(site.recorder.now_ns());
        while !self.elected && Instant::now() < until + LONGER {
            sleep(LOOK).await;
            self.look_for_leader(site);
        }
        self.waited = true;
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        self.join_again(site).await?;
        for node in self.dead.clone() {
            self.start_again(site, node).await?;
        }
        let lost = self.report.as_ref().is_some_and(LossReport::was_active);
        Ok(Proof {
            active: lost && self.dropped > 0 && self.acknowledged > 0 && self.elected,
            // Leaders were on their way to other brokers all the while, or the run ended first.
            refused: self.acknowledged == 0 || !self.waited,
            detail: json!({
                "packets-dropped": self.dropped, "report": self.report,
                "acknowledged-by-two": self.acknowledged, "elected-with-laggard": self.elected,
            }),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.restarted.clone()
    }
}
