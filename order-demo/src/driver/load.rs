//! The load: sends the planned orders at their times over HTTP, whether or not earlier ones were
//! answered, and writes down, outside of everything that is tested, what became of each.
//!
//! The clock of an order starts when it should have been sent. A sender that falls behind makes
//! its latencies longer, instead of hiding the wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::schedule::Schedule;
use super::supervisor::Supervisor;
use crate::domain::deviation::Deviation;
use crate::gateway::door::{IDEMPOTENCY_KEY, INTENDED_START};
use crate::journal::{Durable, Entry, JournalHandle};
use crate::order::OrderNumber;
use crate::plan::Plan;
use crate::report::SLOWEST_MICROS;
use crate::services::http::HttpClient;
use crate::services::run::GATEWAY;

/// Orders written to the journal as intended with one entry. The next lot is written while this
/// one is being sent, so that the disk's time does not count as the pipeline's.
const LOT: u64 = 256;
/// Connections to the gateway.
const CONNECTIONS: usize = 64;
/// Orders that are due and wait for a connection; beyond it the sender waits too.
const DUE: usize = 16_384;
/// How long one order is tried, under the same key, before its outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How long after its order a late wish to cancel is sent.
const LATE: Duration = Duration::from_millis(300);

/// How far the load is.
#[derive(Debug, Default)]
pub struct LoadCounters {
    /// Orders whose first request was sent.
    pub sent: AtomicU64,
    /// Orders that got a 202.
    pub accepted: AtomicU64,
    /// Orders whose outcome is known, or known to be unknown.
    pub ended: AtomicU64,
    /// Wishes to cancel that got a 202.
    pub cancels: AtomicU64,
}

/// What a load measured.
#[derive(Debug)]
pub struct Loaded {
    /// Microseconds from the intended request to the 202.
    pub latencies: Histogram<u64>,
    /// From the first intended request to the last 202.
    pub duration: Duration,
    /// The first reasons for refusals and unknown outcomes.
    pub complaints: Vec<String>,
}

/// What the tasks of a load share.
pub struct Load {
    /// What is ordered.
    pub plan: Arc<Plan>,
    /// When.
    pub schedule: Schedule,
    /// When the first order is due, and the wall clock's reading then.
    pub start: Instant,
    /// The same on the wall clock, in milliseconds since 1970.
    pub start_unix_ms: i64,
    pub(crate) journal: JournalHandle,
    /// How far it is.
    pub counters: Arc<LoadCounters>,
    /// Knows where the gateway is.
    pub supervisor: Arc<Supervisor>,
    pub(crate) loaded: Mutex<Loaded>,
}

enum Fate {
    Accepted,
    Refused(String),
    Unknown(String),
}

impl Loaded {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// None that can occur: the bounds are fixed.
    pub fn empty() -> anyhow::Result<Self> {
        Ok(Self {
            latencies: Histogram::new_with_max(SLOWEST_MICROS, 3)?,
            duration: Duration::ZERO,
            complaints: Vec::new(),
        })
    }
}

