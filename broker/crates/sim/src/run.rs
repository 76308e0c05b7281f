//! One run: found a cluster, let clients work while things break, heal, and see that every promise
//! was kept.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail, ensure};
use turmoil::Sim;

use crate::board::{Board, Outcome, Phase};
use crate::clients;
use crate::cluster::Cluster;
use crate::faults::{self, LATENCY_MS, Plan};
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
/// From healing on until a process has no reason to end any more.
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
    founded: Duration,
    healed: Duration,
    ended: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| time.as_secs_f64();
        write!(
            f,
            "{} acknowledged, {} stored, {} batches compared; founded at {:.3} s, healed at {:.3} s, \
             ended at {:.3} s\n{}",
            self.outcome.acknowledged,
            self.outcome.stored,
            self.compared,
            seconds(self.founded),
            seconds(self.healed),
            seconds(self.ended),
            self.outcome.verdict.trim_end()
        )
    }
}

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
    let board = Board::new(settings.producers);
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
        if let Some(broken) = trace::broken_election() {
            bail!("{broken}");
        }
        if self.board.replacing() {
            self.cluster.let_in();
        }
        if self.board.take_replaced() {
            self.cluster.replaced();
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

    /// Compares the replicas byte by byte; how many batches. One that has compacted more than another is to
    /// be waited for.
    fn compare(&self) -> anyhow::Result<usize> {
        let (disks, compacted) = (self.cluster.disks(), self.board.settled_compaction());
        let plain = rot::compare(&disks, compacted.map(|what| what.topic))?;
        let Some(what) = compacted else {
            return Ok(plain);
        };
        ensure!(compactions::settled(&disks, what)?, UNSETTLED);
        Ok(plain + compactions::compare(&disks, what)?)
    }

    fn change_the_world(&mut self, sim: &mut Sim<'_>, now: Duration) -> anyhow::Result<()> {
        if self.founded.is_none() && self.board.phase() == Phase::Breaking {
            self.founded = Some(now);
        }
        match (self.founded, self.healed) {
            (None, _) if now > FOUNDING => bail!("{NO_TOPIC} after {FOUNDING:?}"),
            (None, _) => {}
            (Some(begin), None) if now >= begin + self.settings.breaking => {
                faults::heal(sim, &mut self.cluster, self.settings.names(), &self.clients);
                self.board.set_phase(Phase::Healed);
                clients::start_last(sim, self.settings, &self.board);
                self.healed = Some(now);
            }
            (Some(begin), None) => {
                let since = now.saturating_sub(begin);
                self.plan.act(sim, &mut self.cluster, since)?;
            }
            (_, Some(healed)) if now > healed + LIVENESS => {
                let busy = self.board.busy();
                bail!("not at an end {LIVENESS:?} after healing: {busy}")
            }
            (_, Some(healed)) if now > healed + SETTLING => self.cluster.excuse_nobody(),
            (Some(_), Some(_)) => {}
        }
        Ok(())
    }

    /// Judges what was seen, and what lies on the disks.
    fn finish(mut self, sim: &mut Sim<'_>) -> anyhow::Result<Report> {
        let settings = self.settings;
        let complete = settings.complete(settings.replicas);
        // One reads from the leaders.
        let outcome = self.board.judge(complete as usize + 1)?;
        let ended = sim.elapsed();
        self.cluster.check_open_files()?;
        let differs = |error: &String| error.contains("have different content");
        let rots = self.settings.faults.contains(&Kind::Rot);
        let compared = loop {
            match self.compare() {
                Ok(compared) => break compared,
                Err(error) if sim.elapsed() > ended + MENDING => return Err(error),
                Err(error) if !rots && error.to_string() != UNSETTLED => return Err(error),
                // What has rotted is being mended, or what is left to be compacted.
                Err(_) => {}
            }
            let next = sim.elapsed() + LOOK;
            while sim.elapsed() < next {
                self.healed = Some(sim.elapsed());
                self.step(sim)?;
            }
        };
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
            founded: self.founded.context("it was founded")?,
            healed: self.healed.context("it was healed")?,
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
