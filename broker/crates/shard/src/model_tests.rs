//! Random lives of a shard against a naive model that keeps the whole history, on two replicas of
//! which one sees commands and its own state only through their bytes.

use std::collections::BTreeMap;

use highwater_proto::{Offset, TimestampMs, TopicPartition};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::test_support::{batch, tp};
use crate::{
    AppendRequest, Effect, EntryContext, PartitionConfig, RejectReason, ShardCommand, ShardReply,
    ShardState, Verdict,
};

const PARTITIONS: u32 = 3;
const EXPIRY_MS: u64 = 1000;
const CAP: usize = 3;

/// One batch as it was appended.
#[derive(Debug, Clone, Copy)]
struct Stored {
    producer: u64,
    epoch: u16,
    first: u32,
    records: u32,
    offset: u64,
    time: i64,
}

impl Stored {
    fn after_last(&self) -> u32 {
        self.first + self.records
    }
}

/// Everything that was ever appended to one partition, and nothing derived from it.
#[derive(Debug, Default)]
struct Log {
    batches: Vec<Stored>,
    next_offset: u64,
}

impl Log {
    /// Batches of a producer since the partition last knew nothing of it.
    fn remembered(&self, producer: u64, now: i64) -> Vec<Stored> {
        let is_silent = |from: i64, to: i64| (to - from).unsigned_abs() >= EXPIRY_MS;
        let mut others: Vec<u64> = Vec::new();
        let mut known: Vec<Stored> = Vec::new();
        for stored in self
            .batches
            .iter()
            .filter(|stored| stored.producer != NOBODY)
        {
            if stored.producer == producer {
                if known
                    .last()
                    .is_some_and(|last| is_silent(last.time, stored.time))
                {
                    known.clear();
                }
                known.push(*stored);
                others.clear();
            } else if !others.contains(&stored.producer) {
                // One that is known already takes no room of another; one that is new does. Either
                // way it appended later than ours, so it outlives ours.
                others.push(stored.producer);
                if others.len() >= CAP {
                    known.clear();
                }
            }
        }
        if known.last().is_some_and(|last| is_silent(last.time, now)) {
            known.clear();
        }
        known
    }

    /// The verdict that the rules demand, from the history alone.
    fn decide(&self, sent: &Stored) -> Verdict {
        let append = Verdict::Appended {
            base_offset: Offset(self.next_offset),
            log_start: Offset(0),
            append_time: None,
        };
        if sent.producer == NOBODY {
            return append;
        }
        let rejected = |reason| Verdict::Rejected(reason);
        let known = self.remembered(sent.producer, sent.time);
        let Some(newest) = known.last() else {
            return if sent.first == 0 {
                append
            } else {
                rejected(RejectReason::UnknownProducer)
            };
        };
        if sent.epoch < newest.epoch {
            return rejected(RejectReason::ProducerFenced);
        }
        if sent.epoch > newest.epoch {
            let ok = sent.first == 0;
            return if ok {
                append
            } else {
                rejected(RejectReason::OutOfOrderSequence)
            };
        }
        let of_epoch: Vec<&Stored> = known
            .iter()
            .filter(|stored| stored.epoch == sent.epoch)
            .collect();
        let last_five = &of_epoch[of_epoch.len().saturating_sub(5)..];
        if sent.first == newest.after_last() {
            return append;
        }
        let same = |stored: &&&Stored| (stored.first, stored.records) == (sent.first, sent.records);
        if let Some(original) = last_five.iter().find(same) {
            return Verdict::Duplicate {
                base_offset: Offset(original.offset),
            };
        }
        if sent.after_last() <= last_five[0].first {
            return rejected(RejectReason::DuplicateSequence);
        }
        rejected(RejectReason::OutOfOrderSequence)
    }

    fn store(&mut self, sent: Stored) {
        self.next_offset += u64::from(sent.records);
        self.batches.push(sent);
    }
}

/// The producer of batches without one.
const NOBODY: u64 = u64::MAX;

