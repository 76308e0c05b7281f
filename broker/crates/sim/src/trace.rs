//! What happened, line by line: every message, file call, change of leader and acknowledgement
//! with its simulated time. Two runs of one seed are the same when their digests are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use highwater_env::{Disk, DiskFile, OpenMode, OsDisk};
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::leaders::{Group, Leaders, Term};
use crate::surroundings::disk_has_failed;

/// Where the broker's groups tell what they remember.
const VOTES: &str = "highwater_raft::votes";

/// How a broker says that its disk is full.
const FULL: [&str; 3] = [
    "free disk space crossed the reserve",
    "no space left for segments",
    "the write-ahead log finds no disk space for a new file; appends wait",
];

static TRACE: Mutex<Option<Trace>> = Mutex::new(None);

struct Trace {
    now: Duration,
    /// Nodes by the number of their span, less one.
    nodes: Vec<String>,
    node: usize,
    /// The bytes that are being handed to the network: how many, and their hash.
    sending: Option<(usize, u64)>,
    /// The line that is being written, and the two parts of an event.
    line: String,
    message: String,
    details: String,
    /// Where in the code arrivals are told of (see [`is_arrival`]), and how many were.
    arrivals: Vec<(Identifier, String, u64)>,
    digest: DefaultHasher,
    counts: BTreeMap<String, u64>,
    /// What was logged as an error.
    errors: BTreeSet<String>,
    /// Messages that were lost or held back, by the two ends of their link, in order.
    stopped: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Nodes that have said that their disks are full.
    full: Vec<String>,
    leaders: Leaders,
    keep: bool,
    lines: String,
}

/// The fingerprint of a run and how often what happened.
#[derive(Debug, Clone)]
pub struct Summary {
    digest: u64,
    counts: BTreeMap<String, u64>,
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
        sending: None,
        line: String::new(),
        message: String::new(),
        details: String::new(),
        arrivals: Vec::new(),
        digest: DefaultHasher::new(),
        counts: BTreeMap::new(),
        errors: BTreeSet::new(),
        stopped: BTreeMap::new(),
        full: Vec::new(),
        leaders: Leaders::default(),
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
        |mut trace| {
            for (_, what, count) in std::mem::take(&mut trace.arrivals) {
                *trace.counts.entry(what).or_default() += count;
            }
            let summary = Summary {
                digest: trace.digest.finish(),
                counts: trace.counts,
            };
            (summary, trace.lines)
        },
    )
}

/// What was logged as an error so far, each sentence once.
#[must_use]
pub fn errors() -> Vec<String> {
    let trace = TRACE.lock();
    let errors = trace.as_ref().map(|trace| trace.errors.clone());
    errors.unwrap_or_default().into_iter().collect()
}

/// How often something happened so far.
#[must_use]
pub fn count(what: &str) -> u64 {
    let trace = TRACE.lock();
    let count = trace.as_ref().and_then(|trace| trace.counts.get(what));
    count.copied().unwrap_or(0)
}

/// Messages that were lost or held back so far on some links, each named by its two ends in order.
pub fn stopped(which: impl Fn((IpAddr, IpAddr)) -> bool) -> u64 {
    let trace = TRACE.lock();
    let stopped = trace.iter().flat_map(|trace| &trace.stopped);
    stopped
        .filter(|(link, _)| which(**link))
        .map(|(_, count)| count)
        .sum()
}

/// The nodes that have said since this was asked last that their disks are full.
#[must_use]
pub fn take_full() -> Vec<String> {
    let mut trace = TRACE.lock();
    let full = trace.as_mut().map(|trace| std::mem::take(&mut trace.full));
    full.unwrap_or_default()
}

/// The first rule of elections that was broken.
#[must_use]
pub fn broken_election() -> Option<String> {
    let trace = TRACE.lock();
    let broken = trace.as_ref().and_then(|trace| trace.leaders.broken());
    broken.map(ToOwned::to_owned)
}

/// A node has lost its disk.
pub fn wiped(node: &str) {
    if let Some(trace) = TRACE.lock().as_mut() {
        trace.leaders.wiped(node);
    }
}

