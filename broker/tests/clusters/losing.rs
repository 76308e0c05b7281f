//! The only replica of some partitions is lost with its disk. They begin anew, empty, when an operator accepts
//! that; and a client that lived through it goes on, wherever they are led from then on.

use std::fs;

use highwater_client::{
    Client, NewPlan, NewTopic, NodeId, OutOfRange, Producer, ProducerRecord, Start, v1,
};

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{make_topic, read, text};
use super::life::{CALM, ended, healthy, patient, shards, start, told};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 4;

/// Partitions whose only replica is on a broker.
async fn on(client: &Client, node: u32) -> Vec<v1::PartitionMetadata> {
    let admin = client.admin().timeout(PATIENCE);
    let described = admin.describe_topic(TOPIC).await.expect("described");
    let partitions = described.topic.expect("a topic").partitions.into_iter();
    partitions.filter(|p| p.replicas == [node]).collect()
}

async fn send(producer: &Producer, partition: u32, value: &str) -> u64 {
    let record = ProducerRecord::to(TOPIC).partition(partition);
    let sent = producer.send(record.value(value.to_owned())).await;
    sent.unwrap_or_else(|error| panic!("{value}: {error}"))
        .offset
        .0
}

/// The term of a shard, as the cluster says.
async fn term(client: &Client, shard: u32) -> u64 {
    let shards = shards(client).await;
    let shard = shards.into_iter().find(|known| known.shard == shard);
    shard.expect("known").term
}

/// Broker 2 joins a cluster of one, and gets half of what there is.
async fn two_brokers() -> (Fleet, Client) {
    let mut fleet = Fleet::started(1, &CALM).await;
    let client = patient(&fleet).await;
    let topic = NewTopic::named(TOPIC).partitions(PARTITIONS);
    make_topic(&client, topic.replication_factor(1)).await;
    fleet.add(2);
    fleet.start(2);
    fleet.ready(2).await;
    let plan = start(&client, NewPlan::rebalance()).await;
    ended(&client, plan.id).await;
    let client = patient(&fleet).await;
    (fleet, client)
}

/// What the operator is told, and has to say.
async fn given_up(fleet: &mut Fleet, client: &Client) -> v1::Plan {
    let admin = client.admin().timeout(PATIENCE);
    told(client, "broker 2 counts as away", |found| {
        found.cure.contains("cluster replace 2")
    })
    .await;
    let error = admin.start_plan(NewPlan::replace(NodeId(2))).await;
    let error = error.expect_err("something would be lost").to_string();
    eprintln!("  says: {error}");
    assert!(error.contains("--accept-loss"), "{error}");
    let accepted = || NewPlan::replace(NodeId(2)).accept_loss(true);
    let dry = start(client, accepted().dry_run(true)).await;
    assert!(dry.moves.iter().any(|step| step.lost), "{dry:?}");
    assert_eq!(on(client, 2).await.len(), 2, "a dry run changes nothing");
    let plan = start(client, accepted()).await;
    fleet.start(2);
    plan
}

/// Restarts broker 2 a few times, each of which is another term, and the client writes in each. The last one.
async fn terms_rise(
    (fleet, client): (&mut Fleet, &Client),
    producer: &Producer,
    lost: &[v1::PartitionMetadata],
) -> u64 {
    let shard = lost[0].shard;
    for _ in 0..3 {
        let before = term(client, shard).await;
        fleet.kill(2).await;
        fleet.start(2);
        fleet.ready(2).await;
        eventually("the next term has a leader", async || {
            (term(client, shard).await > before).then_some(())
        })
        .await;
        for partition in lost {
            send(producer, partition.partition, "once more").await;
        }
    }
    term(client, shard).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_begins_anew_and_clients_go_on() {
    let (mut fleet, client) = two_brokers().await;
    let lost = on(&client, 2).await;
    assert_eq!(lost.len(), 2, "half of four");
    let shard = lost[0].shard;
    let producer = client.producer().build();
    for number in 0..20 {
        for partition in 0..PARTITIONS {
            send(&producer, partition, &format!("value {number}")).await;
        }
    }
    let mut reader = client
        .consumer()
        .out_of_range(OutOfRange::Earliest)
        .assign(TOPIC, lost[0].partition, Start::Latest)
        .build()
        .await
        .expect("assigned");

    eprintln!("terms rise, and the client hears of each");
    let high = terms_rise((&mut fleet, &client), &producer, &lost).await;

    eprintln!("the disk is lost; whoever drives the plan dies on the way");
    fleet.kill(2).await;
    fs::remove_dir_all(fleet.data_dir(2)).expect("wiped");
    let plan = given_up(&mut fleet, &client).await;
    fleet.kill(1).await;
    fleet.start(1);
    fleet.ready(1).await;
    ended(&client, plan.id).await;
    fleet.ready(2).await;
    let anew = producer_goes_on(&client, &producer, &lost).await;
    assert!(term(&client, shard).await < high, "terms begin low");

    eprintln!("another broker leads it, below the term that the client knew");
    let drained = start(&client, NewPlan::drain(NodeId(2))).await;
    ended(&client, drained.id).await;
    assert!(on(&client, 2).await.is_empty());
    assert!(term(&client, shard).await < high);
    for partition in &lost {
        send(&producer, partition.partition, "elsewhere").await;
    }
    let seen = eventually("the reader sees what is new", async || {
        use futures_util::StreamExt as _;
        let record = reader.next().await?.expect("a record");
        (text(&record) == "elsewhere").then_some(record.offset.0)
    })
    .await;
    assert_eq!(seen, anew);
    for partition in 0..PARTITIONS {
        let was_lost = lost.iter().any(|p| p.partition == partition);
        let end = client.end_offsets(TOPIC).await.expect("told")[partition as usize].0;
        assert_eq!(end, if was_lost { anew + 1 } else { 20 });
        let from = highwater_client::ReadFrom::Leader;
        assert_eq!(
            read(&client, TOPIC, partition, end, from).await.len() as u64,
            end
        );
    }
    healthy(&fleet, &client).await;
}

/// The producer that had written before writes into what is new and empty; how much it wrote into each.
async fn producer_goes_on(
    client: &Client,
    producer: &Producer,
    lost: &[v1::PartitionMetadata],
) -> u64 {
    const RECORDS: u64 = 3;
    for partition in lost {
        for number in 0..RECORDS {
            let offset = send(producer, partition.partition, "anew").await;
            assert_eq!(offset, number, "it is empty");
        }
    }
    let ends = client.end_offsets(TOPIC).await.expect("told");
    for partition in lost {
        assert_eq!(ends[partition.partition as usize].0, RECORDS);
    }
    RECORDS
}
