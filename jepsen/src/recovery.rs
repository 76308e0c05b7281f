//! How long things took to come back: samples of a run, and tables of many runs.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::nemesis::Record;
use crate::schedule::Kind;
use crate::workload::Acknowledged;

/// What one fault cost. Seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The kind's name.
    pub kind: String,
    /// For each partition that was served again while the fault lasted: from its beginning to the
    /// first acknowledgement of a record sent since.
    pub under_fault: Vec<f64>,
    /// For each of the others: from the fault's end to the first acknowledgement.
    pub after_heal: Vec<f64>,
    /// The longest time without an acknowledgement, for each partition, while leaders moved.
    pub gaps: Vec<f64>,
    /// For each partition, hit or not: the longest time without an acknowledgement of which some
    /// part lies within the fault.
    #[serde(default)]
    pub silence: Vec<f64>,
    /// From the start of a killed broker's new process until it served and had caught up.
    pub rejoined: Vec<f64>,
    /// Partitions without any acknowledgement after it.
    pub never: u32,
}

/// One sample for each fault that took place.
#[must_use]
pub fn samples(
    records: &[Record],
    acknowledged: &[Acknowledged],
    rejoined: &[(u32, u64)],
    partitions: u32,
) -> Vec<Sample> {
    let mut by_partition: BTreeMap<u32, Vec<Acknowledged>> = BTreeMap::new();
    for one in acknowledged {
        by_partition.entry(one.partition).or_default().push(*one);
    }
    let begun = records.iter().filter(|record| record.begun);
    begun
        .map(|record| {
            let mut sample = Sample {
                kind: record.kind.name().to_owned(),
                ..Sample::default()
            };
            let all: Vec<u32> = (0..partitions).collect();
            let affected = if record.led.is_empty() {
                &all
            } else {
                &record.led
            };
            for partition in affected {
                let acks = by_partition.get(partition).map_or(&[][..], Vec::as_slice);
                measure(record, acks, &mut sample);
            }
            for partition in &all {
                let acks = by_partition.get(partition).map_or(&[][..], Vec::as_slice);
                sample.silence.push(seconds(silence(record, acks)));
            }
            let back = rejoined
                .iter()
                .filter(|(number, _)| *number == record.number);
            sample.rejoined = back.map(|(_, took)| seconds(*took)).collect();
            sample
        })
        .collect()
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

/// One partition's part of a sample. `acks` are in the order of their answers.
fn measure(record: &Record, acks: &[Acknowledged], sample: &mut Sample) {
    let (from, healed) = (record.from_ns, record.healed_ns);
    let moves = [Kind::TransferLeaders, Kind::RollingRestart];
    if moves.contains(&record.kind) {
        let during = acks
            .iter()
            .map(|ack| ack.at_ns)
            .filter(|at| (from..=healed).contains(at));
        let mut times = vec![from];
        times.extend(during);
        times.push(healed);
        let gap = times
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]))
            .max();
        sample.gaps.extend(gap.map(seconds));
        return;
    }
    // Sent since the fault, so that it was certainly the recovered cluster that took it.
    let first = acks
        .iter()
        .find(|ack| ack.invoked_ns >= from && ack.at_ns >= from);
    match first {
        Some(ack) if ack.at_ns <= healed => sample.under_fault.push(seconds(ack.at_ns - from)),
        _ => match acks.iter().find(|ack| ack.at_ns > healed) {
            Some(ack) => sample.after_heal.push(seconds(ack.at_ns - healed)),
            None => sample.never += 1,
        },
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times of a run are far below 2^53 ns"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The value that so many of a hundred do not pass; nothing of nothing.
#[must_use]
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn distribution(values: &[f64]) -> String {
    match (
        percentile(values, 50),
        percentile(values, 99),
        percentile(values, 100),
    ) {
        (Some(p50), Some(p99), Some(max)) => format!("{p50:.2} / {p99:.2} / {max:.2}"),
        _ => "-".to_owned(),
    }
}

/// One row for each kind of fault: how often, and what it cost.
#[must_use]
pub fn by_kind(samples: &[Sample]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        kinds.entry(&sample.kind).or_default().push(sample);
    }
    let mut table = table(&[
        "fault",
        "times",
        "served again under it",
        "p50 / p99 / max s",
        "served after it",
        "p50 / p99 / max s",
        "never",
    ]);
    for (kind, samples) in kinds {
        let all = |part: fn(&Sample) -> &Vec<f64>| -> Vec<f64> {
            samples
                .iter()
                .flat_map(|sample| part(sample).iter().copied())
                .collect()
        };
        let (under, after) = (all(|s| &s.under_fault), all(|s| &s.after_heal));
        let never: u32 = samples.iter().map(|sample| sample.never).sum();
        table.add_row([
            kind.to_owned(),
            samples.len().to_string(),
            under.len().to_string(),
            distribution(&under),
            after.len().to_string(),
            distribution(&after),
            never.to_string(),
        ]);
    }
    format!(
        "Partitions that the fault hit, from its beginning or its end to the first acknowledgement:\n{table}"
    )
}

