//! What handlers may do with dead letters. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// One record in so many fails until it is cured.
const POISON_ONE_IN: u32 = 50;

/// Findings told of one rule; all would be noise.
const EXAMPLES: usize = 5;

/// A record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged {
    pub partition: u32,
    pub offset: u64,
    pub key: String,
    pub number: u32,
}

/// Whether handlers fail for a record.
pub(super) fn is_poison(number: u32) -> bool {
    // Mixed well (as in MurmurHash3), so that it has nothing to do with keys, which count too.
    let mut mixed = number.wrapping_mul(0x9e37_79b9);
    mixed ^= mixed >> 16;
    mixed = mixed.wrapping_mul(0x85eb_ca6b);
    mixed ^= mixed >> 13;
    (mixed & 0xffff) < 0xffff / POISON_ONE_IN
}

fn by_key(log: &[Logged]) -> BTreeMap<&str, Vec<&Logged>> {
    let mut keys: BTreeMap<&str, Vec<&Logged>> = BTreeMap::new();
    for record in log {
        keys.entry(&record.key).or_default().push(record);
    }
    keys
}

/// Partition and offset of what must wait: each key from its first poisoned record on. The log is
/// in order of partition and offset.
pub(super) fn waiting_of(log: &[Logged]) -> BTreeSet<(u32, u64)> {
    let keys = by_key(log);
    let behind = keys.values().flat_map(|records| {
        let behind = records.iter().skip_while(|r| !is_poison(r.number));
        behind.map(|r| (r.partition, r.offset))
    });
    behind.collect()
}

/// A record may be handled again, but never before all earlier ones of its key were.
pub(super) fn judge_order(log: &[Logged], handled: &[u32]) -> Vec<String> {
    let mut before: BTreeMap<u32, Option<u32>> = BTreeMap::new();
    for records in by_key(log).values() {
        let mut last = None;
        for record in records {
            before.insert(record.number, last);
            last = Some(record.number);
        }
    }
    let mut done: BTreeSet<u32> = BTreeSet::new();
    let mut wrong = Vec::new();
    for number in handled {
        match before.get(number) {
            None => wrong.push(format!("{number} was handled and is not in the log")),
            Some(Some(earlier)) if !done.contains(earlier) => {
                wrong.push(format!(
                    "{number} was handled before {earlier} of the same key"
                ));
            }
            Some(_) => {}
        }
        done.insert(*number);
    }
    wrong.truncate(EXAMPLES);
    wrong
}

/// At the end all are handled, in order, and what waited was handled once, when it was redriven:
/// behind the first `calm` handlings.
pub(super) fn judge_end(log: &[Logged], handled: &[u32], calm: usize) -> Vec<String> {
    let mut wrong = judge_order(log, handled);
    let all: BTreeSet<u32> = handled.iter().copied().collect();
    let missing = log.iter().filter(|record| !all.contains(&record.number));
    let missing: Vec<u32> = missing.map(|record| record.number).collect();
    if !missing.is_empty() {
        wrong.push(format!("never handled: {missing:?}"));
    }
    let waited = waiting_of(log);
    let waited = log
        .iter()
        .filter(|record| waited.contains(&(record.partition, record.offset)));
    let mut expected: BTreeMap<u32, u32> = waited.map(|record| (record.number, 0)).collect();
    for number in handled.iter().skip(calm) {
        match expected.get_mut(number) {
            Some(times) => *times += 1,
            None => wrong.push(format!("{number} was redriven and did not wait")),
        }
    }
    let not_once = expected.iter().filter(|(_, times)| **times != 1);
    wrong.extend(
        not_once
            .take(EXAMPLES)
            .map(|(number, times)| format!("{number} was redriven {times} times")),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two keys of one partition; `p` is poisoned.
    fn small() -> (Vec<Logged>, u32) {
        let p = (0..).find(|n| is_poison(*n)).expect("some are");
        let clean: Vec<u32> = (p + 1..).filter(|n| !is_poison(*n)).take(3).collect();
        let record = |(offset, (key, number)): (usize, (&str, u32))| Logged {
            partition: 0,
            offset: offset as u64,
            key: key.to_owned(),
            number,
        };
        let log = [("a", clean[0]), ("b", p), ("b", clean[1]), ("a", clean[2])];
        (log.into_iter().enumerate().map(record).collect(), p)
    }

    #[test]
    fn a_key_waits_from_its_first_poisoned_record_on() {
        let (log, p) = small();
        assert_eq!(waiting_of(&log), BTreeSet::from([(0, 1), (0, 2)]));
        let [a, b, c] = [0, 2, 3].map(|at: usize| log[at].number);
        assert_eq!(judge_order(&log, &[a, a, c, a, c]), Vec::<String>::new());
        assert_eq!(judge_order(&log, &[c, a]).len(), 1, "out of order");
        assert_eq!(judge_order(&log, &[a, b]).len(), 1, "past a parked record");
        assert_eq!(judge_end(&log, &[a, c, p, b], 2), Vec::<String>::new());
        assert_eq!(judge_end(&log, &[a, c, p, b, b], 2).len(), 1, "twice");
        assert_eq!(
            judge_end(&log, &[a, c, p], 2).len(),
            2,
            "missing, not redriven"
        );
        assert_eq!(judge_end(&log, &[a, p, b, c], 1).len(), 1, "did not wait");
    }

    #[test]
    fn about_as_many_are_poisoned_as_is_said() {
        let poisoned = (0..10_000).filter(|n| is_poison(*n)).count();
        assert!((100..400).contains(&poisoned), "{poisoned}");
    }
}
