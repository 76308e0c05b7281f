//! A log on a simulated disk, and a seeded workload that exercises every rule.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use highwater_env::{Env, ManualClock, SimDisk, TcpNet, Workers};
use highwater_proto::Payload;
use highwater_wal::{
    GroupId, LogIndex, Op, Recovery, Wal, WalConfig, WalError, WalOpenError, WalReadError,
};
use parking_lot::Mutex;

use crate::model::Model;

pub const DIR: &str = "/data/wal";

/// Surroundings with a simulated disk; workers are tasks, so that a run is deterministic.
#[derive(Clone, Default)]
pub struct SimEnv {
    pub disk: SimDisk,
    clock: ManualClock,
    net: TcpNet,
}

impl SimEnv {
    pub fn on(disk: SimDisk) -> Self {
        Self {
            disk,
            ..Self::default()
        }
    }
}

impl Env for SimEnv {
    type Disk = SimDisk;
    type Clock = ManualClock;
    type Net = TcpNet;
    fn disk(&self) -> &SimDisk {
        &self.disk
    }
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn net(&self) -> &TcpNet {
        &self.net
    }
    fn workers(&self) -> Workers {
        Workers::Tasks
    }
}

/// Counts calls of `on_fatal`.
pub type Fatal = Arc<AtomicUsize>;

/// Tiny files and a tiny budget, so that a short run rotates, recycles and relocates.
pub fn config(fatal: &Fatal) -> WalConfig {
    let fatal = Arc::clone(fatal);
    WalConfig {
        file_bytes: 16 << 10,
        budget_bytes: 64 << 10,
        queue_bytes: 64 << 10,
        flush_bytes: 8 << 10,
        max_free_files: 3,
        on_fatal: Arc::new(move |_| {
            fatal.fetch_add(1, Ordering::SeqCst);
        }),
        ..WalConfig::default()
    }
}

pub fn open(disk: &SimDisk) -> Result<(Wal<SimEnv>, Recovery), WalOpenError> {
    open_with(disk, config(&Fatal::default()))
}

pub fn open_with(
    disk: &SimDisk,
    config: WalConfig,
) -> Result<(Wal<SimEnv>, Recovery), WalOpenError> {
    Wal::open(&SimEnv::on(disk.clone()), Path::new(DIR), config)
}

pub fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(body)
}

pub fn append(index: u64, payload: impl Into<Bytes>) -> Op {
    Op::Append {
        index: LogIndex(index),
        payload: Payload::from(payload.into()),
    }
}

