//! A topic from which old records go by themselves: because there are too many of them, or because they are
//! too old by a clock that most brokers have. Nothing goes too early, nothing comes back, and something goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use highwater_checker::{Action, Function, Key, Kind, Offset};
use highwater_client::{At, Client, NewTopic, PartitionId, Producer, ProducerRecord};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::reader::{self, Reader, Topic};
use super::{AGAIN, Shared, decode, make, operator, send};
use crate::board::{ASIDES, Phase};
use crate::settings::Retained;
use crate::surroundings::elapsed;

const NAME: &str = "retained";
const REPLICAS: u32 = 3;
/// Its partition in the history; those of the compacted topic come before.
const KEY: Key = Key(ASIDES.0 + 100);
const PARTITION: u32 = 0;
/// The longest value, in bytes.
const LONGEST: usize = 4_000;
/// More than any record takes beside its value, in bytes.
const OVERHEAD: u64 = 256;
/// What a broker may take a record to be older than it is: clocks differ by less than 0.1 s, and what is heard of
/// them has waited for as long as a link may be held.
const CLOCKS: Duration = Duration::from_secs(3);

const TOPIC: Topic = Topic {
    name: NAME,
    first: KEY,
    partitions: 1,
    decode: |record| decode(record.value.as_deref().unwrap_or_default()),
};

/// What was sent, and must be there as long as retention keeps it.
struct Kept {
    rule: Retained,
    /// When each acknowledged record was sent, and how many bytes it takes at the most.
    acknowledged: BTreeMap<u64, (Duration, u64)>,
    /// Records that may lie anywhere, or nowhere, with their bytes.
    unknown: (u64, u64),
}

impl Kept {
    /// The partition may begin here by now, and not later.
    fn bound(&self, now: Duration) -> u64 {
        let too_many = self.rule.bytes.map(|bytes| self.bound_of_bytes(bytes));
        let too_old = self.rule.ms.map(|ms| self.bound_of_time(ms, now));
        too_many.max(too_old).unwrap_or(0)
    }

    /// What lies behind it takes less than is to be kept.
    fn bound_of_bytes(&self, keep: u64) -> u64 {
        let (_, mut kept) = self.unknown;
        let mut from_the_end = self.acknowledged.iter().rev();
        let enough = from_the_end.find(|(_, (_, bytes))| {
            kept += bytes;
            kept >= keep
        });
        enough.map_or(0, |(offset, _)| *offset)
    }

    /// The first record that is not too old; else where the partition ends at the most.
    fn bound_of_time(&self, keep_ms: u64, now: Duration) -> u64 {
        let keep = Duration::from_millis(keep_ms).saturating_sub(CLOCKS);
        let mut sent = self.acknowledged.iter();
        let young = sent.find(|(_, (sent_at, _))| *sent_at + keep > now);
        let last = self.acknowledged.last_key_value();
        let end = last.map_or(0, |(offset, _)| offset + 1) + self.unknown.0;
        young.map_or(end, |(offset, _)| *offset)
    }
}

#[derive(Clone)]
struct Retaining {
    shared: Shared,
    client: Client,
    kept: Arc<Mutex<Kept>>,
}

/// Writes, reads and asks where it begins until the run is healed, then until something has gone, and reads what
/// is left from every replica.
///
/// # Errors
/// A full history, or a record that nobody can have written. The checker judges what went.
pub async fn retain(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let rule = shared.settings.retained.clone();
    let rule = rule.context("the seed has a topic with retention")?;
    let client = shared.client().build()?;
    make(&client, &new_topic(&rule)).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    let retaining = Retaining {
        shared,
        client,
        kept: Arc::new(Mutex::new(Kept {
            rule,
            acknowledged: BTreeMap::new(),
            unknown: (0, 0),
        })),
    };
    let mut running = JoinSet::new();
    running.spawn_local(retaining.clone().write(rng.random()));
    running.spawn_local(retaining.clone().ask_until_healed(rng.random()));
    running.spawn_local(retaining.clone().follow(rng.random()));
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    retaining.read_back().await
}

fn new_topic(rule: &Retained) -> NewTopic {
    let mut topic = NewTopic::named(NAME)
        .partitions(1)
        .replication_factor(REPLICAS)
        .config("segment.bytes", (64 << 10).to_string())
        .config("segment.ms", "300");
    if let Some(bytes) = rule.bytes {
        topic = topic.config("retention.bytes", bytes.to_string());
    }
    if let Some(ms) = rule.ms {
        topic = topic.config("retention.ms", ms.to_string());
    }
    topic
}

