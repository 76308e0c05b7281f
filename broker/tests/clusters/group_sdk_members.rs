//! Members of a group on real brokers: they come, go, die, stand still; nothing is passed over, no
//! key loses its order, and a commit never comes from one who has lost its partition.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_client::group::{GroupBuilder, GroupRecord, GroupWorker, Reset, ResetTo};
use highwater_client::{Client, NewTopic, ProducerRecord};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::make_topic;

/// Longer than a busy machine lets a heartbeat wait: members are expelled when a test says so.
const SESSION: Duration = Duration::from_secs(30);
/// Of members that die.
const SHORT_SESSION: Duration = Duration::from_secs(5);
/// A machine that is busy with something else must not look like dead leaders: this is about
/// groups, not about fast elections.
pub const CALM: [(&str, &str); 3] = [
    ("raft.heartbeat_ms", "500ms"),
    ("raft.election_min_ms", "2s"),
    ("raft.election_max_ms", "3s"),
];

/// Keys and numbers that handlers saw, in order.
pub type Seen = Arc<Mutex<Vec<(String, u32)>>>;

pub fn number(record: &GroupRecord) -> u32 {
    let text = record.value.as_deref().unwrap_or_default();
    std::str::from_utf8(text)
        .expect("text")
        .parse()
        .expect("a number")
}

pub fn note(seen: &Seen, record: &GroupRecord) {
    let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
    seen.lock().push((key, number(record)));
}

/// Numbers in order, one of each key at a time.
pub async fn produce(client: &Client, keys: u32, numbers: std::ops::Range<u32>) {
    let producer = client.producer().delivery_timeout(PATIENCE).build();
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let mut acks = Vec::new();
        for number in numbers.by_ref().take(keys as usize) {
            let key = format!("k{}", number % keys);
            let record = ProducerRecord::to("orders")
                .key(key)
                .value(number.to_string());
            acks.push(producer.enqueue(record).await.expect("taken"));
        }
        for ack in acks {
            ack.await.expect("acknowledged");
        }
    }
}

/// Numbers that were repeated; fails when a key's handling ever ran past one that was not seen.
///
/// After a crash a key may begin again at an earlier number, but must then go through all of them
/// in order once more.
pub fn check(seen: &[(String, u32)], keys: u32, total: u32) -> usize {
    let mut by_key: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (key, number) in seen {
        by_key.entry(key).or_default().push(*number);
    }
    let mut repeats = 0;
    for (key, numbers) in by_key {
        let mut last: Option<u32> = None;
        for number in &numbers {
            let next = last.map_or(*number % keys, |last| last + keys);
            assert!(
                *number <= next,
                "{key}: {number} after {last:?}: a gap in {numbers:?}"
            );
            if *number < next {
                repeats += 1;
            }
            last = Some(*number);
        }
        let distinct: BTreeSet<_> = numbers.iter().collect();
        let expected = (0..total)
            .filter(|n| format!("k{}", n % keys) == key)
            .count();
        assert_eq!(distinct.len(), expected, "{key}");
    }
    repeats
}

pub async fn committed(client: &Client, group: &str) -> u64 {
    let topic = client.topic("orders").await.expect("the topic").id.0;
    let offsets = client.groups().offsets(group).await.unwrap_or_default();
    let of = offsets.iter().filter(|offset| offset.topic_id == topic);
    of.map(|offset| offset.offset).sum()
}

pub async fn all_committed(client: &Client, group: &str, total: u64) {
    eventually(&format!("{group} has committed {total}"), async || {
        (committed(client, group).await == total).then_some(())
    })
    .await;
}

/// A member. What members do is said on the way: a failure is to explain itself.
pub fn member(client: &Client, group: &str) -> GroupBuilder {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "highwater_client::group=info".into());
    // Another test of this program has done it already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
    client
        .group(group)
        .topic("orders")
        .session_timeout(SESSION)
        .commit_interval(Duration::from_millis(100))
}

pub fn noting(builder: GroupBuilder, seen: &Seen) -> GroupWorker {
    let seen = Arc::clone(seen);
    let worker = builder.run(move |record| {
        note(&seen, &record);
        async { Ok(()) }
    });
    worker.expect("settings")
}

