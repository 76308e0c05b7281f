//! The supervisor: starts every service as a process, starts it again when it ends, and kills it
//! when it is asked to. The same in every mode.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::role::Role;
use crate::services::admin::{self, Stats};
use crate::services::config::{Mode, Mutant, ServiceConfig};
use crate::services::control::Change;
use crate::services::http::HttpClient;
use crate::services::run::GATEWAY;

/// The pause before a service that ended is started again: doubling while it keeps ending early.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A service that ran so long ended for a reason of its own.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a service may take to stop when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// How the services are run.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The executable whose hidden verb runs a service.
    pub executable: PathBuf,
    /// The run's directory.
    pub directory: PathBuf,
    /// The brokers.
    pub brokers: Vec<String>,
    /// How services are put together.
    pub mode: Mode,
    /// A service that is broken on purpose.
    pub mutant: Option<(String, Mutant)>,
    /// Orders per second that the gateway takes in.
    pub rate_limit: f64,
    /// How long a call outside takes, in microseconds.
    pub service_time_us: u64,
}

impl Fleet {
    /// The services of this mode, the gateway last: it takes orders when all others are there.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let roles = Role::ALL.into_iter().map(Role::name);
        match self.mode {
            mode if mode.is_single() => vec![GATEWAY],
            _ => roles.chain([GATEWAY]).collect(),
        }
    }

    /// Where the files of a service lie.
    #[must_use]
    pub fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{name}.{ending}"))
    }

    fn config(&self, name: &str) -> ServiceConfig {
        let mutant = self.mutant.as_ref().filter(|(of, _)| of == name);
        let journals = name == GATEWAY && self.mode.is_single()
            || Role::named(name).is_some_and(Role::calls_outside);
        ServiceConfig {
            mode: self.mode,
            brokers: self.brokers.clone(),
            store: self.file(name, "store"),
            address_file: self.file(name, "address"),
            listen: None,
            effects: journals.then(|| self.file(name, "effects")),
            mutant: mutant.map(|(_, mutant)| *mutant),
            rate_limit: self.rate_limit,
            service_time_us: self.service_time_us,
        }
    }

    fn spawn(&self, name: &str) -> anyhow::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file(name, "log"))?;
        let child = Command::new(&self.executable)
            .arg("order-service")
            .arg(name)
            .arg("--config")
            .arg(self.file(name, "json"))
            .args(["--die-with-parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C in the terminal goes to the parent alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        child.with_context(|| format!("the service {name} cannot be started"))
    }
}

enum Order {
    /// Kill it; tell when it is gone.
    Kill(oneshot::Sender<()>),
    /// Kill it and do not start it again, or start it again after all.
    Hold(bool, oneshot::Sender<()>),
    /// Ask it to stop.
    Stop(oneshot::Sender<bool>),
}

struct Service {
    orders: mpsc::Sender<Order>,
    pid: watch::Receiver<Option<u32>>,
    starts: Arc<AtomicU64>,
    _keeper: JoinHandle<()>,
}

/// The running services. Dropped, it kills them.
pub struct Supervisor {
    fleet: Fleet,
    services: BTreeMap<&'static str, Service>,
}

impl Supervisor {
    /// Starts every service and returns when each has opened its door.
    ///
    /// # Errors
    /// When one cannot be started, or does not open its door in time.
    pub async fn start(fleet: Fleet, patience: Duration) -> anyhow::Result<Self> {
        let mut services = BTreeMap::new();
        for name in fleet.names() {
            let config = serde_json::to_vec_pretty(&fleet.config(name))?;
            tokio::fs::write(fleet.file(name, "json"), config).await?;
            let (orders, queue) = mpsc::channel(16);
            let (pid_out, pid) = watch::channel(None);
            let starts = Arc::new(AtomicU64::new(0));
            let keeper = Keeper {
                fleet: fleet.clone(),
                name,
                pid: pid_out,
                starts: Arc::clone(&starts),
            };
            services.insert(
                name,
                Service {
                    orders,
                    pid,
                    starts,
                    _keeper: tokio::spawn(keeper.keep(queue)),
                },
            );
        }
        let supervisor = Self { fleet, services };
        for name in supervisor.fleet.names() {
            let open = timeout(patience, supervisor.stats_once(name)).await;
            let log = supervisor.fleet.file(name, "log");
            open.with_context(|| format!("{name} does not answer; see {}", log.display()))?;
        }
        Ok(supervisor)
    }

