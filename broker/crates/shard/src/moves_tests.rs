//! A partition between two shards: nothing lost, nothing twice, offsets as they were, whatever comes
//! twice, late or after the move was given up.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use highwater_proto::{LeaderEpoch, TimestampMs};
use proptest::prelude::*;

use super::*;
use crate::test_support::{Driver, Numbers, batch, tp};
use crate::{RejectReason, ShardCommand, Verdict};

pub(super) const PLAN: u64 = 5;

/// The shard that partition 0 leaves, the one that it goes to, and the log as it is stored.
pub(super) struct Pair {
    pub from: Driver,
    pub to: Driver,
    pub stored: Vec<ImportedBatch>,
}

fn raised(mut driver: Driver) -> Driver {
    let level = FeatureLevel::HOLDS;
    driver.apply(ShardCommand::RaiseFeatureLevel { level });
    driver
}

pub(super) fn step(plan: u64, step: MoveStep) -> ShardCommand {
    let tp = tp(0);
    ShardCommand::Move(Box::new(MoveCommand { tp, plan, step }))
}

impl Pair {
    fn new() -> Self {
        Self::with(PartitionConfig::default())
    }
    pub fn with(config: PartitionConfig) -> Self {
        let to = Driver {
            state: ShardState::new(),
            position: 0,
            leadership: 9,
            time: 5_000_000,
        };
        Self {
            from: raised(Driver::with(config)),
            to: raised(to),
            stored: Vec::new(),
        }
    }
    /// Sends a batch to the shard that the partition leaves.
    pub fn send(&mut self, numbers: Numbers, records: u32) -> Verdict {
        self.append(Some(numbers), records)
    }
    fn append(&mut self, numbers: Option<Numbers>, records: u32) -> Verdict {
        let (verdict, effect) = self.from.append(batch(numbers, records));
        if let Some(effect) = effect {
            let bytes = [&effect.batch.head[..], &effect.batch.body[..]].concat();
            self.stored.push(ImportedBatch {
                append_time: effect.append_time,
                begins_segment: effect.new_segment,
                batch: bytes.into(),
            });
        }
        verdict
    }
    fn begin(&mut self, plan: u64) -> ShardReply {
        let config = self.from.state.partition(tp(0)).expect("there").config;
        self.to.apply(step(plan, MoveStep::Begin { config })).0
    }
    fn import(&mut self, plan: u64, range: std::ops::Range<usize>) -> (ShardReply, Vec<Effect>) {
        let batches = self.stored[range].to_vec();
        self.to.apply(step(plan, MoveStep::Import { batches }))
    }
    pub fn fence(&mut self, plan: u64) -> Bytes {
        let (reply, _) = self.from.apply(step(plan, MoveStep::Fence));
        assert_eq!(reply, ShardReply::Done);
        self.export()
    }
    fn export(&self) -> Bytes {
        self.from.state.export_partition(tp(0)).expect("there")
    }
    fn adopt(&mut self, plan: u64, state: Bytes) -> ShardReply {
        self.to.apply(step(plan, MoveStep::Adopt { state })).0
    }
    /// All steps, one after the other.
    pub fn carry_over(&mut self, plan: u64) {
        assert_eq!(self.begin(plan), ShardReply::Done);
        let all = self.stored.len();
        assert_eq!(self.import(plan, 0..all).0, ShardReply::Done);
        let state = self.fence(plan);
        assert_eq!(self.adopt(plan, state), ShardReply::Done);
        self.from.apply(step(0, MoveStep::Forget));
    }
}

fn appended(base_offset: u64) -> Verdict {
    Verdict::Appended {
        base_offset: Offset(base_offset),
        log_start: Offset(0),
        append_time: None,
    }
}

fn duplicate(base_offset: u64) -> Verdict {
    Verdict::Duplicate {
        base_offset: Offset(base_offset),
    }
}

