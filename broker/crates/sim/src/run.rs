//! One run: found a cluster, let clients work while things break, heal, and see that every promise
//! was kept.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail, ensure};
use highwater_checker::Fault;
use turmoil::Sim;

use crate::board::{Board, Outcome, Phase};
use crate::clients;
use crate::cluster::Cluster;
use crate::faults::{self, LATENCY_MS, Plan, Tally};
use crate::rot::Compared;
use crate::settings::{Kind, Settings};
use crate::surroundings::{self, EPOCH_MS};
use crate::{compactions, rot, trace};

/// The cluster must be founded and the topic made within this.
const FOUNDING: Duration = Duration::from_secs(20);
/// How a run fails that does not get that far.
pub const NO_TOPIC: &str = "no topic";
/// After healing everyone must come to an end within this.
const LIVENESS: Duration = Duration::from_secs(60);
/// Then whatever rots must be mended, and replicas be the same, within this.
const MENDING: Duration = Duration::from_secs(30);
/// A process that was turned away is started again within this.
const SETTLING: Duration = Duration::from_secs(5);
/// Why the replicas cannot be compared yet.
const UNSETTLED: &str = "the replicas of the compacted topic are not compacted alike";
/// Between two looks at the replicas.
const LOOK: Duration = Duration::from_millis(500);

/// What a run that kept every promise has to say.
#[derive(Debug)]
pub struct Report {
    outcome: Outcome,
    compared: usize,
    /// Checkpoints that were looked at, and those that another replica had at the same entry.
    checkpoints: (u64, u64),
    marks: u64,
    struck: Tally,
    founded: Duration,
    healed: Duration,
    ended: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| time.as_secs_f64();
        write!(
            f,
            "{} acknowledged, {} stored, {} batches compared; {} checkpoints, {} of them compared; \
             {} looks at replicas; founded at {:.3} s, healed at {:.3} s, ended at {:.3} s\n{}\n{}",
            self.outcome.acknowledged,
            self.outcome.stored,
            self.compared,
            self.checkpoints.0,
            self.checkpoints.1,
            self.marks,
            seconds(self.founded),
            seconds(self.healed),
            seconds(self.ended),
            self.struck,
            self.outcome.verdict.trim_end()
        )
    }
}

/// Between two looks at how far all replicas are, in milliseconds: whatever a tick takes, it comes by.
const MARKS: u128 = 20;
/// With lying disks, what is synced becomes durable only this often.
const LIE: u128 = 1_000;

/// Runs a seed; `set_time` is told the simulated time before each step. With `lying` disks, power
/// losses take what was synced: a control, which must fail.
///
/// # Errors
/// The promise that was broken, or what did not come to an end.
pub fn run(settings: &Settings, lying: bool, set_time: fn(Duration)) -> anyhow::Result<Report> {
    surroundings::start(settings.seed);
    highwater_metadata::fewer_shards(settings.shards);
    let mut sim = world(settings);
    let cluster = Cluster::start(&mut sim, settings)?;
    let board = Board::new(settings.producers, settings.partitions);
    let names = clients::start(&mut sim, settings, &board);
    let plan = Plan::new(settings, &names);
    let mut run = Run {
        settings,
        cluster,
        board,
        clients: names,
        plan,
        lying,
        set_time,
        founded: None,
        healed: None,
        ended: false,
        struck: Tally::default(),
        next_look: Duration::ZERO,
    };
    while !run.step(&mut sim)? {}
    run.finish(&mut sim)
}

struct Run<'a> {
    settings: &'a Settings,
    cluster: Cluster,
    board: Board,
    clients: Vec<String>,
    plan: Plan,
    lying: bool,
    set_time: fn(Duration),
    founded: Option<Duration>,
    healed: Option<Duration>,
    /// Every client has come to its end.
    ended: bool,
    /// What had struck when everything was healed.
    struck: Tally,
    /// When the replicas of the compacted topic are looked at next.
    next_look: Duration,
}

