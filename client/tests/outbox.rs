//! The outbox relay against a fake cluster: each row stored once, in order, wherever it dies.

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fake::{FakeCluster, Fault};
use futures_util::StreamExt;
use highwater_client::resilience::outbox::{
    OUTBOX_HEADER, OutboxError, OutboxRow, OutboxStore, Relay, RelayState,
};
use highwater_client::{Client, ErrorCode, ProducerRecord};
use parking_lot::Mutex;

/// What survives a crash.
#[derive(Default)]
struct Database {
    rows: BTreeMap<u64, ProducerRecord>,
    marked: BTreeSet<u64>,
    /// As text: what is stored must be enough.
    state: Option<String>,
    calls: u32,
}

/// Where the process dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    Never,
    /// Before this call of the store has any effect.
    Before(u32),
    /// After it had its effect, before its answer arrives.
    After(u32),
}

#[derive(Clone)]
struct Store {
    database: Arc<Mutex<Database>>,
    death: Death,
}

#[derive(Debug, thiserror::Error)]
#[error("the process died")]
struct Died;

impl Store {
    fn call<T>(&self, act: impl FnOnce(&mut Database) -> T) -> Result<T, Died> {
        let mut database = self.database.lock();
        database.calls += 1;
        let call = database.calls;
        if self.death == Death::Before(call) {
            return Err(Died);
        }
        let answer = act(&mut database);
        if self.death == Death::After(call) {
            return Err(Died);
        }
        Ok(answer)
    }
}

impl OutboxStore for Store {
    type Error = Died;

    async fn load(&mut self) -> Result<Option<RelayState>, Died> {
        let parse = |text: &String| serde_json::from_str(text).unwrap();
        self.call(|database| database.state.as_ref().map(parse))
    }
    async fn pending(&mut self, most: usize) -> Result<Vec<OutboxRow>, Died> {
        self.call(|database| {
            let open = database
                .rows
                .iter()
                .filter(|(id, _)| !database.marked.contains(id));
            let row = |(id, record): (&u64, &ProducerRecord)| OutboxRow {
                id: *id,
                record: record.clone(),
            };
            open.map(row).take(most).collect()
        })
    }
    async fn rows(&mut self, ids: &[u64]) -> Result<Vec<OutboxRow>, Died> {
        self.call(|database| {
            let row = |id: &u64| OutboxRow {
                id: *id,
                record: database.rows[id].clone(),
            };
            ids.iter().map(row).collect()
        })
    }
    async fn save(
        &mut self,
        expected: u64,
        state: &RelayState,
        published: &[u64],
    ) -> Result<bool, Died> {
        self.call(|database| {
            let stored = database.state.as_ref().map_or(0, |text| {
                serde_json::from_str::<RelayState>(text).unwrap().revision
            });
            if stored != expected {
                return false;
            }
            database.state = Some(serde_json::to_string(state).unwrap());
            database.marked.extend(published);
            true
        })
    }
}

const ROWS: u64 = 24;

fn database() -> Arc<Mutex<Database>> {
    database_for("t")
}

fn database_for(topic: &str) -> Arc<Mutex<Database>> {
    let mut database = Database::default();
    for id in 1..=ROWS {
        let record = ProducerRecord::to(topic)
            .key(format!("k{}", id % 5))
            .value(id.to_string());
        database.rows.insert(id, record);
    }
    Arc::new(Mutex::new(database))
}

fn relay(client: &Client, database: &Arc<Mutex<Database>>, death: Death) -> Relay<Store> {
    let store = Store {
        database: Arc::clone(database),
        death,
    };
    client.outbox("billing").rows_per_round(7).build(store)
}

/// Relays until nothing is open; answers with how often the relay died.
async fn finish(client: &Client, database: &Arc<Mutex<Database>>) {
    let mut relay = relay(client, database, Death::Never);
    while database.lock().marked.len() < ROWS as usize {
        relay.round().await.unwrap();
    }
}

/// Every row once, and the rows of each partition in order.
fn check(cluster: &FakeCluster) {
    check_topic(cluster, "t");
}

fn check_topic(cluster: &FakeCluster, topic: &str) {
    let mut all = BTreeSet::new();
    for partition in 0..3 {
        let rows: Vec<u64> = cluster
            .values(topic, partition)
            .iter()
            .map(|value| value.parse().unwrap())
            .collect();
        assert!(rows.is_sorted(), "partition {partition}: {rows:?}");
        for row in rows {
            assert!(all.insert(row), "row {row} is stored twice");
        }
    }
    assert_eq!(all.len() as u64, ROWS, "rows are missing");
}