#[test]
fn offsets_producers_and_epochs_move_along() {
    let mut pair = Pair::new();
    for sequence in 0..7 {
        pair.from.leadership = 1 + u64::from(sequence) / 3;
        pair.send((1, 0, sequence), 1);
    }
    let before = pair.from.state.partition(tp(0)).expect("there");
    assert_eq!(before.leader_epoch, LeaderEpoch(2));
    // The other shard happens to be at the same leadership.
    pair.to.leadership = pair.from.leadership;
    pair.carry_over(PLAN);
    assert!(!pair.from.state.has_partition(tp(0)));

    let after = pair.to.state.partition(tp(0)).expect("there");
    assert_eq!((after.arrival, after.phase), (PLAN, Phase::Serving));
    assert_eq!(after.next_offset, before.next_offset);
    assert_eq!(after.leader_epoch, before.leader_epoch);
    pair.to.restart();
    assert_eq!(pair.to.send((1, 0, 6), 1), duplicate(6));
    let (verdict, effect) = pair.to.append(batch(Some((1, 0, 7)), 1));
    assert_eq!(verdict, appended(7));
    let epoch = effect.expect("an effect").leader_epoch;
    assert_eq!(epoch, LeaderEpoch(3), "it never runs backwards");
}

#[test]
fn what_is_imported_is_stored_as_it_was() {
    let mut pair = Pair::new();
    pair.send((1, 0, 0), 3);
    pair.from.leadership += 1;
    pair.append(None, 2);
    pair.begin(PLAN);
    let (_, effects) = pair.import(PLAN, 0..2);
    assert_eq!(effects.len(), 2);
    for (effect, imported) in effects.iter().zip(&pair.stored) {
        let Effect::Append(effect) = effect else {
            panic!("{effect:?}")
        };
        let bytes = [&effect.batch.head[..], &effect.batch.body[..]].concat();
        assert_eq!(bytes, imported.batch);
        assert_eq!(effect.append_time, imported.append_time);
    }
    // Where segments begin is kept, because records go by whole segments.
    pair.stored[1].begins_segment = true;
    let mut again = Pair::new();
    again.stored = pair.stored;
    again.begin(PLAN);
    let (_, effects) = again.import(PLAN, 0..2);
    let begins = effects.iter().map(|effect| match effect {
        Effect::Append(append) => append.new_segment,
        other => panic!("{other:?}"),
    });
    assert_eq!(begins.collect::<Vec<_>>(), [true, true]);
}

#[test]
fn nothing_changes_behind_the_fence_and_in_a_copy() {
    let mut pair = Pair::new();
    pair.send((1, 0, 0), 2);
    pair.begin(PLAN);
    pair.import(PLAN, 0..1);
    let fenced = pair.fence(PLAN);
    let moving = Verdict::Rejected(RejectReason::Moving);
    let config = PartitionConfig {
        version: 3,
        ..PartitionConfig::default()
    };
    for driver in [&mut pair.from, &mut pair.to] {
        // A retry of what is there is not answered either: its offset is told by whom it moves to.
        assert_eq!(driver.send((1, 0, 0), 2), moving);
        assert_eq!(driver.send((1, 0, 2), 1), moving);
        for command in [
            ShardCommand::TrimLog {
                tp: tp(0),
                log_start: Offset(1),
                config_version: None,
            },
            ShardCommand::ConfigurePartition { tp: tp(0), config },
            ShardCommand::CompactLog {
                tp: tp(0),
                upto: Offset(1),
                time: TimestampMs(1),
                config_version: 0,
            },
        ] {
            let (reply, effects) = driver.apply(command);
            assert_eq!(reply, ShardReply::Refused(CommandRefusal::Moving));
            assert_eq!(effects, []);
        }
    }
    assert_eq!(pair.export(), fenced);
}

#[test]
fn a_copy_is_adopted_only_whole_and_only_behind_the_fence_of_its_own_plan() {
    let mut pair = Pair::new();
    pair.send((1, 0, 0), 2);
    pair.send((1, 0, 2), 2);
    pair.begin(PLAN);
    pair.import(PLAN, 0..1);
    let other = ShardReply::Refused(CommandRefusal::OtherMove);
    let early = pair.export();
    assert_eq!(pair.adopt(PLAN, early), other);
    let state = pair.fence(PLAN);
    let short = CommandRefusal::OffsetOutOfRange {
        next_offset: Offset(2),
    };
    assert_eq!(pair.adopt(PLAN, state.clone()), ShardReply::Refused(short));
    pair.import(PLAN, 1..2);
    assert_eq!(pair.adopt(PLAN + 1, state.clone()), other);
    assert_eq!(pair.adopt(PLAN, Bytes::from_static(b"no state")), other);
    // The fence of a later plan is not this one's.
    pair.from.apply(step(PLAN, MoveStep::Release));
    let later = pair.fence(PLAN + 1);
    assert_eq!(pair.adopt(PLAN, later), other);
    assert_eq!(pair.adopt(PLAN, state), ShardReply::Done);
}

