//! History checkers: pure functions from a history to the anomalies it contains.
//!
//! A [`History`] is what client processes asked for and how each request ended; [`check`] says what
//! in it must not have happened. Nothing here does I/O of its own, reads a clock, or knows the
//! broker: simulator, tests and harnesses use the same functions.
//!
//! ```
//! use highwater_checker::{Anomaly, Conclusion, Notation, Options, check, read};
//!
//! let text = "\
//! {:index 0 :time 10 :type :invoke :process 0 :f :send :value [[:send 0 1]]}
//! {:index 1 :time 20 :type :ok :process 0 :f :send :value [[:send 0 [17 1]]]}
//! {:index 2 :time 30 :type :invoke :process 1 :f :poll :value [[:poll]]}
//! {:index 3 :time 40 :type :ok :process 1 :f :poll :value [[:poll {0 [[17 1] [18 4]]}]]}
//! ";
//! let history = read(text.as_bytes(), Notation::Edn).unwrap();
//! let verdict = check(&history, &Options::default()).unwrap();
//! assert_eq!(verdict.conclusion, Conclusion::Fail);
//! assert_eq!(verdict.count(Anomaly::Phantom), 1);
//! ```

mod checks;
mod datum;
mod edn;
mod format;
mod gone;
mod history;
mod model;
mod nemesis;
mod pairing;
mod render;
mod verdict;

pub use checks::vacuous::{Fault, LEAST_OK_PERCENT};
pub use format::{Notation, ReadError, format_line, read, write};
pub use history::{
    Action, Entry, Function, Hash, History, HistoryError, Key, Kind, Offset, Operation, Process,
    Value,
};
pub use nemesis::format_nemesis;
pub use verdict::{Anomaly, Conclusion, Finding, Found, Verdict};

use std::collections::BTreeMap;

use model::{Ended, Model};
use verdict::Collector;

/// How consumers of a history got their partitions, where the history does not show rebalances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SubVia {
    /// By hand, or every rebalance is in the history.
    #[default]
    Assign,
    /// As members of groups: a process that subscribed may go anywhere at any time.
    Subscribe,
}

/// What the caller knows about a run beside its history.
#[derive(Debug, Clone)]
pub struct Options {
    /// The history ends with reads of every partition from the start past every acknowledged
    /// offset. Only then is an acknowledged record that nobody polled an error.
    pub final_reads: bool,
    /// Decides whether skips and steps back of subscribed processes count.
    pub sub_via: SubVia,
    /// What was broken, when, and whether that is certain.
    pub faults: Vec<Fault>,
    /// How many instances of each anomaly to describe; all are counted.
    pub examples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            final_reads: true,
            sub_via: SubVia::default(),
            faults: Vec::new(),
            examples: 10,
        }
    }
}

/// Checks a history for every anomaly.
///
/// Takes time in proportion to n log n and memory in proportion to n, n being the number of
/// records sent and read.
///
/// # Errors
/// When the entries do not make a history, see [`HistoryError`].
pub fn check(history: &History, options: &Options) -> Result<Verdict, HistoryError> {
    let mut model = Model::build(history)?;
    model.free_subscribers = options.sub_via == SubVia::Subscribe;
    let mut anomalies = BTreeMap::new();
    let mut tolerated = BTreeMap::new();
    for anomaly in Anomaly::ALL {
        let mut collector = Collector::new(options.examples);
        checks::run(anomaly, &model, &mut collector);
        let found = collector.finish();
        if found.count > 0 {
            anomalies.insert(anomaly, found);
        }
    }
    if !options.final_reads && anomalies.contains_key(&Anomaly::Unseen) {
        tolerated.insert(Anomaly::Unseen, "no final reads were made".to_owned());
    }
    let vacuous = checks::vacuous::reasons(&model, &options.faults);
    let conclusion = if anomalies.len() > tolerated.len() {
        Conclusion::Fail
    } else if vacuous.is_empty() {
        Conclusion::Pass
    } else {
        Conclusion::Unknown
    };
    let count = |ended| model.ops.iter().filter(|op| op.ended == ended).count() as u64;
    Ok(Verdict {
        conclusion,
        operations: model.ops.len() as u64,
        ok: count(Ended::Ok),
        failed: count(Ended::Fail),
        unknown: count(Ended::Info),
        anomalies,
        tolerated,
        vacuous,
    })
}