/// One row for each kind of fault: the longest silence of each partition while it lasted.
#[must_use]
pub fn availability(samples: &[Sample]) -> String {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        let silences = kinds.entry(&sample.kind).or_default();
        silences.extend(&sample.silence);
    }
    let mut table = table(&["fault", "partitions", "p50 / p99 / max s"]);
    for (kind, silences) in kinds {
        let row = [silences.len().to_string(), distribution(&silences)];
        let [count, times] = row;
        table.add_row([kind.to_owned(), count, times]);
    }
    format!("Every partition's longest time without an acknowledgement during a fault:\n{table}")
}

/// An event with what others are known to take, and the goal.
struct Row {
    event: &'static str,
    others: &'static str,
    goal: &'static str,
    values: fn(&Sample) -> &[f64],
    kinds: &'static [Kind],
}

const NONE: &[f64] = &[];

const ROWS: [Row; 6] = [
    Row {
        event: "leader killed",
        others: "telecom systems 10.5 to 18.2 s; NATS JetStream 2.9: 3.7 to 7.1 s; Kafka: session of 9 s; Redpanda: election timeout of 1.5 s",
        goal: "0.8 / 1.2 / 2",
        values: |sample| &sample.under_fault,
        kinds: &[
            Kind::KillLeader,
            Kind::KillFollower,
            Kind::KillCoordinator,
            Kind::SilentDeath,
            Kind::PowerLoss,
            Kind::TornSectors,
        ],
    },
    Row {
        event: "leader paused or cut off",
        others: "the same",
        goal: "0.8 / 2 / 4",
        values: |sample| &sample.under_fault,
        kinds: &[Kind::Pause, Kind::IsolateLeader, Kind::Halves],
    },
    Row {
        event: "leader's disk slow, stalled or full",
        others: "none published",
        goal: "0.8 / 2 / 4",
        values: |sample| &sample.under_fault,
        kinds: &[Kind::SlowFsync, Kind::StalledFsync, Kind::DiskFull],
    },
    Row {
        event: "transfers, rolling restart: longest gap",
        others: "clients typically see under 2 s",
        goal: "0.05 / 0.2 / 0.5",
        values: |sample| &sample.gaps,
        kinds: &[Kind::TransferLeaders, Kind::RollingRestart],
    },
    Row {
        event: "killed process votes and has caught up",
        others: "18 s",
        goal: "2 / 5 / 10",
        values: |sample| &sample.rejoined,
        kinds: &[
            Kind::KillLeader,
            Kind::KillFollower,
            Kind::PowerLoss,
            Kind::CrashLoop,
        ],
    },
    Row {
        event: "all lost power: serving again",
        others: "none published",
        goal: "3 / 8 / 15",
        values: |sample| {
            if sample.never == 0 {
                &sample.after_heal
            } else {
                NONE
            }
        },
        kinds: &[Kind::PowerLossAll, Kind::KillAll],
    },
];

/// Ours beside others' and the goals.
#[must_use]
pub fn beside_others(samples: &[Sample]) -> String {
    let head = [
        "event to first acknowledgement",
        "n",
        "p50 / p99 / max s",
        "goal",
        "others",
    ];
    let mut table = table(&head);
    for row in ROWS {
        let kinds: Vec<&str> = row.kinds.iter().map(|kind| kind.name()).collect();
        let of_row = samples
            .iter()
            .filter(|sample| kinds.contains(&sample.kind.as_str()));
        let values: Vec<f64> = of_row
            .flat_map(|sample| (row.values)(sample).iter().copied())
            .collect();
        table.add_row([
            row.event.to_owned(),
            values.len().to_string(),
            distribution(&values),
            row.goal.to_owned(),
            row.others.to_owned(),
        ]);
    }
    table.to_string()
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(head.to_vec());
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
