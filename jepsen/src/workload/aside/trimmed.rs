//! Records that go: on request, and by retention. Where a partition begins never goes back, nothing goes
//! that nobody asked for, and nobody who comes later reads what is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use highwater_checker::{Action, Function, Kind, Offset, Value};
use highwater_client::{
    AdminError, At, Client, ConsumedRecord, NewTopic, PartitionId, ProducerRecord,
};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::super::pace::Pace;
use super::super::{Shared, body};
use super::{CHANGE, Place, RETAINED, Sender, TRIMMED, key, record_one};

/// Records a second, of both topics.
const RATE: f64 = 8.0;
/// Questions a second where they begin.
const ASKS: f64 = 1.5;
/// Requests to delete a second.
const TRIMS: f64 = 0.4;
/// What the topic with retention keeps at least, in bytes.
const RETENTION: u64 = 192 << 10;
/// More than any record takes beside its value, in bytes.
const OVERHEAD: u64 = 256;

/// What was sent to the topic with retention: how much must still be there.
#[derive(Default)]
pub(super) struct Kept(Mutex<Sizes>);

#[derive(Default)]
struct Sizes {
    /// Bytes by acknowledged offset, at most.
    acknowledged: BTreeMap<u64, u64>,
    /// Bytes of records that may lie anywhere.
    unknown: u64,
}

