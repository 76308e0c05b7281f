//! Workloads of the OpenMessaging Benchmark, read as they are.

use super::{KeyDistributor, Workload};

/// The shape of its files: comments, quotes, keys that mean nothing here.
const STANDARD: &str = r#"#
# Licensed to nobody.
#
name: 1 topic / 16 partitions / 1Kb

topics: 1
partitionsPerTopic: 16
keyDistributor: "NO_KEY"
messageSize: 1024
payloadFile: "payload/payload-1Kb.data"
subscriptionsPerTopic: 1
consumerPerSubscription: 1
producersPerTopic: 1
producerRate: 50000
consumerBacklogSizeGB: 0
testDurationMinutes: 15
sampleRateMillis: 1000
shinyNewKey: {a: [1, 2]}
"#;

#[test]
fn a_standard_workload_is_read_as_it_is() {
    let workload = Workload::parse(STANDARD).expect("a workload");
    assert_eq!(workload.name, "1 topic / 16 partitions / 1Kb");
    assert_eq!(workload.partitions_per_topic, 16);
    assert_eq!(workload.key_distributor, KeyDistributor::NoKey);
    assert_eq!(workload.producer_rate, 50_000.0);
    assert_eq!(workload.test_duration_minutes, 15.0);
    assert_eq!(workload.warmup_duration_minutes, None);
    let ignored = workload.ignored();
    assert_eq!(
        ignored,
        [
            "sampleRateMillis (no effect here)",
            "shinyNewKey (not known)"
        ]
    );
}

#[test]
fn keys_and_backlog_are_understood() {
    let text = STANDARD
        .replace("NO_KEY", "KEY_ROUND_ROBIN")
        .replace("consumerBacklogSizeGB: 0", "consumerBacklogSizeGB: 2");
    let workload = Workload::parse(&text).expect("a workload");
    assert_eq!(workload.key_distributor, KeyDistributor::KeyRoundRobin);
    assert_eq!(workload.consumer_backlog_size_gb, 2.0);
}

#[test]
fn nonsense_is_refused() {
    for (from, to) in [
        ("topics: 1", "topics: 0"),
        ("testDurationMinutes: 15", "testDurationMinutes: 0"),
        ("producerRate: 50000", "producerRate: -1"),
        ("producersPerTopic: 1", "producersPerTopic: 0"),
        ("NO_KEY", "SOME_KEY"),
    ] {
        let text = STANDARD.replace(from, to);
        assert!(Workload::parse(&text).is_err(), "{to} was taken");
    }
}
