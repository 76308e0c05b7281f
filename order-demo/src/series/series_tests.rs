//! A series ends, whatever its runs say, goes on where it stopped, and says what it lacks.

use super::block::peak;
use super::*;
use crate::report::{Latency, ModeRun, Report, Setting};

/// What a machine that bears so many orders per second says of a block.
fn run(block: &Block, bears: f64) -> Done {
    let one = |mode: &str| ModeRun {
        mode: mode.to_owned(),
        orders: block.count,
        rate: block.rate,
        duration_s: 10.0,
        to_last_end_s: if block.rate > bears { 30.0 } else { 10.5 },
        ..ModeRun::default()
    };
    let modes = block.modes.iter().map(|mode| one(mode.name())).collect();
    let report = Report::new(Setting::default(), Latency::default(), modes);
    Done::of(block, &report, 0)
}

#[test]
fn a_series_ends_and_every_block_has_its_turn_once() {
    for bears in [3.0, 60.0, 237.0, 5_000.0] {
        let mut results: Vec<Done> = Vec::new();
        while let Some(block) = next(&results) {
            assert!(
                results.iter().all(|done| done.block != block.name),
                "{}",
                block.name
            );
            results.push(run(&block, bears));
            assert!(results.len() < 200, "{bears}: it does not end");
        }
        let searched = results
            .iter()
            .filter(|d| d.block.starts_with("peak-"))
            .count();
        assert_eq!(results.len() - searched, total());
        if let (Some(borne), Some(fails)) = peak(&results) {
            assert!(borne <= bears && bears < fails, "{borne} {bears} {fails}");
            // Rates are whole numbers, and the search gives up after ten steps.
            let close = fails / borne < 1.2 || fails - borne <= 1.0 || searched == 10;
            assert!(close, "{borne} {fails} after {searched}");
        }
        let kills = results.iter().filter(|d| d.block.starts_with("kills-"));
        let orders: u64 = kills.clone().map(|done| done.orders).sum();
        assert_eq!((kills.count(), orders), (30, 300_000));
        let all = format!("{0} of {0} blocks are done", total());
        assert!(summary(&results).starts_with(&all));
    }
}

#[test]
fn what_is_claimed_was_run_five_times_and_is_a_median_with_its_range() {
    let mut results: Vec<Done> = Vec::new();
    while let Some(block) = next(&results) {
        let mut done = run(&block, 237.0);
        let round = block
            .name
            .split_once('#')
            .map_or(1.0, |(_, round)| round.parse().expect("one"));
        for mode in &mut done.modes {
            (mode.completion_ms.p50, mode.ended_per_s) = (10.0 * round, 100.0 - round);
        }
        results.push(done);
    }
    let text = summary(&results);
    for said in [
        "50 %: p50 30 (10 to 50, 5 runs)",
        "monolith-replicated 30.0 (10.0 to 50.0, 5 runs)",
        "24: 97 (95 to 99, 5 runs) orders/s",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // One round is no range.
    let first: Vec<Done> = results
        .into_iter()
        .filter(|d| !d.block.contains('#'))
        .collect();
    assert!(
        summary(&first).contains("50 %: p50 10, p99 0 ms"),
        "{}",
        summary(&first)
    );
}

#[test]
fn a_file_that_was_torn_goes_on_after_its_last_whole_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("series.jsonl");
    assert_eq!(load(&path).expect("no file"), []);
    let block = next(&[]).expect("the first");
    let first = run(&block, 1_000.0);
    append(&path, &first).expect("written");
    let mut text = std::fs::read(&path).expect("read");
    text.extend(b"{\"block\":\"peak-16");
    std::fs::write(&path, &text).expect("torn");
    assert_eq!(load(&path).expect("read"), std::slice::from_ref(&first));
    let second = run(
        &next(std::slice::from_ref(&first)).expect("the second"),
        1_000.0,
    );
    append(&path, &second).expect("written");
    assert_eq!(load(&path).expect("read"), [first, second]);
    std::fs::write(&path, b"no block\n").expect("damaged");
    assert!(load(&path).is_err());
}

#[test]
fn what_was_not_measured_is_said_to_be_missing() {
    let text = summary(&[]);
    assert_eq!(text.matches("not measured yet").count(), 13, "{text}");
    assert!(page(&[]).contains("not measured yet"));
}
