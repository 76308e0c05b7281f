//! How long things took to come back: samples of a run, and tables of many runs.

mod tables;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::nemesis::Record;
use crate::workload::Acknowledged;

pub use tables::{availability, beside_others, by_kind, percentile};

/// What a run has seen of its faults and of what came back.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The faults.
    pub records: &'a [Record],
    /// Acknowledged records, in the order of their answers.
    pub acknowledged: &'a [Acknowledged],
    /// Brokers that were started again.
    pub rejoins: &'a [Rejoin],
    /// Partitions of the topic.
    pub partitions: u32,
    /// When the clients stopped, in nanoseconds since the start of the run.
    pub until_ns: u64,
}

/// How a broker that a fault had ended came back.
#[derive(Debug, Clone, Copy)]
pub struct Rejoin {
    /// The fault's number.
    pub number: u32,
    /// The broker.
    pub node: u32,
    /// From its start until it voted, served and held everything, in nanoseconds; nothing: it had not when
    /// nobody waited for it any more.
    pub took_ns: Option<u64>,
    /// How long all others had been whole by then without a break, in nanoseconds.
    pub others_whole_ns: u64,
}

/// What one fault cost. Seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The kind's name.
    pub kind: String,
    /// From the fault's beginning to the first acknowledgement of a record sent since: for every partition
    /// that it hit when a majority stayed whole, however long it lasted, otherwise for those that were
    /// served again while it lasted.
    pub under_fault: Vec<f64>,
    /// For each of the others: from the fault's end to the first acknowledgement.
    pub after_heal: Vec<f64>,
    /// The longest time without an acknowledgement, for each partition, while leaders moved or a disk was slow.
    pub gaps: Vec<f64>,
    /// For each partition, hit or not: the longest time without an acknowledgement of which some
    /// part lies within the fault.
    #[serde(default)]
    pub silence: Vec<f64>,
    /// From the start of a killed broker's new process until it served and had caught up.
    pub rejoined: Vec<f64>,
    /// Brokers that had not in all the time for which they were watched.
    #[serde(default)]
    pub never_rejoined: u32,
    /// Partitions without any acknowledgement after it.
    pub never: u32,
    /// Partitions that were held to the goal: nothing else can have been the reason for what they took.
    #[serde(default)]
    pub held: u32,
}

/// Which time a partition's way back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The longest time between two acknowledgements.
    Gap,
    /// From the fault's beginning.
    UnderFault,
    /// From the fault's end.
    AfterHeal,
    /// It did not come back while clients worked.
    Never,
}

/// One partition's way back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) measure: Measure,
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

impl Way {
    pub(crate) const fn took_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// Acknowledgements by partition, in the order of their answers.
pub(crate) type ByPartition = BTreeMap<u32, Vec<Acknowledged>>;

pub(crate) fn by_partition(acknowledged: &[Acknowledged]) -> ByPartition {
    let mut by_partition = ByPartition::new();
    for one in acknowledged {
        by_partition.entry(one.partition).or_default().push(*one);
    }
    by_partition
}

/// The partitions that a fault hit: those that its brokers led. Which is none, if they led none; a fault of no
/// broker hits all.
pub(crate) fn affected(record: &Record, partitions: u32) -> Vec<u32> {
    if record.nodes.is_empty() {
        (0..partitions).collect()
    } else {
        record.led.clone()
    }
}

/// One sample for each fault that took place.
#[must_use]
pub fn samples(seen: &Seen<'_>) -> Vec<Sample> {
    let acks = by_partition(seen.acknowledged);
    let of = |partition: u32| acks.get(&partition).map_or(&[][..], Vec::as_slice);
    let begun = seen.records.iter().filter(|record| record.begun);
    begun
        .map(|record| {
            let mut sample = Sample {
                kind: record.kind.name().to_owned(),
                held: bounds::held(seen, &acks, record),
                ..Sample::default()
            };
            for partition in affected(record, seen.partitions) {
                sample.add(&way_back(record, of(partition), seen.until_ns));
            }
            for partition in 0..seen.partitions {
                sample.silence.push(seconds(silence(record, of(partition))));
            }
            let back = seen.rejoins.iter();
            let back = back.filter(|rejoin| rejoin.number == record.number);
            for rejoin in back {
                match rejoin.took_ns {
                    Some(took) => sample.rejoined.push(seconds(took)),
                    None => sample.never_rejoined += 1,
                }
            }
            sample
        })
        .collect()
}

impl Sample {
    fn add(&mut self, way: &Way) {
        let took = seconds(way.took_ns());
        match way.measure {
            Measure::Gap => self.gaps.push(took),
            Measure::UnderFault => self.under_fault.push(took),
            Measure::AfterHeal => self.after_heal.push(took),
            Measure::Never => self.never += 1,
        }
    }
}

/// The longest time without an acknowledgement that overlaps a fault, in nanoseconds; it may begin
/// before the fault and end after it. Where none came after it, it ends with the fault.
fn silence(record: &Record, acks: &[Acknowledged]) -> u64 {
    let (from, healed) = (record.from_ns, record.healed_ns);
    let before = acks.iter().map(|ack| ack.at_ns).take_while(|at| *at < from);
    let mut last = before.last().unwrap_or(from);
    let mut longest = 0;
    for at in acks.iter().map(|ack| ack.at_ns).filter(|at| *at >= from) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
        if at > healed {
            return longest;
        }
    }
    longest.max(healed.saturating_sub(last))
}

/// One partition's way back. `acks` are in the order of their answers.
pub(crate) fn way_back(record: &Record, acks: &[Acknowledged], until_ns: u64) -> Way {
    let (from, healed) = (record.from_ns, record.healed_ns);
    if record.kind.is_measured_by_gaps() {
        return longest_gap(from, healed.min(until_ns), acks);
    }
    let way = |measure, from_ns, to_ns| Way {
        measure,
        from_ns,
        to_ns,
    };
    // Sent since the fault, so that it was certainly the recovered cluster that took it.
    let first = acks
        .iter()
        .find(|ack| ack.invoked_ns >= from && ack.at_ns >= from);
    let majority = record.kind.leaves_majority();
    match first {
        Some(ack) if majority || ack.at_ns <= healed => way(Measure::UnderFault, from, ack.at_ns),
        None if majority => way(Measure::Never, from, until_ns),
        _ => match acks.iter().find(|ack| ack.at_ns > healed) {
            Some(ack) => way(Measure::AfterHeal, healed, ack.at_ns),
            None => way(Measure::Never, healed, until_ns),
        },
    }
}

fn longest_gap(from_ns: u64, to_ns: u64, acks: &[Acknowledged]) -> Way {
    let during = acks
        .iter()
        .map(|ack| ack.at_ns)
        .filter(|at| (from_ns..=to_ns).contains(at));
    let mut way = Way {
        measure: Measure::Gap,
        from_ns,
        to_ns: from_ns,
    };
    let mut last = from_ns;
    for at in during.chain([to_ns]) {
        if at.saturating_sub(last) > way.took_ns() {
            (way.from_ns, way.to_ns) = (last, at);
        }
        last = at;
    }
    way
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times of a run are far below 2^53 ns"
)]
pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