    /// How the services are run.
    #[must_use]
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The address of a service's door, as it last wrote it down.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        admin::address(&self.fleet.file(name, "address"))
    }

    /// The process of a service; none between two of them.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        *self.services.get(name)?.pid.borrow()
    }

    /// The processes of all services.
    #[must_use]
    pub fn pids(&self) -> Vec<(String, u32)> {
        let pid = |(name, service): (&&str, &Service)| {
            let pid = *service.pid.borrow();
            pid.map(|pid| ((*name).to_owned(), pid))
        };
        self.services.iter().filter_map(pid).collect()
    }

    /// How often a service was started.
    #[must_use]
    pub fn starts(&self, name: &str) -> u64 {
        let service = self.services.get(name);
        service.map_or(0, |service| service.starts.load(Ordering::Relaxed))
    }

    /// A service's counters, if it answers within a second.
    pub async fn stats(&self, name: &str) -> Option<Stats> {
        let address = self.address(name)?;
        let ask = async { HttpClient::new(address).get("/stats").await.ok() };
        let answer = timeout(Duration::from_secs(1), ask).await.ok()??;
        let stats: Stats = serde_json::from_slice(&answer.body).ok()?;
        // A file of an address may be older than the process, and its port somebody else's.
        (Some(stats.pid) == self.pid(name)).then_some(stats)
    }

    async fn stats_once(&self, name: &str) -> Stats {
        loop {
            if let Some(stats) = self.stats(name).await {
                return stats;
            }
            sleep(POLL).await;
        }
    }

    /// Changes something in a service while it runs.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn change(&self, name: &str, change: Change) -> anyhow::Result<()> {
        let body = serde_json::to_vec(&change)?;
        let asked = async {
            loop {
                if let Some(address) = self.address(name) {
                    let mut client = HttpClient::new(address);
                    if let Ok(answer) = client.post("/change", &[], body.clone()).await
                        && answer.status == 200
                    {
                        return;
                    }
                }
                sleep(POLL).await;
            }
        };
        timeout(Duration::from_secs(10), asked)
            .await
            .with_context(|| format!("{name} takes no change"))
    }

    /// Kills a service (SIGKILL) and returns when its process is gone. It is started again.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn kill(&self, name: &str) -> anyhow::Result<()> {
        let (gone, wait) = oneshot::channel();
        self.tell(name, Order::Kill(gone)).await?;
        Ok(wait.await?)
    }

    /// Kills a service and keeps it down, or starts it again.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn hold(&self, name: &str, down: bool) -> anyhow::Result<()> {
        let (done, wait) = oneshot::channel();
        self.tell(name, Order::Hold(down, done)).await?;
        Ok(wait.await?)
    }

    async fn tell(&self, name: &str, order: Order) -> anyhow::Result<()> {
        let service = self.services.get(name);
        let service = service.with_context(|| format!("there is no service {name}"))?;
        let told = service.orders.send(order).await;
        told.ok().context("its keeper has ended")
    }

    /// Stops every service gracefully, the gateway first. Returns those that had to be killed.
    ///
    /// # Errors
    /// When a keeper has ended.
    pub async fn stop(&self) -> anyhow::Result<Vec<&'static str>> {
        let mut killed = Vec::new();
        let mut waits = Vec::new();
        for name in self.fleet.names().into_iter().rev() {
            let (done, wait) = oneshot::channel();
            self.tell(name, Order::Stop(done)).await?;
            waits.push((name, wait));
        }
        for (name, wait) in waits {
            if !wait.await? {
                killed.push(name);
            }
        }
        Ok(killed)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for service in self.services.values() {
            service._keeper.abort();
        }
    }
}

/// The owner of one service's process.
struct Keeper {
    fleet: Fleet,
    name: &'static str,
    pid: watch::Sender<Option<u32>>,
    starts: Arc<AtomicU64>,
}

impl Keeper {
    async fn keep(self, mut orders: mpsc::Receiver<Order>) {
        let mut early = 0;
        loop {
            let mut child = match self.fleet.spawn(self.name) {
                Ok(child) => child,
                Err(error) => {
                    tracing::error!(
                        service = self.name,
                        error = format!("{error:#}"),
                        "not started"
                    );
                    sleep(LONGEST_PAUSE).await;
                    continue;
                }
            };
            self.starts.fetch_add(1, Ordering::Relaxed);
            self.pid.send_replace(child.id());
            let started = Instant::now();
            let order = tokio::select! {
                _ = child.wait() => None,
                order = orders.recv() => match order {
                    Some(order) => Some(order),
                    None => return,
                },
            };
            early = if started.elapsed() < SETTLED {
                early + 1
            } else {
                0
            };
            if let Some(Order::Stop(done)) = order {
                let by_itself = stop(&mut child).await;
                self.pid.send_replace(None);
                // The run goes on without an answer too.
                let _ = done.send(by_itself);
                return;
            }
            let _ = child.kill().await;
            self.pid.send_replace(None);
            match order {
                Some(Order::Kill(gone)) => {
                    early = 0;
                    let _ = gone.send(());
                }
                Some(Order::Hold(down, done)) => {
                    early = 0;
                    let _ = done.send(());
                    if down && !held(&mut orders).await {
                        return;
                    }
                }
                _ => {}
            }
            sleep((FIRST_PAUSE * 2_u32.pow(early.min(6))).min(LONGEST_PAUSE)).await;
        }
    }
}

/// Waits until the service may run again. False when it never may.
async fn held(orders: &mut mpsc::Receiver<Order>) -> bool {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Hold(down, done) => {
                let _ = done.send(());
                if !down {
                    return true;
                }
            }
            Order::Kill(gone) => {
                let _ = gone.send(());
            }
            Order::Stop(done) => {
                let _ = done.send(true);
                return false;
            }
        }
    }
    false
}

/// Asks a process to stop. Whether it did.
async fn stop(child: &mut Child) -> bool {
    let pid = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    let Some(pid) = pid else { return true };
    if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_err() {
        return true;
    }
    if timeout(STOP_PATIENCE, child.wait()).await.is_ok() {
        return true;
    }
    let _ = child.kill().await;
    false
}

/// Whether a path lies in a run's directory: its services' files do.
#[must_use]
pub fn store_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.store"))
}
