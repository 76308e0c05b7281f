//! Medians with their ranges, and the median of the ratios round by round.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use highwater_load::stats::Spread;
use serde_json::Value;

use crate::peer::Kind;

/// Fields of results, with their columns.
const COLUMNS: [(&str, &str); 13] = [
    ("mbPerSecond", "MB/s"),
    ("recordsPerSecond", "records/s"),
    ("publishP50Ms", "publish p50, ms"),
    ("publishP99Ms", "publish p99, ms"),
    ("endToEndP50Ms", "end to end p50, ms"),
    ("endToEndP99Ms", "end to end p99, ms"),
    ("brokerCpuSecondsPerGb", "broker CPU s/GB"),
    ("clientCpuSecondsPerGb", "client CPU s/GB"),
    ("writtenPerByteAndBroker", "written per byte and broker"),
    ("flushesPerSecond", "disk flushes/s"),
    ("brokerResidentMb", "RSS of three, MB"),
    ("cpuPerBrokerPercent", "CPU per broker, %"),
    ("failedRecords", "failed"),
];

type Key = (String, String);

/// Prints a table per workload, in Markdown.
pub fn print(path: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines: BTreeMap<Key, BTreeMap<u64, Value>> = BTreeMap::new();
    let mut workloads = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("the results file is damaged")?;
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let (workload, driver) = (word("workloadName"), word("driver"));
        if !workloads.contains(&workload) {
            workloads.push(workload.clone());
        }
        let round = line["round"].as_u64().unwrap_or(0);
        lines
            .entry((workload, driver))
            .or_default()
            .insert(round, line);
    }
    for workload in &workloads {
        print_workload(workload, &lines);
    }
    Ok(())
}

fn print_workload(workload: &str, lines: &BTreeMap<Key, BTreeMap<u64, Value>>) {
    let runs = |kind: Kind| lines.get(&(workload.to_owned(), kind.name().to_owned()));
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| runs(*kind).is_some())
        .collect();
    println!("\n### {workload}\n");
    println!("min / median / max; in brackets the median ratio to Highwater, round by round\n");
    print!("| |");
    for kind in &kinds {
        print!(" {} |", kind.name());
    }
    println!("\n|---|{}", "---|".repeat(kinds.len()));
    print!("| acknowledged means |");
    for kind in &kinds {
        print!(" {} |", kind.durability());
    }
    println!();
    let values = |kind: Kind, field: &str| -> BTreeMap<u64, f64> {
        let rounds = runs(kind).into_iter().flatten();
        rounds
            .filter_map(|(round, line)| Some((*round, line[field].as_f64()?)))
            .collect()
    };
    for (field, title) in COLUMNS {
        let own = values(Kind::Highwater, field);
        if kinds.iter().all(|kind| values(*kind, field).is_empty()) {
            continue;
        }
        print!("| {title} |");
        for kind in &kinds {
            let values = values(*kind, field);
            let all: Vec<f64> = values.values().copied().collect();
            let Some(spread) = Spread::of(&all) else {
                print!(" |");
                continue;
            };
            print!(" {}", number(spread.min));
            print!(" / {} / {}", number(spread.median), number(spread.max));
            let ratios: Vec<f64> = values
                .iter()
                .filter_map(|(round, value)| Some(value / own.get(round).filter(|&&v| v > 0.0)?))
                .collect();
            match Spread::of(&ratios) {
                Some(ratio) if *kind != Kind::Highwater => print!(" ({:.2}) |", ratio.median),
                _ => print!(" |"),
            }
        }
        println!();
    }
    let rounds: Vec<usize> = kinds
        .iter()
        .filter_map(|kind| runs(*kind))
        .map(BTreeMap::len)
        .collect();
    println!("\nrounds: {rounds:?}");
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 100.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
