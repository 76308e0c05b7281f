//! The report has the keys that programs rely on, says plainly whether a run passed, and its page
//! needs nothing from elsewhere.

use super::papers::wilson;
use super::*;

#[allow(clippy::field_reassign_with_default)] // Part of it is private to the checker.
fn run(passed: bool) -> ModeRun {
    let mut verdict = Verdict::default();
    verdict.passed = passed;
    verdict.acknowledged = 100;
    if !passed {
        let lost = Violations {
            count: 3,
            examples: vec!["o-<1> was accepted and is gone".to_owned()],
        };
        verdict.violations.insert(Violation::Lost, lost);
    }
    ModeRun {
        mode: "event".to_owned(),
        orders: 100,
        orders_per_s: 50.0,
        ack_ms: Latency {
            p50: 1.0,
            p99: 2.0,
            p999: 3.0,
            max: 4.0,
        },
        faults: vec![FaultReport {
            name: "broker-leader".to_owned(),
            active: true,
            mttr_ms: Some(812.5),
            failover: Some(Failover {
                broker: 2,
                shard: 9,
                failover_ms: Some(812.5),
                caught_up_ms: Some(1_500.0),
            }),
            ..FaultReport::default()
        }],
        samples: vec![Sample {
            acknowledged: 50,
            ..Sample::default()
        }],
        scaled: vec![Scaled {
            service: "validator-web".to_owned(),
            at_s: 3.25,
            behind: 321,
            assigned_ms: Some(640.0),
            pause_ms: Some(85.0),
            gone_s: Some(9.5),
            ..Scaled::default()
        }],
        work: [("payment", 40, 7), ("billing", 0, 0)]
            .map(|(name, retries, refused)| {
                let retries = Retries {
                    calls: 100,
                    retries,
                    refused,
                };
                let work = Work {
                    retries,
                    ..Work::default()
                };
                (name.to_owned(), work)
            })
            .into(),
        in_time: 100,
        verdict,
        ..ModeRun::default()
    }
}

#[test]
fn json_has_the_promised_keys() {
    let report = Report::new(Setting::default(), Latency::default(), vec![run(true)]);
    let json = report.to_json();
    assert_eq!(json["passed"], true);
    assert_eq!(json["acknowledged"], 100);
    for zero in [
        "lost",
        "duplicated",
        "out_of_order",
        "phantom",
        "unknown",
        "refused",
    ] {
        assert_eq!(json[zero], 0, "{zero}");
    }
    assert_eq!(json["orders_per_s"], 50.0);
    assert_eq!(json["failover_ms"], 812.5);
    assert_eq!(json["failover"]["broker"], 2);
    for (key, value) in [("p50", 1.0), ("p99", 2.0), ("p999", 3.0)] {
        assert_eq!(json["ack_ms"][key], value);
    }
    for there in [
        "orders",
        "priced",
        "price_mismatch",
        "expected_total_cents",
        "priced_total_cents",
        "replicas_equal",
        "replica_copies",
        "rate",
        "duration_s",
        "machine",
        "seeds",
        "problems",
        "violations",
        "samples",
    ] {
        assert!(!json[there].is_null(), "{there}");
    }
    assert_eq!(json["samples"][0]["acknowledged"], 50);
}

#[test]
fn further_workers_and_retries_are_in_every_form_of_the_report() {
    let report = Report::new(Setting::default(), Latency::default(), vec![run(true)]);
    let json = report.to_json();
    let scaled = &json["modes"][0]["scaled"][0];
    assert_eq!(
        (&scaled["assigned_ms"], &scaled["pause_ms"]),
        (&640.0.into(), &85.0.into())
    );
    assert_eq!(json["modes"][0]["work"]["payment"]["retries"]["refused"], 7);
    let text = report.to_string();
    let sentence = "validator-web at 3.2 s, 321 messages behind: the new worker's first message after \
                    640 ms, of which nobody worked on its partitions for 85 ms; the lag was gone \
                    after 9.5 s";
    // Once for the run, once beside the papers.
    assert_eq!(text.matches(sentence).count(), 2, "{text}");
    let retries = "retries         40 of 200 calls, 7 times refused by the budget of their process: \
                   payment 40 (7 refused)\n";
    assert!(text.contains(retries), "{text}");
    let page = page(&report);
    for cell in [
        "<td>321<td>640 ms<td>85 ms<td>9.5 s<td>-",
        "<td>payment<td>100<td>40<td>7",
    ] {
        assert!(page.contains(cell), "{cell}: {page}");
    }
}

#[test]
fn what_is_broken_fails_the_run_and_is_named() {
    let report = Report::new(Setting::default(), Latency::default(), vec![run(false)]);
    let text = report.to_string();
    assert!(
        text.starts_with("FAILED") && text.contains("Lost: 3"),
        "{text}"
    );
    assert_eq!(report.to_json()["lost"], 3);

    let mut inactive = run(true);
    inactive.faults[0].active = false;
    assert!(
        !inactive.passed(),
        "a fault that was not shown active shows nothing"
    );
    let mut troubled = run(true);
    troubled
        .problems
        .push("the pipeline stood still".to_owned());
    let report = Report::new(
        Setting::default(),
        Latency::default(),
        vec![run(true), troubled],
    );
    assert!(!report.passed && report.to_string().contains("stood still"));
}

#[test]
fn the_page_stands_alone_and_escapes_what_it_shows() {
    let report = Report::new(Setting::default(), Latency::default(), vec![run(false)]);
    let page = page(&report);
    assert!(page.contains("o-&lt;1&gt; was accepted") && page.contains("<svg"));
    for elsewhere in ["http://", "https://", "<script", "src="] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn no_failure_in_so_many_shows_only_so_much() {
    let (low, high) = wilson(300_000, 300_000);
    assert!(
        low > 0.999_98 && low < 0.999_99 && high > 0.999_999,
        "{low} {high}"
    );
    assert_eq!(wilson(0, 0), (0.0, 1.0));
}