#[test]
fn a_state_of_rules_that_are_not_followed_here_is_not_adopted() {
    use highwater_proto::internal::ShardPartitionExport;
    use prost::Message as _;
    let mut pair = Pair::new();
    pair.begin(PLAN);
    let state = pair.fence(PLAN);
    let mut newer = ShardPartitionExport::decode(state).expect("an export");
    newer.feature_level = FeatureLevel::LATEST.0 + 1;
    let newer = Bytes::from(newer.encode_to_vec());
    let other = ShardReply::Refused(CommandRefusal::OtherMove);
    assert_eq!(pair.adopt(PLAN, newer), other);
}

#[test]
fn steps_that_come_twice_or_late_change_nothing() {
    let mut pair = Pair::new();
    for sequence in 0..4 {
        pair.send((1, 0, sequence), 1);
    }
    assert_eq!(pair.begin(PLAN), ShardReply::Done);
    assert_eq!(pair.begin(PLAN), ShardReply::Done);
    for range in [0..2, 0..2, 1..3, 0..4, 2..4] {
        assert_eq!(pair.import(PLAN, range).0, ShardReply::Done);
    }
    let state = pair.fence(PLAN);
    assert_eq!(pair.fence(PLAN), state);
    assert_eq!(pair.adopt(PLAN, state.clone()), ShardReply::Done);
    assert_eq!(pair.to.send((1, 0, 4), 1), appended(4));
    let other = ShardReply::Refused(CommandRefusal::OtherMove);
    assert_eq!(pair.adopt(PLAN, state), ShardReply::Done);
    assert_eq!(pair.begin(PLAN), ShardReply::Done);
    assert_eq!(pair.import(PLAN, 0..4), (other, Vec::new()));
    let facts = pair.to.state.partition(tp(0)).expect("there");
    assert_eq!(facts.next_offset, Offset(5));

    // Where it left, what comes late finds nothing, or brings nothing back.
    pair.from.apply(step(0, MoveStep::Forget));
    let unknown = ShardReply::Refused(CommandRefusal::UnknownPartition);
    for late in [MoveStep::Fence, MoveStep::Release] {
        assert_eq!(pair.from.apply(step(PLAN, late)).0, unknown);
    }
    let (tp, config) = (tp(0), PartitionConfig::default());
    let late = pair
        .from
        .apply(ShardCommand::CreatePartition { tp, config });
    let deleted = ShardReply::Refused(CommandRefusal::PartitionDeleted);
    assert_eq!(late.0, deleted);
    assert_eq!(pair.to.apply(step(0, MoveStep::Forget)).0, ShardReply::Done);
    assert!(pair.to.state.has_partition(tp), "another one was meant");
}

#[test]
fn a_batch_that_overlaps_with_the_copy_is_refused() {
    let mut pair = Pair::new();
    pair.append(None, 4);
    let mut other = Pair::new();
    other.append(None, 2);
    other.append(None, 4);
    pair.begin(PLAN);
    pair.import(PLAN, 0..1);
    pair.stored = other.stored;
    let overlap = CommandRefusal::OffsetOutOfRange {
        next_offset: Offset(4),
    };
    let reply = pair.import(PLAN, 0..2);
    assert_eq!(reply, (ShardReply::Refused(overlap), Vec::new()));
}

#[test]
fn a_move_that_is_given_up_leaves_nothing_behind() {
    for given_up_after in 0..4 {
        let mut pair = Pair::new();
        pair.send((1, 0, 0), 2);
        let all: [&dyn Fn(&mut Pair); 4] = [
            &|pair| drop(pair.begin(PLAN)),
            &|pair| drop(pair.import(PLAN, 0..1)),
            &|pair| drop(pair.fence(PLAN)),
            &|pair| {
                let state = pair.export();
                assert_eq!(pair.adopt(PLAN, state), ShardReply::Done);
            },
        ];
        for done in &all[..=given_up_after] {
            done(&mut pair);
        }
        pair.to.apply(step(PLAN, MoveStep::Forget));
        pair.from.apply(step(PLAN, MoveStep::Release));
        assert!(!pair.to.state.has_partition(tp(0)));
        assert_eq!(pair.send((1, 0, 0), 2), duplicate(0));
        assert_eq!(pair.send((1, 0, 2), 1), appended(2));
        // Nothing of the old plan begins again, the next one begins from nothing.
        let late = pair.begin(PLAN);
        assert_eq!(late, ShardReply::Refused(CommandRefusal::OtherMove));
        pair.carry_over(PLAN + 1);
        assert_eq!(pair.to.send((1, 0, 3), 1), appended(3));
    }
}

