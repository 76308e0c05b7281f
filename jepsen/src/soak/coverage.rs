//! What a ledger's faults cover, by kind and by pair of kinds that overlapped, and the page that
//! shows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Entry, summary};
use crate::nemesis::Record;
use crate::recovery::{Sample, availability, beside_others, by_kind};
use crate::schedule::Kind;

/// So many of each kind are wanted before a soak says much.
const WANTED: u64 = 100;

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:20px;color:#1d2430}\
table{border-collapse:collapse}td,th{border:1px solid #d9dee7;padding:2px 7px;text-align:right}\
th:first-child,td:first-child{text-align:left}th{font-weight:500;color:#667085}\
.none{background:#fde8e6}.few{background:#fdf3e1}.PASS{color:#17804a}.FAIL{color:#b42318}\
.ERROR{color:#b42318}.UNKNOWN{color:#a15c07}pre{font:12px/1.4 ui-monospace,monospace}\
.matrix th{writing-mode:vertical-rl;text-align:left}.matrix tr th:first-child{writing-mode:initial}";

/// How often two faults that were proven active overlapped, by their kinds.
pub(super) fn pairs(faults: &[Record]) -> BTreeMap<String, u64> {
    let active: Vec<&Record> = faults
        .iter()
        .filter(|fault| fault.begun && fault.proven)
        .collect();
    let mut pairs = BTreeMap::new();
    for (at, a) in active.iter().enumerate() {
        for b in &active[at + 1..] {
            if a.from_ns < b.healed_ns && b.from_ns < a.healed_ns {
                *pairs.entry(name(a.kind, b.kind)).or_default() += 1;
            }
        }
    }
    pairs
}

fn name(a: Kind, b: Kind) -> String {
    let (a, b) = (a.name().min(b.name()), a.name().max(b.name()));
    format!("{a} + {b}")
}

/// The whole ledger as a page of HTML that needs nothing else.
pub(super) fn page(entries: &[Entry]) -> String {
    let samples: Vec<Sample> = entries
        .iter()
        .flat_map(|entry| entry.recovery.clone())
        .collect();
    let (proven, pairs) = sums(entries);
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Highwater: a soak</title>\
         <style>{STYLE}</style><h1>Ledger of a soak</h1><pre>{}</pre>",
        escape(&summary(entries))
    );
    html.push_str("<h2>Faults by kind</h2><table><tr><th>kind<th>proven<th>wanted");
    for kind in Kind::ALL {
        let count = proven.get(kind.name()).copied().unwrap_or(0);
        let class = class(count, WANTED);
        let _ = write!(
            html,
            "<tr><td>{}<td{class}>{count}<td>{WANTED}",
            kind.name()
        );
    }
    let members = members(entries);
    for how in MEMBERS {
        let count = members.get(how).copied().unwrap_or(0);
        let class = class(count, WANTED);
        let _ = write!(html, "<tr><td>{how}<td{class}>{count}<td>{WANTED}");
    }
    html.push_str("</table><h2>Pairs that overlapped</h2>");
    matrix(&mut html, &pairs);
    html.push_str("<h2>Recoveries</h2>");
    for text in [
        by_kind(&samples),
        availability(&samples),
        beside_others(&samples),
    ] {
        let _ = write!(html, "<pre>{}</pre>", escape(&text));
    }
    html.push_str("<h2>Blocks</h2>");
    blocks(&mut html, entries);
    html
}

/// What is done to members of groups in every run that has some.
const MEMBERS: [&str; 2] = [
    "a member of a group is killed",
    "a member of a group stands still",
];

/// What was done to members of groups, and how often.
pub(super) fn members(entries: &[Entry]) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for (how, count) in entries.iter().flat_map(|entry| &entry.members) {
        *counts.entry(how.as_str()).or_default() += count;
    }
    counts
}

/// The kinds of which fewer than so many were proven, with how many were; members of groups count as kinds
/// where there are groups.
pub(super) fn short_of(
    entries: &[Entry],
    kinds: &[Kind],
    groups: bool,
    wanted: u64,
) -> Vec<String> {
    let (proven, _) = sums(entries);
    let members = members(entries);
    let of = |counts: &Counts<'_>, name: &'static str| {
        let count = counts.get(name).copied().unwrap_or(0);
        (count < wanted).then(|| format!("{name}: {count} of {wanted}"))
    };
    let of_kinds = kinds.iter().filter_map(|kind| of(&proven, kind.name()));
    let of_members = MEMBERS.iter().filter(|_| groups);
    of_kinds
        .chain(of_members.filter_map(|how| of(&members, how)))
        .collect()
}

type Counts<'a> = BTreeMap<&'a str, u64>;

fn sums(entries: &[Entry]) -> (Counts<'_>, Counts<'_>) {
    let (mut proven, mut pairs) = (Counts::new(), Counts::new());
    for entry in entries {
        for (kind, (_, count)) in &entry.faults {
            *proven.entry(kind).or_default() += count;
        }
        for (pair, count) in &entry.pairs {
            *pairs.entry(pair).or_default() += count;
        }
    }
    (proven, pairs)
}

/// Kinds down and across; a pair stands once, below the diagonal. Kinds of one lane, and those of clocks, never overlap:
/// their fields are empty.
fn matrix(html: &mut String, pairs: &Counts<'_>) {
    html.push_str("<table class=matrix><tr><th>");
    for kind in Kind::ALL {
        let _ = write!(html, "<th>{}", kind.name());
    }
    for (row, a) in Kind::ALL.into_iter().enumerate() {
        let _ = write!(html, "<tr><th>{}", a.name());
        for b in &Kind::ALL[..row] {
            let count = pairs.get(name(a, *b).as_str()).copied().unwrap_or(0);
            if a.can_overlap(*b) {
                let _ = write!(html, "<td{}>{count}", class(count, 1));
            } else {
                html.push_str("<td>");
            }
        }
    }
    html.push_str("</table>");
}

fn blocks(html: &mut String, entries: &[Entry]) {
    html.push_str("<table><tr><th>block<th>seed<th>broker<th>brokers<th>checkpoints<th>verdict<th>operations<th>faults<th>remarks");
    for entry in entries {
        let faults: u64 = entry.faults.values().map(|(count, _)| count).sum();
        let found = entry
            .anomalies
            .iter()
            .map(|(name, count)| format!("{name} {count}"));
        let skipped = entry.skipped.iter().map(|what| format!("skipped {what}"));
        let remarks = found.chain(entry.remarks.iter().cloned()).chain(skipped);
        let remarks: Vec<String> = remarks.collect();
        let verdict = escape(&entry.verdict);
        let _ = write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td class={verdict}>{verdict}<td>{}<td>{faults}<td>{}",
            entry.block,
            entry.seed,
            escape(&entry.broker),
            entry.brokers,
            escape(&entry.checkpoints),
            entry.operations[0],
            escape(&remarks.join("; ")),
        );
    }
    html.push_str("</table>");
}

const fn class(count: u64, wanted: u64) -> &'static str {
    match count {
        0 => " class=none",
        _ if count < wanted => " class=few",
        _ => "",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