/// What to send, relative to what was sent before.
#[derive(Debug, Clone)]
struct Send {
    partition: u32,
    producer: Option<u64>,
    /// Above the highest epoch the producer has used.
    epoch_step: i32,
    sequence: Sequence,
    records: u32,
    /// Milliseconds since the batch before.
    later: i64,
}

#[derive(Debug, Clone)]
enum Sequence {
    Due,
    Zero,
    Away(i32),
    /// The batch that was sent that many batches of the producer ago.
    Again(usize),
}

#[derive(Debug, Clone)]
enum Step {
    Entry(Vec<Send>),
    NewLeader,
    /// The second replica goes on from its snapshot.
    Restart,
}

fn sends() -> impl Strategy<Value = Send> {
    let sequence = prop_oneof![
        8 => Just(Sequence::Due),
        1 => Just(Sequence::Zero),
        2 => (-12i32..4).prop_map(Sequence::Away),
        5 => (0usize..16).prop_map(Sequence::Again),
    ];
    let steady = (0u64..2).prop_map(Some);
    let passing = (2u64..6).prop_map(Some);
    let producer = prop_oneof![1 => Just(None), 12 => steady, 2 => passing];
    let epoch_step = prop_oneof![30 => Just(0), 1 => Just(1), 1 => Just(-1)];
    let later = prop_oneof![60 => 0i64..10, 1 => 200i64..1200];
    // Few partitions and producers, so that histories grow long.
    let place = (0..PARTITIONS, producer);
    (place, epoch_step, sequence, 1u32..4, later).prop_map(
        |((partition, producer), epoch_step, sequence, records, later)| Send {
            partition,
            producer,
            epoch_step,
            sequence,
            records,
            later,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => prop::collection::vec(sends(), 1..6).prop_map(Step::Entry),
        1 => Just(Step::NewLeader),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

struct Life {
    logs: BTreeMap<TopicPartition, Log>,
    sent: BTreeMap<(TopicPartition, u64), Vec<Stored>>,
    time: i64,
    at: EntryContext,
    one: ShardState,
    other: ShardState,
    /// How often the model came to which kind of verdict.
    seen: BTreeMap<String, u32>,
}

impl Life {
    fn new() -> Self {
        let mut life = Self {
            logs: (0..PARTITIONS).map(|n| (tp(n), Log::default())).collect(),
            sent: BTreeMap::new(),
            time: 0,
            at: EntryContext {
                position: 0,
                leadership: 1,
            },
            one: ShardState::new(),
            other: ShardState::new(),
            seen: BTreeMap::new(),
        };
        let config = PartitionConfig {
            segment_bytes: 400,
            segment_ms: 300,
            producer_expiry_ms: EXPIRY_MS,
            max_producers: u32::try_from(CAP).expect("small"),
            ..PartitionConfig::default()
        };
        for n in 0..PARTITIONS {
            let command = ShardCommand::CreatePartition { tp: tp(n), config };
            assert_eq!(life.apply(command).0, ShardReply::Done);
        }
        life
    }

    /// Applies to both replicas, which must agree in everything.
    fn apply(&mut self, command: ShardCommand) -> (ShardReply, Vec<Effect>) {
        self.at.position += 1;
        let decoded = ShardCommand::decode(&command.encode()).expect("own command");
        assert_eq!(decoded, command);
        let (mut effects, mut others) = (Vec::new(), Vec::new());
        let reply = self.one.apply(self.at, command, &mut effects);
        assert_eq!(self.other.apply(self.at, decoded, &mut others), reply);
        assert_eq!(effects, others);
        assert_eq!(ShardReply::decode(&reply.encode()).as_ref(), Ok(&reply));
        (reply, effects)
    }

    /// Turns a relative send into an absolute one.
    fn resolve(&mut self, send: &Send) -> Stored {
        self.time += send.later;
        let place = tp(send.partition);
        let producer = send.producer.unwrap_or(NOBODY);
        let log = &self.logs[&place];
        let used = log
            .batches
            .iter()
            .filter(|stored| stored.producer == producer);
        let newest = used.max_by_key(|stored| (stored.epoch, stored.offset));
        let (epoch, due) = newest.map_or((1, 0), |stored| (stored.epoch, stored.after_last()));
        let mut stored = Stored {
            producer,
            epoch: epoch.saturating_add_signed(i16::try_from(send.epoch_step).expect("small")),
            first: match send.sequence {
                Sequence::Due | Sequence::Again(_) if send.epoch_step == 1 => 0,
                Sequence::Due | Sequence::Again(_) => due,
                Sequence::Zero => 0,
                Sequence::Away(by) => due.saturating_add_signed(by),
            },
            records: send.records,
            offset: log.next_offset,
            time: self.time,
        };
        let before = self.sent.entry((place, producer)).or_default();
        if let Sequence::Again(back) = send.sequence
            && let Some(again) = before.iter().rev().nth(back)
        {
            (stored.epoch, stored.first, stored.records) =
                (again.epoch, again.first, again.records);
        }
        before.push(stored);
        stored
    }

    /// One entry. The model decides each batch knowing those before it.
    fn entry(&mut self, sends: &[Send]) {
        let (mut batches, mut expected) = (Vec::new(), Vec::new());
        for send in sends {
            let sent = self.resolve(send);
            let numbers = send.producer.map(|id| (id, sent.epoch, sent.first));
            batches.push(AppendRequest {
                tp: tp(send.partition),
                append_time: TimestampMs(sent.time),
                batch: batch(numbers, sent.records),
            });
            let log = self.logs.get_mut(&tp(send.partition)).expect("made");
            let verdict = log.decide(&sent);
            if matches!(verdict, Verdict::Appended { .. }) {
                log.store(sent);
            }
            let kind = match verdict {
                Verdict::Appended { .. } => "appended".to_owned(),
                Verdict::Duplicate { .. } => "duplicate".to_owned(),
                Verdict::Rejected(reason) => format!("{reason:?}"),
            };
            *self.seen.entry(kind).or_default() += 1;
            expected.push(verdict);
        }
        let (reply, effects) = self.apply(ShardCommand::Append { batches });
        assert_eq!(reply, ShardReply::Append(expected));
        self.check_effects(&effects);
    }

    /// Effects are the appended batches, in order, at dense offsets.
    fn check_effects(&self, effects: &[Effect]) {
        let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for effect in effects {
            let Effect::Append(append) = effect else {
                panic!("{effect:?}")
            };
            if let Some(end) = ends.insert(append.tp, append.last_offset.plus(1)) {
                assert_eq!(append.base_offset, end);
            }
            let head = u64::from_be_bytes(append.batch.head[..8].try_into().expect("eight"));
            assert_eq!(Offset(head), append.base_offset);
        }
        for (place, end) in ends {
            assert_eq!(self.one.partition(place).expect("made").next_offset, end);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Entry(sends) => self.entry(sends),
            Step::NewLeader => self.at.leadership += 1,
            Step::Restart => {
                let bytes = self.other.encode_snapshot();
                self.other = ShardState::decode_snapshot(&bytes).expect("own snapshot");
            }
        }
        assert_eq!(self.one.encode_snapshot(), self.other.encode_snapshot());
        assert_eq!(self.one.hash(), self.other.hash());
        for (_, facts) in self.one.partitions() {
            assert!(facts.producers <= CAP);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn random_lives_obey_the_model_on_both_replicas(steps in steps()) {
        let mut life = Life::new();
        steps.iter().for_each(|step| life.step(step));
    }
}

/// The test above would prove nothing if its lives were dull.
#[test]
fn random_lives_meet_every_verdict() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        let mut life = Life::new();
        let steps = steps().new_tree(&mut runner).expect("steps").current();
        steps.iter().for_each(|step| life.step(step));
        for (kind, count) in life.seen {
            *seen.entry(kind).or_default() += count;
        }
    }
    let kinds = [
        "appended",
        "duplicate",
        "OutOfOrderSequence",
        "DuplicateSequence",
    ];
    for kind in kinds
        .into_iter()
        .chain(["ProducerFenced", "UnknownProducer"])
    {
        assert!(
            seen.get(kind).is_some_and(|count| *count >= 50),
            "{kind}: {seen:?}"
        );
    }
}
