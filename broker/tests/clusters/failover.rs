//! Brokers die, stop and come back under load: nothing acknowledged is lost, nothing is stored
//! twice, and leaders end up where they belong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use highwater_client::{Client, NewTopic, Producer, ReadFrom, SendError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::{Fleet, PATIENCE};
use super::journal::{Journal, make_topic, send};

/// A hundred acknowledgements, with an election in between, on a machine that is busy with something
/// else.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(240);
/// Records that are in flight together.
const AT_ONCE: usize = 20;

/// No two records of this test have the same number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A producer that goes on until it is told to stop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    task: JoinHandle<Produced>,
}

#[derive(Default)]
pub(super) struct Produced {
    journal: Journal,
    rejected: Vec<String>,
    unknown: Vec<(String, SendError)>,
    /// The longest time between two groups of acknowledgements.
    gap: Duration,
}

impl Load {
    pub(super) fn start(producer: Producer, journal: Journal) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(produce(
            producer,
            journal,
            Arc::clone(&stop),
            Arc::clone(&acknowledged),
        ));
        Self {
            stop,
            acknowledged,
            task,
        }
    }
    /// Waits until so many more are acknowledged.
    pub(super) async fn progress(&self, more: usize) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        let end = Instant::now() + PROGRESS_PATIENCE;
        while self.acknowledged.load(Ordering::Relaxed) < wanted {
            assert!(!self.task.is_finished(), "the load has ended");
            let now = self.acknowledged.load(Ordering::Relaxed);
            assert!(Instant::now() < end, "{now} acknowledged, not {wanted}");
            sleep(Duration::from_millis(20)).await;
        }
    }
    pub(super) async fn end(self) -> Produced {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no panic")
    }
}

async fn produce(
    producer: Producer,
    journal: Journal,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
) -> Produced {
    let mut produced = Produced {
        journal,
        ..Produced::default()
    };
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = NEXT.fetch_add(AT_ONCE, Ordering::Relaxed);
        let topic = produced.journal.topic.clone();
        for (value, outcome) in send(&producer, &topic, number..number + AT_ONCE).await {
            match outcome {
                Ok(delivery) => {
                    produced.journal.note(&delivery, &value);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error @ SendError::Unknown(_)) => produced.unknown.push((value, error)),
                Err(SendError::Rejected(cause)) => produced.rejected.push(cause.to_string()),
            }
        }
        produced.gap = produced.gap.max(last.elapsed());
        last = Instant::now();
    }
    produced
}