#[tokio::test]
async fn a_relay_that_dies_anywhere_publishes_each_row_once() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    // A whole run takes about 13 calls of the store.
    let mut deaths = 0;
    for call in 1..=16 {
        for death in [Death::Before(call), Death::After(call)] {
            let topic = format!("{death:?}").replace(['(', ')'], "-");
            cluster.topic(&topic, 3);
            // Every other request loses its answer after the append.
            let faults = [
                Fault::ResetAfter,
                Fault::None,
                Fault::AnswerUnknown,
                Fault::ResetBefore,
            ];
            cluster.state.lock().faults.clear();
            cluster.faults(1, &faults.repeat(4));
            let database = database_for(&topic);
            let mut dying = relay(&client, &database, death);
            while database.lock().marked.len() < ROWS as usize {
                match dying.round().await {
                    Ok(_) => {}
                    Err(OutboxError::Store(Died)) => {
                        deaths += 1;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            drop(dying);
            finish(&client, &database).await;
            check_topic(&cluster, &topic);
        }
    }
    assert!(deaths > 20, "only {deaths} deaths");
}

/// As [`Relay::run`] goes: one save marks a round and claims the next.
#[tokio::test]
async fn a_relay_that_runs_on_and_dies_anywhere_publishes_each_row_once() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let mut deaths = 0;
    // A whole run takes a dozen calls of the store.
    for call in 1..=16 {
        for death in [Death::Before(call), Death::After(call)] {
            let topic = format!("on-{death:?}").replace(['(', ')'], "-");
            cluster.topic(&topic, 3);
            let faults = [Fault::ResetAfter, Fault::None, Fault::AnswerUnknown];
            cluster.state.lock().faults.clear();
            cluster.faults(1, &faults.repeat(3));
            let database = database_for(&topic);
            let mut dying = relay(&client, &database, death);
            let all = async {
                while database.lock().marked.len() < ROWS as usize {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                Err(error) = dying.run() => {
                    assert!(matches!(error, OutboxError::Store(Died)), "{error}");
                    deaths += 1;
                }
                () = all => {}
            }
            drop(dying);
            finish(&client, &database).await;
            check_topic(&cluster, &topic);
        }
    }
    assert!(deaths >= 16, "only {deaths} deaths");
}

#[tokio::test]
async fn a_relay_that_runs_on_saves_once_per_round() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 3);
    let (client, database) = (cluster.client().await, database());
    let mut relay = relay(&client, &database, Death::Never);
    let all = async {
        while database.lock().marked.len() < ROWS as usize {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        Err(error) = relay.run() => panic!("{error}"),
        () = all => {}
    }
    let state: RelayState = serde_json::from_str(database.lock().state.as_ref().unwrap()).unwrap();
    // 24 rows, seven a round: four rounds, and a last save that only marks.
    assert_eq!(state.revision, 5);
    check(&cluster);
}

#[tokio::test]
async fn a_batch_that_arrives_after_its_relay_died_is_stored_once() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 3);
    let (client, database) = (cluster.client().await, database());
    cluster.hold(true);
    {
        let mut first = relay(&client, &database, Death::Never);
        let round = first.round();
        tokio::pin!(round);
        // Until the claims are stored and the batches have gone out.
        let sent = async {
            while !database
                .lock()
                .state
                .as_ref()
                .is_some_and(|s| s.contains("\"rows\":["))
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            done = &mut round => panic!("held, but done: {done:?}"),
            () = sent => {}
        }
    }
    // The next relay finds nothing when it reads back; then both batches arrive.
    let next = tokio::spawn({
        let (client, database) = (client.clone(), Arc::clone(&database));
        async move { finish(&client, &database).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.hold(false);
    next.await.unwrap();
    check(&cluster);
}

#[tokio::test]
async fn two_relays_at_once_publish_each_row_once() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 3);
    cluster.faults(1, &[Fault::ResetAfter, Fault::None].repeat(10));
    let (client, database) = (cluster.client().await, database());
    let both = [(); 2].map(|()| {
        let (client, database) = (client.clone(), Arc::clone(&database));
        tokio::spawn(async move { finish(&client, &database).await })
    });
    for relay in both {
        relay.await.unwrap();
    }
    check(&cluster);
}

#[tokio::test]
async fn a_cluster_that_forgot_the_producer_is_read_back() {
    for stored in [true, false] {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 3);
        let (client, database) = (cluster.client().await, database());
        let mut first = relay(&client, &database, Death::Never);
        first.round().await.unwrap();
        drop(first);
        // Dies with claims open, the batches stored or not.
        let calls = database.lock().calls;
        let mut dying = relay(&client, &database, Death::After(calls + 3));
        if stored {
            // load, pending, claim, mark: dies before the mark.
            dying = relay(&client, &database, Death::Before(calls + 4));
        }
        let died = async { while dying.round().await.is_ok() {} };
        died.await;
        {
            let mut state = cluster.state.lock();
            for partition in &mut state.topics.get_mut("t").unwrap().partitions {
                partition.forget_producers();
            }
        }
        finish(&client, &database).await;
        check(&cluster);
    }
}

#[tokio::test]
async fn records_name_their_rows_and_refused_rows_are_named() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 3);
    let (client, database) = (cluster.client().await, database());
    cluster.faults(1, &[Fault::Reject(ErrorCode::CorruptBatch); 3]);
    let refused = relay(&client, &database, Death::Never).round().await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("outbox rows") && refused.contains("of t-"),
        "{refused}"
    );
    let large = ProducerRecord::to("t").value(vec![0; 2 << 20]);
    database.lock().rows.insert(ROWS + 1, large);
    let mut relay = relay(&client, &database, Death::Never);
    let error = loop {
        if let Err(error) = relay.round().await {
            break error;
        }
    };
    assert!(
        matches!(error, OutboxError::TooLarge { row, .. } if row == ROWS + 1),
        "{error}"
    );
    database.lock().rows.remove(&(ROWS + 1));
    finish(&client, &database).await;
    check(&cluster);
    let mut records = client.consumer().topic("t").build().await.unwrap();
    for _ in 0..ROWS {
        let record = records.next().await.unwrap().unwrap();
        let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        let row = record.header(OUTBOX_HEADER).unwrap();
        assert_eq!(row, format!("billing/{value}").as_bytes());
    }
}
