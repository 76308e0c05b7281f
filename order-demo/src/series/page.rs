//! A series as one HTML page: the table beside the papers, and how long recoveries took.

use std::fmt::Write as _;

use super::done::Done;
use super::summary::{recoveries, rows, summary};
use crate::report::{SOURCES, STYLE, bars, escape};

/// The page.
#[must_use]
pub fn page(results: &[Done]) -> String {
    let mut html = format!(
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' \
         content='width=device-width'><title>Highwater order demo: the series</title><style>{STYLE}\
         </style><h1>Order fulfilment over Highwater: the series</h1><p>{}</p>",
        escape(summary(results).lines().next().unwrap_or_default())
    );
    html.push_str("<table><tr><th><th>theirs<th>aim<th>ours");
    for row in rows(results) {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}", escape(&cell));
        }
    }
    html.push_str(
        "</table><p>Same conditions? No: their units, load and hardware are unknown.</p>",
    );
    for (fault, title) in [
        ("broker-leader", "partition leader"),
        ("stateless-worker", "stateless worker"),
        ("stateful-worker", "stateful worker"),
    ] {
        let times = recoveries(results, fault);
        if !times.is_empty() {
            let _ = write!(html, "<h3>Recovery after kills: {title}</h3>");
            html.push_str(&bars(&classes(&times), "kills"));
        }
    }
    html.push_str("<h3>Sources</h3><ul>");
    for source in SOURCES {
        let _ = write!(html, "<li>{}", escape(source));
    }
    html + "</ul></html>\n"
}

/// Times in classes, each a fifth of a decade or so wide: how many fell into each.
fn classes(times: &[f64]) -> Vec<(String, f64)> {
    const EDGES: [f64; 12] = [
        100.0,
        200.0,
        300.0,
        400.0,
        600.0,
        800.0,
        1_000.0,
        1_500.0,
        2_000.0,
        3_000.0,
        5_000.0,
        f64::INFINITY,
    ];
    let mut low = 0.0;
    let mut classes = Vec::new();
    for high in EDGES {
        let count = times.iter().filter(|ms| (low..high).contains(*ms)).count();
        let name = if high.is_finite() {
            format!("{low:.0} to {high:.0} ms")
        } else {
            format!("{low:.0} ms and more")
        };
        #[allow(clippy::cast_precision_loss)]
        classes.push((name, count as f64));
        low = high;
    }
    let used = |(_, count): &(String, f64)| *count > 0.0;
    let first = classes.iter().position(used).unwrap_or(0);
    let last = classes.iter().rposition(used).unwrap_or(0);
    classes.into_iter().take(last + 1).skip(first).collect()
}
