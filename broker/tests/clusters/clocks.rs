//! A broker's wall clock is wrong: nothing is deleted for its age where it leads, an alarm says so, and what was
//! appended meanwhile is as old as it is when the clock is right again.

use std::time::Duration;

use highwater_client::{Client, NewTopic, TopicChange};

use super::failover::Load;
use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic};
use super::life::{CALM, healthy, patient, told};
use super::members::{Door, Member, subscription};
use super::raw::{Raw, acknowledged, batch, numbered};

/// Loaded into a broker, it puts its wall clock, and no other one, ahead.
const WRONG_CLOCK: &str = "
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += (AHEAD);
    return failed;
}
";
/// Many looks for what is too old.
const LOOKS: Duration = Duration::from_secs(3);
const HOUR_S: i64 = 3_600;
/// A shard's clock counts ten minutes of a jump at the most, and a producer is forgotten after a day.
const ROUNDS: u64 = 150;

/// From its next start on a broker's clock is ahead by so many seconds.
fn set_clock(fleet: &mut Fleet, node: u32, ahead_s: i64) {
    let source = format!("#define AHEAD {ahead_s}{WRONG_CLOCK}");
    let preload = fleet.preload(&format!("clock-{node}"), &source);
    fleet.set_environment_of(node, &preload);
}

/// Stopped in order and started with another clock.
async fn restarted(fleet: &mut Fleet, node: u32, ahead_s: i64) {
    fleet.stop(node).await;
    set_clock(fleet, node, ahead_s);
    fleet.start(node);
    fleet.ready(node).await;
}

/// Partitions of which the first record is gone.
async fn trimmed(client: &Client) -> usize {
    let described = eventually("every partition's leader answers", async || {
        let described = client.admin().describe_topic("events").await.ok()?;
        let known = described.partitions.iter().all(|p| p.error.is_none());
        known.then_some(described)
    })
    .await;
    let partitions = described.partitions.iter();
    partitions.filter(|p| p.log_start_offset > 0).count()
}

async fn leads_some(fleet: &Fleet, client: &Client, node: u32) {
    eventually(&format!("broker {node} leads again"), async || {
        for partition in 0..6 {
            if fleet.leader(client, "events", partition).await == node {
                return Some(());
            }
        }
        None
    })
    .await;
}

/// The alarm is in the metric, on the broker's page and in the cluster's health; and nothing goes.
async fn halted(fleet: &Fleet, client: &Client, node: u32, side: &str) {
    eventually("it says that it stands still", async || {
        let halted = fleet.metric(node, "highwater_retention_halted").await;
        (halted == Some(1.0)).then_some(())
    })
    .await;
    let told = told(client, "the cluster's health names it", |found| {
        found.what.contains("wall clock")
    })
    .await;
    assert!(told.what.contains(&format!("broker {node}")), "{told:?}");
    assert!(told.what.contains(side), "{told:?}");
    assert!(told.cure.contains("clock"), "{told:?}");
    let (_, page) = fleet.http(node, "/healthz?verbose").await;
    assert!(page.contains("wall clock") && page.contains(side), "{page}");
    tokio::time::sleep(LOOKS).await;
    assert_eq!(trimmed(client).await, 0, "nothing is that old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_deletes_nothing_and_is_named() {
    let mut settings = CALM.to_vec();
    settings.push(("storage.retention_interval_ms", "300ms"));
    let mut fleet = Fleet::of(3, &settings).await;
    set_clock(&mut fleet, 2, HOUR_S);
    fleet.start_all().await;
    let client = patient(&fleet).await;
    let topic = NewTopic::named("events").partitions(6);
    make_topic(&client, topic.config("retention.ms", "600000")).await;
    leads_some(&fleet, &client, 2).await;
    let load = Load::start(client.producer().build(), Journal::of("events"));
    load.progress(200).await;
    eprintln!("an hour ahead: everything looks too old");
    halted(&fleet, &client, 2, "ahead of").await;

    eprintln!("an hour behind: what is appended would look too old when the clock is right again");
    restarted(&mut fleet, 2, -HOUR_S).await;
    leads_some(&fleet, &client, 2).await;
    halted(&fleet, &client, 2, "behind").await;
    load.progress(200).await;

    eprintln!("right again");
    restarted(&mut fleet, 2, 0).await;
    leads_some(&fleet, &client, 2).await;
    let journal = load.end().await.unharmed("wrong clocks");
    healthy(&fleet, &client).await;
    tokio::time::sleep(LOOKS).await;
    assert_eq!(trimmed(&client).await, 0, "nothing is that old");
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    journal.check_everywhere(&client, &fleet.nodes()).await;

    eprintln!("and what is too old goes");
    let shorter = TopicChange::of("events").set("retention.ms", "1");
    let admin = client.admin().timeout(PATIENCE);
    admin.alter_topic(shorter).await.expect("altered");
    let used: std::collections::BTreeSet<u32> = journal.stored.keys().map(|(p, _)| *p).collect();
    eventually("everything is too old", async || {
        (trimmed(&client).await == used.len()).then_some(())
    })
    .await;
}

/// A group that this broker coordinates, with one member that has something to commit.
async fn member_at(fleet: &Fleet, node: u32) -> Member {
    for name in (0..).map(|n| format!("readers-{n}")) {
        let door = Door::new(fleet, &name);
        if door.coordinator().await == node {
            let mut member = Member::join(&door, "one", subscription(&["events"])).await;
            member.holds(24).await;
            return member;
        }
    }
    unreachable!("there is no end of names")
}

/// What is committed and what is appended in one shard is told apart by one clock. If each had its own, an
/// hour would seem to pass between any two of them, and after a while all producers would be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_makes_no_time_pass() {
    let mut fleet = Fleet::of(3, &CALM).await;
    set_clock(&mut fleet, 2, -HOUR_S);
    fleet.start_all().await;
    let client = patient(&fleet).await;
    make_topic(&client, NewTopic::named("events").partitions(24)).await;
    leads_some(&fleet, &client, 2).await;
    let member = member_at(&fleet, 2).await;
    let place = *member.assigned.keys().next().expect("one");
    let mut led = Vec::new();
    for partition in 0..24 {
        if fleet.leader(&client, "events", partition).await == 2 {
            let mut raw = Raw::to(&fleet, &client, "events", (partition, 2)).await;
            let id = raw.producer().await;
            let first = acknowledged(&raw.one(numbered(id, 0, 0, 1)).await);
            led.push((raw, id, first));
        }
    }
    assert!(!led.is_empty(), "broker 2 leads the shard of the group");
    for round in 0..ROUNDS {
        let committed = member.commit(&[(place, round)]).await.expect("committed");
        assert!(
            committed.results.iter().all(|r| r.error.is_none()),
            "{committed:?}"
        );
        for (raw, ..) in &mut led {
            acknowledged(&raw.one(batch(&["between"]).build()).await);
        }
    }
    for (raw, id, first) in &mut led {
        let again = raw.one(numbered(*id, 0, 0, 1)).await;
        assert_eq!(acknowledged(&again), *first, "a retry is stored once");
    }
}
