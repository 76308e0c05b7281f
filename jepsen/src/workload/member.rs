//! Members of consumer groups: they subscribe, poll, commit, leave, die, and stand still.
//!
//! What a member polled is recorded before it says that it is done with it, so that no committed
//! offset can be explained by a poll that comes later in the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_checker::{Action, Function, Key, Kind, Offset, Operation, Process};
use highwater_client::group::{CommitMode, GroupConsumer, GroupError, GroupRecord};
use highwater_client::{AdminError, Client, ErrorCode};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::consumer::read_of;
use super::{REQUEST, Shared, own_thread};

/// Short, so that the dead and the paused are expelled within a run.
pub(super) const SESSION: Duration = Duration::from_secs(6);
/// How long a poll waits for its first record, and collects after that.
const WAIT: Duration = Duration::from_millis(200);
const COLLECT: Duration = Duration::from_millis(50);
const MOST: usize = 2_000;
/// Milliseconds from joining to whatever ends it.
const LIFE_MS: std::ops::Range<u64> = 2_000..15_000;
/// How long a member stands still: shorter and longer than its session.
const PAUSE_MS: std::ops::Range<u64> = 500..10_000;
/// Polls between two explicit commits.
const POLLS: u32 = 8;

/// How long a member may take to hear that a partition is another's: longer than its session, after which the
/// coordinator gives it away. And between two questions meanwhile.
const HEARSAY: Duration = Duration::from_secs(8);
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// One group of the run.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// In the history.
    pub number: u32,
    /// In the cluster.
    pub name: String,
}

impl Group {
    pub(super) fn of(shared: &Shared, number: u32) -> Self {
        let name = format!("{}-group-{number}", shared.plan.topic);
        Self { number, name }
    }
}

/// Members one after the other, on one thread, until `stop`.
pub(super) async fn run(
    shared: Arc<Shared>,
    group: Group,
    number: u32,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    own_thread::run(move || async move {
        let mut random = shared.random(u64::from(number) + 10_000);
        while !stop.is_cancelled() {
            let mut member = Member::join(&shared, &group, number)?;
            let life = Duration::from_millis(random.random_range(LIFE_MS));
            let alive = member.live(Instant::now() + life, &mut random, &stop).await;
            member.end(alive, &mut random).await;
        }
        Ok(())
    })
    .await
}

struct Member {
    shared: Arc<Shared>,
    group: Group,
    client: Client,
    consumer: GroupConsumer,
    process: Process,
    /// Counts partitions that came and went.
    changes: Arc<AtomicU64>,
    /// That count when the poll before the present one began.
    changes_before: u64,
    /// Read after a change that the poll before the present one must not span, with the count of changes
    /// then: whatever comes after more of them does not belong to the present one either.
    held: Option<(GroupRecord, u64)>,
    /// The first offset behind what this process is done with.
    positions: BTreeMap<u32, Position>,
}

/// How far a member is in a partition.
#[derive(Debug, Clone, Copy)]
struct Position {
    next: u64,
    /// The count of partitions that came and went when it came here.
    changes: u64,
}

