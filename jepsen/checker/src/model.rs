//! What the checks look at: operations paired, and per partition a log with dense numbers.
//!
//! Values and offsets are numbered by their rank, so that every table is a plain vector. Building
//! costs a few sorts; each check is then one pass.

use crate::gone::Gone;
use crate::history::{
    Action, Entry, Function, History, HistoryError, Key, Kind, Offset, Process, Value,
};
use crate::pairing::pair;

/// Stands for "no such number" in the dense tables.
pub(crate) const NONE: u32 = u32::MAX;
/// Operations named with a finding.
const MOST_WITNESSES: usize = 8;

/// How an operation ended. One that was still open at the end counts as `Info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok,
    Fail,
    Info,
}

/// One operation: its invocation and, if there is one, its completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    /// Position of the invocation in the history.
    pub invoke: u32,
    /// Position of the completion, or `NONE`.
    pub complete: u32,
    pub ended: Ended,
    /// Ended ok; or ended unknown, and an ok poll saw one of its records.
    pub committed: bool,
}

/// One record that somebody tried to append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub value: u32,
    pub op: u32,
    /// The acknowledged offset.
    pub offset: Option<Offset>,
}

/// One record that an ok poll returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub value: u32,
    pub rank: u32,
    pub op: u32,
}

/// What the records of one value went through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueFacts {
    /// The value's number.
    pub number: u32,
    /// Position of the earliest invocation that sends it, or `NONE`: nobody did.
    pub first_invoke: u32,
    /// Some send of it did not certainly fail.
    pub possible: bool,
    /// Some send of it is committed.
    pub committed: bool,
    /// Some send of it ended ok, or unknown with an offset for this very record.
    pub acknowledged: bool,
    /// Some ok poll returned it.
    pub read: bool,
    /// Lowest and highest rank at which it lies, or `NONE`.
    pub first_rank: u32,
    pub last_rank: u32,
}

/// One partition's part of the history.
pub(crate) struct Partition {
    pub key: Key,
    /// All values sent or read, ascending; a value's number is its place here.
    pub values: Vec<Value>,
    /// All offsets in use, ascending; an offset's rank is its place here.
    pub offsets: Vec<Offset>,
    /// Facts by value number.
    pub facts: Vec<ValueFacts>,
    /// In order of invocation.
    pub sent: Vec<Sent>,
    /// In order of completion.
    pub seen: Vec<Seen>,
    /// (rank, value), ascending, each pair once.
    pub log: Vec<(u32, u32)>,
    /// What of it need not be there any more.
    pub gone: Gone,
}

impl Partition {
    fn new(key: Key) -> Self {
        Self {
            key,
            values: Vec::new(),
            offsets: Vec::new(),
            facts: Vec::new(),
            sent: Vec::new(),
            seen: Vec::new(),
            log: Vec::new(),
            gone: Gone::default(),
        }
    }

    pub(crate) fn value_number(&self, value: Value) -> Option<u32> {
        self.values.binary_search(&value).ok().map(number)
    }

    pub(crate) fn rank(&self, offset: Offset) -> Option<u32> {
        self.offsets.binary_search(&offset).ok().map(number)
    }

    pub(crate) fn value(&self, value: u32) -> Value {
        self.values[value as usize]
    }

    pub(crate) fn offset(&self, rank: u32) -> Offset {
        self.offsets[rank as usize]
    }

    pub(crate) fn fact(&self, value: u32) -> &ValueFacts {
        &self.facts[value as usize]
    }
}

/// A whole history, prepared.
pub(crate) struct Model<'a> {
    pub history: &'a History,
    /// In order of invocation.
    pub ops: Vec<Op>,
    /// Operation number by position in the history.
    pub op_at: Vec<u32>,
    /// Ascending by key.
    pub partitions: Vec<Partition>,
    /// Processes that subscribed may be rebalanced without a sign of it in the history.
    pub free_subscribers: bool,
    keys: Vec<Key>,
}

pub(crate) fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}

