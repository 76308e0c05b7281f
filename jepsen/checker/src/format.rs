//! Histories as text: one EDN map, or one JSON object, per line.
//!
//! The shape is that of Jepsen's own Kafka workload, so that others can check our histories and
//! this crate theirs. Keys of a map that it does not know are ignored. Additions: a request for
//! the end of a partition is `:f :latest` with `:value [[:latest KEY]]`, answered
//! `[[:latest KEY END]]`, END being the first offset not yet visible; a replica's content is
//! `:f :digest` with `[[:digest KEY REPLICA END HASH]]`; a group's offset is written by
//! `:f :commit` with `[[:commit KEY GROUP OFFSET]]` and read by `:f :committed` with
//! `[[:committed KEY GROUP]]`, answered `[[:committed KEY GROUP OFFSET]]`; records are deleted by
//! `:f :trim` with `[[:trim KEY BEFORE]]`, answered `[[:trim KEY BEFORE START]]`; the first offset kept
//! is asked for by `:f :earliest`, answered `[[:earliest KEY START]]`; topics are deleted by `:f :delete`
//! with `[[:delete KEY]]`; `:f :compacted` with `[[:compacted KEY KEYS TOMBSTONES]]` says that only the
//! latest record of each key is kept.
#![deny(clippy::indexing_slicing)]

use std::io::{self, BufRead, Write};

use thiserror::Error;

use crate::datum::Datum;
use crate::edn;
use crate::history::{
    Action, Entry, Function, Hash, History, HistoryError, Key, Kind, Offset, Operation, Process,
    Value,
};
use crate::render::{to_datum, to_json};

/// Why a text could not be read as a history.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The source failed.
    #[error("line {line}: {source}")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the source said.
        source: io::Error,
    },
    /// A line is not of the expected shape.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong, for a person.
        problem: String,
    },
    /// The lines do not make a history.
    #[error("line {line}: {source}")]
    History {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: HistoryError,
    },
}

/// Which notation a history is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// One EDN map per line.
    Edn,
    /// One JSON object per line.
    Json,
}

/// Reads a history; blank lines and nemesis operations are passed over.
///
/// # Errors
/// At the first line that cannot be read, with its number.
pub fn read(source: impl BufRead, notation: Notation) -> Result<History, ReadError> {
    let mut history = History::new();
    for (at, text) in source.lines().enumerate() {
        let line = at + 1;
        let text = text.map_err(|source| ReadError::Io { line, source })?;
        if text.trim().is_empty() {
            continue;
        }
        let operation =
            parse_line(&text, notation).map_err(|problem| ReadError::Line { line, problem })?;
        if let Some(operation) = operation {
            history
                .push(&operation)
                .map_err(|source| ReadError::History { line, source })?;
        }
    }
    Ok(history)
}

/// Writes every entry as one line.
///
/// # Errors
/// Those of the sink.
pub fn write(history: &History, notation: Notation, mut sink: impl Write) -> io::Result<()> {
    for entry in history.iter() {
        writeln!(sink, "{}", format_line(&entry, notation))?;
    }
    Ok(())
}

/// One entry as a line, without its end.
#[must_use]
pub fn format_line(entry: &Entry<'_>, notation: Notation) -> String {
    let datum = to_datum(entry);
    match notation {
        Notation::Edn => {
            let mut line = String::with_capacity(96);
            edn::write(&datum, &mut line);
            line
        }
        Notation::Json => to_json(&datum).to_string(),
    }
}

fn parse_line(text: &str, notation: Notation) -> Result<Option<Operation>, String> {
    let datum = match notation {
        Notation::Edn => edn::read(text)?,
        Notation::Json => from_json(serde_json::from_str(text).map_err(|error| error.to_string())?),
    };
    from_datum(&datum)
}