impl Load {
    /// Sends everything and returns when every order has its outcome. Not cancellation-safe: what
    /// was sent stays sent.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        let (due, queue) = mpsc::channel(DUE);
        let queue = Arc::new(AsyncMutex::new(queue));
        let mut senders = JoinSet::new();
        for _ in 0..CONNECTIONS {
            senders.spawn(Arc::clone(&self).send_due(Arc::clone(&queue)));
        }
        let paced = self.pace(due).await;
        while let Some(sent) = senders.join_next().await {
            sent.context("a sender stopped")??;
        }
        paced
    }

    async fn pace(&self, due: mpsc::Sender<(OrderNumber, Instant)>) -> anyhow::Result<()> {
        let mut next_lot = Some(self.intend(0).await?);
        for (number, at) in (0..).zip(self.schedule.times(self.plan.count())) {
            if number % LOT == 0 {
                if let Some(durable) = next_lot.take() {
                    durable.wait().await?;
                }
                next_lot = match number + LOT {
                    next if next < self.plan.count() => Some(self.intend(next).await?),
                    _ => None,
                };
            }
            let at = self.start + at;
            sleep_until(at).await;
            let queued = due.send((OrderNumber(number), at)).await;
            queued.ok().context("the senders stopped")?;
        }
        Ok(())
    }

    async fn intend(&self, from: u64) -> anyhow::Result<Durable> {
        let to = (from + LOT).min(self.plan.count());
        let entry = Entry::Intended {
            from: OrderNumber(from),
            to: OrderNumber(to),
        };
        self.journal.tell_durably(entry).await
    }

    async fn send_due(
        self: Arc<Self>,
        queue: Arc<AsyncMutex<mpsc::Receiver<(OrderNumber, Instant)>>>,
    ) -> anyhow::Result<()> {
        let mut client = None;
        loop {
            let next = queue.lock().await.recv().await;
            let Some((number, due)) = next else {
                return Ok(());
            };
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
            let fate = self.place(&mut client, number, due).await?;
            let accepted = matches!(fate, Fate::Accepted);
            self.landed(number, due, fate).await?;
            let deviation = self.plan.deviation(number);
            if accepted && deviation == Deviation::CancelEarly {
                self.cancel(number, &mut client).await;
            }
            if accepted && deviation == Deviation::CancelLate {
                let load = Arc::clone(&self);
                // Ends by itself; nobody needs its result, the events tell what came of it.
                tokio::spawn(async move {
                    sleep(LATE).await;
                    load.cancel(number, &mut None).await;
                });
            }
        }
    }

    async fn place(
        &self,
        client: &mut Option<HttpClient>,
        number: OrderNumber,
        due: Instant,
    ) -> anyhow::Result<Fate> {
        let request = self.plan.request(number).context("past the plan")?;
        let body = serde_json::to_vec(&request)?;
        let since = due.saturating_duration_since(self.start).as_millis();
        let intended = self.start_unix_ms + i64::try_from(since).unwrap_or(0);
        let run = self.plan.run();
        let headers = [
            (IDEMPOTENCY_KEY, run.order_id(number)),
            (INTENDED_START, intended.to_string()),
            ("traceparent", run.traceparent(number)),
        ];
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(client, "/orders", &headers, body.clone()).await;
            let why = match answer {
                Ok((202, _)) => return Ok(Fate::Accepted),
                Ok((code @ (400 | 409 | 429), why)) => {
                    return Ok(Fate::Refused(format!("{code}: {why}")));
                }
                Ok((code, why)) => format!("{code}: {why}"),
                Err(why) => why,
            };
            if Instant::now() > until {
                return Ok(Fate::Unknown(why));
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(
        &self,
        client: &mut Option<HttpClient>,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<(u16, String), String> {
        let mut open = match client.take() {
            Some(open) => open,
            None => HttpClient::new(
                self.supervisor
                    .address(GATEWAY)
                    .ok_or("the gateway has no address")?,
            ),
        };
        let answer = timeout(REQUEST, open.post(path, headers, body)).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        *client = Some(open);
        Ok((
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
        ))
    }

    async fn cancel(&self, number: OrderNumber, client: &mut Option<HttpClient>) {
        let path = format!("/orders/{}/cancel", self.plan.run().order_id(number));
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok((202, _)) = self.ask(client, &path, &[], Vec::new()).await {
                self.counters.cancels.fetch_add(1, Ordering::Relaxed);
                return;
            }
            sleep(PAUSE).await;
        }
    }

    async fn landed(&self, number: OrderNumber, due: Instant, fate: Fate) -> anyhow::Result<()> {
        let now = Instant::now();
        let entry = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            match fate {
                Fate::Accepted => {
                    let late = now.saturating_duration_since(due).as_micros();
                    let micros = u64::try_from(late).unwrap_or(u64::MAX);
                    loaded.latencies.saturating_record(micros);
                    let since = now.saturating_duration_since(self.start);
                    loaded.duration = loaded.duration.max(since);
                    Entry::Accepted(number)
                }
                Fate::Refused(why) => complain(&mut loaded, why, Entry::Refused(number)),
                Fate::Unknown(why) => complain(&mut loaded, why, Entry::Unknown(number)),
            }
        };
        self.journal.tell(entry).await?;
        if matches!(entry, Entry::Accepted(_)) {
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.ended.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn complain(loaded: &mut Loaded, why: String, entry: Entry) -> Entry {
    if loaded.complaints.len() < 5 {
        loaded.complaints.push(why);
    }
    entry
}
