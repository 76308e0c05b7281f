//! Rot that nobody is told of: the scrub finds it, the broker fetches what was lost from the others, and
//! replicas that differ are named.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use highwater_client::{Client, NewPlan, NewTopic, NodeId, Producer, ProducerRecord, ShardId, v1};
use highwater_segment::Checkpoint;

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic};
use super::life;

/// Looks without a pause, and may read and send as fast as it can.
const EAGER: [(&str, &str); 4] = [
    ("storage.checkpoint_interval_ms", "200ms"),
    ("scrub.interval_ms", "1s"),
    ("scrub.bytes_per_second", "256MiB"),
    ("raft.election_max_ms", "900ms"),
];

/// A value that no other record has and that does not compress away.
fn value(number: usize, bytes: usize) -> String {
    let mut state = number as u64 + 1;
    let mut text = format!("{number} ");
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(&format!("{:08x}", state >> 32));
    }
    text
}

/// Produces so many records of 8 KiB.
pub(super) async fn produce(journal: &mut Journal, producer: &Producer, count: usize) {
    let first = journal.stored.len();
    for number in first..first + count {
        let value = value(number, 8 << 10);
        let record = ProducerRecord::to(&journal.topic).value(value.clone());
        let delivery = producer.send(record).await.expect("acknowledged");
        journal.note(&delivery, &value);
    }
}

/// A topic of one partition with segments of 1 MiB, the first few of which are sealed.
pub(super) async fn filled(client: &Client) -> (Journal, Producer) {
    let topic = NewTopic::named("orders").config("segment.bytes", "1048576");
    make_topic(client, topic).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    produce(&mut journal, &producer, 400).await;
    (journal, producer)
}

/// A broker's segments of the topic, in order.
fn segments(fleet: &Fleet, node: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let partitions = fleet.data_dir(node).join("partitions");
    for directory in fs::read_dir(partitions).into_iter().flatten().flatten() {
        let files = fs::read_dir(directory.path())
            .into_iter()
            .flatten()
            .flatten();
        found.extend(files.map(|file| file.path()));
    }
    found.retain(|file| file.extension().is_some_and(|e| e == "log"));
    found.sort();
    found
}

/// Flips a byte of a file that may be in use.
pub(super) fn flip(file: &Path, at: u64) {
    let open = fs::OpenOptions::new().read(true).write(true).open(file);
    let open = open.expect("open");
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).expect("read");
    byte[0] ^= 0x10;
    open.write_all_at(&byte, at).expect("written");
}

