//! What happened, line by line: every message, file call, change of leader and acknowledgement
//! with its simulated time. Two runs of one seed are the same when their digests are.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use highwater_env::{Disk, DiskFile, OpenMode, OsDisk};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static TRACE: Mutex<Option<Trace>> = Mutex::new(None);

struct Trace {
    now: Duration,
    /// Nodes by the number of their span, less one.
    nodes: Vec<String>,
    node: usize,
    digest: DefaultHasher,
    counts: BTreeMap<String, u64>,
    keep: bool,
    lines: String,
}

/// The fingerprint of a run and how often what happened.
#[derive(Debug, Clone)]
pub struct Summary {
    digest: u64,
    counts: BTreeMap<String, u64>,
}

impl Summary {
    /// How often something happened.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "digest {:016x}", self.digest)?;
        self.counts
            .iter()
            .try_for_each(|(what, count)| write!(f, "; {what} {count}"))
    }
}

/// Begins the trace of this process; `keep` keeps its lines beside the digest.
pub fn start(keep: bool) {
    *TRACE.lock() = Some(Trace {
        now: Duration::ZERO,
        nodes: Vec::new(),
        node: 0,
        digest: DefaultHasher::new(),
        counts: BTreeMap::new(),
        keep,
        lines: String::new(),
    });
    // A second trace in one process keeps the first one's subscriber, which is the same.
    let _ = tracing::subscriber::set_global_default(Listening);
}

/// Ends the trace; the lines are empty unless they were kept.
pub fn finish() -> (Summary, String) {
    let trace = TRACE.lock().take();
    trace.map_or_else(
        || {
            let empty = Summary {
                digest: 0,
                counts: BTreeMap::new(),
            };
            (empty, String::new())
        },
        |trace| {
            let summary = Summary {
                digest: trace.digest.finish(),
                counts: trace.counts,
            };
            (summary, trace.lines)
        },
    )
}

/// Counts so far.
#[must_use]
pub fn count(what: &str) -> u64 {
    let trace = TRACE.lock();
    let counts = trace.as_ref().and_then(|trace| trace.counts.get(what));
    counts.copied().unwrap_or(0)
}

/// Writes the lines of a trace to a file, `-` for standard output.
///
/// # Errors
/// Those of the file.
pub fn save(path: &Path, lines: &str) -> anyhow::Result<()> {
    if path == Path::new("-") {
        print!("{lines}");
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        let file = OsDisk.open(path, OpenMode::Truncate)?;
        DiskFile::write_at(&file, lines.as_bytes(), 0)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The time that the next lines get.
pub fn set_time(now: Duration) {
    if let Some(trace) = TRACE.lock().as_mut() {
        trace.now = now;
    }
}

/// Notes that `what` happened at `node`.
pub fn note(what: &str, node: &str, details: fmt::Arguments<'_>) {
    if let Some(trace) = TRACE.lock().as_mut() {
        trace.line(what, node, details);
    }
}

impl Trace {
    fn line(&mut self, what: &str, node: &str, details: fmt::Arguments<'_>) {
        let micros = self.now.as_micros();
        let line = format!(
            "{:>4}.{:06} {node:<10} {what}{details}\n",
            micros / 1_000_000,
            micros % 1_000_000
        );
        self.digest.write(line.as_bytes());
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
        if self.keep {
            self.lines.push_str(&line);
        }
    }
}

/// Takes turmoil's events and the broker's own.
struct Listening;

impl Subscriber for Listening {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == "turmoil" || metadata.target().starts_with("turmoil::") {
            // The event of each step says nothing but its number.
            return metadata.is_span() || metadata.fields().len() > 1;
        }
        metadata.is_event()
            && metadata.target().starts_with("highwater")
            && *metadata.level() <= Level::INFO
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut name = Text::default();
        span.record(&mut name);
        let mut trace = TRACE.lock();
        let Some(trace) = trace.as_mut() else {
            return Id::from_u64(1);
        };
        let known = trace.nodes.iter().position(|node| *node == name.details);
        let at = known.unwrap_or_else(|| {
            trace.nodes.push(name.details);
            trace.nodes.len() - 1
        });
        Id::from_u64(at as u64 + 1)
    }
    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut trace = TRACE.lock();
        if let Some(trace) = trace.as_mut() {
            let node = trace
                .node
                .checked_sub(1)
                .and_then(|at| trace.nodes.get(at))
                .cloned();
            let node = node.unwrap_or_default();
            let node = node.trim_start_matches(" name=").trim_matches('"');
            trace.line(&text.message, node, format_args!("{}", text.details));
        }
    }
    fn enter(&self, span: &Id) {
        if let Some(trace) = TRACE.lock().as_mut() {
            trace.node = usize::try_from(span.into_u64()).unwrap_or(0);
        }
    }
    fn exit(&self, _span: &Id) {
        if let Some(trace) = TRACE.lock().as_mut() {
            trace.node = 0;
        }
    }
}

/// An event as text. The bytes of a message are told by their hash.
#[derive(Default)]
struct Text {
    message: String,
    details: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // The bytes are told when they are sent; printing them costs most of a run's time.
            "protocol" if !self.message.is_empty() && self.message != "Send" => Ok(()),
            "protocol" => {
                let mut bytes = Hashing::default();
                let written = write!(bytes, "{value:?}");
                let _ = write!(
                    self.details,
                    " {} {:016x}",
                    bytes.written,
                    bytes.hash.finish()
                );
                written
            }
            name => write!(self.details, " {name}={value:?}"),
        };
    }
}

#[derive(Default)]
struct Hashing {
    hash: DefaultHasher,
    written: usize,
}

impl fmt::Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash.write(text.as_bytes());
        self.written += text.len();
        Ok(())
    }
}