impl Member {
    fn join(shared: &Arc<Shared>, group: &Group, number: u32) -> anyhow::Result<Self> {
        // A client of its own: connections, and what it knows of leaders, are fresh.
        let client = shared.client(&format!("member-{number}"))?;
        let changes = Arc::new(AtomicU64::new(0));
        let (came, went) = (Arc::clone(&changes), Arc::clone(&changes));
        let consumer = client
            .group(&group.name)
            .topic(&shared.plan.topic)
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
            shared: Arc::clone(shared),
            group: group.clone(),
            client,
            consumer,
            process: Process(0),
            changes,
            changes_before: 0,
            held: None,
            positions: BTreeMap::new(),
        };
        member.begin();
        Ok(member)
    }

    /// A process that nobody was before: it subscribes, and shows that it belongs to the group.
    fn begin(&mut self) {
        let recorder = &self.shared.recorder;
        self.process = recorder.new_process();
        self.positions.clear();
        let keys = (0..self.shared.plan.partitions).map(|p| Action::Use(Key(p)));
        let keys: Vec<Action> = keys.collect();
        recorder.invoke(self.process, Function::Subscribe, keys.clone());
        recorder.complete(Kind::Ok, self.process, Function::Subscribe, keys);
        let nothing = vec![self.commit_of(0, 0)];
        recorder.invoke(self.process, Function::Commit, nothing);
        recorder.complete(Kind::Ok, self.process, Function::Commit, Vec::new());
    }

    fn commit_of(&self, partition: u32, offset: u64) -> Action {
        Action::Commit {
            key: Key(partition),
            group: self.group.number,
            offset: Offset(offset),
        }
    }

    /// Whether the membership still stands at the end.
    async fn live(&mut self, end: Instant, random: &mut StdRng, stop: &CancellationToken) -> bool {
        let mut polls = 0;
        while Instant::now() < end && !stop.is_cancelled() {
            if !self.poll().await {
                return false;
            }
            polls += 1;
            if polls % POLLS == 0 {
                self.commit().await;
            }
            if random.random_bool(0.002) {
                self.shared.disturbed("a member of a group stands still");
                own_thread::stand_still(Duration::from_millis(random.random_range(PAUSE_MS)));
            }
        }
        true
    }

    /// One poll; whether the member can go on. Between two records of a poll no partition comes or
    /// goes: a partition that was lost and came back begins again where the group is.
    async fn poll(&mut self) -> bool {
        let recorder = Arc::clone(&self.shared.recorder);
        let held = self.held.take();
        let count = || self.changes.load(Ordering::SeqCst);
        let changes = held.as_ref().map_or_else(count, |(_, count)| *count);
        recorder.invoke(self.process, Function::Poll, Vec::new());
        let mut records: Vec<GroupRecord> = held.into_iter().map(|(record, _)| record).collect();
        let mut seen = changes;
        let mut whole = true;
        let mut next = timeout(WAIT, self.consumer.next()).await;
        let end = Instant::now() + COLLECT;
        while let Ok(item) = next {
            match item {
                Some(Ok(record)) => {
                    let now = self.changes.load(Ordering::SeqCst);
                    if now != seen && !records.is_empty() {
                        self.held = Some((record, now));
                        break;
                    }
                    seen = now;
                    records.push(record);
                }
                Some(Err(GroupError::Partition(error))) => {
                    self.shared
                        .complain(format!("process {}: {error}", self.process));
                }
                Some(Err(_)) | None => {
                    whole = false;
                    break;
                }
            }
            if records.len() >= MOST {
                break;
            }
            next = timeout_at(end, self.consumer.next()).await;
        }
        let reads = records.iter().map(|record| read_of(record)).collect();
        let mut polled = Operation::new(0, 0, Kind::Ok, self.process, Function::Poll, reads);
        // Also of the poll before: what came then may only be read now.
        polled.rebalanced = self.changes.load(Ordering::SeqCst) != self.changes_before;
        self.changes_before = changes;
        recorder.record(&mut polled);
        for record in records {
            let position = Position {
                next: record.offset.0 + 1,
                changes: seen,
            };
            self.positions.insert(record.partition.0, position);
            record.done();
        }
        whole
    }

    /// Commits what it is done with. Of that, what is surely stored is recorded: not partitions that
    /// it has lost meanwhile, where others may be further on.
    async fn commit(&mut self) {
        let recorder = Arc::clone(&self.shared.recorder);
        let wanted = self.positions.iter();
        let wanted: Vec<Action> = wanted.map(|(p, at)| self.commit_of(*p, at.next)).collect();
        if wanted.is_empty() {
            return;
        }
        recorder.invoke(self.process, Function::Commit, wanted.clone());
        if self.consumer.commit().await.is_err() {
            recorder.complete(Kind::Info, self.process, Function::Commit, wanted);
            self.begin();
            return;
        }
        let stored = stored(&self.shared, &self.client, &self.group).await;
        let missing = stored.as_ref().map(|stored| self.missing(stored));
        let stored = stored.unwrap_or_default();
        let is_stored = |action: &Action| match *action {
            Action::Commit { key, offset, .. } => stored.get(&key.0) == Some(&offset.0),
            _ => false,
        };
        let sure = wanted.into_iter().filter(is_stored).collect();
        recorder.complete(Kind::Ok, self.process, Function::Commit, sure);
        if missing.is_some_and(|missing| !missing.is_empty()) {
            self.miss().await;
        }
    }

    /// Partitions that the group has not come as far in as this member was told that it has, with what is stored.
    /// It has held them since it read there: what is stored of those that it lost is others' doing, and what
    /// it had read there before was not committed with the rest.
    fn missing(&self, stored: &BTreeMap<u32, u64>) -> Vec<(u32, u64, u64)> {
        let changes = self.changes.load(Ordering::SeqCst);
        let held = self.consumer.assignment();
        let holds = |p: u32| held.iter().any(|(_, held)| held.0 == p);
        let behind = self.positions.iter().filter_map(|(p, at)| {
            let stored = stored.get(p).copied().unwrap_or(0);
            let lost = stored < at.next && at.changes == changes && holds(*p);
            lost.then_some((*p, at.next, stored))
        });
        behind.collect()
    }

    /// An acknowledged commit that is not there is lost, unless the member hears in the next moments that the
    /// partition is not its own any more.
    async fn miss(&self) {
        let given_up = Instant::now() + HEARSAY;
        loop {
            let answer = stored(&self.shared, &self.client, &self.group).await;
            let missing = answer.as_ref().map(|stored| self.missing(stored));
            let late = Instant::now() > given_up;
            match missing {
                Some(missing) if missing.is_empty() => return,
                Some(missing) if late => {
                    for (partition, told, stored) in missing {
                        self.shared.found(format!(
                            "group {}: offset {told} of partition {partition} was acknowledged as committed to \
                             process {}, and {stored} is stored",
                            self.group.name, self.process
                        ));
                    }
                    return;
                }
                None if late => {
                    let what = format!("process {}: nobody says what is stored", self.process);
                    self.shared.complain(what);
                    return;
                }
                Some(_) | None => {}
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Leaves, or is gone as if killed.
    async fn end(self, alive: bool, random: &mut StdRng) {
        if alive && random.random_bool(0.5) {
            // It may have to wait for a coordinator that is not there; then it is gone all the same.
            let left = timeout(SESSION, self.consumer.leave()).await;
            if !matches!(left, Ok(Ok(()))) {
                self.shared.disturbed("a member of a group could not leave");
            }
            return;
        }
        self.shared.disturbed("a member of a group is killed");
        drop(self.consumer);
    }
}

/// What a group has committed of the topic, by partition; none: nobody said.
async fn stored(shared: &Shared, client: &Client, group: &Group) -> Option<BTreeMap<u32, u64>> {
    let topic = client.topic(&shared.plan.topic).await.ok()?.id;
    let admin = client.groups().timeout(REQUEST);
    let offsets = match admin.offsets(&group.name).await {
        Ok(offsets) => offsets,
        Err(AdminError::Rejected(cause)) if cause.code() == Some(ErrorCode::UnknownGroup) => {
            Vec::new()
        }
        Err(_) => return None,
    };
    let of_topic = offsets.iter().filter(|o| o.topic_id == topic.0);
    Some(of_topic.map(|o| (o.partition, o.offset)).collect())
}

/// Asks how far a group is, as a process of the history.
async fn ask(
    shared: &Shared,
    client: &Client,
    group: &Group,
    process: Process,
) -> Option<BTreeMap<u32, u64>> {
    let answer = |stored: Option<&BTreeMap<u32, u64>>| {
        let of = |p: u32| Action::Committed {
            key: Key(p),
            group: group.number,
            offset: stored.and_then(|all| all.get(&p)).map(|at| Offset(*at)),
        };
        (0..shared.plan.partitions).map(of).collect::<Vec<_>>()
    };
    let recorder = &shared.recorder;
    recorder.invoke(process, Function::Committed, answer(None));
    let stored = stored(shared, client, group).await;
    let kind = if stored.is_some() {
        Kind::Ok
    } else {
        Kind::Fail
    };
    recorder.complete(kind, process, Function::Committed, answer(stored.as_ref()));
    stored
}

/// Asks now and then until `stop`.
pub(super) async fn watch(
    shared: Arc<Shared>,
    group: Group,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(500);
    let client = shared.client("group-watch")?;
    let process = shared.recorder.new_process();
    while !stop.is_cancelled() {
        ask(&shared, &client, &group, process).await;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// After everything was healed, one member must bring its group to the end of every partition.
/// Answers with what it did not reach.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    group: Group,
    ends: &BTreeMap<u32, u64>,
    patience: Duration,
) -> anyhow::Result<Option<String>> {
    let given_up = Instant::now() + patience;
    let client = shared.client("group-end")?;
    let asker = shared.recorder.new_process();
    let mut member = Member::join(shared, &group, 99)?;
    loop {
        let alive = member.poll().await;
        member.commit().await;
        let at = ask(shared, &client, &group, asker)
            .await
            .unwrap_or_default();
        let open = ends
            .iter()
            .filter(|(p, end)| at.get(p).copied().unwrap_or(0) < **end);
        let open: Vec<u32> = open.map(|(p, _)| *p).collect();
        if open.is_empty() {
            let left = member.consumer.leave().await;
            return Ok(left
                .err()
                .map(|error| format!("group {}: {error}", group.name)));
        }
        if !alive || Instant::now() > given_up {
            let what = format!("group {} did not finish partitions {open:?}", group.name);
            return Ok(Some(what));
        }
    }
}