fn from_datum(map: &Datum<'_>) -> Result<Option<Operation>, String> {
    let field = |name: &str| map.get(name).ok_or_else(|| format!("`{name}` is missing"));
    let process = field("process")?;
    if process.text() == Some("nemesis") {
        return Ok(None);
    }
    let function = match field("f")?.text() {
        Some("send") => Function::Send,
        Some("poll") => Function::Poll,
        Some("txn") => Function::Transaction,
        Some("assign") => Function::Assign,
        Some("subscribe") => Function::Subscribe,
        Some("latest") => Function::Latest,
        Some("digest") => Function::Digest,
        Some("commit") => Function::Commit,
        Some("committed") => Function::Committed,
        Some("trim") => Function::Trim,
        Some("earliest") => Function::Earliest,
        Some("delete") => Function::Delete,
        Some("compacted") => Function::Compacted,
        // Crashes, partition dumps and the like of other harnesses say nothing to these checks.
        _ => return Ok(None),
    };
    let kind = match field("type")?.text() {
        Some("invoke") => Kind::Invoke,
        Some("ok") => Kind::Ok,
        Some("fail") => Kind::Fail,
        Some("info") => Kind::Info,
        other => return Err(format!("`type` is {other:?}, not invoke, ok, fail or info")),
    };
    let actions = match (function, map.get("value")) {
        (_, None | Some(Datum::Nil)) => Vec::new(),
        (Function::Assign | Function::Subscribe, Some(keys)) => uses(keys)?,
        (_, Some(steps)) => steps_of(steps)?,
    };
    Ok(Some(Operation {
        index: unsigned(field("index")?, "index")?,
        time_ns: unsigned(field("time")?, "time")?,
        kind,
        process: Process(unsigned(process, "process")?),
        function,
        actions,
        seek_to_beginning: map.get("seek-to-beginning?") == Some(&Datum::Bool(true)),
        rebalanced: map
            .get("rebalance-log")
            .and_then(Datum::list)
            .is_some_and(|events| !events.is_empty()),
    }))
}

fn unsigned(datum: &Datum<'_>, what: &str) -> Result<u64, String> {
    datum
        .int()
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| format!("{what} {datum:?} is not a whole number from 0"))
}

fn key_of(datum: &Datum<'_>) -> Result<Key, String> {
    let number = unsigned(datum, "key")?;
    u32::try_from(number)
        .map(Key)
        .map_err(|_| format!("key {number} is too large"))
}

fn value_of(datum: &Datum<'_>) -> Result<Value, String> {
    datum
        .int()
        .map(Value)
        .ok_or_else(|| format!("value {datum:?} is not a whole number"))
}

fn uses(keys: &Datum<'_>) -> Result<Vec<Action>, String> {
    let keys = keys
        .list()
        .ok_or("an assignment's value is not a list of keys")?;
    keys.iter()
        .map(|key| key_of(key).map(Action::Use))
        .collect()
}

fn steps_of(steps: &Datum<'_>) -> Result<Vec<Action>, String> {
    let steps = steps.list().ok_or("`value` is not a list of steps")?;
    let mut actions = Vec::with_capacity(steps.len());
    for step in steps {
        let (name, rest) = step
            .list()
            .and_then(|items| items.split_first())
            .ok_or_else(|| format!("{step:?} is not a step"))?;
        match (name.text(), rest) {
            (Some("send"), [key, what]) => actions.push(send_of(key, what)?),
            (Some("poll"), []) => {}
            (Some("poll"), [records, ..]) => reads_of(records, &mut actions)?,
            (Some("latest"), [key]) => {
                actions.push(Action::Latest {
                    key: key_of(key)?,
                    end: None,
                });
            }
            (Some("latest"), [key, end]) => {
                let end = Some(Offset(unsigned(end, "end offset")?));
                actions.push(Action::Latest {
                    key: key_of(key)?,
                    end,
                });
            }
            (Some("digest"), rest) => actions.push(digest_of(rest)?),
            (Some("commit" | "committed"), rest) => actions.push(committed_of(name, rest)?),
            (Some("trim" | "earliest" | "delete" | "compacted"), rest) => {
                actions.push(kept_of(name, rest)?);
            }
            _ => return Err(format!("{step:?} is not a step")),
        }
    }
    Ok(actions)
}

fn small(datum: &Datum<'_>, what: &str) -> Result<u32, String> {
    let number = unsigned(datum, what)?;
    u32::try_from(number).map_err(|_| format!("{what} {number} is too large"))
}

