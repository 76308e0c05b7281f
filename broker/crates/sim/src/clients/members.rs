//! Members of a consumer group: they poll, commit, leave and die. What a member polled is in the
//! history before it says that it is done with it, so that no committed offset is explained by a
//! poll that comes later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use highwater_checker::{Action, Function, Key, Kind, Offset, Operation, Process};
use highwater_client::group::{CommitMode, GroupConsumer, GroupError, GroupRecord};
use highwater_client::{AdminError, Client, ErrorCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{AGAIN, Shared, TOPIC, decode};
use crate::board::Phase;

const GROUP: &str = "readers";
/// Its number in the history.
const NUMBER: u32 = 0;
/// Short, so that the dead are expelled within a run.
const SESSION: Duration = Duration::from_secs(2);
/// How long a poll waits for its first record, and collects after that.
const WAIT: Duration = Duration::from_millis(100);
const COLLECT: Duration = Duration::from_millis(20);
const MOST: usize = 200;
const REQUEST: Duration = Duration::from_secs(3);
/// Tells the choice of who dies with a record in hand from the others of a seed.
const DROPS: u64 = 0x6472_6f70;

/// One member after the other, until the run is healed.
///
/// # Errors
/// When the history is full, or a value was read that nobody can have written.
pub async fn live(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Breaking).await;
    let mut rng = StdRng::seed_from_u64(shared.seed);
    // Of its own, so that whoever drops nothing lives as before.
    let mut drops = StdRng::seed_from_u64(shared.seed ^ DROPS);
    while shared.board.phase() == Phase::Breaking {
        let mut member = Member::join(&shared, rng.random())?;
        let end = Instant::now() + Duration::from_millis(rng.random_range(500..5_000));
        let mut alive = true;
        while alive && Instant::now() < end && shared.board.phase() == Phase::Breaking {
            alive = member.poll().await?;
            if rng.random_ratio(1, 5) {
                member.commit().await?;
            }
        }
        if alive && drops.random_ratio(1, 4) {
            member.die_in_hand().await;
            continue;
        }
        if alive && rng.random_ratio(1, 2) {
            // It may have to wait for a coordinator that is not there; then it is gone all the same.
            if !matches!(timeout(SESSION, member.consumer.leave()).await, Ok(Ok(()))) {
                tracing::info!("a member could not leave");
            }
        }
    }
    Ok(())
}

/// After everything was healed, one member must bring the group to the end of every partition. One
/// that never does is found by the run's deadline.
///
/// # Errors
/// As [`live`].
pub async fn finish(shared: Shared) -> anyhow::Result<()> {
    shared.until(Phase::Healed).await;
    while !shared.board.producers_done() {
        sleep(AGAIN).await;
    }
    let client = shared.client().build()?;
    let asker = shared.board.process();
    let mut turn = shared.seed;
    loop {
        turn = turn.wrapping_add(1);
        let mut member = Member::join(&shared, turn)?;
        let mut alive = true;
        while alive {
            alive = member.poll().await?;
            member.commit().await?;
            let Ok(ends) = client.end_offsets(TOPIC).await else {
                continue;
            };
            let Some(stored) = ask(&shared, &client, asker).await? else {
                continue;
            };
            let mut ends = (0..).zip(ends);
            if ends.all(|(p, end)| stored.get(&p).copied().unwrap_or(0) >= end.0) {
                return Ok(());
            }
        }
    }
}

struct Member {
    shared: Shared,
    client: Client,
    consumer: GroupConsumer,
    process: Process,
    /// Counts partitions that came and went.
    changes: Arc<AtomicU64>,
    /// That count when the poll before the present one began.
    changes_before: u64,
    /// Came after a rebalance in the middle of a poll: it belongs to the next one. With the count of
    /// changes then: whatever comes after more of them does not belong to that one either.
    held: Option<(GroupRecord, u64)>,
    /// The first offset behind what this process is done with.
    positions: BTreeMap<u32, u64>,
}

impl Member {
    fn join(shared: &Shared, seed: u64) -> anyhow::Result<Self> {
        // A client of its own: connections, and what it knows of leaders, are fresh.
        let mut own = shared.clone();
        own.seed = seed;
        let client = own.client().request_timeout(REQUEST).build()?;
        let changes = Arc::new(AtomicU64::new(0));
        let (came, went) = (Arc::clone(&changes), Arc::clone(&changes));
        let consumer = client
            .group(GROUP)
            .topic(TOPIC)
            .session_timeout(SESSION)
            .rebalance_timeout(SESSION)
            .commit_interval(Duration::from_millis(300))
            .commit_mode(CommitMode::Explicit)
            .on_assigned(move |_| {
                came.fetch_add(1, Ordering::SeqCst);
                async {}
            })
            .on_revoked(move |_, _| {
                went.fetch_add(1, Ordering::SeqCst);
                async {}
            })
            .stream()?;
        let mut member = Self {
            shared: own,
            client,
            consumer,
            process: Process(0),
            changes,
            changes_before: 0,
            held: None,
            positions: BTreeMap::new(),
        };
        member.begin()?;
        Ok(member)
    }

    /// A process that nobody was before: it subscribes, and shows that it belongs to the group.
    fn begin(&mut self) -> anyhow::Result<()> {
        let board = &self.shared.board;
        self.process = board.process();
        self.positions.clear();
        let keys = (0..self.shared.settings.partitions).map(|p| Action::Use(Key(p)));
        let keys: Vec<Action> = keys.collect();
        board.push(
            self.process,
            Kind::Invoke,
            Function::Subscribe,
            keys.clone(),
        )?;
        board.push(self.process, Kind::Ok, Function::Subscribe, keys)?;
        let nothing = vec![commit_of(0, 0)];
        board.push(self.process, Kind::Invoke, Function::Commit, nothing)?;
        board.push(self.process, Kind::Ok, Function::Commit, Vec::new())
    }