#[test]
fn it_comes_back_to_the_shard_that_it_left_once_that_has_forgotten_it() {
    let mut pair = Pair::new();
    pair.send((1, 0, 0), 2);
    pair.begin(PLAN);
    pair.import(PLAN, 0..1);
    let state = pair.fence(PLAN);
    pair.adopt(PLAN, state);
    let mut back = Pair {
        from: pair.to,
        to: pair.from,
        stored: pair.stored,
    };
    assert_eq!(back.send((1, 0, 2), 1), appended(2));
    let exists = ShardReply::Refused(CommandRefusal::PartitionExists);
    assert_eq!(back.begin(PLAN + 2), exists);
    back.to.apply(step(0, MoveStep::Forget));
    assert_eq!(back.begin(PLAN + 2), ShardReply::Done);
    back.import(PLAN + 2, 0..2);
    let late = back.from.apply(step(PLAN, MoveStep::Fence)).0;
    assert_eq!(late, ShardReply::Refused(CommandRefusal::OtherMove));
    let state = back.fence(PLAN + 2);
    assert_eq!(back.adopt(PLAN + 2, state), ShardReply::Done);
    assert_eq!(back.to.send((1, 0, 2), 1), duplicate(2));
}

#[test]
fn a_log_that_begins_later_or_is_empty_moves_as_it_is() {
    for log_start in [1, 3, 4] {
        let mut pair = Pair::new();
        pair.append(None, 2);
        pair.send((1, 0, 0), 2);
        let log_start = Offset(log_start);
        pair.from.apply(ShardCommand::TrimLog {
            tp: tp(0),
            log_start,
            config_version: None,
        });
        pair.begin(PLAN);
        // Batches below the start are not asked for; the one that it lies in comes whole.
        let first = usize::try_from(log_start.0 / 2).expect("small");
        pair.import(PLAN, first..2);
        let state = pair.fence(PLAN);
        assert_eq!(pair.adopt(PLAN, state), ShardReply::Done);
        let facts = pair.to.state.partition(tp(0)).expect("there");
        assert_eq!((facts.log_start, facts.next_offset), (log_start, Offset(4)));
        pair.to.restart();
        let next = pair.to.send((1, 0, 2), 1);
        assert!(matches!(
            next,
            Verdict::Appended {
                base_offset: Offset(4),
                ..
            }
        ));
    }
}

#[test]
fn ages_of_producers_survive_a_move_between_shards_of_other_ages() {
    let mut pair = Pair::with(PartitionConfig {
        producer_expiry_ms: 60_000,
        ..PartitionConfig::default()
    });
    pair.send((1, 0, 0), 1);
    pair.from.time += 40_000;
    pair.append(None, 1);
    // The other shard's clock has come further, by another partition.
    let other = ShardCommand::CreatePartition {
        tp: tp(1),
        config: PartitionConfig::default(),
    };
    pair.to.apply(other);
    for _ in 0..10 {
        pair.to.time += 100_000;
        pair.to.append_to(tp(1), batch(None, 1));
    }
    pair.carry_over(PLAN);
    assert_eq!(pair.to.send((1, 0, 0), 1), duplicate(0));
    pair.to.time += 20_000;
    let forgotten = Verdict::Rejected(RejectReason::UnknownProducer);
    assert_eq!(pair.to.send((1, 0, 1), 1), forgotten);
}

#[test]
fn below_its_level_nothing_moves() {
    let mut driver = Driver::new();
    let config = PartitionConfig::default();
    for late in [MoveStep::Begin { config }, MoveStep::Fence] {
        let (reply, effects) = driver.apply(step(PLAN, late));
        let other = ShardReply::Refused(CommandRefusal::OtherMove);
        assert_eq!((reply, effects), (other, Vec::new()));
    }
}

/// What happens at random before, during and after a move.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// A producer sends its next batch, or repeats one of the last.
    Send(u64, u32),
    Repeat(u64),
    /// Some of the log is imported, from somewhere before the copy's end.
    Import(usize, usize),
    /// The leader of a shard changes.
    Elect(bool),
    /// A shard begins again from its snapshot.
    Restart(bool),
    /// The move is given up and begun again by the next plan.
    GiveUp,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0..3u64, 1..4u32).prop_map(|(who, records)| Happens::Send(who, records)),
        3 => (0..3u64).prop_map(Happens::Repeat),
        6 => (0..50usize, 0..5usize).prop_map(|(from, count)| Happens::Import(from, count)),
        1 => any::<bool>().prop_map(Happens::Elect),
        1 => any::<bool>().prop_map(Happens::Restart),
        1 => Just(Happens::GiveUp),
    ]
}

