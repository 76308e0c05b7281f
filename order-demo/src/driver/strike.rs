//! Carries faults out, and proves of each that it was active.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::faults::{Fault, FaultKind};
use super::probe::{Probe, choose};
use super::supervisor::Supervisor;
use crate::bus::ClientBus;
use crate::control::ClusterControl;
use crate::driver::progress::{Event, Listener};
use crate::report::{Failover, FaultReport, as_millis, per_second};
use crate::services::control::Change;
use crate::services::dependency::CallCounts;

/// So many of 100 payments fail while they fail.
const ERROR_PERCENT: u64 = 60;
/// How much longer a slow call takes.
const SLOW_MS: u64 = 500;
/// For so long the usual rate of calls is looked at.
const LOOK: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);

/// What a fault needs to know of a run.
#[derive(Clone)]
pub struct Strike {
    /// The brokers' processes.
    pub control: Arc<dyn ClusterControl>,
    /// The brokers' door; none in modes without a broker.
    pub bus: Option<ClientBus>,
    /// The services' processes.
    pub supervisor: Arc<Supervisor>,
    /// Who watches.
    pub listener: Listener,
    /// How long each step may take.
    pub patience: Duration,
    /// How long what is no kill lasts.
    pub lasts: Duration,
    /// When the first order is due.
    pub start: Instant,
}

impl Strike {
    /// Waits for the fault's time and carries it out.
    ///
    /// # Errors
    /// When it could not be carried out, or did not end as it should.
    pub async fn run(self, fault: Fault, at: Duration) -> anyhow::Result<FaultReport> {
        sleep_until(self.start + at).await;
        let mut report = FaultReport {
            name: fault.kind.name(),
            at_s: at.as_secs_f64(),
            ..FaultReport::default()
        };
        match &fault.kind {
            FaultKind::BrokerLeader => self.broker(&mut report).await?,
            FaultKind::Kill(name) => self.kill(name, &mut report).await?,
            FaultKind::PaymentErrors => self.errors(&mut report).await?,
            FaultKind::NotifierOutage => self.outage(&mut report).await?,
            FaultKind::SlowDependency => self.slow(&mut report).await?,
            // In the plan from the beginning; proven by what is parked.
            FaultKind::Poison => {}
        }
        Ok(report)
    }

    fn say(&self, what: String) {
        (self.listener)(Event::Said(what));
    }

    async fn broker(&self, report: &mut FaultReport) -> anyhow::Result<()> {
        let bus = self.bus.as_ref().context("there is no broker to kill")?;
        let probe = Arc::new(Probe::default());
        let probing = probe.begin(bus, self.patience).await?;
        let (broker, shard, partitions) = choose(bus, self.patience).await?;
        report.at_s = self.start.elapsed().as_secs_f64();
        let from = Instant::now();
        let killed = self.control.kill(broker).await;
        killed.with_context(|| format!("cannot kill broker {broker}"))?;
        probe.arm(from, Instant::now(), partitions);
        self.say(format!(
            "Broker {broker}, the leader of shard {shard}, was killed (kill -9)"
        ));
        let recovered = probe.recovered(self.patience).await.map(as_millis);
        drop(probing);
        match recovered {
            Some(ms) => self.say(format!("Shard {shard} acknowledges again after {ms:.0} ms")),
            None => self.say(format!("Shard {shard} acknowledges nothing")),
        }
        let restarted = Instant::now();
        let again = self.control.restart(broker).await;
        again.with_context(|| format!("cannot restart broker {broker}"))?;
        timeout(self.patience, self.control.caught_up(broker))
            .await
            .with_context(|| format!("broker {broker} did not catch up in time"))??;
        let caught_up = as_millis(restarted.elapsed());
        self.say(format!("Broker {broker} runs again and has caught up"));
        report.active = true;
        report.proof = format!("the process of broker {broker} was gone; shard {shard} moved");
        report.mttr_ms = recovered;
        report.failover = Some(Failover {
            broker,
            shard,
            failover_ms: recovered,
            caught_up_ms: Some(caught_up),
        });
        Ok(())
    }