    /// One poll; whether the member can go on.
    async fn poll(&mut self) -> anyhow::Result<bool> {
        let held = self.held.take();
        let changes = held
            .as_ref()
            .map_or_else(|| self.changes.load(Ordering::SeqCst), |(_, count)| *count);
        let (poll, board) = (Function::Poll, self.shared.board.clone());
        board.push(self.process, Kind::Invoke, poll, Vec::new())?;
        let mut records: Vec<GroupRecord> = held.into_iter().map(|(record, _)| record).collect();
        let mut whole = true;
        let mut next = timeout(WAIT, self.consumer.next()).await;
        let end = Instant::now() + COLLECT;
        while let Ok(item) = next {
            match item {
                Some(Ok(record)) => {
                    let now = self.changes.load(Ordering::SeqCst);
                    if !records.is_empty() && now != changes {
                        self.held = Some((record, now));
                        break;
                    }
                    records.push(record);
                }
                Some(Err(GroupError::Partition(error))) => {
                    tracing::info!(%error, "a member cannot read");
                }
                Some(Err(error)) => {
                    tracing::info!(%error, "a member ends");
                    whole = false;
                    break;
                }
                None => {
                    whole = false;
                    break;
                }
            }
            if records.len() >= MOST {
                break;
            }
            next = timeout_at(end, self.consumer.next()).await;
        }
        let mut reads = Vec::new();
        for record in &records {
            reads.push(Action::Read {
                key: Key(record.partition.0),
                offset: Offset(record.offset.0),
                value: decode(record.value.as_deref().unwrap_or_default())?,
            });
        }
        let mut polled = Operation::new(0, 0, Kind::Ok, self.process, poll, reads);
        // Also of the poll before: what came then may only be read now.
        polled.rebalanced = self.changes.load(Ordering::SeqCst) != self.changes_before;
        self.changes_before = changes;
        board.push_operation(polled)?;
        for record in records {
            let after = record.offset.0 + 1;
            self.positions.insert(record.partition.0, after);
            record.done();
        }
        Ok(whole)
    }

    /// Takes one more record and is gone before it is done with it; what it was done with is committed in between.
    /// Nobody has polled that record, so no commit may pass it.
    async fn die_in_hand(mut self) {
        let in_hand = timeout(WAIT, self.consumer.next()).await;
        if let Err(error) = self.consumer.commit().await {
            tracing::info!(%error, "a member died before its commit was answered");
        }
        drop(in_hand);
    }

    /// Commits what it is done with. Of that, what is surely stored is recorded: not partitions that
    /// it has lost meanwhile, where others may be further on.
    async fn commit(&mut self) -> anyhow::Result<()> {
        let board = self.shared.board.clone();
        let wanted = self.positions.iter().map(|(p, at)| commit_of(*p, *at));
        let wanted: Vec<Action> = wanted.collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let commit = Function::Commit;
        board.push(self.process, Kind::Invoke, commit, wanted.clone())?;
        if self.consumer.commit().await.is_err() {
            board.push(self.process, Kind::Info, commit, wanted)?;
            return self.begin();
        }
        let stored = stored(&self.client).await.unwrap_or_default();
        let is_stored = |action: &Action| match *action {
            Action::Commit { key, offset, .. } => stored.get(&key.0) == Some(&offset.0),
            _ => false,
        };
        let sure = wanted.into_iter().filter(is_stored).collect();
        board.push(self.process, Kind::Ok, commit, sure)
    }
}

fn commit_of(partition: u32, offset: u64) -> Action {
    Action::Commit {
        key: Key(partition),
        group: NUMBER,
        offset: Offset(offset),
    }
}

/// What the group has committed of the topic, by partition; none: nobody said.
async fn stored(client: &Client) -> Option<BTreeMap<u32, u64>> {
    let topic = client.topic(TOPIC).await.ok()?.id;
    let offsets = match client.groups().timeout(REQUEST).offsets(GROUP).await {
        Ok(offsets) => offsets,
        Err(AdminError::Rejected(cause)) if cause.code() == Some(ErrorCode::UnknownGroup) => {
            Vec::new()
        }
        Err(_) => return None,
    };
    let of_topic = offsets.iter().filter(|o| o.topic_id == topic.0);
    Some(of_topic.map(|o| (o.partition, o.offset)).collect())
}

/// Asks how far the group is, as a process of the history.
async fn ask(
    shared: &Shared,
    client: &Client,
    process: Process,
) -> anyhow::Result<Option<BTreeMap<u32, u64>>> {
    let answer = |stored: Option<&BTreeMap<u32, u64>>| {
        let of = |p: u32| Action::Committed {
            key: Key(p),
            group: NUMBER,
            offset: stored.and_then(|all| all.get(&p)).map(|at| Offset(*at)),
        };
        (0..shared.settings.partitions).map(of).collect::<Vec<_>>()
    };
    let (board, committed) = (&shared.board, Function::Committed);
    board.push(process, Kind::Invoke, committed, answer(None))?;
    let stored = stored(client).await;
    let kind = if stored.is_some() {
        Kind::Ok
    } else {
        Kind::Fail
    };
    board.push(process, kind, committed, answer(stored.as_ref()))?;
    Ok(stored)
}
