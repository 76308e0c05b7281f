//! The plan of a run's faults.
//!
//! They are kept survivable: a majority of good copies of each record exists at any time, so that
//! whatever is lost is a bug. Nodes go down and come back as they like, because what was synced
//! comes back with them. Rot and lost disks take copies away for good, so a run has one of them, and
//! it strikes one node.

use std::time::Duration;

use highwater_env::{CallKind, Loss};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use turmoil::Sim;

use super::Change;
use super::strikes::{Fault, Strikes, Tally};
use crate::cluster::{Cluster, others};
use crate::node::End;
use crate::settings::{Kind, Settings};
use crate::trace;

/// Changes with their times since the faults began, in order.
#[derive(Debug)]
pub struct Plan {
    changes: Vec<Due>,
    next: usize,
    names: &'static [&'static str],
    strikes: Strikes,
}

/// A change, when it is to be made, and the fault that it is a part of.
#[derive(Debug)]
struct Due {
    at: Duration,
    part_of: (Fault, Kind),
    change: Change,
}

/// What a plan is made with.
struct Making<'a> {
    rng: StdRng,
    nodes: usize,
    clients: &'a [String],
    changes: Vec<Due>,
    /// The fault that is being added.
    current: (Fault, Kind),
    /// The one node that loses good copies.
    victim: usize,
    /// In good times.
    slowness_ms: u64,
    /// Something goes by the time that most clocks show: they must be right.
    clocks_matter: bool,
}

impl Plan {
    /// A plan for the faults of a seed.
    #[must_use]
    pub fn new(settings: &Settings, clients: &[String]) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed ^ 0x000f_a017);
        let victim = rng.random_range(0..settings.nodes);
        let mut making = Making {
            rng,
            nodes: settings.nodes,
            clients,
            changes: Vec::new(),
            current: (Fault(0), Kind::Isolation),
            victim,
            slowness_ms: settings.slowness_ms,
            clocks_matter: settings
                .retained
                .as_ref()
                .is_some_and(|kept| kept.ms.is_some()),
        };
        let mut kinds: Vec<Kind> = settings.faults.iter().copied().collect();
        // Two faults at a time, each beginning when it likes.
        for _ in 0..2 {
            let mut at = Duration::from_millis(making.rng.random_range(100..1_000));
            while at < settings.breaking {
                let Some(kind) = kinds.choose(&mut making.rng).copied() else {
                    break;
                };
                if kind == Kind::Wipe {
                    kinds.retain(|kind| *kind != Kind::Wipe);
                }
                let lasts = making.add(kind, at);
                at += lasts + Duration::from_millis(making.rng.random_range(50..1_200));
            }
        }
        let mut changes = making.changes;
        changes.sort_by_key(|due| due.at);
        Self {
            changes,
            next: 0,
            names: settings.names(),
            strikes: Strikes::default(),
        }
    }

    /// Makes the changes that are due `since` after the faults began, and sees what has struck.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared: never.
    pub fn act(
        &mut self,
        sim: &mut Sim<'_>,
        cluster: &mut Cluster,
        since: Duration,
    ) -> anyhow::Result<()> {
        self.look(cluster);
        while let Some(due) = self.changes.get(self.next)
            && due.at <= since
        {
            self.next += 1;
            let change = &due.change;
            trace::note("fault", "", format_args!(" {change:?}"));
            let (fault, _) = due.part_of;
            let effect = change.apply(sim, cluster, self.names, (sim.elapsed(), fault))?;
            self.strikes.note(due.part_of, effect);
        }
        Ok(())
    }

    fn look(&mut self, cluster: &mut Cluster) {
        for (fault, strike) in cluster.take_strikes() {
            self.strikes.struck(fault, strike);
        }
        self.strikes.look();
    }

    /// Everything is about to be healed: how many faults of each kind have struck.
    pub fn end(&mut self, cluster: &mut Cluster) -> Tally {
        self.look(cluster);
        self.strikes.tally()
    }
}

