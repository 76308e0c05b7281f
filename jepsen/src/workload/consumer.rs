//! A reader that takes partitions by hand and reads on, poll after poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_checker::{Action, Function, Key, Kind, Offset, Operation, Process};
use highwater_client::{ConsumedRecord, Consumer, Start};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Shared, body};

/// How long a poll waits for its first record.
const WAIT: Duration = Duration::from_millis(200);

/// How long it collects after that.
const COLLECT: Duration = Duration::from_millis(50);

/// The most records of one poll.
const MOST: usize = 2_000;

/// Polls between two assignments, at least and at most.
const POLLS: std::ops::Range<u32> = 50..400;

/// Runs until `stop`.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: u32,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut random = shared.random(number.into());
    let mut positions: BTreeMap<u32, u64> = BTreeMap::new();
    let process = shared.recorder.new_process();
    while !stop.is_cancelled() {
        // A client of its own each time: also its connections and what it knows are fresh.
        let client = shared.client(&format!("consumer-{number}"))?;
        let before = positions.clone();
        let from = choose(&shared, &mut positions, &mut random);
        let mut builder = client.consumer();
        for (partition, offset) in &positions {
            let start = Start::Offset(highwater_client::Offset(*offset));
            builder = builder.assign(&shared.plan.topic, *partition, start);
        }
        let keys: Vec<Action> = positions.keys().map(|p| Action::Use(Key(*p))).collect();
        let mut assign = Operation::new(0, 0, Kind::Invoke, process, Function::Assign, keys);
        assign.seek_to_beginning = from == From::Beginning;
        shared.recorder.record(&mut assign);
        let built = builder.build().await;
        assign.kind = if built.is_ok() { Kind::Ok } else { Kind::Fail };
        shared.recorder.record(&mut assign);
        let Ok(mut consumer) = built else {
            // Nothing was assigned without a leader in reach: the old assignment stands.
            positions = before;
            continue;
        };
        let polls = random.random_range(POLLS);
        for _ in 0..polls {
            if stop.is_cancelled() {
                return Ok(());
            }
            if !poll(&shared, process, &mut consumer, &mut positions).await {
                break;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Position,
    Beginning,
}

/// Which partitions to read next: some of those at hand go on where they are, others begin at
/// their first record, and now and then everything begins again.
fn choose(shared: &Shared, positions: &mut BTreeMap<u32, u64>, random: &mut StdRng) -> From {
    let all = 0..shared.plan.partitions;
    if random.random_bool(0.1) {
        *positions = all.map(|partition| (partition, 0)).collect();
        return From::Beginning;
    }
    let everything = random.random_bool(0.5);
    let mut next = BTreeMap::new();
    for partition in all {
        if everything || random.random_bool(0.6) {
            next.insert(partition, positions.get(&partition).copied().unwrap_or(0));
        }
    }
    if next.is_empty() {
        next.insert(0, positions.get(&0).copied().unwrap_or(0));
    }
    *positions = next;
    From::Position
}

/// One poll; whether the consumer can go on.
async fn poll(
    shared: &Shared,
    process: Process,
    consumer: &mut Consumer,
    positions: &mut BTreeMap<u32, u64>,
) -> bool {
    shared.recorder.invoke(process, Function::Poll, Vec::new());
    let mut reads = Vec::new();
    let mut whole = true;
    let mut next = timeout(WAIT, consumer.next()).await;
    let end = Instant::now() + COLLECT;
    while let Ok(Some(item)) = next {
        match item {
            Ok(record) => {
                positions.insert(record.partition.0, record.offset.0 + 1);
                reads.push(read_of(&record));
            }
            Err(error) => {
                shared.complain(format!("process {process}: {error}"));
                whole = false;
                break;
            }
        }
        if reads.len() >= MOST {
            break;
        }
        next = timeout_at(end, consumer.next()).await;
    }
    shared
        .recorder
        .complete(Kind::Ok, process, Function::Poll, reads);
    whole
}

/// A record as the history has it.
pub(super) fn read_of(record: &ConsumedRecord) -> Action {
    let offset = Offset(record.offset.0);
    Action::Read {
        key: Key(record.partition.0),
        offset,
        value: body::decode(record.value.as_deref(), offset),
    }
}