impl Produced {
    /// A producer that retries saw nothing of it.
    pub(super) fn unharmed(self, what: &str) -> Journal {
        let stored = self.journal.stored.len();
        eprintln!("{what}: {stored} acknowledged, longest wait {:?}", self.gap);
        assert!(self.rejected.is_empty(), "rejected: {:?}", self.rejected);
        assert!(self.unknown.is_empty(), "unknown: {:?}", self.unknown);
        self.journal
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whoever_dies() {
    let mut fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let journal = Journal::of("orders");

    let journal = leader_killed(&mut fleet, &client, journal).await;
    let journal = leader_stopped(&mut fleet, &client, journal).await;
    leaders_are_spread(&fleet, &client).await;
    all_killed(&mut fleet, &client, journal).await;
}

async fn leader_killed(fleet: &mut Fleet, client: &Client, journal: Journal) -> Journal {
    let load = Load::start(client.producer().build(), journal);
    load.progress(400).await;
    let leader = fleet.leader(client, "orders", 0).await;
    fleet.kill(leader).await;
    load.progress(400).await;
    fleet.start(leader);
    load.progress(400).await;
    fleet.ready(leader).await;
    let journal = load.end().await.unharmed("kill -9 of a leader");
    fleet.caught_up(leader).await;
    journal.check_everywhere(client, &fleet.nodes()).await;
    journal
}

/// Leaders move away before the broker goes: clients that retry see a short wait at most.
async fn leader_stopped(fleet: &mut Fleet, client: &Client, journal: Journal) -> Journal {
    let load = Load::start(client.producer().build(), journal);
    load.progress(200).await;
    let leader = fleet.leader(client, "orders", 0).await;
    fleet.stop(leader).await;
    load.progress(400).await;
    let journal = load.end().await.unharmed("a graceful stop");
    let load = Load::start(client.producer().build(), journal);
    fleet.start(leader);
    fleet.ready(leader).await;
    load.progress(200).await;
    let journal = load.end().await.unharmed("its return");
    let log = fleet.log(leader);
    assert!(log.contains("stopping: handing over leaders"), "{log}");
    assert!(!log.contains("not all leaders moved away"), "{log}");
    let (_, stopping) = log
        .split_once("stopping: handing over leaders")
        .expect("seen");
    let (stopping, _) = stopping
        .split_once("node::stop: stopped")
        .expect("it stopped");
    // Whoever balances leaders had not heard of the stop, and gave back what was handed over.
    assert_eq!(
        led_at_last(stopping, leader),
        Vec::<String>::new(),
        "{stopping}"
    );
    fleet.caught_up(leader).await;
    journal.check_everywhere(client, &fleet.nodes()).await;
    journal
}

/// Groups of which a log says last that this broker leads them.
fn led_at_last(log: &str, node: u32) -> Vec<String> {
    let mut leaders = std::collections::BTreeMap::new();
    for line in log.lines() {
        let Some((_, said)) = line.split_once("status: leader group=") else {
            continue;
        };
        if let Some((group, rest)) = said.split_once(" leader=") {
            let own = rest.split(' ').next() == Some(&*node.to_string());
            leaders.insert(group.to_owned(), own);
        }
    }
    assert!(!leaders.is_empty(), "the log says who leads: {log}");
    let led = leaders.into_iter().filter(|(_, own)| *own);
    led.map(|(group, _)| group).collect()
}

/// Every shard goes back to the broker that should lead it.
async fn leaders_are_spread(fleet: &Fleet, client: &Client) {
    let mut misplaced = String::new();
    let spread = timeout(PATIENCE, async {
        loop {
            let cluster = client.admin().describe_cluster().await;
            let shards = cluster.expect("described").shards;
            let away = shards.iter().filter(|s| s.leader != s.preferred_leader);
            misplaced = away
                .map(|s| format!("{} at {:?}; ", s.shard, s.leader))
                .collect();
            if misplaced.is_empty() {
                return shards;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let Ok(shards) = spread.await else {
        for node in fleet.nodes() {
            let log = fleet.log(node);
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("broker {node}, newest first:\n{}", tail.join("\n"));
        }
        panic!("leaders that are not where they should be: {misplaced}");
    };
    let replicated: Vec<_> = shards
        .iter()
        .filter(|s| s.replication_factor == 3)
        .collect();
    for node in 1..=3 {
        let led = replicated.iter().filter(|s| s.leader == Some(node));
        assert_eq!(led.count() * 3, replicated.len(), "a third of the shards");
    }
}

/// All three at once, in the middle of it.
async fn all_killed(fleet: &mut Fleet, client: &Client, journal: Journal) {
    let producer = client.producer().delivery_timeout(Duration::from_secs(60));
    let load = Load::start(producer.build(), journal);
    load.progress(400).await;
    fleet.kill_all().await;
    let started = Instant::now();
    fleet.start_all().await;
    eprintln!("all three are ready again after {:?}", started.elapsed());
    load.progress(400).await;
    let journal = load.end().await.unharmed("kill -9 of all three");
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    journal.check_everywhere(client, &fleet.nodes()).await;

    // A producer that does not outlive the outage gets what is known: acknowledged or unknown.
    let producer = client.producer().delivery_timeout(Duration::from_secs(1));
    let load = Load::start(producer.build(), Journal::of("orders"));
    load.progress(100).await;
    fleet.kill_all().await;
    let late = load.end().await;
    eprintln!(
        "given up: {} unknown, {} rejected",
        late.unknown.len(),
        late.rejected.len()
    );
    fleet.start_all().await;
    let mut both = journal;
    both.stored.extend(late.journal.stored);
    let unknown: Vec<String> = late.unknown.into_iter().map(|(value, _)| value).collect();
    both.check(client, ReadFrom::Leader, &unknown).await;
}
