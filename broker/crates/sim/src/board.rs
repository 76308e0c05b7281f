//! What the clients of a run share: its phase, its history, and what was read at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{bail, ensure};
use highwater_checker::{
    Action, Conclusion, Fault, Function, History, Key, Kind, Offset, Operation, Options, Process,
    Value, check,
};
use highwater_proto::TopicId;
use parking_lot::Mutex;

use crate::rot::Expected;
use crate::surroundings::elapsed;
use crate::trace;

/// In the history the topics beside the one that is written all the time begin here.
pub const ASIDES: Key = Key(1_000);

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The cluster is being founded and the topic made.
    Founding,
    /// Clients work while things break.
    Breaking,
    /// Nothing breaks any more; everyone must come to an end.
    Healed,
}

/// One value at its place.
type Placed = BTreeMap<(Key, Offset), Value>;

/// What is to be waited for before a compacted topic is read for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacting {
    /// Which topic.
    pub topic: TopicId,
    /// So much was written that some of it must be gone.
    pub surely: bool,
}

/// How far the compacted topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compaction {
    /// It is written, or there is none.
    No,
    /// Nothing is written any more.
    Awaited(Compacting),
    /// What was to be compacted is, on every replica alike.
    Settled(Compacting),
}

/// Shared by all clients. Clones are the same board.
#[derive(Debug, Clone)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    history: History,
    next_index: u64,
    next_process: u64,
    next_value: i64,
    producers: u32,
    partitions: u32,
    /// Clients that have not come to their end.
    busy: BTreeSet<String>,
    wiped: Option<u32>,
    replacing: bool,
    replaced: bool,
    compaction: Compaction,
    acknowledged: Placed,
    /// What each of the last readers found, and in which partitions.
    read: Vec<(String, BTreeSet<Key>, Placed)>,
    /// What must lie on the disks at the end.
    expected: Vec<Expected>,
}

/// What a run has shown.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Values that were acknowledged.
    pub acknowledged: usize,
    /// Values in the log at the end.
    pub stored: usize,
    /// The checker's report.
    pub verdict: String,
}