/// A producer, and what it was told: sequence, records, offset of its last batch.
#[derive(Default, Clone, Copy)]
struct Sender {
    next: u32,
    last: Option<(u32, u32, u64)>,
}

fn send(driver: &mut Pair, sender: &mut Sender, who: u64, records: u32) {
    let verdict = driver.send((who + 1, 0, sender.next), records);
    let Verdict::Appended { base_offset, .. } = verdict else {
        panic!("{verdict:?}")
    };
    sender.last = Some((sender.next, records, base_offset.0));
    sender.next += records;
}

/// Offsets without a gap, leader epochs that never run backwards.
fn dense_and_rising(stored: &[ImportedBatch]) {
    let (mut next, mut epoch) = (Offset(0), LeaderEpoch(0));
    for imported in stored {
        let header = whole(&imported.batch).expect("whole");
        assert_eq!(header.base_offset, next, "offsets are dense and rise");
        let of_batch = header.leader_epoch.expect("stamped");
        assert!(of_batch >= epoch, "the leader epoch ran backwards");
        (next, epoch) = (header.next_offset(), of_batch);
    }
}

/// The rest is copied behind the fence and adopted, and the other shard is the one that is written to.
fn switch(pair: &mut Pair, plan: u64) {
    let state = pair.fence(plan);
    let held = pair.to.state.partition(tp(0)).expect("a copy").next_offset;
    let end = pair.from.state.partition(tp(0)).expect("there").next_offset;
    if held < end {
        let short = pair.adopt(plan, state.clone());
        let refused = matches!(
            short,
            ShardReply::Refused(CommandRefusal::OffsetOutOfRange { .. })
        );
        assert!(refused, "{short:?}");
    }
    let all = pair.stored.len();
    pair.import(plan, 0..all);
    assert_eq!(pair.adopt(plan, state), ShardReply::Done);
    pair.from.apply(step(0, MoveStep::Forget));
    std::mem::swap(&mut pair.from, &mut pair.to);
}

proptest! {
    #[test]
    fn whatever_happens_on_the_way_nothing_is_lost_or_twice(
        before in prop::collection::vec(happens(), 0..40),
        after in prop::collection::vec(happens(), 0..40),
    ) {
        let (mut pair, mut plan, mut senders) = (Pair::new(), PLAN, [Sender::default(); 3]);
        pair.begin(plan);
        let mut moved = false;
        for (late, now) in before.iter().map(|h| (false, h)).chain(after.iter().map(|h| (true, h))) {
            if late && !moved {
                switch(&mut pair, plan);
                moved = true;
            }
            match *now {
                Happens::Send(who, records) => {
                    send(&mut pair, &mut senders[who as usize], who, records);
                }
                Happens::Repeat(who) => {
                    if let Some((sequence, records, offset)) = senders[who as usize].last {
                        let verdict = pair.send((who + 1, 0, sequence), records);
                        prop_assert_eq!(verdict, duplicate(offset));
                    }
                }
                Happens::Import(from, count) if !moved => {
                    let from = from.min(pair.stored.len());
                    let upto = (from + count).min(pair.stored.len());
                    // The copy is never ahead of where it reads on.
                    let held = pair.to.state.partition(tp(0)).expect("a copy").next_offset;
                    let first = pair.stored.get(from).and_then(|b| whole(&b.batch));
                    if first.is_some_and(|first| first.base_offset <= held) {
                        pair.import(plan, from..upto);
                    }
                }
                Happens::Elect(first) => {
                    let driver = if first { &mut pair.from } else { &mut pair.to };
                    driver.leadership += 1;
                }
                Happens::Restart(true) => pair.from.restart(),
                Happens::Restart(false) => pair.to.restart(),
                Happens::GiveUp if !moved => {
                    pair.from.apply(step(plan, MoveStep::Fence));
                    pair.to.apply(step(plan, MoveStep::Forget));
                    pair.from.apply(step(plan, MoveStep::Release));
                    plan += 1;
                    prop_assert_eq!(pair.begin(plan), ShardReply::Done);
                }
                Happens::Import(..) | Happens::GiveUp => {}
            }
        }
        dense_and_rising(&pair.stored);
    }
}
