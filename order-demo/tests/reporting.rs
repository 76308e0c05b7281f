//! The report has the keys that programs rely on, and says plainly whether a run passed.

mod support;

use hdrhistogram::Histogram;
use highwater_order_demo::report::{Failover, Measured, Report, Sample, Setting};
use support::Run;

fn report(run: &Run, problems: Vec<String>) -> Report {
    let mut latencies = Histogram::new(3).expect("three digits are allowed");
    for micros in 1..=1_000 {
        latencies.record(micros * 10).expect("grows as needed");
    }
    let setting = Setting {
        machine: "2 cores".to_owned(),
        commit: Some("abc".to_owned()),
        source: "generated".to_owned(),
        seeds: [("accounts".to_owned(), 7)].into(),
    };
    let failover = Failover {
        broker: 2,
        shard: 9,
        acknowledged_before: 10,
        failover_ms: Some(812.5),
        caught_up_ms: Some(1_500.0),
    };
    let measured = Measured {
        orders: 30,
        rate: 2.0,
        duration_s: 15.0,
        latencies,
        failover: Some(failover),
        samples: vec![Sample {
            second: 0,
            sent: 2,
            acknowledged: 2,
            priced: 1,
        }],
        problems,
    };
    Report::new(setting, measured, run.verify())
}

#[test]
fn json_has_the_promised_keys() {
    let json = report(&Run::flawless(30), Vec::new()).to_json();
    assert_eq!(json["passed"], true);
    assert_eq!(json["acknowledged"], 30);
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
    assert_eq!(json["orders_per_s"], 2.0);
    assert_eq!(json["failover_ms"], 812.5);
    for (key, about) in [("p50", 5.0), ("p99", 9.9), ("p999", 10.0)] {
        let millis = json["ack_ms"][key].as_f64().expect("a number");
        assert!((millis - about).abs() < 0.1, "{key} {millis}");
    }
    assert_eq!(json["expected_total_cents"], json["priced_total_cents"]);
    assert!(
        json["expected_total_cents"]
            .as_i64()
            .is_some_and(|cents| cents > 0)
    );
    assert_eq!(json["replicas_equal"], true);
    assert_eq!(json["machine"], "2 cores");
    assert_eq!(json["commit"], "abc");
    assert_eq!(json["seeds"]["accounts"], 7);
    assert_eq!(json["samples"][0]["acknowledged"], 2);
}

#[test]
fn a_violation_or_a_problem_fails_the_run() {
    let mut run = Run::flawless(30);
    run.intake.remove(3);
    run.events.remove(3);
    let failed = report(&run, Vec::new());
    assert!(!failed.passed);
    assert_eq!(failed.to_json()["lost"], 1);
    let text = failed.to_string();
    assert!(
        text.starts_with("FAILED") && text.contains("Lost: 1"),
        "{text}"
    );

    let problem = report(&Run::flawless(30), vec!["no broker was killed".to_owned()]);
    assert!(!problem.passed && problem.to_string().contains("no broker was killed"));
    let passed = report(&Run::flawless(30), Vec::new()).to_string();
    assert!(
        passed.starts_with("PASSED") && passed.contains("812 ms"),
        "{passed}"
    );
}