impl<'a> Model<'a> {
    pub(crate) fn build(history: &'a History) -> Result<Self, HistoryError> {
        let (ops, op_at) = pair(history)?;
        let mut keys: Vec<Key> = history.all_actions().iter().map(Action::key).collect();
        keys.sort_unstable();
        keys.dedup();
        let partitions = keys.iter().map(|key| Partition::new(*key)).collect();
        let mut model = Self {
            history,
            ops,
            op_at,
            partitions,
            free_subscribers: false,
            keys,
        };
        model.number_values();
        model.collect_sends()?;
        model.mark_reads();
        model.decide_committed();
        model.number_offsets();
        model.collect_reads();
        model.lay_out_logs();
        model.note_gone();
        Ok(model)
    }

    /// The entry at a position that came from this model.
    pub(crate) fn entry(&self, position: u32) -> Entry<'a> {
        match self.history.get(position as usize) {
            Some(entry) => entry,
            None => unreachable!("position {position} lies outside its own history"),
        }
    }

    /// The history's own index of a position.
    pub(crate) fn index(&self, position: u32) -> u64 {
        self.entry(position).index
    }

    /// The indexes by which a person finds an operation: invocation, then completion.
    pub(crate) fn indexes(&self, op: u32) -> Vec<u64> {
        let op = &self.ops[op as usize];
        let mut indexes = vec![self.index(op.invoke)];
        if op.complete != NONE {
            indexes.push(self.index(op.complete));
        }
        indexes
    }

    pub(crate) fn process(&self, op: u32) -> Process {
        self.entry(self.ops[op as usize].invoke).process
    }

    pub(crate) fn partition_number(&self, key: Key) -> Option<usize> {
        self.keys.binary_search(&key).ok()
    }

    pub(crate) fn partition(&self, key: Key) -> Option<&Partition> {
        self.partition_number(key)
            .map(|place| &self.partitions[place])
    }

    /// Entries that end ok, with their positions.
    pub(crate) fn ok_entries(&self) -> impl Iterator<Item = (u32, Entry<'a>)> {
        let ok = |(_, entry): &(u32, Entry<'a>)| entry.kind == Kind::Ok;
        self.history
            .iter()
            .enumerate()
            .map(|(at, entry)| (number(at), entry))
            .filter(ok)
    }

    /// Indexes of the first entries that end ok and say of a record of `key` what `of` asks for, by
    /// its offset and value. Goes through the whole history: for the few findings that are shown.
    pub(crate) fn witnesses(&self, key: Key, of: impl Fn(Offset, Value) -> bool) -> Vec<u64> {
        let says = |action: &Action| match *action {
            Action::Send {
                key: at,
                value,
                offset: Some(offset),
            }
            | Action::Read {
                key: at,
                offset,
                value,
            } => at == key && of(offset, value),
            _ => false,
        };
        self.ok_entries()
            .filter(|(_, entry)| entry.actions.iter().any(says))
            .map(|(_, entry)| entry.index)
            .take(MOST_WITNESSES)
            .collect()
    }

    fn number_values(&mut self) {
        for entry in self.history.iter() {
            for action in entry.actions {
                let value = match *action {
                    Action::Send { value, .. } if entry.kind == Kind::Invoke => value,
                    Action::Read { value, .. } if entry.kind == Kind::Ok => value,
                    _ => continue,
                };
                if let Ok(place) = self.keys.binary_search(&action.key()) {
                    self.partitions[place].values.push(value);
                }
            }
        }
        for partition in &mut self.partitions {
            partition.values.sort_unstable();
            partition.values.dedup();
            let unknown = |number| ValueFacts {
                number,
                first_invoke: NONE,
                possible: false,
                committed: false,
                acknowledged: false,
                read: false,
                first_rank: NONE,
                last_rank: NONE,
            };
            partition.facts = (0..number(partition.values.len())).map(unknown).collect();
        }
    }

    fn collect_sends(&mut self) -> Result<(), HistoryError> {
        let history = self.history;
        for at in 0..self.ops.len() {
            let op = self.ops[at];
            let invoked = sends(self.entry(op.invoke).actions);
            let completed = history.get(op.complete as usize);
            let completed = completed.filter(|entry| match op.ended {
                Ended::Ok => true,
                // Of several records of an unknown operation some may have been acknowledged. A
                // transaction's are nothing before its end.
                Ended::Info => names_offsets(entry),
                Ended::Fail => false,
            });
            let mut ends = completed.map(|entry| (entry.index, sends(entry.actions).peekable()));
            for (key, value, _) in invoked {
                let offset = match &mut ends {
                    None => None,
                    Some((index, ends)) => match ends.next() {
                        Some((k, v, offset)) if (k, v) == (key, value) => offset,
                        _ => return Err(HistoryError::SendsDiffer { index: *index }),
                    },
                };
                self.note_send(key, value, number(at), offset);
            }
            if let Some((index, mut ends)) = ends
                && ends.peek().is_some()
            {
                return Err(HistoryError::SendsDiffer { index });
            }
        }
        Ok(())
    }

    fn note_send(&mut self, key: Key, value: Value, op: u32, offset: Option<Offset>) {
        let Some(place) = self.partition_number(key) else {
            return;
        };
        let (invoke, ended) = (self.ops[op as usize].invoke, self.ops[op as usize].ended);
        let partition = &mut self.partitions[place];
        let Some(value) = partition.value_number(value) else {
            return;
        };
        partition.sent.push(Sent { value, op, offset });
        let facts = &mut partition.facts[value as usize];
        facts.first_invoke = facts.first_invoke.min(invoke);
        facts.possible |= ended != Ended::Fail;
        facts.acknowledged |= ended == Ended::Ok || offset.is_some();
    }

    fn mark_reads(&mut self) {
        for entry in self.history.iter().filter(|entry| entry.kind == Kind::Ok) {
            for action in entry.actions {
                if let Action::Read { key, value, offset } = *action
                    && let Some(place) = self.partition_number(key)
                {
                    let partition = &mut self.partitions[place];
                    partition.offsets.push(offset);
                    if let Some(value) = partition.value_number(value) {
                        partition.facts[value as usize].read = true;
                    }
                }
            }
        }
    }

    fn decide_committed(&mut self) {
        for op in &mut self.ops {
            op.committed = op.ended == Ended::Ok;
        }
        for partition in &self.partitions {
            for sent in &partition.sent {
                let op = &mut self.ops[sent.op as usize];
                op.committed |= op.ended == Ended::Info && partition.fact(sent.value).read;
            }
        }
        for partition in &mut self.partitions {
            for sent in &partition.sent {
                partition.facts[sent.value as usize].committed |=
                    self.ops[sent.op as usize].committed || sent.offset.is_some();
            }
        }
    }

    fn number_offsets(&mut self) {
        for partition in &mut self.partitions {
            let acknowledged = partition.sent.iter().filter_map(|sent| sent.offset);
            partition.offsets.extend(acknowledged);
            partition.offsets.sort_unstable();
            partition.offsets.dedup();
            partition.offsets.shrink_to_fit();
        }
    }

    fn collect_reads(&mut self) {
        for (position, entry) in self.history.iter().enumerate() {
            if entry.kind != Kind::Ok {
                continue;
            }
            let op = self.op_at[position];
            for action in entry.actions {
                if let Action::Read { key, value, offset } = *action
                    && let Some(place) = self.partition_number(key)
                    && let Some(value) = self.partitions[place].value_number(value)
                    && let Some(rank) = self.partitions[place].rank(offset)
                {
                    self.partitions[place].seen.push(Seen { value, rank, op });
                }
            }
        }
    }

    fn lay_out_logs(&mut self) {
        for partition in &mut self.partitions {
            let mut log: Vec<(u32, u32)> = partition
                .seen
                .iter()
                .map(|seen| (seen.rank, seen.value))
                .collect();
            for sent in &partition.sent {
                if let Some(rank) = sent.offset.and_then(|offset| partition.rank(offset)) {
                    log.push((rank, sent.value));
                }
            }
            log.sort_unstable();
            log.dedup();
            for &(rank, value) in &log {
                let facts = &mut partition.facts[value as usize];
                facts.first_rank = facts.first_rank.min(rank);
                // `NONE` is the highest number: the first rank replaces it.
                facts.last_rank = rank;
            }
            partition.log = log;
        }
    }
}

fn names_offsets(entry: &Entry<'_>) -> bool {
    entry.function == Function::Send && sends(entry.actions).any(|(_, _, offset)| offset.is_some())
}

fn sends(actions: &[Action]) -> impl Iterator<Item = (Key, Value, Option<Offset>)> {
    actions.iter().filter_map(|action| match *action {
        Action::Send { key, value, offset } => Some((key, value, offset)),
        _ => None,
    })
}