impl Board {
    /// A board for a run with so many producers, and partitions of the topic that is written all the time.
    #[must_use]
    pub fn new(producers: u32, partitions: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Founding,
            history: History::new(),
            next_index: 0,
            next_process: 0,
            next_value: 0,
            producers,
            partitions,
            busy: BTreeSet::new(),
            wiped: None,
            replacing: false,
            replaced: false,
            compaction: Compaction::No,
            acknowledged: BTreeMap::new(),
            read: Vec::new(),
            expected: Vec::new(),
        })))
    }

    /// Where the run is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.lock().phase
    }
    /// Moves the run on.
    pub fn set_phase(&self, phase: Phase) {
        self.0.lock().phase = phase;
    }
    /// A client begins.
    pub fn begins(&self, client: &str) {
        self.0.lock().busy.insert(client.to_owned());
    }
    /// A client has come to its end.
    pub fn ends(&self, client: &str) {
        self.0.lock().busy.remove(client);
    }
    /// Whether that client has not come to its end.
    #[must_use]
    pub fn is_busy(&self, client: &str) -> bool {
        self.0.lock().busy.contains(client)
    }
    /// Clients that have not come to their end.
    #[must_use]
    pub fn busy(&self) -> String {
        let busy: Vec<_> = self.0.lock().busy.iter().cloned().collect();
        busy.join(", ")
    }
    /// A producer has heard about everything it sent.
    pub fn producer_done(&self) {
        let producers = &mut self.0.lock().producers;
        *producers = producers.saturating_sub(1);
    }
    /// Whether every producer has.
    #[must_use]
    pub fn producers_done(&self) -> bool {
        self.0.lock().producers == 0
    }
    /// The broker that lost its disk and is to be replaced.
    #[must_use]
    pub fn wiped(&self) -> Option<u32> {
        self.0.lock().wiped
    }
    /// Says which broker is to be replaced.
    pub fn set_wiped(&self, broker: Option<u32>) {
        self.0.lock().wiped = broker;
    }
    /// A plan that replaces it is about to be asked for: from now on it may be let in.
    pub fn set_replacing(&self) {
        self.0.lock().replacing = true;
    }
    /// Whether it may be let in.
    #[must_use]
    pub fn replacing(&self) -> bool {
        self.0.lock().replacing
    }
    /// The plan that replaces it was begun.
    pub fn set_replaced(&self) {
        let mut state = self.0.lock();
        state.wiped = None;
        state.replaced = true;
    }
    /// Whether it was since this was asked last.
    #[must_use]
    pub fn take_replaced(&self) -> bool {
        std::mem::take(&mut self.0.lock().replaced)
    }
    /// Nothing is written to the compacted topic any more: its replicas are to become the same.
    pub fn await_compaction(&self, what: Compacting) {
        self.0.lock().compaction = Compaction::Awaited(what);
    }
    /// What is waited for now.
    #[must_use]
    pub fn awaited_compaction(&self) -> Option<Compacting> {
        match self.0.lock().compaction {
            Compaction::Awaited(what) => Some(what),
            Compaction::No | Compaction::Settled(_) => None,
        }
    }
    /// It has come about.
    pub fn settle_compaction(&self) {
        let compaction = &mut self.0.lock().compaction;
        if let Compaction::Awaited(what) = *compaction {
            *compaction = Compaction::Settled(what);
        }
    }
    /// The topic whose replicas are compacted alike, if there is one.
    #[must_use]
    pub fn settled_compaction(&self) -> Option<Compacting> {
        match self.0.lock().compaction {
            Compaction::Settled(what) => Some(what),
            Compaction::No | Compaction::Awaited(_) => None,
        }
    }
    /// A client process that no operation was made by.
    #[must_use]
    pub fn process(&self) -> Process {
        let next = &mut self.0.lock().next_process;
        *next += 1;
        Process(*next)
    }
    /// A value that nobody sent.
    #[must_use]
    pub fn value(&self) -> Value {
        let next = &mut self.0.lock().next_value;
        *next += 1;
        Value(*next)
    }

    /// Adds an entry to the history.
    ///
    /// # Errors
    /// When the history is full.
    pub fn push(
        &self,
        process: Process,
        kind: Kind,
        function: Function,
        actions: Vec<Action>,
    ) -> anyhow::Result<()> {
        let mut operation = Operation::new(0, 0, kind, process, function, actions);
        operation.seek_to_beginning = function == Function::Assign;
        self.push_operation(operation)
    }

    /// Adds an entry to the history, at its place and with its time.
    ///
    /// # Errors
    /// When the history is full.
    pub fn push_operation(&self, mut operation: Operation) -> anyhow::Result<()> {
        let mut state = self.0.lock();
        if operation.kind == Kind::Ok {
            for action in &operation.actions {
                if let Action::Send {
                    key,
                    value,
                    offset: Some(offset),
                } = *action
                {
                    trace::note(
                        "acknowledged",
                        "",
                        format_args!(" partition {key} offset {offset} value {value}"),
                    );
                    if key < ASIDES {
                        state.acknowledged.insert((key, offset), value);
                    }
                }
                if let Action::Read { key, offset, .. } = *action {
                    let process = operation.process;
                    trace::note(
                        "polled",
                        "",
                        format_args!(" process {process} partition {key} offset {offset}"),
                    );
                }
            }
        }
        operation.index = state.next_index;
        state.next_index += 1;
        operation.time_ns = u64::try_from(elapsed().as_nanos())?;
        state.history.push(&operation)?;
        Ok(())
    }

    /// Notes what one of the last readers found in these partitions.
    pub fn found(&self, reader: &str, partitions: BTreeSet<Key>, read: Placed) {
        let found = (reader.to_owned(), partitions, read);
        self.0.lock().read.push(found);
    }
    /// Notes what must lie on the disks at the end.
    pub fn expect(&self, expected: Expected) {
        self.0.lock().expected.push(expected);
    }
    /// What must.
    #[must_use]
    pub fn expected(&self) -> Vec<Expected> {
        self.0.lock().expected.clone()
    }

    /// Judges the run: the history by the checker, and what each last reader found. Each partition must have
    /// been read at its leader and from as many replicas.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn judge(&self, replicas: u32, faults: Vec<Fault>) -> anyhow::Result<Outcome> {
        let state = self.0.lock();
        let options = Options {
            faults,
            ..Options::default()
        };
        let verdict = check(&state.history, &options)?;
        // One in which too little went well proves little, but breaks no promise: who runs many seeds counts them.
        ensure!(
            verdict.conclusion != Conclusion::Fail,
            "the history does not pass: {verdict}"
        );
        let mut readers: BTreeMap<Key, u32> = BTreeMap::new();
        let mut first: BTreeMap<Key, (&String, Placed)> = BTreeMap::new();
        for (reader, partitions, read) in &state.read {
            let mut values: Vec<_> = read.values().collect();
            values.sort_unstable();
            values.dedup();
            ensure!(values.len() == read.len(), "{reader} has a value twice");
            for key in partitions {
                *readers.entry(*key).or_default() += 1;
                let held = of(read, *key);
                for (place, value) in of(&state.acknowledged, *key) {
                    if held.get(&place) != Some(&value) {
                        let (key, offset) = place;
                        bail!("{reader} lacks value {value}, acknowledged at {offset} of {key}");
                    }
                }
                let (other, all) = first.entry(*key).or_insert((reader, held.clone()));
                ensure!(*all == held, "{reader} and {other} hold different logs");
            }
        }
        for partition in 0..state.partitions {
            let count = readers.get(&Key(partition)).copied().unwrap_or(0);
            // Replicas may have moved meanwhile: then it was read in more places.
            ensure!(
                count > replicas,
                "partition {partition} was read {count} times, not at the leader and from {replicas} replicas"
            );
        }
        Ok(Outcome {
            acknowledged: state.acknowledged.len(),
            stored: first.values().map(|(_, held)| held.len()).sum(),
            verdict: verdict.to_string(),
        })
    }
}

/// What lies in one partition.
fn of(placed: &Placed, key: Key) -> Placed {
    let from = (key, Offset(0))..(Key(key.0 + 1), Offset(0));
    let within = placed.range(from);
    within.map(|(place, value)| (*place, *value)).collect()
}
