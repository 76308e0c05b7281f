//! A run as one page of HTML that needs nothing else: operations and their latencies, faults, and
//! who led what.

use highwater_checker::{Function, Kind};
use serde_json::{Value as Json, json};

use crate::history::Span;
use crate::leaders::Change;
use crate::run::Report;
use crate::verdict::word;
use crate::workload::Acknowledged;

/// Points of each outcome and kind of operation; more are thinned out evenly.
const MOST_POINTS: usize = 6_000;

const PAGE: &str = include_str!("page.html");

/// Where the data goes in the page.
const PLACE: &str = "/*DATA*/null";

/// The page.
///
/// # Errors
/// When the data cannot be written as JSON, which does not happen.
pub fn page(
    report: &Report,
    spans: &[Span],
    acknowledged: &[Acknowledged],
    changes: &[Change],
) -> anyhow::Result<String> {
    let data = json!({
        "seed": report.seed,
        "seconds": spans.iter().map(|span| span.to_ns).max().unwrap_or(0) as f64 / 1e9,
        "verdict": word(report.judgement.conclusion()),
        "text": report.judgement.to_string(),
        "points": points(spans),
        "rate": rate(acknowledged),
        "faults": report.faults.iter().filter(|fault| fault.begun).collect::<Vec<_>>(),
        "leaders": changes,
    });
    // Within a script element, only this could end it early.
    let text = serde_json::to_string(&data)?.replace("</", "<\\/");
    Ok(PAGE.replace(PLACE, &text))
}

/// `[kind of operation, outcome, begin in ms, latency in ms]`
fn points(spans: &[Span]) -> Vec<Json> {
    let mut points = Vec::new();
    for function in [Function::Send, Function::Poll, Function::Latest] {
        for kind in [Kind::Ok, Kind::Fail, Kind::Info] {
            let these = spans
                .iter()
                .filter(|s| s.function == function && s.kind == kind);
            let these: Vec<&Span> = these.collect();
            let step = these.len().div_ceil(MOST_POINTS).max(1);
            points.extend(these.iter().step_by(step).map(|span| {
                let ms = |ns: u64| (ns / 10_000) as f64 / 100.0;
                json!([
                    name(function),
                    outcome(kind),
                    ms(span.from_ns),
                    ms(span.to_ns - span.from_ns)
                ])
            }));
        }
    }
    points
}

const fn name(function: Function) -> &'static str {
    match function {
        Function::Send => "send",
        Function::Poll => "poll",
        _ => "latest",
    }
}

const fn outcome(kind: Kind) -> &'static str {
    match kind {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        _ => "info",
    }
}

/// Acknowledged records in each tenth of a second.
fn rate(acknowledged: &[Acknowledged]) -> Vec<u32> {
    let mut tenths = Vec::new();
    for one in acknowledged {
        let tenth = usize::try_from(one.at_ns / 100_000_000).unwrap_or(0);
        if tenths.len() <= tenth {
            tenths.resize(tenth + 1, 0);
        }
        tenths[tenth] += 1;
    }
    tenths
}