impl Run<'_> {
    /// One step of the simulation; whether every client has come to its end.
    fn step(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<bool> {
        let now = sim.elapsed();
        trace::set_time(now);
        (self.set_time)(now);
        self.change_the_world(sim, now)?;
        if self.lying
            && self.healed.is_none()
            && self.founded.is_some()
            && now.as_millis() % LIE == 0
        {
            self.cluster.lie();
        }
        let ended = sim.step().map_err(|error| anyhow!("{error:#}"))?;
        self.cluster.note_calls(now)?;
        self.cluster.look_after(sim, now)?;
        if now.as_millis() % MARKS == 0 {
            self.cluster.look_at_marks()?;
        }
        if let Some(broken) = trace::broken_election() {
            bail!("{broken}");
        }
        if self.board.replacing() {
            self.cluster.let_in();
        }
        if self.board.take_replaced() {
            self.cluster.replaced(now);
        }
        self.board.set_wiped(self.cluster.wiped());
        self.settle_compaction(now)?;
        Ok(ended)
    }

    /// Sees whether the replicas of the compacted topic have become the same, once nobody writes to it.
    fn settle_compaction(&mut self, now: Duration) -> anyhow::Result<()> {
        if let Some(what) = self.board.awaited_compaction()
            && now >= self.next_look
        {
            self.next_look = now + LOOK / 5;
            if compactions::settled(&self.cluster.disks(), what)? {
                self.board.settle_compaction();
            }
        }
        Ok(())
    }

    /// Compares the replicas byte by byte; how many batches. One that lags, or has compacted more than
    /// another, is to be waited for.
    fn compare(&self) -> anyhow::Result<Compared> {
        let (disks, compacted) = (self.cluster.disks(), self.board.settled_compaction());
        let topic = compacted.map(|what| what.topic);
        let plain = match rot::compare(&disks, topic, &self.board.expected())? {
            Compared::Alike(count) => count,
            lacks @ Compared::Lacks(_) => return Ok(lacks),
        };
        let Some(what) = compacted else {
            return Ok(Compared::Alike(plain));
        };
        if !compactions::settled(&disks, what)? {
            return Ok(Compared::Lacks(UNSETTLED.to_owned()));
        }
        let count = compactions::compare(&disks, what)?;
        Ok(Compared::Alike(plain + count))
    }

    /// Compares the replicas until they are alike.
    fn compare_at_last(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<usize> {
        let patience = sim.elapsed() + MENDING;
        let rots = self.settings.faults.contains(&Kind::Rot);
        loop {
            let why = match self.compare() {
                Ok(Compared::Alike(compared)) => return Ok(compared),
                Ok(Compared::Lacks(what)) => anyhow!(what),
                // What has rotted is being mended.
                Err(error) if rots => error,
                Err(error) => return Err(error),
            };
            if sim.elapsed() > patience {
                return Err(why.context(format!("the replicas are not alike after {MENDING:?}")));
            }
            let next = sim.elapsed() + LOOK;
            while sim.elapsed() < next {
                self.step(sim)?;
            }
        }
    }

    fn change_the_world(&mut self, sim: &mut Sim<'_>, now: Duration) -> anyhow::Result<()> {
        if self.founded.is_none() && self.board.phase() == Phase::Breaking {
            self.founded = Some(now);
        }
        match (self.founded, self.healed) {
            (None, _) if now > FOUNDING => bail!("{NO_TOPIC} after {FOUNDING:?}"),
            (None, _) => {}
            (Some(begin), None) if now >= begin + self.settings.breaking => {
                self.struck = self.plan.end(&mut self.cluster);
                faults::heal(sim, &mut self.cluster, self.settings.names(), &self.clients);
                if self.settings.retained.is_some() {
                    // Where a clock is wrong, nothing goes.
                    self.cluster.set_clocks();
                }
                self.board.set_phase(Phase::Healed);
                clients::start_last(sim, self.settings, &self.board);
                self.healed = Some(now);
            }
            (Some(begin), None) => {
                let since = now.saturating_sub(begin);
                self.plan.act(sim, &mut self.cluster, since)?;
            }
            (_, Some(healed)) if now > healed + LIVENESS && !self.ended => {
                let busy = self.board.busy();
                bail!("not at an end {LIVENESS:?} after healing: {busy}")
            }
            (Some(_), Some(_)) => {}
        }
        Ok(())
    }

    /// Judges what was seen, and what lies on the disks.
    fn finish(mut self, sim: &mut Sim<'_>) -> anyhow::Result<Report> {
        let founded = self.founded.context("it was founded")?;
        let healed = self.healed.context("it was healed")?;
        let broken = Fault {
            name: "whatever broke".to_owned(),
            from_ns: u64::try_from(founded.as_nanos())?,
            to_ns: u64::try_from(healed.as_nanos())?,
            proven: self.struck.any(),
        };
        let outcome = self.board.judge(self.settings.replicas, vec![broken])?;
        self.ended = true;
        self.cluster.check_open_files()?;
        let compared = self.compare_at_last(sim)?;
        ensure!(
            compared > 0 || outcome.acknowledged == 0,
            "no replica was compared with another"
        );
        let differs = |error: &String| error.contains("have different content");
        if let Some(error) = trace::errors().iter().find(|error| differs(error)) {
            bail!("{error}");
        }
        // One that was turned away until it was let in starts again after a while.
        let last = sim.elapsed() + SETTLING;
        while self.cluster.count_running() < self.settings.nodes && sim.elapsed() < last {
            self.step(sim)?;
        }
        let running = self.cluster.count_running();
        ensure!(running == self.settings.nodes, "{running} nodes are left");
        Ok(Report {
            outcome,
            compared,
            checkpoints: self.cluster.checkpoints(),
            marks: self.cluster.marks(),
            struck: self.struck,
            founded,
            healed,
            ended: sim.elapsed(),
        })
    }
}

fn world(settings: &Settings) -> Sim<'static> {
    let epoch = UNIX_EPOCH + Duration::from_millis(EPOCH_MS.unsigned_abs());
    turmoil::Builder::new()
        .rng_seed(settings.seed)
        .epoch(epoch)
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(settings.tick_ms))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(LATENCY_MS))
        .tcp_capacity(1024)
        .enable_random_order()
        .build()
}
