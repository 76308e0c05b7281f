//! The recorder: one history for all clients, written to disk as it happens and kept for the check.
//!
//! An invocation is recorded before the request is made and a completion after its answer came, so
//! an operation really happened somewhere between its two entries.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use highwater_checker::{
    Action, Function, History, Kind, Notation, Operation, Process, format_line, format_nemesis,
};
use serde_json::Value as Json;

/// One completed operation, as the timeline shows it.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// What for.
    pub function: Function,
    /// How it ended.
    pub kind: Kind,
    /// When it began, in nanoseconds since the start of the run.
    pub from_ns: u64,
    /// When it ended.
    pub to_ns: u64,
}

/// Records what clients and nemeses do. Shared by all of them.
pub struct Recorder {
    started: Instant,
    processes: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    next: u64,
    history: History,
    open: BTreeMap<Process, Operation>,
    spans: Vec<Span>,
    edn: BufWriter<File>,
    json: BufWriter<File>,
    trouble: Option<String>,
}

/// Everything that was recorded.
pub struct Recorded {
    /// For the check.
    pub history: History,
    /// For the timeline.
    pub spans: Vec<Span>,
}

impl Recorder {
    /// Writes to `history.edn` and `history.jsonl` in a directory.
    ///
    /// # Errors
    /// When they cannot be created.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let create = |name: &str| {
            let path = directory.join(name);
            let file = File::create(&path);
            file.map(BufWriter::new)
                .with_context(|| format!("cannot create {}", path.display()))
        };
        let inner = Inner {
            next: 0,
            history: History::new(),
            open: BTreeMap::new(),
            spans: Vec::new(),
            edn: create("history.edn")?,
            json: create("history.jsonl")?,
            trouble: None,
        };
        Ok(Self {
            started: Instant::now(),
            processes: AtomicU64::new(0),
            inner: Mutex::new(inner),
        })
    }

    /// Nanoseconds since the start of the run.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A process that nobody was before.
    pub fn new_process(&self) -> Process {
        Process(self.processes.fetch_add(1, Ordering::Relaxed))
    }

    /// A request is about to be made. Answers with the time of the entry.
    pub fn invoke(&self, process: Process, function: Function, actions: Vec<Action>) -> u64 {
        let mut operation = Operation::new(0, 0, Kind::Invoke, process, function, actions);
        self.record(&mut operation)
    }

    /// A request ended.
    pub fn complete(
        &self,
        kind: Kind,
        process: Process,
        function: Function,
        actions: Vec<Action>,
    ) -> u64 {
        let mut operation = Operation::new(0, 0, kind, process, function, actions);
        self.record(&mut operation)
    }

    /// Any entry; index and time are filled in.
    pub fn record(&self, operation: &mut Operation) -> u64 {
        let mut inner = self.lock();
        operation.index = inner.next;
        // Taken under the lock, so that times rise with indexes.
        operation.time_ns = self.now_ns();
        inner.add(operation);
        operation.time_ns
    }

    /// Something was broken or healed.
    pub fn nemesis(&self, function: &str, value: &Json) {
        let mut inner = self.lock();
        let (index, now) = (inner.next, self.now_ns());
        inner.next += 1;
        let edn = format_nemesis(index, now, function, value, Notation::Edn);
        let json = format_nemesis(index, now, function, value, Notation::Json);
        inner.write(&edn, &json);
    }

    /// Something that no check is for, and that explains what one finds: among the faults, for people.
    pub fn note(&self, function: &str, value: &Json) {
        self.nemesis(function, value);
    }

    /// How many operations have ended so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.lock().spans.len() as u64
    }

    /// Completes what is still open as unknown, and hands everything over. Nothing
    /// may be recorded afterwards.
    ///
    /// # Errors
    /// When any line could not be written.
    pub fn finish(&self) -> anyhow::Result<Recorded> {
        let open: Vec<Operation> = self.lock().open.values().cloned().collect();
        for invoked in open {
            self.complete(
                Kind::Info,
                invoked.process,
                invoked.function,
                invoked.actions,
            );
        }
        let mut inner = self.lock();
        inner.edn.flush()?;
        inner.json.flush()?;
        if let Some(trouble) = &inner.trouble {
            anyhow::bail!("the history is not whole: {trouble}");
        }
        Ok(Recorded {
            history: std::mem::take(&mut inner.history),
            spans: std::mem::take(&mut inner.spans),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, operation: &Operation) {
        self.next += 1;
        if operation.kind == Kind::Invoke {
            self.open.insert(operation.process, operation.clone());
        } else if let Some(invoked) = self.open.remove(&operation.process) {
            self.spans.push(Span {
                function: operation.function,
                kind: operation.kind,
                from_ns: invoked.time_ns,
                to_ns: operation.time_ns,
            });
        }
        if let Err(error) = self.history.push(operation) {
            self.trouble.get_or_insert(error.to_string());
            return;
        }
        let Some(entry) = self.history.get(self.history.len() - 1) else {
            return;
        };
        let edn = format_line(&entry, Notation::Edn);
        let json = format_line(&entry, Notation::Json);
        self.write(&edn, &json);
    }

    fn write(&mut self, edn: &str, json: &str) {
        let mut both = || -> io::Result<()> {
            writeln!(self.edn, "{edn}")?;
            writeln!(self.json, "{json}")
        };
        if let Err(error) = both() {
            self.trouble.get_or_insert(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_checker::{Key, Value, read};

    #[test]
    fn what_is_written_is_what_is_kept_and_open_operations_end_unknown() {
        let directory = tempfile::tempdir().expect("a directory");
        let recorder = Recorder::create(directory.path()).expect("created");
        let (a, b) = (recorder.new_process(), recorder.new_process());
        let send = |value| {
            vec![Action::Send {
                key: Key(0),
                value: Value(value),
                offset: None,
            }]
        };
        recorder.invoke(a, Function::Send, send(1));
        recorder.nemesis("kill", &serde_json::json!({"node": 1}));
        recorder.invoke(b, Function::Send, send(2));
        recorder.complete(Kind::Fail, a, Function::Send, send(1));
        assert_eq!(recorder.completed(), 1);
        let recorded = recorder.finish().expect("whole");
        let kinds: Vec<Kind> = recorded.history.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Invoke, Kind::Invoke, Kind::Fail, Kind::Info]);
        assert_eq!(recorded.spans.len(), 2);
        for (name, notation) in [
            ("history.edn", Notation::Edn),
            ("history.jsonl", Notation::Json),
        ] {
            let text = std::fs::read(directory.path().join(name)).expect("written");
            let again = read(text.as_slice(), notation).expect("readable");
            let all = |history: &History| -> Vec<Operation> {
                history.iter().map(|entry| entry.to_operation()).collect()
            };
            assert_eq!(all(&again), all(&recorded.history));
        }
    }
}
