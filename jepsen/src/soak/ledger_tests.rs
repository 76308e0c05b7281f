//! A ledger outlives whoever writes it, and its worst block counts.

use super::super::{LEDGER, summary};
use super::*;

fn one(block: u64) -> Entry {
    Entry {
        block,
        seed: 7 + block,
        seconds: 60.0,
        verdict: "PASS".into(),
        brokers: 3,
        operations: [10, 8, 1, 1],
        acknowledged: 16,
        faults: BTreeMap::from([("pause".to_owned(), (2, 2))]),
        members: BTreeMap::from([("a member of a group is killed".to_owned(), 4)]),
        ..Entry::default()
    }
}

#[test]
fn a_ledger_whose_last_line_is_torn_goes_on_behind_the_whole_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(LEDGER);
    append(&path, &one(0)).expect("written");
    append(&path, &one(1)).expect("written");
    let mut text = fs::read_to_string(&path).expect("written");
    text.push_str("{\"block\":2,\"se");
    fs::write(&path, text).expect("written");
    assert_eq!(read_ledger(&path).expect("readable").len(), 2);
    append(&path, &one(2)).expect("written");
    let entries = read_ledger(&path).expect("readable");
    assert_eq!(
        entries.iter().map(|entry| entry.block).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let text = summary(&entries);
    assert!(
        text.contains("30 operations (24 ok, 3 failed, 3 unknown)"),
        "{text}"
    );
    assert!(text.contains("6 faults: pause 6\n"), "{text}");
    assert!(text.contains("a member of a group is killed 12;"), "{text}");
}

#[test]
fn a_line_in_the_middle_that_is_none_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(LEDGER);
    fs::write(&path, "odd\n{}\n").expect("written");
    assert!(read_ledger(&path).is_err());
}

#[test]
fn lines_that_say_less_stay_readable() {
    let line = r#"{"block":3,"seed":9,"ended":"","seconds":60.0,"verdict":"PASS","operations":[10,8,1,1],
        "acknowledged":16,"faults":{"pause":[2,2]},"anomalies":{},"remarks":[],"recovery":[{"kind":"pause",
        "under_fault":[0.5],"after_heal":[],"gaps":[],"rejoined":[],"never":0}]}"#;
    let entry: Entry = serde_json::from_str(line).expect("readable");
    assert_eq!(
        (entry.block, entry.brokers, entry.recovery[0].held),
        (3, 0, 0)
    );
}

#[test]
fn the_worst_block_counts_whenever_it_was_made() {
    let verdict = |word: &str| Entry {
        verdict: word.into(),
        ..one(0)
    };
    let code = |words: &[&str]| {
        let entries: Vec<Entry> = words.iter().map(|word| verdict(word)).collect();
        exit_code(&entries, false)
    };
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&["PASS", "PASS"]), 0);
    assert_eq!(code(&["UNKNOWN", "PASS"]), 2);
    assert_eq!(code(&["UNKNOWN", "ERROR", "PASS"]), 3);
    assert_eq!(code(&["FAIL", "ERROR", "PASS"]), 1);
    let skipped = Entry {
        skipped: vec!["ring: it takes five brokers".into()],
        ..one(0)
    };
    assert_eq!(exit_code(std::slice::from_ref(&skipped), false), 0);
    assert_eq!(exit_code(&[skipped], true), 1);
}

#[test]
fn a_block_that_could_not_be_made_is_in_the_ledger() {
    let config = RunConfig {
        seed: 11,
        brokers: 5,
        ..RunConfig::default()
    };
    let error = anyhow::anyhow!("broker 2 ended").context("the cluster did not form");
    let entry = Entry::of_error(4, &config, &error);
    assert_eq!((entry.block, entry.seed, entry.brokers), (4, 11, 5));
    assert_eq!(entry.remarks, ["the cluster did not form: broker 2 ended"]);
    assert!(entry.line().contains("ERROR"));
}