/// `[:digest KEY REPLICA END]`, answered with a hash: `h` and up to 16 hexadecimal digits.
fn digest_of(rest: &[Datum<'_>]) -> Result<Action, String> {
    let (key, replica, end, hash) = match rest {
        [key, replica, end] => (key, replica, end, None),
        [key, replica, end, hash] => (key, replica, end, Some(hash)),
        _ => return Err("a digest names a key, a replica and an end".to_owned()),
    };
    let hash = match hash.map(|hash| hash.text().and_then(|text| text.strip_prefix('h'))) {
        None => None,
        Some(digits) => digits
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map_or_else(
                || Err(format!("{hash:?} is not a hash")),
                |hash| Ok(Some(Hash(hash))),
            )?,
    };
    Ok(Action::Digest {
        key: key_of(key)?,
        replica: small(replica, "replica")?,
        end: Offset(unsigned(end, "end offset")?),
        hash,
    })
}

/// `[:commit KEY GROUP OFFSET]`; `[:committed KEY GROUP]`, answered with an offset or nil.
fn committed_of(name: &Datum<'_>, rest: &[Datum<'_>]) -> Result<Action, String> {
    let commit = name.text() == Some("commit");
    let (key, group, offset) = match rest {
        [key, group] if !commit => (key, group, None),
        [key, group, Datum::Nil] if !commit => (key, group, None),
        [key, group, offset] => (key, group, Some(Offset(unsigned(offset, "offset")?))),
        _ => return Err("a commit names a key, a group and an offset".to_owned()),
    };
    let (key, group) = (key_of(key)?, small(group, "group")?);
    Ok(match offset {
        Some(offset) if commit => Action::Commit { key, group, offset },
        offset => Action::Committed { key, group, offset },
    })
}

/// What is kept of a partition: `[:trim KEY BEFORE]` and `[:earliest KEY]`, both answered with one more
/// offset; `[:delete KEY]`; `[:compacted KEY KEYS TOMBSTONES]`.
fn kept_of(name: &Datum<'_>, rest: &[Datum<'_>]) -> Result<Action, String> {
    let offset = |datum: &Datum<'_>| unsigned(datum, "offset").map(Offset);
    let answer = |rest: &[Datum<'_>]| rest.first().map(offset).transpose();
    match (name.text(), rest) {
        (Some("trim"), [key, before, rest @ ..]) => Ok(Action::Trim {
            key: key_of(key)?,
            before: offset(before)?,
            start: answer(rest)?,
        }),
        (Some("earliest"), [key, rest @ ..]) => Ok(Action::Earliest {
            key: key_of(key)?,
            start: answer(rest)?,
        }),
        (Some("delete"), [key]) => Ok(Action::Delete(key_of(key)?)),
        (Some("compacted"), [key, keys, tombstones]) => Ok(Action::Compacted {
            key: key_of(key)?,
            keys: small(keys, "number of keys")?.max(1),
            tombstones: small(tombstones, "number of tombstones")?,
        }),
        _ => Err(format!("{name:?} {rest:?} is not a step")),
    }
}

/// `[:send KEY VALUE]`, or `[:send KEY [OFFSET VALUE]]` once acknowledged.
fn send_of(key: &Datum<'_>, what: &Datum<'_>) -> Result<Action, String> {
    let key = key_of(key)?;
    match what.list() {
        None => Ok(Action::Send {
            key,
            value: value_of(what)?,
            offset: None,
        }),
        Some([Datum::Nil, value]) => Ok(Action::Send {
            key,
            value: value_of(value)?,
            offset: None,
        }),
        Some([offset, value]) => {
            let offset = Some(Offset(unsigned(offset, "offset")?));
            Ok(Action::Send {
                key,
                value: value_of(value)?,
                offset,
            })
        }
        Some(_) => Err(format!("{what:?} is not an offset and a value")),
    }
}

fn reads_of(records: &Datum<'_>, actions: &mut Vec<Action>) -> Result<(), String> {
    let pairs = match records {
        Datum::Nil => return Ok(()),
        Datum::Map(pairs) => pairs,
        _ => return Err("a poll's records are not a map".to_owned()),
    };
    for (key, records) in pairs {
        let key = key_of(key)?;
        let records = records.list().ok_or("a poll's records are not a list")?;
        for record in records {
            let Some([offset, value]) = record.list() else {
                return Err(format!("{record:?} is not an offset and a value"));
            };
            let offset = Offset(unsigned(offset, "offset")?);
            actions.push(Action::Read {
                key,
                offset,
                value: value_of(value)?,
            });
        }
    }
    Ok(())
}

fn from_json(value: serde_json::Value) -> Datum<'static> {
    match value {
        serde_json::Value::Null => Datum::Nil,
        serde_json::Value::Bool(flag) => Datum::Bool(flag),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map_or_else(|| Datum::Word(number.to_string().into()), Datum::Int),
        serde_json::Value::String(text) => Datum::Word(text.into()),
        serde_json::Value::Array(items) => Datum::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(pairs) => Datum::Map(
            pairs
                .into_iter()
                .map(|(key, value)| (Datum::Word(key.into()), from_json(value)))
                .collect(),
        ),
    }
}