/// Waits until a broker has put back so many ranges since its start.
async fn mended(fleet: &Fleet, node: u32, least: f64) {
    eventually(&format!("broker {node} has mended {least}"), async || {
        let mended = fleet.metric(node, "highwater_mended_ranges_total").await;
        let bad = fleet.metric(node, "highwater_damaged_ranges").await;
        (mended >= Some(least) && bad == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rotted_heals_by_itself_on_followers_and_leaders_under_load() {
    let fleet = Fleet::started(3, &EAGER).await;
    let client = life::patient(&fleet).await;
    let (mut journal, producer) = filled(&client).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    let follower = 1 + leader % 3;
    let (followers, leaders) = (segments(&fleet, follower), segments(&fleet, leader));
    assert!(followers.len() > 2, "{followers:?}");

    eprintln!(
        "a sealed segment of follower {follower}: in a record, and in an offset that no batch's checksum covers"
    );
    let file = &followers[0];
    let before = fs::read(file).expect("read");
    flip(file, 5_000);
    flip(&followers[1], 7);
    produce(&mut journal, &producer, 20).await;
    mended(&fleet, follower, 2.0).await;
    assert!(
        fs::read(file).expect("read") == before,
        "its own bytes again"
    );
    fleet.logged(follower, "a stored range is bad").await;
    fleet.logged(follower, "whole again").await;

    eprintln!("segments of leader {leader}: a sealed one, and the one that grows");
    flip(&leaders[0], 9_000);
    flip(leaders.last().expect("one"), 300);
    produce(&mut journal, &producer, 20).await;
    mended(&fleet, leader, 2.0).await;

    eprintln!("a file that is gone");
    fs::remove_file(&followers[1]).expect("removed");
    produce(&mut journal, &producer, 20).await;
    mended(&fleet, follower, 3.0).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
    life::healthy(&fleet, &client).await;
}

/// How many ranges a broker says are bad.
async fn bad(fleet: &Fleet, node: u32, wanted: f64) {
    eventually(
        &format!("broker {node} has {wanted} bad ranges"),
        async || {
            let bad = fleet.metric(node, "highwater_damaged_ranges").await;
            (bad == Some(wanted)).then_some(())
        },
    )
    .await;
}

/// Without the leader nobody is elected. Who led, and was killed.
async fn it_does_not_vote(fleet: &mut Fleet, client: &Client, odd: u32) -> u32 {
    eprintln!("it does not vote: without the leader nobody is elected");
    fleet.caught_up(odd).await;
    let leader = fleet.leader(client, "orders", 0).await;
    assert_ne!(leader, odd);
    fleet.kill(leader).await;
    // Several elections' time.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let view = client.topic("orders").await.expect("known");
    let now = view.partitions[0].leader.map(|node| node.0);
    assert!(now.is_none_or(|node| node == leader), "{now:?} was elected");
    leader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_make_a_bad_range_look_whole() {
    let mut settings = EAGER.to_vec();
    settings.push(("repair.automatic", "false"));
    let mut fleet = Fleet::started(3, &settings).await;
    let client = life::patient(&fleet).await;
    let (mut journal, producer) = filled(&client).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    let odd = 1 + leader % 3;
    let file = segments(&fleet, odd).remove(0);
    let notes = fleet.data_dir(odd).join("damage.json");
    let written = |wanted: bool| {
        let said = fs::read_to_string(&notes).unwrap_or_default();
        (said.contains("base_offset") == wanted).then_some(())
    };

    eprintln!("found, noted, killed; put back by hand: the next start sees that it is whole");
    flip(&file, 5_000);
    bad(&fleet, odd, 1.0).await;
    eventually("it is written down", async || written(true)).await;
    fleet.kill(odd).await;
    // From here on nobody looks but whoever remembers.
    fleet.set_everywhere("scrub.bytes_per_second", "0");
    flip(&file, 5_000);
    fleet.start(odd);
    fleet.ready(odd).await;
    bad(&fleet, odd, 0.0).await;
    fleet.logged(odd, "is whole, or gone").await;
    eventually("the note is dropped", async || written(false)).await;

    eprintln!("found, noted, killed: the next process knows");
    fleet.stop(odd).await;
    fleet.set_everywhere("scrub.bytes_per_second", "256MiB");
    fleet.start(odd);
    fleet.ready(odd).await;
    flip(&file, 5_000);
    bad(&fleet, odd, 1.0).await;
    eventually("it is written down", async || written(true)).await;
    fleet.kill(odd).await;
    fleet.set_everywhere("scrub.bytes_per_second", "0");
    fleet.start(odd);
    fleet.ready(odd).await;
    bad(&fleet, odd, 1.0).await;
    fleet.logged(odd, "before the restart still is").await;
    life::told(&client, "it is named", |found| {
        found.what.contains("bad range")
    })
    .await;

    let leader = it_does_not_vote(&mut fleet, &client, odd).await;

    eprintln!("it is fetched from the third, with nobody leading; then it votes");
    fleet.stop(odd).await;
    fleet.set_everywhere("repair.automatic", "true");
    fleet.start(odd);
    // It is not ready before somebody leads, and nobody does before it votes.
    fleet.logged(odd, "a bad range is whole again").await;
    fleet.ready(odd).await;
    mended(&fleet, odd, 1.0).await;
    produce(&mut journal, &producer, 5).await;
    fleet.start(leader);
    fleet.ready(leader).await;
    fleet.caught_up(leader).await;
    eventually("the note is dropped", async || written(false)).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
    life::healthy(&fleet, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_killed_in_the_middle_is_made_again() {
    let mut settings = EAGER.to_vec();
    // A segment takes some seconds.
    settings.push(("limits.move_bytes_per_second", "256KiB"));
    let mut fleet = Fleet::started(3, &settings).await;
    let client = life::patient(&fleet).await;
    let (mut journal, producer) = filled(&client).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    let file = segments(&fleet, leader)[0].clone();
    let before = fs::read(&file).expect("read");
    flip(&file, 5_000);

    let coming = file.with_extension("mend");
    let part = eventually("half of it has come", async || {
        let len = fs::metadata(&coming).ok()?.len();
        (len > 256 << 10).then_some(len)
    })
    .await;
    assert!(part < before.len() as u64, "too late: all of it has come");
    let health = client
        .admin()
        .timeout(PATIENCE)
        .health()
        .await
        .expect("told");
    let named = health.iter().find(|found| found.what.contains("bad range"));
    eprintln!("  says: {}", named.expect("named").what);
    fleet.logged(leader, "handed over").await;
    fleet.kill(leader).await;
    assert!(coming.exists());
    produce(&mut journal, &producer, 5).await;

    fleet.start(leader);
    fleet.ready(leader).await;
    mended(&fleet, leader, 1.0).await;
    assert!(
        fs::read(&file).expect("read") == before,
        "its own bytes again"
    );
    assert!(!coming.exists(), "nothing is left of either attempt");
    let throttled = throttled(&fleet).await;
    eprintln!("  senders have waited {throttled} ms");
    assert!(throttled > 1_000.0, "the rate was held");
    journal.check_everywhere(&client, &fleet.nodes()).await;
    life::healthy(&fleet, &client).await;
}

async fn throttled(fleet: &Fleet) -> f64 {
    let mut sum = 0.0;
    for node in fleet.nodes() {
        let waited = fleet
            .metric(node, "highwater_move_throttled_ms_total")
            .await;
        sum += waited.unwrap_or_default();
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_differ_are_named_and_nothing_is_touched() {
    let settings = [
        ("storage.checkpoint_interval_ms", "200ms"),
        ("scrub.compare_interval_ms", "1s"),
        // The broker whose checksum is wrong would find its own file bad.
        ("scrub.bytes_per_second", "0"),
    ];
    let mut fleet = Fleet::started(3, &settings).await;
    let client = life::patient(&fleet).await;
    let (mut journal, producer) = filled(&client).await;
    eventually("ranges are compared", async || {
        let mut compared = 0.0;
        for node in fleet.nodes() {
            let here = fleet.metric(node, "highwater_compared_ranges_total").await;
            compared += here.unwrap_or_default();
        }
        (compared > 3.0).then_some(())
    })
    .await;
    let leader = fleet.leader(&client, "orders", 0).await;
    let odd = 1 + leader % 3;
    fleet.stop(odd).await;
    let shard = wrong_checksum(&fleet.data_dir(odd).join("shards"));
    let files = segments(&fleet, odd);
    fleet.start(odd);
    fleet.ready(odd).await;

    let found = life::told(&client, "the difference is named", |found| {
        found.what.contains("different content")
    })
    .await;
    assert_eq!(found.severity(), v1::Severity::Critical);
    let (brokers, _) = found.what.split_once(" have").expect("two brokers");
    assert!(brokers.starts_with("brokers ") && brokers.contains(" and "));
    assert!(brokers.contains(&odd.to_string()), "{}", found.what);
    assert!(
        found.what.contains(&format!("shard {shard}")),
        "{}",
        found.what
    );
    assert_eq!(segments(&fleet, odd), files, "nothing is deleted");

    eprintln!("a person decides: it is filled again");
    let started = life::start(&client, NewPlan::repair(NodeId(odd), shard)).await;
    life::ended(&client, started.id).await;
    produce(&mut journal, &producer, 5).await;
    life::healthy(&fleet, &client).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
}

/// Has the checkpoint of the shard with sealed segments say another checksum of the first one.
fn wrong_checksum(shards: &Path) -> ShardId {
    for file in fs::read_dir(shards).expect("listed") {
        let path = file.expect("an entry").path();
        let Ok(mut checkpoint) = Checkpoint::decode(&fs::read(&path).expect("read").into()) else {
            continue;
        };
        let mut ranges = checkpoint
            .partitions
            .iter_mut()
            .flat_map(|(_, of)| &mut of.segments);
        if let Some(range) = ranges.find(|range| range.sealed) {
            range.checksum ^= 1;
            fs::write(&path, checkpoint.encode()).expect("written");
            let name = path.file_stem().and_then(|name| name.to_str());
            return ShardId(name.and_then(|name| name.parse().ok()).expect("a number"));
        }
    }
    panic!(
        "no sealed segment in a checkpoint below {}",
        shards.display()
    );
}
