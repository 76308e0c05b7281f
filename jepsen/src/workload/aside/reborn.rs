//! A topic that is deleted and made again under its name, while records for it are on their way: none of
//! an earlier life appears in a later one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use highwater_checker::{Action, Function, Key, Kind};
use highwater_client::{AdminError, Client, ErrorCode, NewTopic, ProducerRecord, TopicId};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::{Shared, body};
use super::{CHANGE, LIVES, Place, Sender, code, key, record_one, scan, trimmed};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
/// Records that are sent and read in a life, at least and at most.
const RECORDS: std::ops::Range<u32> = 5..25;
/// Between two lives.
const REST_MS: std::ops::Range<u64> = 500..4_000;

/// The lives of the topic.
#[derive(Default)]
pub(super) struct Lives {
    count: AtomicU32,
    /// The id of the one that lives now; 0: none.
    id: AtomicU64,
}

impl Lives {
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    /// The one that lives now.
    pub(super) fn living(&self, shared: &Shared) -> Option<(Place, TopicId)> {
        let id = self.id.load(Ordering::SeqCst);
        let last = self.count().checked_sub(1)?;
        (id != 0).then(|| (place(shared, last), TopicId(id)))
    }
}

fn name(shared: &Shared) -> String {
    format!("{}-reborn", shared.plan.topic)
}

fn place(shared: &Shared, life: u32) -> Place {
    Place {
        topic: name(shared),
        partition: 0,
        key: key(shared, LIVES + life),
        decode: trimmed::value_of,
    }
}

/// One life after the other until `stop`; the last one is left as it is.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut random = shared.random(43_000);
    let lives = &shared.aside.lives;
    while !stop.is_cancelled() {
        let client = shared.client("reborn")?;
        let Some(id) = create(&shared, &client, &stop).await else {
            break;
        };
        let place = place(&shared, lives.count.fetch_add(1, Ordering::SeqCst));
        lives.id.store(id.0, Ordering::SeqCst);
        let key = place.key;
        if !known(&shared, &client, id, &stop).await {
            break;
        }
        let mut sender = Sender::to(&shared, &client, id);
        for _ in 0..random.random_range(RECORDS) {
            if !stop.is_cancelled() {
                send(&shared, &mut sender, key, &mut random).await;
            }
        }
        if let Some(end) = scan::end_of(&client, &place).await
            && let Err(why) =
                scan::scan(&shared, &client, &place, None, (end, scan::PATIENCE)).await
        {
            shared.complain(why);
        }
        if stop.is_cancelled() {
            break;
        }
        // Some records are on their way when it goes, and when the next one comes.
        let mut late = JoinSet::new();
        for _ in 0..3 {
            let (shared, mut sender) = (Arc::clone(&shared), Sender::to(&shared, &client, id));
            let mut random = shared.random(random.random());
            late.spawn(async move {
                for _ in 0..4 {
                    send(&shared, &mut sender, key, &mut random).await;
                }
            });
        }
        delete(&shared, &client, key, &stop).await;
        rest(&mut random, &stop).await;
        while late.join_next().await.is_some() {}
        bury(&shared, &client, &stop).await;
    }
    Ok(())
}

async fn rest(random: &mut StdRng, stop: &CancellationToken) {
    // Half of the time the next one comes at once.
    if random.random_bool(0.5) {
        return;
    }
    tokio::select! {
        () = sleep(Duration::from_millis(random.random_range(REST_MS))) => {}
        () = stop.cancelled() => {}
    }
}

async fn send(shared: &Shared, sender: &mut Sender, key: Key, random: &mut StdRng) {
    let value = sender.fresh();
    let filling = random.random_range(0..400);
    let record = ProducerRecord::to(name(shared))
        .partition(0)
        .value(body::encode(value, filling));
    sender.send(key, value, record).await;
}

/// Until it is made, or `stop`.
async fn create(shared: &Shared, client: &Client, stop: &CancellationToken) -> Option<TopicId> {
    let admin = client.admin().timeout(CHANGE);
    let name = name(shared);
    while !stop.is_cancelled() {
        let new = NewTopic::named(&name)
            .partitions(1)
            .replication_factor(shared.plan.replication);
        let created = admin.create_topic(new).await;
        let made = match created {
            Ok(_) => true,
            // Nobody else makes it: an attempt of ours did.
            Err(error) => code(error.cause()) == Some(ErrorCode::TopicExists),
        };
        if made && let Ok(found) = admin.find_topic(&name).await {
            return Some(TopicId(found.id));
        }
        sleep(AGAIN).await;
    }
    None
}

/// An attempt to make the topic may arrive when what it made is gone again, and make another one that
/// nobody asked for, into which late records go. That one goes, too, before the next life begins.
async fn bury(shared: &Shared, client: &Client, stop: &CancellationToken) {
    let admin = client.admin().timeout(CHANGE);
    let name = name(shared);
    while !stop.is_cancelled() {
        let found = match admin.find_topic(&name).await {
            Ok(found) => found,
            Err(error) if code(error.cause()) == Some(ErrorCode::UnknownTopic) => return,
            Err(_) => {
                sleep(AGAIN).await;
                continue;
            }
        };
        // Whether it worked is seen in the next round.
        let _ = admin.delete_topic_of_id(&name, TopicId(found.id)).await;
    }
}

/// Until this client knows the topic that was made, and not the one before; whether it does.
async fn known(shared: &Shared, client: &Client, id: TopicId, stop: &CancellationToken) -> bool {
    let name = name(shared);
    while !stop.is_cancelled() {
        if client.topic(&name).await.is_ok_and(|topic| topic.id == id) {
            return true;
        }
        sleep(AGAIN).await;
    }
    false
}

/// Until it is gone, or `stop`: then nobody knows.
async fn delete(shared: &Shared, client: &Client, key: Key, stop: &CancellationToken) {
    let admin = client.admin().timeout(CHANGE);
    let lives = &shared.aside.lives;
    let id = TopicId(lives.id.swap(0, Ordering::SeqCst));
    let process = record_one(shared, Function::Delete, Action::Delete(key));
    let began = Instant::now();
    let mut gone = false;
    while !gone && !stop.is_cancelled() {
        gone = match admin.delete_topic_of_id(&name(shared), id).await {
            Ok(()) => true,
            Err(AdminError::Rejected(cause) | AdminError::Unknown(cause)) => matches!(
                code(&cause),
                Some(ErrorCode::TopicDeleted | ErrorCode::UnknownTopic)
            ),
        };
        if !gone {
            sleep(AGAIN).await;
        }
    }
    let kind = if gone { Kind::Ok } else { Kind::Info };
    let deleted = vec![Action::Delete(key)];
    shared
        .recorder
        .complete(kind, process, Function::Delete, deleted);
    if began.elapsed() > CHANGE * 4 {
        shared.complain(format!("a topic took {:?} to delete", began.elapsed()));
    }
}
