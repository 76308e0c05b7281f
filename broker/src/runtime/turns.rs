//! Step 4 of a produced record, before `accumulate` proposes (step 5): whose turn it is.
//!
//! While the CPU is what this broker is short of, few of its entries are on their way at a time, so that
//! batches gather into fewer and larger ones: an entry costs ten times what one more batch in it does.
//! Otherwise nobody waits for anybody.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Entries of this broker on their way while the CPU is short.
const AT_ONCE: usize = 2;
/// A turn is over after this time: a shard without a majority must not hold up the others.
pub const LONGEST_TURN: Duration = Duration::from_millis(20);
/// How often it is looked at whether the CPU is short.
const LOOK: Duration = Duration::from_millis(250);
/// Threads that wait for a CPU this many times as long as they run are short of it, and stay so until they
/// wait less than half of that.
const WAITS_PER_RUN: u32 = 1;
/// Who runs less than this share of the time is not what keeps the CPU busy.
const LEAST_SHARE: u32 = 10;

/// Turns at proposing, of all shards of a broker.
#[derive(Debug)]
pub struct Turns {
    short: AtomicBool,
    /// Somebody has asked for a turn since it was looked at last.
    asked: AtomicBool,
    places: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            short: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// One entry's turn; over when dropped.
#[derive(Debug)]
pub struct Turn(Option<OwnedSemaphorePermit>);

impl Turn {
    /// A turn that nobody waits for.
    #[must_use]
    pub fn free() -> Self {
        Self(None)
    }
    /// Whether nobody waits for its end.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.0.is_none()
    }
}

impl Turns {
    /// A turn, unless it has to be waited for with [`Turns::wait`].
    #[must_use]
    pub fn now(&self) -> Option<Turn> {
        self.asked.store(true, Ordering::Relaxed);
        if !self.is_short() {
            return Some(Turn(None));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Turn(Some(place)))
    }

    /// The next turn, in the order of the calls. Cancellation-safe: who is dropped loses its place in the
    /// line and nothing else.
    pub async fn wait(self: Arc<Self>) -> Turn {
        // Places are given back within `LONGEST_TURN`, and the semaphore is never closed.
        Turn(Arc::clone(&self.places).acquire_owned().await.ok())
    }

    /// Whether the CPU was short when it was looked at.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Compares what the threads had of the CPU with what they had at the last look, and gives it back for the
    /// next one. Reading that costs most of what an idle broker does, so nobody looks while nobody asks.
    fn look(&self, tasks: &Path, before: Option<(CpuTime, Instant)>) -> Option<(CpuTime, Instant)> {
        if !self.asked.swap(false, Ordering::Relaxed) {
            self.short.store(false, Ordering::Relaxed);
            return None;
        }
        match CpuTime::read(tasks) {
            Ok(time) => {
                if let Some((before, at)) = before {
                    self.learn(time.since(before), at.elapsed());
                }
                Some((time, Instant::now()))
            }
            Err(error) => {
                tracing::debug!(%error, "cannot see how long threads wait for a CPU");
                before
            }
        }
    }

    fn learn(&self, spent: CpuTime, wall: Duration) {
        let short = is_short(self.is_short(), spent, wall);
        self.short.store(short, Ordering::Relaxed);
        metrics::gauge!("highwater_cpu_short").set(if short { 1.0 } else { 0.0 });
    }
}

/// What the threads of a process had of the CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTime {
    ran: Duration,
    waited: Duration,
}

impl CpuTime {
    /// Of all threads below a directory like `/proc/self/task`. A thread that ends meanwhile is left out.
    fn read(tasks: &Path) -> io::Result<Self> {
        let mut all = Self::default();
        for task in std::fs::read_dir(tasks)? {
            let text = match std::fs::read_to_string(task?.path().join("schedstat")) {
                Ok(text) => text,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            let mut numbers = text.split_ascii_whitespace().map(str::parse);
            if let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) {
                all.ran += Duration::from_nanos(ran);
                all.waited += Duration::from_nanos(waited);
            }
        }
        Ok(all)
    }

    /// What came on top of `before`; threads that ended may have taken more away.
    fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// Says that a thread has ended.
fn gone(error: &io::Error) -> bool {
    // ESRCH: it ended after its file was opened.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3)
}

fn is_short(before: bool, spent: CpuTime, wall: Duration) -> bool {
    let waits = if before {
        spent.waited * 2
    } else {
        spent.waited
    };
    spent.ran * LEAST_SHARE > wall && waits > spent.ran * WAITS_PER_RUN
}

/// Looks now and then whether the CPU is short, while entries are proposed, until the broker stops. A system
/// that does not say counts as one that is not short.
pub async fn watch(turns: Arc<Turns>, stop: CancellationToken) {
    let tasks = Path::new("/proc/self/task");
    match CpuTime::read(tasks) {
        Ok(time) if time != CpuTime::default() => {}
        Ok(_) => return tracing::info!("the system does not say how long threads wait for a CPU"),
        Err(error) => return tracing::info!(%error, "cannot see how long threads wait for a CPU"),
    }
    let mut before = None;
    while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
        before = turns.look(tasks, before);
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