impl Kept {
    fn with<T>(&self, change: impl FnOnce(&mut Sizes) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Retention may begin the partition here, and not later: what follows takes at most as much as is to
    /// be kept.
    pub(super) fn bound(&self) -> u64 {
        self.with(|sizes| sizes.bound())
    }
}

impl Sizes {
    fn bound(&self) -> u64 {
        let mut kept = self.unknown;
        let mut from_the_end = self.acknowledged.iter().rev();
        let enough = from_the_end.find(|(_, bytes)| {
            kept += **bytes;
            kept >= RETENTION
        });
        enough.map_or(0, |(offset, _)| *offset)
    }
}

fn name(shared: &Shared, place: u32) -> String {
    let what = if place == TRIMMED {
        "trimmed"
    } else {
        "retained"
    };
    format!("{}-{what}", shared.plan.topic)
}

pub(super) fn topics(shared: &Shared) -> Vec<NewTopic> {
    let new = |place| {
        NewTopic::named(name(shared, place))
            .partitions(1)
            .replication_factor(shared.plan.replication)
            .config("segment.bytes", "65536")
    };
    let retained = new(RETAINED).config("retention.bytes", RETENTION.to_string());
    vec![new(TRIMMED), retained]
}

pub(super) fn places(shared: &Shared) -> Vec<Place> {
    let place = |place| Place {
        topic: name(shared, place),
        partition: 0,
        key: key(shared, place),
        decode: value_of,
    };
    vec![place(TRIMMED), place(RETAINED)]
}

pub(super) fn value_of(record: &ConsumedRecord) -> Value {
    body::decode(record.value.as_deref(), Offset(record.offset.0))
}

/// Writes to both topics until `stop`.
pub(super) async fn produce(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut random = shared.random(40_000);
    let client = shared.client("trimmed-producer")?;
    let mut sender = Sender::new(&shared, &client);
    let mut pace = Pace::new(RATE);
    while pace.wait(&mut random, &stop).await {
        let retained = random.random_bool(0.7);
        let place = if retained { RETAINED } else { TRIMMED };
        let value = sender.fresh();
        let filling = random.random_range(100..8_000);
        let record = ProducerRecord::to(name(&shared, place))
            .partition(0)
            .value(body::encode(value, filling));
        let bytes = u64::try_from(filling).unwrap_or(u64::MAX) + OVERHEAD;
        let kept = &shared.aside.kept;
        if retained {
            kept.with(|sizes| sizes.unknown += bytes);
        }
        let (offset, may_be_stored) = sender.send(key(&shared, place), value, record).await;
        if retained && (offset.is_some() || !may_be_stored) {
            kept.with(|sizes| {
                sizes.unknown -= bytes;
                offset.map(|offset| sizes.acknowledged.insert(offset, bytes))
            });
        }
    }
    Ok(())
}

/// Deletes records until `stop`, each time some more or all.
pub(super) async fn trim(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut random = shared.random(40_001);
    let client = shared.client("trimmer")?;
    let admin = client.admin().timeout(CHANGE);
    let (topic, key) = (name(&shared, TRIMMED), key(&shared, TRIMMED));
    let mut pace = Pace::new(TRIMS);
    let mut low = 0;
    while pace.wait(&mut random, &stop).await {
        let end = client.topic_offsets(&topic, At::Latest).await;
        let Some(end) = end.ok().and_then(|ends| Some(ends.first()?.offset.0)) else {
            continue;
        };
        if end <= low {
            continue;
        }
        let all = random.random_bool(0.1);
        let before = if all {
            end
        } else {
            random.random_range(low + 1..=end)
        };
        let trim = |start| Action::Trim {
            key,
            before: Offset(before),
            start,
        };
        let process = record_one(&shared, Function::Trim, trim(None));
        let wanted = [(PartitionId(0), highwater_client::Offset(before))];
        let (kind, start) = match admin.delete_records(&topic, &wanted, false).await {
            Ok(deleted) => match deleted.first() {
                Some(deleted) if deleted.error.is_none() => {
                    (Kind::Ok, Some(Offset(deleted.log_start)))
                }
                _ => (Kind::Info, None),
            },
            Err(AdminError::Rejected(_)) => (Kind::Fail, None),
            Err(AdminError::Unknown(_)) => (Kind::Info, None),
        };
        let recorder = &shared.recorder;
        recorder.complete(kind, process, Function::Trim, vec![trim(start)]);
        low = start.map_or(low, |start| start.0);
    }
    Ok(())
}

/// Asks where the partitions begin, until `stop`.
pub(super) async fn ask(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut random = shared.random(40_002);
    let client = shared.client("trimmed-asker")?;
    let mut pace = Pace::new(ASKS);
    while pace.wait(&mut random, &stop).await {
        let place = usize::from(random.random_bool(0.5));
        if let Some(place) = places(&shared).get(place) {
            begin_of(&shared, &client, place).await;
        }
    }
    Ok(())
}

/// Where a partition begins, as its leader says; recorded.
pub(super) async fn begin_of(shared: &Shared, client: &Client, place: &Place) -> Option<u64> {
    let key = place.key;
    let earliest = |start| Action::Earliest { key, start };
    let process = record_one(shared, Function::Earliest, earliest(None));
    let asked = [(PartitionId(place.partition), At::Earliest)];
    let found = client.list_offsets(&place.topic, &asked).await;
    let start = found.ok().and_then(|found| Some(found.first()?.offset.0));
    if place.key == super::key(shared, RETAINED) && start.is_some() {
        // What retention may have done by now was asked for when the topic was made.
        let trim = Action::Trim {
            key,
            before: Offset(shared.aside.kept.bound()),
            start: None,
        };
        let by = record_one(shared, Function::Trim, trim);
        let recorder = &shared.recorder;
        recorder.complete(Kind::Info, by, Function::Trim, vec![trim]);
    }
    let kind = if start.is_some() {
        Kind::Ok
    } else {
        Kind::Fail
    };
    let told = vec![earliest(start.map(Offset))];
    shared
        .recorder
        .complete(kind, process, Function::Earliest, told);
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_may_take_only_what_lies_before_enough() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.bound(), 0);
        let half = RETENTION / 2;
        sizes.acknowledged.extend([(0, half), (1, half), (2, half)]);
        assert_eq!(sizes.bound(), 1, "records 1 and 2 are enough");
        // It may lie behind them all.
        sizes.unknown = half;
        assert_eq!(sizes.bound(), 2);
    }
}
