//! What the reader accepts, what it refuses, and that nothing makes it panic.

use highwater_checker::{Action, HistoryError, Kind, Notation, Options, check, read};
use proptest::prelude::*;

const SEND: &str = "{:index 0 :time 1000 :type :invoke :process 0 :f :send :value [[:send 0 1]]}";

fn edn(text: &str) -> Result<highwater_checker::History, String> {
    read(text.as_bytes(), Notation::Edn).map_err(|error| error.to_string())
}

#[test]
fn unknown_keys_operations_and_nemeses_are_passed_over() {
    let text = "\
        ; a comment\n\
        {:index 0, :time 1, :type :info, :process :nemesis, :f :kill, :value {\"n1\" [1 2.5]}}\n\
        \n\
        {:index 1 :time 2 :type :invoke :process 0 :f :debug-topic-partitions :value [0]}\n\
        #jepsen.history.Op{:index 2 :time 3 :type :invoke :process 7 :f :poll \
          :value [[:poll]] :poll-ms 1000 :deep #{1 (2 \\a) #inst \"2026\"} #_ignored :g nil}\n";
    // The first line is a comment only.
    let body = text
        .split_once('\n')
        .map(|(_, rest)| rest)
        .expect("two lines");
    let history = edn(body).expect("readable");
    assert_eq!(history.len(), 1);
    let entry = history.get(0).expect("one entry");
    assert_eq!(
        (entry.index, entry.process.0, entry.kind),
        (2, 7, Kind::Invoke)
    );
}

#[test]
fn an_unknown_send_may_name_no_offset() {
    let text = format!(
        "{SEND}\n{{:index 1 :time 2 :type :info :process 0 :f :send :value [[:send 0 [nil 1]]]}}"
    );
    let history = edn(&text).expect("readable");
    let last = history.get(1).expect("two entries");
    assert!(matches!(last.actions, [Action::Send { offset: None, .. }]));
}

/// As another harness writes it: records of a library, transactions of sends and polls, sends
/// without offsets, crashes, dumps, processes that never answer.
const FOREIGN: &str = r#"
#jepsen.history.Op{:index 0, :time 10, :type :invoke, :process 0, :f :subscribe, :value [5 6]}
#jepsen.history.Op{:index 1, :time 20, :type :ok, :process 0, :f :subscribe, :value [5 6]}
#jepsen.history.Op{:index 2, :time 30, :type :invoke, :process 0, :f :txn, :value [[:poll] [:send 5 1] [:send 6 2]], :deadline 9.5}
#jepsen.history.Op{:index 3, :time 35, :type :info, :process :nemesis, :f :start-partition, :value [:majority {"n1" #{"n2"}}]}
#jepsen.history.Op{:index 4, :time 40, :type :ok, :process 0, :f :txn, :value [[:poll {}] [:send 5 [7 1]] [:send 6 2]], :rebalance-log [{:keys [{:topic "t0", :partition 5}]}]}
#jepsen.history.Op{:index 5, :time 50, :type :invoke, :process 1, :f :send, :value [[:send 5 3]]}
#jepsen.history.Op{:index 6, :time 60, :type :info, :process 1, :f :send, :value [[:send 5 [nil 3]]], :error [:timeout nil]}
#jepsen.history.Op{:index 7, :time 70, :type :invoke, :process 0, :f :crash, :value nil}
#jepsen.history.Op{:index 8, :time 80, :type :info, :process 0, :f :crash, :value nil}
#jepsen.history.Op{:index 9, :time 90, :type :invoke, :process 11, :f :poll, :value [[:poll]], :poll-ms 1000}
#jepsen.history.Op{:index 10, :time 95, :type :ok, :process 11, :f :poll, :value [[:poll {5 [[7 1] [9 3]], 6 [[2 2]]}]]}
#jepsen.history.Op{:index 11, :time 99, :type :invoke, :process 12, :f :send, :value [[:send 6 4]]}
"#;

#[test]
fn histories_of_others_are_understood() {
    let history = edn(FOREIGN).expect("readable");
    let verdict = check(&history, &Options::default()).expect("well-formed");
    assert_eq!(
        verdict.conclusion,
        highwater_checker::Conclusion::Pass,
        "{verdict}"
    );
    let counts = (
        verdict.operations,
        verdict.ok,
        verdict.failed,
        verdict.unknown,
    );
    assert_eq!(counts, (5, 3, 0, 2), "{verdict}");
    // Value 2 had no offset of its own; a poll knows it. Gone from there, it was never seen.
    let history = edn(&FOREIGN.replace(", 6 [[2 2]]", "")).expect("readable");
    let verdict = check(&history, &Options::default()).expect("well-formed");
    assert_eq!(
        verdict.count(highwater_checker::Anomaly::Unseen),
        1,
        "{verdict}"
    );
}

#[test]
fn errors_name_the_line() {
    for (bad, expected) in [
        ("{:index 1", "line 2: a value is missing at the end"),
        ("{:index 1}", "line 2: `process` is missing"),
        (
            "{:index 0 :time 1 :type :ok :process 0 :f :send}",
            "line 2: operation index 0 follows 0",
        ),
        (
            "{:index 1 :time 1 :type :odd :process 0 :f :send}",
            "line 2: `type` is",
        ),
        (
            "{:index 1 :time 1 :type :ok :process 0 :f :send :value [[:send 0 [-1 1]]]}",
            "line 2: offset",
        ),
    ] {
        let error = edn(&format!("{SEND}\n{bad}")).expect_err(bad);
        assert!(error.starts_with(expected), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(edn(&deep).expect_err("too deep").contains("nested deeper"));
}

#[test]
fn what_is_no_history_is_refused() {
    let judge = |rest: &str| {
        let history = edn(&format!("{SEND}\n{rest}")).expect("readable");
        check(&history, &Options::default()).expect_err("malformed")
    };
    let open = "{:index 1 :time 1 :type :invoke :process 0 :f :poll :value [[:poll]]}";
    assert!(matches!(
        judge(open),
        HistoryError::AlreadyOpen { index: 1, .. }
    ));
    let stray = "{:index 1 :time 1 :type :ok :process 1 :f :poll :value [[:poll {}]]}";
    assert!(matches!(
        judge(stray),
        HistoryError::NothingOpen { index: 1, .. }
    ));
    let other = "{:index 1 :time 1 :type :ok :process 0 :f :send :value [[:send 0 [3 2]]]}";
    assert!(matches!(
        judge(other),
        HistoryError::SendsDiffer { index: 1 }
    ));
    let retired = "{:index 1 :time 1 :type :info :process 0 :f :send :value [[:send 0 1]]}\n\
        {:index 2 :time 1 :type :invoke :process 0 :f :poll :value [[:poll]]}";
    assert!(matches!(
        judge(retired),
        HistoryError::Retired { index: 2, .. }
    ));
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "[\\[\\]{}()#_:\\\\\" a0-9,;nil-]{0,60}") {
        let _ = read(text.as_bytes(), Notation::Edn);
        let _ = read(text.as_bytes(), Notation::Json);
    }

    #[test]
    fn no_damage_to_a_line_makes_the_reader_panic(at in 0..SEND.len(), byte in 32_u8..127) {
        let mut line = SEND.as_bytes().to_vec();
        line[at] = byte;
        let _ = read(line.as_slice(), Notation::Edn);
    }
}