impl Retaining {
    /// Writes until the run is healed and something has gone.
    async fn write(self, seed: u64) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        let patience = Duration::from_millis(self.shared.settings.delivery_ms);
        let producer = self.client.producer().delivery_timeout(patience).build();
        let healed = || self.shared.board.phase() >= Phase::Healed;
        while !healed() || self.begin().await?.is_none_or(|start| start == 0) {
            self.write_one(&producer, &mut rng).await?;
            sleep(Duration::from_millis(rng.random_range(1..60))).await;
        }
        Ok(())
    }

    async fn write_one(&self, producer: &Producer, rng: &mut StdRng) -> anyhow::Result<()> {
        let board = &self.shared.board;
        let value = board.value();
        let filling = rng.random_range(0..LONGEST);
        let text = format!("{value} {:filling$}", "");
        let (sent_at, bytes) = (elapsed(), text.len() as u64 + OVERHEAD);
        let unknown = |change: fn(&mut u64, u64)| {
            let mut kept = self.kept.lock();
            change(&mut kept.unknown.0, 1);
            change(&mut kept.unknown.1, bytes);
        };
        unknown(|sum, more| *sum += more);
        let record = ProducerRecord::to(NAME).partition(PARTITION).value(text);
        let mut process = board.process();
        match send(board, producer, &mut process, (KEY, value), record).await? {
            Ok(offset) => {
                let acknowledged = &mut self.kept.lock().acknowledged;
                acknowledged.insert(offset, (sent_at, bytes));
            }
            // It takes room for good, if it is there.
            Err(error) if error.may_be_written() => return Ok(()),
            Err(error) => tracing::info!(%error, "the topic with retention takes nothing"),
        }
        unknown(|sum, less| *sum -= less);
        Ok(())
    }

    async fn ask_until_healed(self, seed: u64) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        while self.shared.board.phase() == Phase::Breaking {
            self.begin().await?;
            sleep(Duration::from_millis(rng.random_range(50..900))).await;
        }
        Ok(())
    }

    /// Where the partition begins, if its leader says.
    async fn begin(&self) -> anyhow::Result<Option<u64>> {
        let board = &self.shared.board;
        let earliest = |start| vec![Action::Earliest { key: KEY, start }];
        let process = board.process();
        board.push(process, Kind::Invoke, Function::Earliest, earliest(None))?;
        let asked = [(PartitionId(PARTITION), At::Earliest)];
        let found = self.client.list_offsets(NAME, &asked).await;
        let start = found.ok().and_then(|found| Some(found.first()?.offset.0));
        self.note_bound()?;
        let kind = if start.is_some() {
            Kind::Ok
        } else {
            Kind::Fail
        };
        board.push(
            process,
            kind,
            Function::Earliest,
            earliest(start.map(Offset)),
        )?;
        Ok(start)
    }

    /// What retention may have done by now was asked for when the topic was made.
    fn note_bound(&self) -> anyhow::Result<()> {
        let board = &self.shared.board;
        let trim = Action::Trim {
            key: KEY,
            before: Offset(self.kept.lock().bound(elapsed())),
            start: None,
        };
        let process = board.process();
        board.push(process, Kind::Invoke, Function::Trim, vec![trim])?;
        board.push(process, Kind::Info, Function::Trim, vec![trim])
    }

    async fn follow(self, seed: u64) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        let board = &self.shared.board;
        while board.phase() == Phase::Breaking {
            let Ok(consumer) = self.client.consumer().topic(NAME).build().await else {
                sleep(AGAIN).await;
                continue;
            };
            let mut reader = Reader::new(board, consumer, TOPIC)?;
            // It begins anew, where the partition begins by then, when it comes to what has gone.
            while board.phase() == Phase::Breaking && rng.random_ratio(49, 50) {
                if let Err(error) = reader.poll().await? {
                    tracing::info!(%error, "follows the topic with retention anew");
                    break;
                }
            }
        }
        Ok(())
    }

    async fn read_back(&self) -> anyhow::Result<()> {
        let ends = loop {
            match self.client.end_offsets(NAME).await {
                Ok(ends) => break ends,
                Err(error) => tracing::info!(%error, "no ends yet"),
            }
            sleep(AGAIN).await;
        };
        let parts = TOPIC.read_everywhere(&self.shared, &self.client, REPLICAS, &ends);
        parts.await?;
        self.note_bound()?;
        if self.kept.lock().rule.ms.is_some() {
            // By and by all of it goes.
            return Ok(());
        }
        let end = ends.first().context("its partition has an end")?.0;
        let place = (NAME, PARTITION);
        // A plan may just be giving its replicas to others.
        operator::until_nothing_moves(&self.shared, &self.client).await;
        reader::expect(&self.shared.board, &self.client, place, (None, end)).await
    }
}

#[cfg(test)]
#[path = "retained_tests.rs"]
mod tests;
