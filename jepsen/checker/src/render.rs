//! Entries of a history as values of either notation: the writing half of the format.

use crate::datum::Datum;
use crate::history::{Action, Entry, Function, Key, Kind};

pub(crate) fn to_datum(entry: &Entry<'_>) -> Datum<'static> {
    let function = match entry.function {
        Function::Send => "send",
        Function::Poll => "poll",
        Function::Transaction => "txn",
        Function::Assign => "assign",
        Function::Subscribe => "subscribe",
        Function::Latest => "latest",
        Function::Digest => "digest",
        Function::Commit => "commit",
        Function::Committed => "committed",
        Function::Trim => "trim",
        Function::Earliest => "earliest",
        Function::Delete => "delete",
        Function::Compacted => "compacted",
    };
    let kind = match entry.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let mut pairs = vec![
        (Datum::word("index"), Datum::unsigned(entry.index)),
        (Datum::word("time"), Datum::unsigned(entry.time_ns)),
        (Datum::word("type"), Datum::word(kind)),
        (Datum::word("process"), Datum::unsigned(entry.process.0)),
        (Datum::word("f"), Datum::word(function)),
        (Datum::word("value"), steps_to_datum(entry)),
    ];
    if entry.seek_to_beginning {
        pairs.push((Datum::word("seek-to-beginning?"), Datum::Bool(true)));
    }
    if entry.rebalanced {
        let event = Datum::List(vec![Datum::word("rebalanced")]);
        pairs.push((Datum::word("rebalance-log"), event));
    }
    Datum::Map(pairs)
}

fn steps_to_datum(entry: &Entry<'_>) -> Datum<'static> {
    let mut steps = Vec::with_capacity(entry.actions.len());
    // Records of one poll, by key in the order of first appearance.
    let mut polled: Vec<(Key, Vec<Datum<'static>>)> = Vec::new();
    for action in entry.actions {
        if !matches!(action, Action::Read { .. }) {
            flush_poll(&mut polled, &mut steps);
        }
        match *action {
            Action::Send { key, value, offset } => {
                let value = Datum::Int(value.0);
                let what = match offset {
                    None => value,
                    Some(offset) => Datum::List(vec![Datum::unsigned(offset.0), value]),
                };
                steps.push(Datum::List(vec![Datum::word("send"), key_datum(key), what]));
            }
            Action::Read { key, offset, value } => {
                let record = Datum::List(vec![Datum::unsigned(offset.0), Datum::Int(value.0)]);
                match polled.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, records)) => records.push(record),
                    None => polled.push((key, vec![record])),
                }
            }
            Action::Latest { key, end } => {
                let mut step = vec![Datum::word("latest"), key_datum(key)];
                step.extend(end.map(|end| Datum::unsigned(end.0)));
                steps.push(Datum::List(step));
            }
            Action::Digest { .. }
            | Action::Commit { .. }
            | Action::Committed { .. }
            | Action::Trim { .. }
            | Action::Earliest { .. }
            | Action::Delete(_)
            | Action::Compacted { .. } => steps.push(stored_to_datum(action)),
            Action::Use(key) => steps.push(key_datum(key)),
        }
    }
    flush_poll(&mut polled, &mut steps);
    if entry.function == Function::Poll && steps.is_empty() {
        let mut step = vec![Datum::word("poll")];
        if entry.kind == Kind::Ok {
            step.push(Datum::Map(Vec::new()));
        }
        steps.push(Datum::List(step));
    }
    Datum::List(steps)
}

/// What replicas and groups hold, and what is kept.
fn stored_to_datum(action: &Action) -> Datum<'static> {
    let number = |number: u32| Datum::Int(i64::from(number));
    let mut step = match *action {
        Action::Digest {
            replica, end, hash, ..
        } => {
            let mut step = vec![Datum::word("digest"), number(replica)];
            step.push(Datum::unsigned(end.0));
            step.extend(hash.map(|hash| Datum::Word(format!("h{:016x}", hash.0).into())));
            step
        }
        Action::Commit { group, offset, .. } => {
            vec![
                Datum::word("commit"),
                number(group),
                Datum::unsigned(offset.0),
            ]
        }
        Action::Committed { group, offset, .. } => {
            let mut step = vec![Datum::word("committed"), number(group)];
            step.extend(offset.map(|offset| Datum::unsigned(offset.0)));
            step
        }
        Action::Trim { before, start, .. } => {
            let mut step = vec![Datum::word("trim"), Datum::unsigned(before.0)];
            step.extend(start.map(|start| Datum::unsigned(start.0)));
            step
        }
        Action::Earliest { start, .. } => {
            let mut step = vec![Datum::word("earliest")];
            step.extend(start.map(|start| Datum::unsigned(start.0)));
            step
        }
        Action::Delete(_) => vec![Datum::word("delete")],
        Action::Compacted {
            keys, tombstones, ..
        } => vec![Datum::word("compacted"), number(keys), number(tombstones)],
        _ => Vec::new(),
    };
    // The key comes second in every step.
    step.insert(1.min(step.len()), key_datum(action.key()));
    Datum::List(step)
}

fn key_datum(key: Key) -> Datum<'static> {
    Datum::Int(i64::from(key.0))
}

fn flush_poll(polled: &mut Vec<(Key, Vec<Datum<'static>>)>, steps: &mut Vec<Datum<'static>>) {
    if polled.is_empty() {
        return;
    }
    let records = polled
        .drain(..)
        .map(|(key, records)| (key_datum(key), Datum::List(records)));
    steps.push(Datum::List(vec![
        Datum::word("poll"),
        Datum::Map(records.collect()),
    ]));
}

pub(crate) fn to_json(datum: &Datum<'_>) -> serde_json::Value {
    match datum {
        Datum::Nil => serde_json::Value::Null,
        Datum::Bool(flag) => (*flag).into(),
        Datum::Int(number) => (*number).into(),
        Datum::Word(word) => word.as_ref().into(),
        Datum::List(items) => items.iter().map(to_json).collect(),
        Datum::Map(pairs) => pairs
            .iter()
            .map(|(key, value)| {
                let key = match key {
                    Datum::Word(word) => word.clone().into_owned(),
                    Datum::Int(number) => number.to_string(),
                    _ => String::new(),
                };
                (key, to_json(value))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