async fn share(workers: &[&GroupWorker], partitions: usize) {
    eventually("partitions are shared out", async || {
        let even = workers
            .iter()
            .all(|worker| worker.assignment().len() == partitions);
        even.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_two_members_become_three_and_two_while_the_coordinator_dies() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let seen = Seen::default();
    let first = noting(member(&client, "billing"), &seen);
    let second = noting(member(&client, "billing"), &seen);
    share(&[&first, &second], 3).await;
    let producing = tokio::spawn({
        let client = client.clone();
        async move { produce(&client, 24, 0..1_200).await }
    });
    let third = noting(member(&client, "billing"), &seen);
    share(&[&first, &second, &third], 2).await;
    let before = Instant::now();
    first.stop().await.expect("committed");
    share(&[&second, &third], 3).await;
    assert!(
        before.elapsed() < SESSION,
        "others waited for the session of one who had left: {:?}",
        before.elapsed()
    );
    let graceful = seen.lock().len();
    let described = client
        .groups()
        .describe("billing")
        .await
        .expect("described");
    let coordinator = described.summary.expect("a summary").coordinator;
    fleet.kill(coordinator).await;
    fleet.start(coordinator);
    fleet.ready(coordinator).await;
    producing.await.expect("produced");
    all_committed(&client, "billing", 1_200).await;
    let handled = seen.lock().clone();
    let repeats = check(&handled, 24, 1_200);
    let early = handled.get(..graceful).expect("shorter before");
    let mut once = BTreeSet::new();
    let repeated: Vec<_> = early.iter().filter(|seen| !once.insert(*seen)).collect();
    assert!(repeated.is_empty(), "graceful moves repeat {repeated:?}");
    eprintln!("  {repeats} keys began again after the coordinator died");
    second.stop().await.expect("committed");
    third.stop().await.expect("committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_a_member_that_dies_between_handling_and_commit_repeats_and_loses_nothing() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    produce(&client, 8, 0..40).await;
    let seen = Seen::default();
    let gate = Arc::new(Semaphore::new(0));
    let dying = {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        let builder = member(&client, "billing").session_timeout(SHORT_SESSION);
        builder.run(move |record| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                // The first record of one key is at work when the member dies.
                if number(&record) == 3 {
                    gate.acquire().await?.forget();
                }
                note(&seen, &record);
                Ok(())
            }
        })
    };
    let dying = dying.expect("settings");
    eventually("all other keys are handled", async || {
        (seen.lock().len() == 35).then_some(())
    })
    .await;
    let at_death = committed(&client, "billing").await;
    assert!(at_death < 40, "{at_death} passes a record that is at work");
    drop(dying); // its tasks end where they are, as in a crash
    let heir = noting(member(&client, "billing"), &seen);
    all_committed(&client, "billing", 40).await;
    heir.stop().await.expect("committed");
    check(&seen.lock(), 8, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_a_forced_reset_is_not_committed_over_by_the_member_it_meets() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(5)));
    let busy = {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        // Commits where it begins, and then only what it gives up.
        let builder = member(&client, "billing").commit_interval(Duration::from_secs(3_600));
        builder.run(move |record| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                note(&seen, &record);
                gate.acquire().await?.forget();
                Ok(())
            }
        })
    };
    let busy = busy.expect("settings");
    let admin = client.groups().timeout(PATIENCE);
    eventually("where it begins is committed", async || {
        let offsets = admin.offsets("billing").await.unwrap_or_default();
        (offsets.len() == 2).then_some(())
    })
    .await;
    produce(&client, 1, 0..6).await;
    let handled = async |count: usize| {
        eventually(&format!("{count} were begun"), async || {
            (seen.lock().len() == count).then_some(())
        })
        .await;
    };
    handled(6).await;
    let how = Reset {
        execute: true,
        force: true,
    };
    let reset = admin.reset("billing", &[], &[], &ResetTo::Earliest, how);
    reset.await.expect("reset");
    gate.add_permits(1);
    handled(7).await;
    assert_eq!(seen.lock().last().map(|(_, number)| *number), Some(0));
    assert_eq!(committed(&client, "billing").await, 0);

    drop(busy); // as in a crash
    let expelled = admin.remove_all_members("billing").await;
    assert_eq!(expelled.expect("expelled"), 1);
    let others = Seen::default();
    let heir = noting(member(&client, "billing"), &others);
    all_committed(&client, "billing", 6).await;
    heir.stop().await.expect("committed");
    let numbers: Vec<u32> = others.lock().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "the reset was lost");
}

/// A member in a process of its own: `highwater consume --group`.
struct Process {
    child: Child,
    output: std::path::PathBuf,
}

impl Process {
    fn start(fleet: &Fleet, group: &str) -> Self {
        let output = fleet.directory().join("consumed");
        let addresses: Vec<String> = fleet
            .nodes()
            .into_iter()
            .map(|n| fleet.spec(n).address())
            .collect();
        let child = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args([
                "consume",
                "orders",
                "--group",
                group,
                "--session-timeout",
                "3",
            ])
            .args(["-f", "%k %v\\n", "--brokers", &addresses.join(",")])
            .stdout(File::create(&output).expect("a file"))
            .stderr(Stdio::inherit())
            .spawn();
        let child = child.expect("started");
        Self { child, output }
    }
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("signalled");
    }
    fn lines(&self) -> Vec<(String, u32)> {
        let text = std::fs::read_to_string(&self.output).expect("output");
        let line = |line: &str| {
            let (key, value) = line.split_once(' ').expect("a key and a value");
            (key.to_owned(), value.parse().expect("a number"))
        };
        text.lines().map(line).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_a_member_that_slept_commits_nothing_of_what_moved() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let sleeper = Process::start(&fleet, "billing");
    produce(&client, 8, 0..40).await;
    all_committed(&client, "billing", 40).await;
    sleeper.signal(Signal::STOP);
    let seen = Seen::default();
    let heir = noting(member(&client, "billing"), &seen);
    // The heir gets nothing before the sleeper's session is over.
    produce(&client, 8, 40..80).await;
    all_committed(&client, "billing", 80).await;
    assert_eq!(seen.lock().len(), 40);
    // Awake, it must learn that its partitions have moved, and come back as a member.
    let watch = tokio::spawn({
        let client = client.clone();
        async move {
            let mut last = 80;
            loop {
                let now = committed(&client, "billing").await;
                assert!(
                    now >= last,
                    "committed offsets went back from {last} to {now}"
                );
                last = now;
                sleep(Duration::from_millis(20)).await;
            }
        }
    });
    sleeper.signal(Signal::CONT);
    eventually("both share", async || {
        (heir.assignment().len() == 1).then_some(())
    })
    .await;
    produce(&client, 8, 80..160).await;
    all_committed(&client, "billing", 160).await;
    assert!(!watch.is_finished(), "{:?}", watch.await);
    watch.abort();
    let mut all = sleeper.lines();
    let (before, slept) = (all.iter().filter(|(_, n)| *n < 40).count(), all.len());
    assert_eq!(before, 40, "each once");
    all.extend(seen.lock().iter().cloned());
    let distinct: BTreeSet<u32> = all.iter().map(|(_, number)| *number).collect();
    assert_eq!(distinct, (0..160).collect());
    assert!(slept > 40, "it never worked again");
    heir.stop().await.expect("committed");
}
