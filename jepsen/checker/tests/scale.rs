//! A history of a size at which anything quadratic would not end: correctness is asserted, time is
//! not (benchmarks do that).

use highwater_checker::{
    Action, Anomaly, Conclusion, Function, History, Key, Kind, Offset, Operation, Options, Process,
    Value, check,
};

struct Writer {
    history: History,
    index: u64,
}

impl Writer {
    fn add(&mut self, kind: Kind, process: u64, function: Function, actions: Vec<Action>) {
        let process = Process(process);
        let operation = Operation::new(
            self.index,
            self.index * 1_000,
            kind,
            process,
            function,
            actions,
        );
        self.history.push(&operation).expect("indexes rise");
        self.index += 1;
    }
}

/// `count` records over `keys` partitions, each sent by its own process and polled once in tens.
/// The record at `lost`, if any, is passed over by the reader.
fn long_history(keys: u32, count: u64, lost: Option<u64>) -> History {
    let mut writer = Writer {
        history: History::new(),
        index: 0,
    };
    for at in 0..count {
        for key in (0..keys).map(Key) {
            let value = Value(i64::try_from(at * 7 + 3).expect("small"));
            let process = u64::from(key.0);
            let send = |offset| vec![Action::Send { key, value, offset }];
            writer.add(Kind::Invoke, process, Function::Send, send(None));
            writer.add(Kind::Ok, process, Function::Send, send(Some(Offset(at))));
            if at % 10 == 9 {
                let reader = u64::from(keys) + process;
                let reads = (at - 9..=at).filter(|at| key.0 > 0 || lost != Some(*at));
                let reads = reads.map(|at| Action::Read {
                    key,
                    offset: Offset(at),
                    value: Value(i64::try_from(at * 7 + 3).expect("small")),
                });
                writer.add(Kind::Invoke, reader, Function::Poll, Vec::new());
                writer.add(Kind::Ok, reader, Function::Poll, reads.collect());
            }
        }
    }
    writer.history
}

#[test]
fn two_hundred_thousand_records_pass() {
    let verdict = check(&long_history(20, 10_000, None), &Options::default()).expect("well-formed");
    assert_eq!(verdict.conclusion, Conclusion::Pass, "{verdict}");
    assert_eq!(verdict.ok, 220_000);
}

#[test]
fn one_record_passed_over_among_many_is_found() {
    let history = long_history(4, 10_000, Some(4_321));
    let verdict = check(&history, &Options::default()).expect("well-formed");
    assert_eq!(verdict.conclusion, Conclusion::Fail);
    for anomaly in [Anomaly::LostWrite, Anomaly::Unseen, Anomaly::PollSkip] {
        assert_eq!(verdict.count(anomaly), 1, "{verdict}");
    }
}
