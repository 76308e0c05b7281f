//! Work that is done later, on a thread of its own, so that no request waits for another's delay.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Why delayed work is done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// Its time has come, or nobody wants to wait for it any more.
    Due,
    /// The power failed before its time had come.
    PowerLost,
}

type Work = Box<dyn FnOnce(Now) + Send>;

#[derive(Default)]
struct Queue {
    work: BTreeMap<(Instant, u64), Work>,
    added: u64,
    ended: bool,
}

/// Work by the time at which it is due.
pub(crate) struct Delayed {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Delayed {
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start() -> io::Result<Self> {
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let theirs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("powerfs-delay".to_owned())
            .spawn(move || run(&theirs))?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Does `work` after `delay`. Later than the end it is done at once.
    pub(crate) fn push(&self, delay: Duration, work: Work) {
        let (queue, changed) = &*self.queue;
        let mut queue = queue.lock();
        if queue.ended {
            drop(queue);
            work(Now::Due);
            return;
        }
        queue.added += 1;
        let key = (Instant::now() + delay, queue.added);
        queue.work.insert(key, work);
        changed.notify_one();
    }

    /// Does all work that waits.
    pub(crate) fn drain(&self, now: Now) {
        let work = std::mem::take(&mut self.queue.0.lock().work);
        work.into_values().for_each(|work| work(now));
    }

    /// Does all work that waits, and ends the thread.
    pub(crate) fn end(&self) {
        self.queue.0.lock().ended = true;
        self.queue.1.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // It runs nothing that panics; were it so, its panic has been printed.
            drop(thread.join());
        }
        self.drain(Now::Due);
    }
}

fn run((queue, changed): &(Mutex<Queue>, Condvar)) {
    let mut queue = queue.lock();
    while !queue.ended {
        let Some(entry) = queue.work.first_entry() else {
            changed.wait(&mut queue);
            continue;
        };
        let due = entry.key().0;
        if Instant::now() < due {
            changed.wait_until(&mut queue, due);
            continue;
        }
        let work = entry.remove();
        parking_lot::MutexGuard::unlocked(&mut queue, || work(Now::Due));
    }
}
