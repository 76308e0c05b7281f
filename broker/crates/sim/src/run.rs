//! One run: found a cluster, let clients work while things break, heal, and see that every promise
//! was kept.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{anyhow, bail};
use turmoil::Sim;

use crate::board::{Board, Outcome, Phase};
use crate::clients::{self, PRODUCERS};
use crate::cluster::{Cluster, NODES};
use crate::faults::{self, LATENCY_MS, Plan};
use crate::surroundings::EPOCH_MS;
use crate::trace;

/// The cluster must be founded and the topic made within this.
const FOUNDING: Duration = Duration::from_secs(15);
/// Things break for so long.
const BREAKING: Duration = Duration::from_secs(8);
/// After healing everyone must come to an end within this.
const LIVENESS: Duration = Duration::from_secs(30);

/// What a run that kept every promise has to say.
#[derive(Debug)]
pub struct Report {
    outcome: Outcome,
    founded: Duration,
    healed: Duration,
    ended: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| time.as_secs_f64();
        write!(
            f,
            "{} acknowledged, {} stored; founded at {:.3} s, healed at {:.3} s, read back at \
             {:.3} s\n{}",
            self.outcome.acknowledged,
            self.outcome.stored,
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
pub fn run(seed: u64, lying: bool, set_time: fn(Duration)) -> anyhow::Result<Report> {
    let mut sim = world(seed);
    let skew = |node: u64| i64::try_from(seed.rotate_left(8 * node as u32) % 101).unwrap_or(0) - 50;
    let mut cluster = Cluster::start(&mut sim, [skew(0), skew(1), skew(2)])?;
    let board = Board::new(PRODUCERS);
    start_clients(&mut sim, &board, seed);
    let mut plan = Plan::new(seed, BREAKING);
    let (mut founded, mut healed) = (None, None);
    loop {
        let now = sim.elapsed();
        trace::set_time(now);
        set_time(now);
        if founded.is_none() && board.phase() == Phase::Breaking {
            founded = Some(now);
        }
        match (founded, healed) {
            (None, _) if now > FOUNDING => bail!("no topic after {FOUNDING:?}"),
            (None, _) => {}
            (Some(begin), None) if now >= begin + BREAKING => {
                faults::heal(&mut sim, &mut cluster);
                board.set_phase(Phase::Healed);
                healed = Some(now);
            }
            (Some(begin), None) => plan.act(&mut sim, &mut cluster, now.saturating_sub(begin)),
            (_, Some(healed)) if now > healed + LIVENESS => {
                bail!("not at an end {LIVENESS:?} after healing")
            }
            (Some(_), Some(_)) => {}
        }
        if lying && healed.is_none() && founded.is_some() && now.as_millis() % LIE == 0 {
            cluster.lie();
        }
        let ended = sim.step().map_err(|error| anyhow!("{error}"))?;
        cluster.note_calls();
        cluster.take_down(&mut sim);
        if ended {
            let outcome = board.judge(NODES.len() + 1)?;
            return Ok(Report {
                outcome,
                founded: founded.unwrap_or_default(),
                healed: healed.unwrap_or_default(),
                ended: now,
            });
        }
    }
}

fn world(seed: u64) -> Sim<'static> {
    let epoch = UNIX_EPOCH + Duration::from_millis(EPOCH_MS.unsigned_abs());
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(epoch)
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(LATENCY_MS))
        .tcp_capacity(1024)
        .enable_random_order()
        .build()
}

fn start_clients(sim: &mut Sim<'_>, board: &Board, seed: u64) {
    let shared = board.clone();
    sim.client(
        "founder",
        async move { Ok(clients::found(shared, seed).await?) },
    );
    for number in 0..PRODUCERS {
        let (shared, seed) = (board.clone(), seed.wrapping_add(u64::from(number) + 1));
        sim.client(format!("producer{number}"), async move {
            Ok(clients::produce(shared, seed).await?)
        });
    }
    let shared = board.clone();
    sim.client("follower", async move {
        Ok(clients::follow(shared, seed).await?)
    });
    let shared = board.clone();
    sim.client("reader", async move {
        Ok(clients::read_back(shared, seed).await?)
    });
}