/// Somebody begins to let a node in that has lost its disk.
pub fn let_in(node: &str) {
    if let Some(trace) = TRACE.lock().as_mut() {
        trace.leaders.let_in(node);
    }
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

/// Sets that time.
pub fn set_time(now: Duration) {
    if let Some(trace) = TRACE.lock().as_mut() {
        trace.now = now;
    }
}

/// The time that the next lines get.
#[must_use]
pub fn now() -> Duration {
    let trace = TRACE.lock();
    trace.as_ref().map(|trace| trace.now).unwrap_or_default()
}

/// The node whose code runs now; empty between the steps of nodes.
#[must_use]
pub fn node() -> String {
    let trace = TRACE.lock();
    let name = trace.as_ref().and_then(Trace::current).unwrap_or_default();
    name.to_owned()
}

/// Says which bytes the next segment holds, so that nobody has to print them.
pub fn sends(bytes: &[u8]) {
    if let Some(trace) = TRACE.lock().as_mut() {
        let mut hash = DefaultHasher::new();
        hash.write(bytes);
        trace.sending = Some((bytes.len(), hash.finish()));
    }
}

/// Notes that `what` happened at `node`.
pub fn note(what: &str, node: &str, details: fmt::Arguments<'_>) {
    if let Some(trace) = TRACE.lock().as_mut() {
        trace.line(what, node, details);
    }
}

impl Trace {
    /// The name of the node whose code runs now.
    fn current(&self) -> Option<&str> {
        let node = self.nodes.get(self.node.checked_sub(1)?)?;
        Some(node)
    }

    fn line(&mut self, what: &str, node: &str, details: fmt::Arguments<'_>) {
        let micros = self.now.as_micros();
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.line,
            "{:>4}.{:06} {node:<10} {what}{details}",
            micros / 1_000_000,
            micros % 1_000_000
        );
        if !is_arrival(what) {
            self.digest.write(self.line.as_bytes());
        }
        self.count(what);
        if self.keep {
            self.lines.push_str(&self.line);
        }
    }

    /// An event that is more than an arrival.
    fn happened(&mut self, event: &Event<'_>, message: &str, details: &str) {
        if *event.metadata().level() == Level::ERROR {
            self.errors.insert(format!("{message}{details}"));
        }
        let nodes = std::mem::take(&mut self.nodes);
        let at = self.node.checked_sub(1);
        let node = at.and_then(|at| nodes.get(at)).map_or("", String::as_str);
        if matches!(message, "leader" | "recovered" | "forgotten") {
            let mut heard = Heard::default();
            event.record(&mut heard);
            let Heard(group, term, leader) = heard;
            match message {
                // A vote that could not be stored may be told by a process that ends.
                "leader" if disk_has_failed(node) => {}
                "leader" => self.leaders.heard(node, group, term, leader),
                "recovered" => self.leaders.recovered(node, group, term),
                _ => self.leaders.forgotten(node, group),
            }
        }
        match message {
            "Drop" | "Hold" => {
                let mut ends = Ends::default();
                event.record(&mut ends);
                if let Ends(Some(a), Some(b)) = ends {
                    *self.stopped.entry((a.min(b), a.max(b))).or_default() += 1;
                }
            }
            message if FULL.contains(&message) => self.full.push(node.to_owned()),
            _ => {}
        }
        self.line(message, node, format_args!("{details}"));
        self.nodes = nodes;
    }

    fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
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
            && (*metadata.level() <= Level::INFO || metadata.target() == VOTES)
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut trace = TRACE.lock();
        let Some(trace) = trace.as_mut() else {
            return Id::from_u64(1);
        };
        let nodes = &mut trace.nodes;
        let mut name = Name { nodes, at: 0 };
        span.record(&mut name);
        Id::from_u64(name.at as u64 + 1)
    }
    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut trace = TRACE.lock();
        let Some(trace) = trace.as_mut() else {
            return;
        };
        let from = event.metadata().callsite();
        if let Some((.., count)) = trace.arrivals.iter_mut().find(|known| known.0 == from) {
            *count += 1;
            return;
        }
        let (mut message, mut details) = (
            std::mem::take(&mut trace.message),
            std::mem::take(&mut trace.details),
        );
        message.clear();
        details.clear();
        let mut text = Text {
            all: trace.keep,
            sending: &mut trace.sending,
            message,
            details,
        };
        event.record(&mut text);
        (message, details) = (text.message, text.details);
        if is_arrival(&message) && !trace.keep {
            trace.arrivals.push((from, message, 1));
            return;
        }
        trace.happened(event, &message, &details);
        (trace.message, trace.details) = (message, details);
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

/// What follows from the message sent and its delay, and is half of all events: it is in the lines
/// that are kept, and counted, but does not make the digest.
fn is_arrival(message: &str) -> bool {
    matches!(message, "Delivered" | "Recv")
}

/// Finds the number of the node that a span names.
struct Name<'a> {
    nodes: &'a mut Vec<String>,
    at: usize,
}

impl Visit for Name<'_> {
    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
    fn record_str(&mut self, _field: &Field, name: &str) {
        let known = self.nodes.iter().position(|node| node == name);
        self.at = known.unwrap_or_else(|| {
            self.nodes.push(name.to_owned());
            self.nodes.len() - 1
        });
    }
}

/// Who leads: group, term and leader.
#[derive(Default)]
struct Heard(Group, Term, u64);

impl Visit for Heard {
    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "group" => self.0 = value,
            "term" => self.1 = value,
            "leader" => self.2 = value,
            _ => {}
        }
    }
}

/// The two ends of a message's way.
#[derive(Default)]
struct Ends(Option<IpAddr>, Option<IpAddr>);

impl Visit for Ends {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let address = || format!("{value:?}").parse::<SocketAddr>().ok();
        match field.name() {
            "src" => self.0 = address().map(|address| address.ip()),
            "dst" => self.1 = address().map(|address| address.ip()),
            _ => {}
        }
    }
}

/// An event as text. The bytes of a message are told by their hash.
struct Text<'a> {
    /// Also what does not make the digest.
    all: bool,
    sending: &'a mut Option<(usize, u64)>,
    message: String,
    details: String,
}

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            _ if !self.all && is_arrival(&self.message) => Ok(()),
            // The bytes are told when they are sent; printing them costs most of a run's time.
            "protocol" if !self.message.is_empty() && self.message != "Send" => Ok(()),
            "protocol" => {
                let mut kind = Kind::default();
                if write!(kind, "{value:?}").is_ok() {
                    write!(self.details, " {}", kind.0)
                } else {
                    let (len, hash) = self.sending.take().unwrap_or_default();
                    write!(self.details, " {len} {hash:016x}")
                }
            }
            name => write!(self.details, " {name}={value:?}"),
        };
    }
}

/// The kind of a segment; one with bytes ends in an error where they begin.
#[derive(Default)]
struct Kind(String);

impl fmt::Write for Kind {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.contains('[') {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
