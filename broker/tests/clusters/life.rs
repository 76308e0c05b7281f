//! What the tests of a cluster's life share: plans that are waited for, and whether every replica
//! that should hold a partition holds exactly what was acknowledged.

use std::collections::BTreeMap;

use highwater_client::{Client, NewPlan, NodeId, ReadFrom, v1};
use tokio::time::{Duration, Instant, sleep};

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, ends, read, text};

/// A plan of dozens of shards on a busy machine.
const PLAN_PATIENCE: Duration = Duration::from_secs(240);

/// Elections only when somebody died, however busy the machine is: each is a step that is taken
/// again.
pub const CALM: [(&str, &str); 2] = [
    ("raft.election_min_ms", "1500ms"),
    ("raft.election_max_ms", "2500ms"),
];

/// A client whose calls wait as long as a busy machine may need.
pub async fn patient(fleet: &Fleet) -> Client {
    let nodes = fleet.nodes();
    let brokers = nodes.iter().map(|node| fleet.spec(*node).address());
    let client = Client::builder().brokers(brokers).request_timeout(PATIENCE);
    client.connect().await.expect("a broker answers")
}

/// Starts a plan, whoever leads the metadata group.
pub async fn start(client: &Client, plan: NewPlan) -> v1::Plan {
    let admin = client.admin().timeout(PATIENCE);
    admin.start_plan(plan).await.expect("started")
}

/// The plan as it is now.
pub async fn plan(client: &Client) -> v1::Plan {
    let admin = client.admin().timeout(PATIENCE);
    admin.plan().await.expect("shown").expect("a plan")
}

/// Who leads the metadata group.
pub async fn metadata_leader(client: &Client) -> u32 {
    eventually("a metadata leader", async || {
        let cluster = client.admin().describe_cluster().await.ok()?;
        cluster.metadata_leader
    })
    .await
}

/// Waits until the cluster's health says such a thing.
pub async fn told(
    client: &Client,
    what: &str,
    is_it: impl Fn(&v1::Finding) -> bool,
) -> v1::Finding {
    let admin = client.admin().timeout(PATIENCE);
    let found = eventually(what, async || {
        let findings = admin.health().await.ok()?;
        findings.into_iter().find(|found| is_it(found))
    })
    .await;
    eprintln!("  says: {} -> {}", found.what, found.cure);
    found
}

pub fn done(plan: &v1::Plan) -> usize {
    let done = |step: &&v1::PlanMove| step.state() == v1::MoveState::Done;
    plan.moves.iter().filter(done).count()
}

/// Waits until so many moves are done.
///
/// # Panics
/// When they are not.
pub async fn moved(client: &Client, least: usize) {
    let end = Instant::now() + PLAN_PATIENCE;
    loop {
        let now = plan(client).await;
        if done(&now) >= least {
            return;
        }
        assert!(Instant::now() < end, "the plan stands still: {now:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// How many shards of this class each broker should lead.
pub async fn leads(client: &Client, class: u32) -> BTreeMap<u32, usize> {
    let mut leads = BTreeMap::new();
    for shard in shards(client).await {
        if shard.replication_factor == class {
            let preferred = shard.preferred_leader.expect("one");
            assert!(shard.replicas.contains(&preferred));
            *leads.entry(preferred).or_default() += 1;
        }
    }
    leads
}

/// Waits until the plan has ended.
///
/// # Panics
/// When it does not.
pub async fn ended(client: &Client, id: u64) -> v1::Plan {
    let end = Instant::now() + PLAN_PATIENCE;
    loop {
        let now = plan(client).await;
        assert_eq!(now.id, id);
        if now.ended {
            return now;
        }
        assert!(Instant::now() < end, "the plan does not end: {now:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

pub async fn shards(client: &Client) -> Vec<v1::ShardStatus> {
    let admin = client.admin().timeout(PATIENCE);
    admin.describe_cluster().await.expect("described").shards
}

/// Replicas of this class that each broker should hold.
pub async fn loads(client: &Client, class: u32) -> BTreeMap<u32, usize> {
    let mut loads = BTreeMap::new();
    for shard in shards(client).await {
        if shard.replication_factor == class {
            for node in shard.replicas {
                *loads.entry(node).or_default() += 1;
            }
        }
    }
    loads
}

/// Waits until nothing is wrong any more.
pub async fn healthy(fleet: &Fleet, client: &Client) {
    let mut last = String::new();
    let admin = client.admin().timeout(PATIENCE);
    let end = Instant::now() + PLAN_PATIENCE;
    loop {
        let findings = admin.health().await.expect("told");
        let wrong: Vec<_> = findings
            .iter()
            .filter(|found| found.severity() > v1::Severity::Note)
            .collect();
        if wrong.is_empty() {
            return;
        }
        let now = format!("{wrong:?}");
        if now != last {
            eprintln!("  not yet: {now}");
            last = now;
        }
        if Instant::now() > end {
            for node in fleet.nodes() {
                let log = fleet.log(node);
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                eprintln!("broker {node}, newest first:\n{}", tail.join("\n"));
            }
            panic!("{last}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Every replica that should hold a partition has every acknowledged record at its offset, and
/// nothing else.
pub async fn check_replicas(fleet: &Fleet, journal: &Journal) {
    let client = &patient(fleet).await;
    let topic = &journal.topic;
    let view = client.topic(topic).await.expect("known");
    for (partition, end) in (0_u32..).zip(ends(client, topic).await) {
        let replicas = &view.partitions[partition as usize].replicas;
        assert!(!replicas.is_empty());
        for NodeId(node) in replicas {
            let from = ReadFrom::Broker(NodeId(*node));
            let records = read(client, topic, partition, end, from).await;
            assert_eq!(records.len() as u64, end, "{topic}-{partition} at {node}");
            for (offset, record) in (0_u64..).zip(&records) {
                assert_eq!(record.offset.0, offset, "offsets are dense");
                let stored = journal.stored.get(&(partition, offset));
                assert_eq!(
                    Some(&text(record)),
                    stored,
                    "{partition}/{offset} at {node}"
                );
            }
        }
    }
}
