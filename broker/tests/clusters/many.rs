//! Many partitions on real brokers: made in bulk, listed page by page while others come and go, restarted and
//! failed over, at a bounded number of descriptors. `highwater-load scale` does the same with 100,000 and
//! measures it.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use highwater_client::{AdminError, Client, NewTopic, ProducerRecord};
use tokio::time::Instant;

use super::fleet::{Fleet, PATIENCE, eventually};
use super::life::{CALM, healthy, patient};

const TOPICS: usize = 250;
const PARTITIONS: u32 = 12;
/// Topics made at the same time.
const AT_ONCE: usize = 16;
/// Far below one for each partition.
const MOST_DESCRIPTORS: usize = 600;
const MOST_BYTES: u64 = 300 << 20;

fn name(number: usize) -> String {
    format!("many-{number:04}")
}

async fn made(client: &Client, numbers: std::ops::Range<usize>) {
    let make = |number: usize| async move {
        let topic = NewTopic::named(name(number)).partitions(PARTITIONS);
        let admin = client.admin().timeout(2 * PATIENCE);
        admin.create_topic(topic).await.map(drop)
    };
    let all = stream::iter(numbers).map(make).buffer_unordered(AT_ONCE);
    let made: Result<(), AdminError> = all.try_collect().await;
    made.expect("created");
}

/// Every topic once, in order, while others are made and deleted.
async fn listed(client: &Client, round: usize) {
    let admin = client.admin().timeout(PATIENCE);
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0_u32);
    loop {
        let page = admin.list_topics("many-", 40, &token).await.expect("told");
        assert!(page.topics.len() <= 40);
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        pages += 1;
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        // Names that were passed, and names that are still to come.
        for place in ["many-0000", "many-9999"] {
            let other = format!("{place}-{round}-{pages}");
            let topic = NewTopic::named(other.clone()).partitions(1);
            admin.create_topic(topic).await.expect("created");
            if pages.is_multiple_of(2) {
                admin.delete_topic(&other).await.expect("deleted");
            }
        }
    }
    assert!(names.is_sorted(), "by name");
    let each: BTreeSet<&String> = names.iter().collect();
    assert_eq!(each.len(), names.len(), "each once");
    let there = (0..TOPICS).all(|number| each.contains(&name(number)));
    assert!(there, "what was there all the time");
    eprintln!("{} topics on {pages} pages", names.len());
}

/// A record into one partition of every so many topics.
async fn written(client: &Client) {
    let producer = client.producer().delivery_timeout(2 * PATIENCE).build();
    let mut acks = Vec::new();
    for number in (0..TOPICS).step_by(5) {
        let record = ProducerRecord::to(name(number)).value("x");
        acks.push(producer.enqueue(record).await.expect("taken"));
    }
    for ack in acks {
        ack.await.expect("acknowledged");
    }
}

fn bounded(fleet: &Fleet) {
    for node in fleet.nodes() {
        let (open, bytes) = (fleet.descriptors(node), fleet.peak_memory(node));
        eprintln!("broker {node}: {open} descriptors, {} MiB", bytes >> 20);
        assert!(open <= MOST_DESCRIPTORS, "{open}");
        assert!(bytes <= MOST_BYTES, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_are_made_listed_restarted_and_failed_over() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = patient(&fleet).await;
    let begin = Instant::now();
    made(&client, 0..TOPICS).await;
    let all = TOPICS * PARTITIONS as usize;
    eprintln!("{all} partitions made in {:?}", begin.elapsed());
    listed(&client, 1).await;
    written(&client).await;
    bounded(&fleet);

    eprintln!("all are killed at once");
    fleet.kill_all().await;
    let begin = Instant::now();
    fleet.start_all().await;
    eprintln!("ready after {:?}", begin.elapsed());
    let client = patient(&fleet).await;
    listed(&client, 2).await;
    written(&client).await;

    eprintln!("a leader is killed");
    let dead = fleet.leader(&client, &name(0), 0).await;
    fleet.kill(dead).await;
    let begin = Instant::now();
    written(&client).await;
    eprintln!("failed over after {:?}", begin.elapsed());
    let admin = client.admin().timeout(PATIENCE);
    eventually("the topics that it led are led", async || {
        let described = admin.describe_topic(&name(0)).await.ok()?;
        let partitions = described.topic?.partitions;
        let led = |p: &highwater_client::v1::PartitionMetadata| p.leader.is_some_and(|l| l != dead);
        partitions.iter().all(led).then_some(())
    })
    .await;
    fleet.start(dead);
    fleet.ready(dead).await;
    fleet.caught_up(dead).await;
    healthy(&fleet, &client).await;
    bounded(&fleet);
}