pub fn vote(value: &str) -> Op {
    Op::SetState {
        slot: 0,
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

pub fn truncate(from: u64) -> Op {
    Op::Truncate {
        from: LogIndex(from),
    }
}

pub fn purge(upto: u64) -> Op {
    Op::Purge {
        upto: LogIndex(upto),
        meta: Bytes::from(format!("meta {upto}")),
    }
}

/// A sequence of numbers that depends on its seed alone.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Answers by submission; `None` while there is none.
type Answers = Vec<Option<Result<(), WalError>>>;

/// What was submitted, in order, and what became of it.
#[derive(Default)]
pub struct History {
    pub submitted: Vec<(GroupId, Vec<Op>)>,
    pub answers: Arc<Mutex<Answers>>,
}

impl History {
    /// What was submitted and answered so far, to go on from in one of several ways.
    pub fn again(&self) -> Self {
        Self {
            submitted: self.submitted.clone(),
            answers: Arc::new(Mutex::new(self.answers.lock().clone())),
        }
    }
    /// How many submissions were acknowledged. They are the first ones.
    pub fn acknowledged(&self) -> usize {
        let answers = self.answers.lock();
        let acknowledged = answers
            .iter()
            .take_while(|a| matches!(a, Some(Ok(()))))
            .count();
        let later = answers.iter().skip(acknowledged);
        assert_eq!(
            later.filter(|a| matches!(a, Some(Ok(())))).count(),
            0,
            "not in order"
        );
        acknowledged
    }

    pub async fn submit(&mut self, wal: &Wal<SimEnv>, group: u32, ops: Vec<Op>) -> bool {
        let number = self.submitted.len();
        self.submitted.push((GroupId(group), ops.clone()));
        self.answers.lock().push(None);
        let answers = Arc::clone(&self.answers);
        let done = Box::new(move |answer| {
            let before = answers.lock()[number].replace(answer);
            assert!(before.is_none(), "answered twice");
        });
        wal.submit(GroupId(group), ops, done).await.is_ok()
    }

    /// The model after the first `count` submissions.
    pub fn model(&self, count: usize) -> Model {
        let mut model = Model::default();
        for (group, ops) in &self.submitted[..count] {
            model.apply(*group, ops);
        }
        model
    }

    /// What is in `wal` must be the first submissions: all acknowledged ones, and of the others a
    /// prefix. What is there becomes the history.
    pub fn check(&mut self, wal: &Wal<SimEnv>) {
        let found = match Model::read(wal) {
            Ok(found) => found,
            // The disk has stopped; the next recovery will tell.
            Err(WalReadError::Io { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let acknowledged = self.acknowledged();
        let all = self.submitted.len();
        let matching = (acknowledged..=all).find(|count| self.model(*count) == found);
        let Some(count) = matching else {
            panic!(
                "no prefix of at least {acknowledged} of {all} submissions explains {found:#?}; \
                 acknowledged is {:#?}",
                self.model(acknowledged)
            );
        };
        self.submitted.truncate(count);
        *self.answers.lock() = vec![Some(Ok(())); count];
    }
}

/// Waits for every answer.
pub async fn settle(history: &History) {
    while history.answers.lock().iter().any(Option::is_none) {
        tokio::task::yield_now().await;
    }
}

/// Submits `count` random submissions that follow what was submitted before, in bursts. Ends early
/// when the log fails.
pub async fn workload(
    wal: &Wal<SimEnv>,
    history: &mut History,
    numbers: &mut Numbers,
    count: usize,
) {
    let mut model = history.model(history.submitted.len());
    for _ in 0..count {
        // Group 0 is idle but for a vote at the start; group 4 has entries and never purges.
        let group = if history.submitted.is_empty() {
            0
        } else {
            numbers.below(4) as u32 + 1
        };
        let ops = submission(&model, group, numbers);
        model.apply(GroupId(group), &ops);
        if !history.submit(wal, group, ops).await {
            break;
        }
        if numbers.below(4) == 0 {
            settle(history).await;
        }
    }
    settle(history).await;
}

fn submission(model: &Model, group: u32, numbers: &mut Numbers) -> Vec<Op> {
    let known = model
        .groups
        .get(&GroupId(group))
        .cloned()
        .unwrap_or_default();
    let next = known.next();
    let number = numbers.below(1_000_000);
    match numbers.below(20) {
        _ if group == 0 => vec![vote("an idle shard's vote")],
        // A few entries that stay for ever.
        _ if group == 4 && next >= 5 => vec![vote(&format!("vote {number}"))],
        0 | 1 => vec![vote(&format!("vote {number}"))],
        2 | 3 if group != 4 && next > 2 => vec![purge(next - numbers.below(2) - 1)],
        4 if group != 4 => vec![purge(next + numbers.below(3))],
        5 if group != 4 => vec![Op::Truncate {
            from: LogIndex(next.saturating_sub(numbers.below(3))),
        }],
        6 if group == 3 => vec![Op::Forget],
        7 => vec![
            append(next, vec![group as u8; 20_000]),
            Op::SetState {
                slot: 1,
                value: Bytes::from(number.to_string()),
            },
        ],
        _ => {
            let count = numbers.below(4) + 1;
            let len = numbers.below(1200) as usize;
            let entries = (next..next + count).map(|index| {
                let parts = [
                    Bytes::from(format!("{group}/{index}/{number} ")),
                    vec![7; len].into(),
                ];
                Op::Append {
                    index: LogIndex(index),
                    payload: parts.into_iter().collect(),
                }
            });
            entries.collect()
        }
    }
}