    async fn kill(&self, name: &'static str, report: &mut FaultReport) -> anyhow::Result<()> {
        let before = self.supervisor.pid(name);
        let from = Instant::now();
        self.supervisor.kill(name).await?;
        self.say(format!("The service {name} was killed (kill -9)"));
        let again = async {
            loop {
                match self.supervisor.stats(name).await {
                    // The gateway handles no messages: its first answer is its recovery.
                    Some(stats) if stats.handled + stats.again > 0 || name == "gateway" => {
                        return stats.pid;
                    }
                    _ => sleep(POLL).await,
                }
            }
        };
        let pid = timeout(self.patience, again)
            .await
            .with_context(|| format!("{name} handles nothing after it was killed"))?;
        let ms = as_millis(from.elapsed());
        self.say(format!("{name} handles messages again after {ms:.0} ms"));
        report.active = before.is_some_and(|before| before != pid);
        report.proof = format!("process {} became {pid}", before.unwrap_or(0));
        report.mttr_ms = Some(ms);
        Ok(())
    }

    async fn calls(&self, name: &str) -> CallCounts {
        let stats = self.supervisor.stats(name).await;
        stats.and_then(|stats| stats.calls).unwrap_or_default()
    }

    /// Waits until the payment circuit has opened once more: when, and the counts then.
    async fn opened(&self, before: u64) -> (Instant, CallCounts) {
        loop {
            let calls = self.calls("payment").await;
            if calls.opened > before {
                return (Instant::now(), calls);
            }
            sleep(POLL).await;
        }
    }

    async fn errors(&self, report: &mut FaultReport) -> anyhow::Result<()> {
        let (looked, first) = (Instant::now(), self.calls("payment").await);
        sleep(LOOK).await;
        let before = self.calls("payment").await;
        let calls = before.calls.saturating_sub(first.calls);
        let usual = per_second(calls, looked.elapsed().as_secs_f64());
        let change = |percent| Change {
            error_percent: Some(percent),
            ..Change::default()
        };
        self.supervisor
            .change("payment", change(ERROR_PERCENT))
            .await?;
        self.say(format!(
            "{ERROR_PERCENT} % of calls to the payment provider fail"
        ));
        let until = Instant::now() + self.lasts;
        let open = timeout_at(until, self.opened(before.opened)).await.ok();
        sleep_until(until).await;
        let now = self.calls("payment").await;
        report.calls_down_percent = open.filter(|_| usual > 0.0).map(|(since, then)| {
            let made = now.calls.saturating_sub(then.calls);
            100.0 * (1.0 - per_second(made, since.elapsed().as_secs_f64()) / usual)
        });
        self.supervisor.change("payment", change(0)).await?;
        self.say("The payment provider is well again".to_owned());
        let after = self.calls("payment").await;
        let failures = after.failures.saturating_sub(before.failures);
        let opened = after.opened.saturating_sub(before.opened);
        let calls = after.calls.saturating_sub(before.calls);
        let refused = after.refused.saturating_sub(before.refused);
        report.active = failures > 0;
        report.proof = format!(
            "{failures} of {calls} calls failed; the circuit opened {opened} times, within {:.2} ms \
             of the call that crossed the threshold at the most; {refused} calls were not made{}",
            after.opened_within_us as f64 / 1_000.0,
            match report.calls_down_percent {
                Some(down) => format!("; calls were {down:.1} % down while it was not closed"),
                None => String::new(),
            }
        );
        report.breaker = Some(after);
        Ok(())
    }

    async fn outage(&self, report: &mut FaultReport) -> anyhow::Result<()> {
        self.supervisor.hold("notifier", true).await?;
        self.say("The notifier is down".to_owned());
        sleep(self.lasts).await;
        report.active = self.supervisor.pid("notifier").is_none();
        self.supervisor.hold("notifier", false).await?;
        self.say("The notifier may start again".to_owned());
        report.proof = format!("no process for {:.0} s", self.lasts.as_secs_f64());
        Ok(())
    }

    async fn slow(&self, report: &mut FaultReport) -> anyhow::Result<()> {
        let name = if self.supervisor.fleet().mode.is_single() {
            "gateway"
        } else {
            "provisioning"
        };
        let before = self.calls(name).await;
        let change = |slow| Change {
            slow_ms: Some(slow),
            ..Change::default()
        };
        self.supervisor.change(name, change(SLOW_MS)).await?;
        self.say(format!("Calls of {name} take {SLOW_MS} ms longer"));
        sleep(self.lasts).await;
        self.supervisor.change(name, change(0)).await?;
        self.say(format!("Calls of {name} are fast again"));
        let after = self.calls(name).await;
        let calls = after.calls.saturating_sub(before.calls);
        report.active = calls > 0;
        report.proof = format!("{calls} calls took {SLOW_MS} ms longer");
        Ok(())
    }
}