impl Making<'_> {
    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.nodes)
    }
    fn pair(&mut self) -> (usize, usize) {
        let a = self.node();
        let b = others(self.nodes, &[a]).choose(&mut self.rng).copied();
        (a, b.unwrap_or(a))
    }
    fn loss(&mut self) -> Loss {
        if self.rng.random_ratio(1, 4) {
            Loss::Everything
        } else {
            let seed = self.rng.random();
            Loss::Random { seed }
        }
    }
    fn end(&mut self, kind: Kind) -> End {
        if kind == Kind::Kill {
            End::Kill
        } else {
            End::Power(self.loss())
        }
    }
    fn push(&mut self, at: Duration, change: Change) {
        let part_of = self.current;
        self.changes.push(Due {
            at,
            part_of,
            change,
        });
    }

    /// Adds a fault that begins at `at`; how long it lasts.
    fn add(&mut self, kind: Kind, at: Duration) -> Duration {
        let (Fault(last), _) = self.current;
        self.current = (Fault(last + 1), kind);
        let lasts = Duration::from_millis(self.rng.random_range(100..1_800));
        let end = at + lasts;
        match kind {
            Kind::Isolation
            | Kind::Cut
            | Kind::Hold
            | Kind::Delay
            | Kind::ClientCut
            | Kind::Loss => self.add_to_network(kind, at, end),
            Kind::Halves | Kind::Ring => self.add_partition(kind, at, end),
            Kind::PowerLoss | Kind::Kill => self.add_down(kind, at, end),
            Kind::Blackout => {
                let seed = self.rng.random();
                self.push(at, Change::AllDown(seed));
                // Some come back before the others.
                let early = self.node();
                self.push(at + lasts / 2, Change::Start(early));
                self.push(end, Change::StartAll);
            }
            Kind::Flapping => return self.add_flaps(at),
            Kind::Kingmaker => return self.add_kingmaker(at),
            Kind::Absence => {
                let node = self.node();
                let loss = self.loss();
                let (down, long) = (End::Power(loss), lasts * 3);
                if self.rng.random_ratio(1, 2) {
                    self.push(at, Change::Down(node, down));
                    self.push(at + long, Change::Start(node));
                } else {
                    self.push(at, Change::Isolate(node));
                    self.push(at + long, Change::Rejoin(node));
                }
                return long;
            }
            _ => self.add_to_disk(kind, at, end),
        }
        lasts
    }

    fn add_to_network(&mut self, kind: Kind, at: Duration, end: Duration) {
        let (a, b) = self.pair();
        let (begin, over) = match kind {
            Kind::Isolation => (Change::Isolate(a), Change::Rejoin(a)),
            Kind::Cut if self.rng.random_ratio(1, 2) => {
                (Change::CutOneWay(a, b), Change::MendOneWay(a, b))
            }
            Kind::Cut => (Change::Cut(a, b), Change::Mend(a, b)),
            Kind::Hold => (Change::Hold(a, b), Change::Release(a, b)),
            Kind::ClientCut => {
                let client = self.clients.choose(&mut self.rng).cloned();
                let client = client.unwrap_or_default();
                (
                    Change::CutClient(client.clone(), a),
                    Change::MendClient(client, a),
                )
            }
            Kind::Loss => {
                let rates = [0.001, 0.005, 0.02];
                let rate = rates.choose(&mut self.rng).copied();
                (Change::Lose(rate.unwrap_or(0.005)), Change::LoseNone)
            }
            _ => {
                let most = self.rng.random_range(20..150);
                (Change::Slow(most), Change::Fast)
            }
        };
        self.push(at, begin);
        self.push(end, over);
    }

    /// Two halves, or a ring in which each hears its two neighbours.
    fn add_partition(&mut self, kind: Kind, at: Duration, end: Duration) {
        let mut order = others(self.nodes, &[]);
        order.shuffle(&mut self.rng);
        let count = order.len();
        let half = self.rng.random_range(1..=count / 2);
        for (place, a) in order.iter().enumerate() {
            for (other, b) in order.iter().enumerate().skip(place + 1) {
                let apart = match kind {
                    Kind::Halves => place < half && other >= half,
                    _ => other - place > 1 && other - place < count - 1,
                };
                if apart {
                    self.push(at, Change::Cut(*a, *b));
                    self.push(end, Change::Mend(*a, *b));
                }
            }
        }
    }

    fn add_down(&mut self, kind: Kind, at: Duration, end: Duration) {
        let node = self.node();
        let how = self.end(kind);
        if self.rng.random_ratio(1, 2) {
            // Few calls lie between a write and its sync: it strikes there often.
            let calls = self.rng.random_range(0..200);
            self.push(at, Change::DownAtCall(node, calls, how));
        } else {
            self.push(at, Change::Down(node, how));
        }
        self.push(end, Change::Start(node));
        // Now and then another one follows before the first is back.
        if self.rng.random_ratio(1, 3) {
            let (other, how) = (self.node(), self.end(kind));
            let calls = self.rng.random_range(0..60);
            self.push(at + (end - at) / 2, Change::DownAtCall(other, calls, how));
            self.push(end + (end - at) / 2, Change::Start(other));
        }
        // Or it goes down again while it recovers.
        if self.rng.random_ratio(1, 3) {
            let (calls, how) = (self.rng.random_range(0..400), self.end(kind));
            self.push(end, Change::DownAtCall(node, calls, how));
            self.push(end + (end - at), Change::Start(node));
        }
    }

    /// Nodes go down and are back within what an election takes; how long all that lasts.
    fn add_flaps(&mut self, begin: Duration) -> Duration {
        let mut at = begin;
        for _ in 0..self.rng.random_range(3..9) {
            let node = self.node();
            let how = End::Power(self.loss());
            let away = Duration::from_millis(self.rng.random_range(5..120));
            if self.rng.random_ratio(1, 2) {
                let calls = self.rng.random_range(0..8);
                self.push(at, Change::DownAtCall(node, calls, how));
            } else {
                self.push(at, Change::Down(node, how));
            }
            self.push(at + away, Change::Start(node));
            at += Duration::from_millis(self.rng.random_range(10..500));
        }
        at - begin
    }

    /// Whoever wants to lead needs the vote of one node, which remembers what its disk does alone;
    /// how long all that lasts.
    fn add_kingmaker(&mut self, begin: Duration) -> Duration {
        let kingmaker = self.node();
        let mut halves = others(self.nodes, &[kingmaker]);
        halves.shuffle(&mut self.rng);
        let (one, other) = halves.split_at(halves.len() / 2);
        let apart = || one.iter().flat_map(|a| other.iter().map(|b| (*a, *b)));
        for (a, b) in apart() {
            self.push(begin, Change::Cut(a, b));
        }
        let mut at = begin;
        for _ in 0..self.rng.random_range(3..10) {
            at += Duration::from_millis(self.rng.random_range(20..900));
            let how = End::Power(self.loss());
            self.push(at, Change::Down(kingmaker, how));
            at += Duration::from_millis(self.rng.random_range(2..60));
            self.push(at, Change::Start(kingmaker));
        }
        at += Duration::from_millis(self.rng.random_range(0..500));
        for (a, b) in apart() {
            self.push(at, Change::Mend(a, b));
        }
        at - begin
    }

    fn add_to_disk(&mut self, kind: Kind, at: Duration, end: Duration) {
        let node = self.node();
        match kind {
            Kind::SyncError => {
                let calls = [CallKind::SyncData, CallKind::SyncData, CallKind::SyncDir];
                let call = calls.choose(&mut self.rng).copied();
                let call = call.unwrap_or(CallKind::SyncData);
                self.push(at, Change::FailSync(node, call));
                // A power loss shows what the failed sync has left in the page cache alone.
                if self.rng.random_ratio(1, 2) {
                    let how = End::Power(self.loss());
                    let calls = self.rng.random_range(0..300);
                    self.push(end, Change::DownAtCall(node, calls, how));
                    self.push(end + (end - at), Change::Start(node));
                }
            }
            Kind::SlowDisk => {
                let most = *[3, 15, 60, 300].choose(&mut self.rng).unwrap_or(&15);
                self.push(at, Change::SlowDisk(node, most));
                self.push(end, Change::FastDisk(node, self.slowness_ms));
            }
            Kind::FullDisk => {
                let room = self.rng.random_range(0..512 << 10);
                self.push(at, Change::Room(node, Some(room)));
                self.push(end, Change::Room(node, None));
            }
            Kind::Clock if self.clocks_matter => {
                // So far that the others contradict it.
                let ms = *[-60_000, 60_000, 3_600_000]
                    .choose(&mut self.rng)
                    .unwrap_or(&60_000);
                self.push(at, Change::Jump(self.victim, ms));
                if self.rng.random_ratio(2, 3) {
                    self.push(end, Change::Jump(self.victim, -ms));
                }
            }
            Kind::Clock => {
                let ms = *[-60_000, -2_000, 2_000, 60_000, 3_600_000]
                    .choose(&mut self.rng)
                    .unwrap_or(&2_000);
                self.push(at, Change::Jump(node, ms));
                if self.rng.random_ratio(2, 3) {
                    self.push(end, Change::Jump(node, -ms));
                }
            }
            Kind::Rot => {
                let seed = self.rng.random();
                self.push(at, Change::Rot(self.victim, seed));
            }
            _ => self.push(at, Change::Wipe(self.victim)),
        }
    }
}
