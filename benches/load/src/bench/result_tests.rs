//! The result file has the fields that charts look for, and its sums are right.

use super::super::procfs::Usage;
use super::*;

fn outcome() -> Outcome {
    let mut outcome = Outcome {
        driver: "test".to_owned(),
        workload: Workload {
            topics: 1,
            partitions_per_topic: 16,
            message_size: 1024,
            subscriptions_per_topic: 1,
            ..Workload::default()
        },
        calibration: Calibration::default(),
        costs: Costs {
            machine: MachineUse {
                seconds: 2.0,
                ..MachineUse::default()
            },
            ..Costs::default()
        },
        unread: 0,
        failures: Vec::new(),
        seconds: Vec::new(),
        whole: Second::default(),
    };
    let mut seconds = [Second::default(), Second::default()];
    for (second, count) in seconds.iter_mut().zip([100u64, 300]) {
        second.acknowledged = count;
        second.received = count / 2;
        second.bytes = count * 1024;
        for latency in 1..=count {
            second.publish.record_us(latency * 1000);
        }
    }
    outcome.fill(&seconds);
    outcome
}

#[test]
fn the_fields_of_the_original_are_there() {
    let json = outcome().to_json();
    for name in ["publishLatency", "publishDelayLatency", "endToEndLatency"] {
        let capital = format!("aggregated{}{}", name[..1].to_uppercase(), &name[1..]);
        for ending in [
            "Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max",
        ] {
            let list = &json[format!("{name}{ending}")];
            assert_eq!(list.as_array().map(Vec::len), Some(2), "{name}{ending}");
            assert!(
                json[format!("{capital}{ending}")].is_number(),
                "{capital}{ending}"
            );
        }
        assert!(json[format!("{capital}Quantiles")]["99.9"].is_number());
    }
    assert_eq!(json["publishRate"], json!([100.0, 300.0]));
    assert_eq!(json["backlog"], json!([50, 200]));
    assert_eq!(json["partitions"], 16);
    let median = json["aggregatedPublishLatency50pct"]
        .as_f64()
        .expect("a number");
    assert!((median - 100.0).abs() < 0.2, "{median}");
}

#[test]
fn rates_are_over_the_span() {
    let outcome = outcome();
    assert_eq!(outcome.rate(), 200.0);
    assert_eq!(outcome.whole.bytes, 400 * 1024);
    assert!((outcome.per_gb(1.0) - 1e9 / (400.0 * 1024.0)).abs() < 1e-6);
}

#[test]
fn brokers_and_clients_are_kept_apart() {
    let usage = |cpu_seconds| Usage {
        cpu_seconds,
        ..Usage::default()
    };
    let costs = Costs {
        processes: vec![
            ProcessCost::new("broker 1".to_owned(), usage(1.0)),
            ProcessCost::new("broker 2".to_owned(), usage(2.0)),
            ProcessCost::new("producers".to_owned(), usage(4.0)),
        ],
        ..Costs::default()
    };
    assert_eq!(costs.brokers().cpu_seconds, 3.0);
    assert_eq!(costs.clients().cpu_seconds, 4.0);
}
