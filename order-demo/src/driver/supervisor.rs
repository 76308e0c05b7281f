//! The supervisor: starts every service as a process, starts it again when it ends, and kills it
//! when it is asked to. The same in every mode.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::keeper::{Keeper, Order};
use crate::domain::role::Role;
use crate::services::admin::{self, Stats};
use crate::services::config::{Mode, Mutant, ServiceConfig};
use crate::services::control::Change;
use crate::services::http::HttpClient;
use crate::services::run::GATEWAY;

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

    /// The settings of a service's first worker.
    fn config(&self, name: &str) -> ServiceConfig {
        let mutant = self.mutant.as_ref().filter(|(of, _)| of == name);
        let journals = name == GATEWAY && self.mode.is_single()
            || Role::named(name).is_some_and(Role::calls_outside);
        ServiceConfig {
            mode: self.mode,
            worker: 1,
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

    /// Starts the process of one worker, `name`, of a service.
    pub(super) fn spawn(&self, service: &str, name: &str) -> anyhow::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file(name, "log"))?;
        let child = Command::new(&self.executable)
            .arg("order-service")
            .arg(service)
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

struct Service {
    orders: mpsc::Sender<Order>,
    pid: watch::Receiver<Option<u32>>,
    starts: Arc<AtomicU64>,
    keeper: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The running services. Dropped, it kills them.
pub struct Supervisor {
    fleet: Fleet,
    /// By the name of the worker: the first of each service, and those that were started beside it.
    services: Mutex<BTreeMap<String, Arc<Service>>>,
}

impl Supervisor {
    /// Starts every service and returns when each has opened its door.
    ///
    /// # Errors
    /// When one cannot be started, or does not open its door in time.
    pub async fn start(fleet: Fleet, patience: Duration) -> anyhow::Result<Self> {
        let supervisor = Self {
            fleet,
            services: Mutex::default(),
        };
        for name in supervisor.fleet.names() {
            supervisor.begin(name, name, supervisor.fleet.config(name))?;
        }
        for name in supervisor.fleet.names() {
            let open = timeout(patience, supervisor.stats_once(name)).await;
            let log = supervisor.fleet.file(name, "log");
            open.with_context(|| format!("{name} does not answer; see {}", log.display()))?;
        }
        Ok(supervisor)
    }

    /// Writes a worker's settings down and hires its keeper.
    fn begin(&self, service: &str, name: &str, config: ServiceConfig) -> anyhow::Result<()> {
        let config = serde_json::to_vec_pretty(&config)?;
        std::fs::write(self.fleet.file(name, "json"), config)?;
        let (orders, queue) = mpsc::channel(16);
        let (pid_out, pid) = watch::channel(None);
        let starts = Arc::new(AtomicU64::new(0));
        let keeper = Keeper {
            fleet: self.fleet.clone(),
            service: service.to_owned(),
            name: name.to_owned(),
            pid: pid_out,
            starts: Arc::clone(&starts),
        };
        let kept = Service {
            orders,
            pid,
            starts,
            keeper: tokio::spawn(keeper.keep(queue)),
        };
        self.services().insert(name.to_owned(), Arc::new(kept));
        Ok(())
    }

    /// Starts a further worker of a service. It is no part of [`Fleet::names`].
    ///
    /// # Errors
    /// When its settings cannot be written.
    pub fn add(&self, role: Role, number: u32) -> anyhow::Result<()> {
        let name = role.worker(number);
        let config = ServiceConfig {
            worker: number,
            store: self.fleet.file(&name, "store"),
            address_file: self.fleet.file(&name, "address"),
            ..self.fleet.config(role.name())
        };
        self.begin(role.name(), &name, config)
    }

    /// Stops a worker gracefully for good. Whether it did not have to be killed.
    ///
    /// # Errors
    /// When there is no such worker.
    pub async fn retire(&self, name: &str) -> anyhow::Result<bool> {
        let (done, wait) = oneshot::channel();
        self.tell(name, Order::Stop(done)).await?;
        let by_itself = wait.await?;
        self.services().remove(name);
        Ok(by_itself)
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Service>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.services().get(name).cloned()
    }

    /// Every worker that is kept, the gateway last but for further ones.
    #[must_use]
    pub fn workers(&self) -> Vec<String> {
        let base = self.fleet.names();
        let further: Vec<String> = {
            let services = self.services();
            let further = services
                .keys()
                .filter(|name| !base.contains(&name.as_str()));
            further.cloned().collect()
        };
        base.into_iter().map(str::to_owned).chain(further).collect()
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
        *self.service(name)?.pid.borrow()
    }

    /// The processes of all services.
    #[must_use]
    pub fn pids(&self) -> Vec<(String, u32)> {
        let pid = |(name, service): (&String, &Arc<Service>)| {
            let pid = *service.pid.borrow();
            pid.map(|pid| (name.clone(), pid))
        };
        self.services().iter().filter_map(pid).collect()
    }

    /// How often a service was started.
    #[must_use]
    pub fn starts(&self, name: &str) -> u64 {
        let service = self.service(name);
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
        let service = self.service(name);
        let service = service.with_context(|| format!("there is no service {name}"))?;
        let told = service.orders.send(order).await;
        told.ok().context("its keeper has ended")
    }

    /// Stops every service gracefully, the gateway first. Returns those that had to be killed.
    ///
    /// # Errors
    /// When a keeper has ended.
    pub async fn stop(&self) -> anyhow::Result<Vec<String>> {
        let mut killed = Vec::new();
        let mut waits = Vec::new();
        for name in self.workers().into_iter().rev() {
            let (done, wait) = oneshot::channel();
            self.tell(&name, Order::Stop(done)).await?;
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
