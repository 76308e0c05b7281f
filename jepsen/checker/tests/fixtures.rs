//! Every anomaly is found where it was planted, and nothing is found in its near miss.

use highwater_checker::{
    Anomaly, Conclusion, Fault, History, Notation, Options, SubVia, Verdict, check, read, write,
};

const NAMES: [&str; 19] = [
    "inconsistent-offset",
    "duplicate",
    "lost-write",
    "unseen",
    "phantom",
    "aborted-read",
    "precommitted-read",
    "poll-skip",
    "non-monotonic-poll",
    "non-monotonic-send",
    "read-before-send",
    "stale-latest",
    "group-regress",
    "replica-divergence",
    "trim-regress",
    "over-trim",
    "stale-key",
    "revenant",
    "vacuous",
];

fn load(name: &str) -> History {
    let path = format!("{}/tests/fixtures/{name}.edn", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    read(text.as_bytes(), Notation::Edn).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn judge(name: &str) -> Verdict {
    check(&load(name), &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn found(verdict: &Verdict) -> Vec<&'static str> {
    verdict
        .anomalies
        .keys()
        .map(|anomaly| anomaly.name())
        .collect()
}

#[test]
fn every_planted_anomaly_is_found_and_no_other() {
    for anomaly in Anomaly::ALL {
        let verdict = judge(anomaly.name());
        assert_eq!(verdict.conclusion, Conclusion::Fail, "{anomaly}: {verdict}");
        assert!(verdict.count(anomaly) >= 1, "{anomaly}: {verdict}");
        // What readers passed over, nobody polled either.
        let expected = match anomaly {
            Anomaly::LostWrite => vec!["lost-write", "unseen"],
            // Whoever passes the latest record of a key skips it.
            Anomaly::StaleKey => vec!["poll-skip", "stale-key"],
            // Nobody sent it there.
            Anomaly::Revenant => vec!["phantom", "revenant"],
            other => vec![other.name()],
        };
        assert_eq!(found(&verdict), expected, "{verdict}");
    }
}

#[test]
fn every_near_miss_is_legal() {
    for name in NAMES {
        let verdict = judge(&format!("{name}.legal"));
        assert_eq!(verdict.conclusion, Conclusion::Pass, "{name}: {verdict}");
    }
    assert_eq!(
        judge("clean").conclusion,
        Conclusion::Pass,
        "{}",
        judge("clean")
    );
}

#[test]
fn a_history_in_which_little_succeeded_is_unknown() {
    let verdict = judge("vacuous");
    assert_eq!(verdict.conclusion, Conclusion::Unknown, "{verdict}");
    assert!(verdict.anomalies.is_empty(), "{verdict}");
    let empty = check(&History::new(), &Options::default()).expect("an empty history is one");
    assert_eq!(empty.conclusion, Conclusion::Unknown);
}

#[test]
fn a_fault_must_be_proven_and_survived() {
    let history = load("clean");
    let fault = |from_ns, to_ns, proven| Options {
        faults: vec![Fault {
            name: "kill".into(),
            from_ns,
            to_ns,
            proven,
        }],
        ..Options::default()
    };
    let judge = |options| check(&history, &options).expect("well-formed").conclusion;
    assert_eq!(judge(fault(0, 1_000_000, true)), Conclusion::Pass);
    assert_eq!(judge(fault(0, 1_000_000, false)), Conclusion::Unknown);
    // Nothing was begun in that time.
    assert_eq!(
        judge(fault(5_000_000, 6_000_000, true)),
        Conclusion::Unknown
    );
}

#[test]
fn what_hardly_ever_fails_makes_up_for_neither_sends_nor_polls() {
    let path = format!("{}/tests/fixtures/vacuous.edn", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).expect("a fixture");
    for place in 0..100 {
        let (begin, end) = (1_000 + place * 2, 1_001 + place * 2);
        text.push_str(&format!(
            "{{:index {begin} :time {begin} :type :invoke :process 900 :f :assign :value [0]}}\n\
             {{:index {end} :time {end} :type :ok :process 900 :f :assign :value [0]}}\n"
        ));
    }
    let history = read(text.as_bytes(), Notation::Edn).expect("readable");
    let verdict = check(&history, &Options::default()).expect("well-formed");
    assert_eq!(verdict.conclusion, Conclusion::Unknown, "{verdict}");
    assert!(
        verdict.to_string().contains("1 of 6 sends ended ok"),
        "{verdict}"
    );
    // Only its sends lie within the fault.
    let fault = Fault {
        name: "kill".into(),
        from_ns: 0,
        to_ns: 12_500,
        proven: true,
    };
    let options = Options {
        faults: vec![fault],
        ..Options::default()
    };
    let verdict = check(&load("clean"), &options).expect("well-formed");
    assert_eq!(verdict.vacuous, ["no poll under fault brought a record"]);
}

#[test]
fn what_nobody_polled_is_tolerated_without_final_reads() {
    let options = Options {
        final_reads: false,
        ..Options::default()
    };
    let verdict = check(&load("unseen"), &options).expect("well-formed");
    assert_eq!(verdict.conclusion, Conclusion::Pass, "{verdict}");
    assert_eq!(verdict.count(Anomaly::Unseen), 1);
    let lost = check(&load("lost-write"), &options).expect("well-formed");
    assert_eq!(lost.conclusion, Conclusion::Fail, "{lost}");
}

#[test]
fn a_record_acknowledged_within_an_unknown_operation_must_be_kept() {
    let verdict = judge("unseen-info");
    assert_eq!(found(&verdict), ["unseen"], "{verdict}");
    // Value 1 was acknowledged, value 2 was not.
    assert_eq!(verdict.count(Anomaly::Unseen), 1, "{verdict}");
    let verdict = judge("unseen-info.legal");
    assert_eq!(verdict.conclusion, Conclusion::Pass, "{verdict}");
}

#[test]
fn a_group_that_passes_what_nobody_polled_is_found() {
    let verdict = judge("group-regress");
    assert_eq!(verdict.count(Anomaly::GroupRegress), 2, "{verdict}");
}

#[test]
fn what_was_deleted_comes_back_neither_in_answers_nor_to_readers() {
    let verdict = judge("trim-regress");
    assert_eq!(verdict.count(Anomaly::TrimRegress), 2, "{verdict}");
}

#[test]
fn what_a_tombstone_removed_does_not_live_again() {
    let verdict = judge("stale-tombstone");
    assert_eq!(found(&verdict), ["stale-key"], "{verdict}");
    assert_eq!(verdict.count(Anomaly::StaleKey), 1, "{verdict}");
}

/// Its outcome is unknown, and nobody has seen it: it may have removed its key, and itself.
#[test]
fn a_tombstone_that_may_have_been_stored_explains_that_its_key_is_gone() {
    let verdict = judge("forgotten-tombstone");
    assert_eq!(verdict.conclusion, Conclusion::Pass, "{verdict}");
    // One that was certainly never stored explains nothing.
    let path = "tests/fixtures/forgotten-tombstone.edn";
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a fixture");
    let failed = text.replace(":type :info", ":type :fail");
    let history = read(failed.as_bytes(), Notation::Edn).expect("readable");
    let verdict = check(&history, &Options::default()).expect("well-formed");
    let expected = ["lost-write", "unseen", "stale-key"];
    assert_eq!(found(&verdict), expected, "{verdict}");
}

#[test]
fn subscribed_processes_may_go_anywhere_when_rebalances_are_not_shown() {
    for name in ["subscribe-skip", "subscribe-back"] {
        let judge = |sub_via| {
            let options = Options {
                sub_via,
                ..Options::default()
            };
            check(&load(name), &options)
                .expect("well-formed")
                .conclusion
        };
        assert_eq!(judge(SubVia::Assign), Conclusion::Fail, "{name}");
        assert_eq!(judge(SubVia::Subscribe), Conclusion::Pass, "{name}");
    }
    // Whoever assigned is bound all the same.
    let options = Options {
        sub_via: SubVia::Subscribe,
        ..Options::default()
    };
    let verdict = check(&load("poll-skip"), &options).expect("well-formed");
    assert_eq!(verdict.conclusion, Conclusion::Fail, "{verdict}");
}

#[test]
fn polls_that_return_nothing_are_no_sign_of_life() {
    let mut text = std::fs::read_to_string(format!(
        "{}/tests/fixtures/vacuous.edn",
        env!("CARGO_MANIFEST_DIR")
    ))
    .expect("a fixture");
    for poll in 0..100 {
        let (begin, end) = (1_000 + poll * 2, 1_001 + poll * 2);
        text.push_str(&format!(
            "{{:index {begin} :time {begin} :type :invoke :process 900 :f :poll :value [[:poll]]}}\n\
             {{:index {end} :time {end} :type :ok :process 900 :f :poll :value [[:poll {{}}]]}}\n"
        ));
    }
    let history = read(text.as_bytes(), Notation::Edn).expect("readable");
    let verdict = check(&history, &Options::default()).expect("well-formed");
    assert_eq!(verdict.conclusion, Conclusion::Unknown, "{verdict}");
}

#[test]
fn both_notations_carry_a_history_unchanged() {
    for name in NAMES
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("{name}.legal")])
    {
        let history = load(&name);
        for notation in [Notation::Edn, Notation::Json] {
            let mut text = Vec::new();
            write(&history, notation, &mut text).expect("memory does not fail");
            let again = read(text.as_slice(), notation)
                .unwrap_or_else(|error| panic!("{name} as {notation:?}: {error}"));
            let all = |history: &History| -> Vec<_> {
                history.iter().map(|entry| entry.to_operation()).collect()
            };
            assert_eq!(all(&again), all(&history), "{name} as {notation:?}");
        }
    }
}

#[test]
fn verdicts_render_as_text_and_json() {
    let verdict = judge("lost-write");
    let text = verdict.to_string();
    assert!(
        text.starts_with("FAIL: 5 operations (5 ok, 0 failed, 0 unknown)"),
        "{text}"
    );
    assert!(
        text.contains("value 2 was acknowledged at offset 1"),
        "{text}"
    );
    let json = verdict.to_json();
    assert_eq!(json["conclusion"], "fail");
    assert_eq!(json["anomalies"]["lost-write"]["count"], 1);
    assert_eq!(json["anomalies"]["lost-write"]["examples"][0]["value"], 2);
}
