//! Samples of many faults as tables for people.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use super::Sample;
use crate::schedule::Kind;

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
        "served again",
        "p50 / p99 / max s",
        "after its end",
        "p50 / p99 / max s",
        "never",
        "held to a goal",
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
        let held: u32 = samples.iter().map(|sample| sample.held).sum();
        table.add_row([
            kind.to_owned(),
            samples.len().to_string(),
            under.len().to_string(),
            distribution(&under),
            after.len().to_string(),
            distribution(&after),
            never.to_string(),
            held.to_string(),
        ]);
    }
    format!(
        "Partitions that the fault hit, from its beginning to the first acknowledgement, or from its end where \
         nobody could serve them before:\n{table}"
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
            Kind::PowerLoss,
            Kind::TornSectors,
        ],
    },
    Row {
        event: "leader paused, cut off or gone in silence",
        others: "the same",
        goal: "0.8 / 2 / 4",
        values: |sample| &sample.under_fault,
        kinds: &[
            Kind::Pause,
            Kind::IsolateLeader,
            Kind::Halves,
            Kind::SilentDeath,
        ],
    },
    Row {
        event: "leader's disk slow or stalled: longest gap",
        others: "none published",
        goal: "0.8 / 2 / 4",
        values: |sample| &sample.gaps,
        kinds: &[Kind::SlowFsync, Kind::StalledFsync],
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
    let away: u32 = samples.iter().map(|sample| sample.never_rejoined).sum();
    format!("{table}\nBrokers that had not caught up a minute after their start: {away}")
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
