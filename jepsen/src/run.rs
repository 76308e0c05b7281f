//! One run: start, break while clients work, heal, read everything back, judge.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use highwater_checker::{Fault, Options, check};
use highwater_client::Client;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::bounds;
use crate::cluster::{Cluster, ClusterSpec, binary};
use crate::history::{Recorded, Recorder};
use crate::leaders::{Change, Leaders, two_in_one_term};
use crate::means::possible;
use crate::nemesis::{self, Record, Site};
use crate::recovery::{self, Rejoin, Sample, Seen};
use crate::schedule::{Kind, Need, Planned, plan};
use crate::settings::{self, Checkpoints};
use crate::timeline;
use crate::verdict::Judgement;
use crate::workload::{
    Acknowledged, AsideCounts, Clients, GroupCounts, Plan, Shared, final_reads, finish_asides,
    finish_groups, liveness,
};

/// How long a cluster may take to form, or to be whole again after the last fault.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the final reads may take.
const READING: Duration = Duration::from_secs(300);

/// How long a cluster that did not come back is asked for more.
const BROKEN: Duration = Duration::from_secs(20);

/// Between two looks at whether every broker lives.
const WATCH: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct RunConfig {
    /// Where everything goes: empty, or not there yet.
    pub out: PathBuf,
    /// How long clients work.
    pub time: Duration,
    /// Of every choice.
    pub seed: u64,
    /// Kinds of faults that are wanted.
    pub kinds: Vec<Kind>,
    /// Those of them that were asked for by their own names, and are missed when they are left out.
    pub named: Vec<Kind>,
    /// Operations per second.
    pub rate: f64,
    /// Clients.
    pub clients: u32,
    /// Brokers to start.
    pub brokers: u32,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Consumer groups.
    pub groups: u32,
    /// Whether there are topics beside the main one.
    pub asides: bool,
    /// The broker's program; unused with `bootstrap`.
    pub executable: PathBuf,
    /// The words that start the server of a file system that can lose power.
    pub disk_server: Vec<std::ffi::OsString>,
    /// Somebody else's brokers; empty: start some.
    pub bootstrap: Vec<String>,
    /// Further settings of the brokers, which count before all others.
    pub settings: Vec<(String, String)>,
    /// How often shards are checkpointed.
    pub checkpoints: Checkpoints,
    /// Variables of the brokers' environment.
    pub environment: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What the broker's program says of itself: its version, and its commit if the build was told.
    pub broker: String,
    /// Brokers that were started.
    pub brokers: u32,
    /// Whether shards were checkpointed all the time.
    pub tiny_checkpoints: bool,
    /// Seconds that clients worked.
    pub seconds: f64,
    /// The verdict.
    pub judgement: Judgement,
    /// The faults.
    pub faults: Vec<Record>,
    /// What they cost.
    pub recovery: Vec<Sample>,
    /// Acknowledged records.
    pub acknowledged: u64,
    /// Records of the final reads.
    pub read_at_the_end: u64,
    /// Errors of readers during the run, and the first of them.
    pub readers_trouble: (u64, Vec<String>),
    /// What was done to members of groups.
    pub groups: GroupCounts,
    /// What became of the topics beside the main one.
    pub asides: AsideCounts,
}

/// Told as the run goes on.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A stage begins.
    Stage(&'a str),
    /// The clients work: so far of how long, and operations that ended.
    Working(Duration, u64),
    /// A fault begins.
    Fault(&'a str),
}

/// Listens to events.
pub type Listener = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// Runs. Whatever happens, brokers, mounts and namespaces are gone afterwards.
///
/// # Errors
/// Errors of the harness, and a cluster that does not form. What a cluster does wrong later is in
/// the report.
pub async fn run(
    config: &RunConfig,
    stop: &CancellationToken,
    listener: &Listener,
) -> anyhow::Result<Report> {
    make_empty(&config.out)?;
    let broker = match config.bootstrap.is_empty() {
        true => binary::version(&config.executable).await?,
        false => "unknown".to_owned(),
    };
    let (kinds, skipped) = possible(config).await;
    let needs = |wanted: &[Need]| kinds.iter().any(|kind| wanted.contains(&kind.need()));
    let power = needs(&[Need::Power, Need::NetworkAndPower]);
    let network = power || needs(&[Need::Network, Need::Links]);
    let tiny = config.checkpoints.tiny(config.seed);
    let settings = settings::of_run(tiny, &kinds, &config.settings);
    let cluster = if config.bootstrap.is_empty() {
        listener(Event::Stage("starting brokers"));
        let spec = ClusterSpec {
            executable: config.executable.clone(),
            brokers: config.brokers,
            spare: kinds.contains(&Kind::ComeAndGo),
            directory: config.out.clone(),
            namespaces: network,
            disks: power.then(|| config.disk_server.clone()),
            settings,
            clocks: needs(&[Need::Clock]),
            environment: config.environment.clone(),
        };
        Some(Arc::new(Cluster::start(&spec).await?))
    } else {
        None
    };
    let schedule = plan(config.seed, millis(config.time), &kinds);
    let run = Run {
        config,
        stop,
        listener,
        broker,
        cluster: cluster.clone(),
    };
    let report = run.all(schedule, skipped).await;
    if let Some(cluster) = cluster {
        let ended = cluster.end().await;
        // The first error is the one to be told.
        let report = report?;
        ended?;
        return Ok(report);
    }
    report
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn make_empty(directory: &std::path::Path) -> anyhow::Result<()> {
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("cannot create {shown}"))?;
    let mut entries = fs::read_dir(directory).with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        entries.next().is_none(),
        "{shown} is not empty: name another directory"
    );
    Ok(())
}

struct Run<'a> {
    config: &'a RunConfig,
    stop: &'a CancellationToken,
    listener: &'a Listener,
    /// What the broker's program says of itself.
    broker: String,
    cluster: Option<Arc<Cluster>>,
}

/// How long the clients worked.
#[derive(Debug, Clone, Copy)]
struct Worked {
    time: Duration,
    /// When they stopped, in nanoseconds since the start of the run.
    until_ns: u64,
}

/// What happened, before it is judged.
struct Happened {
    recorded: Recorded,
    faults: Vec<Record>,
    findings: Vec<String>,
    changes: Vec<Change>,
    acknowledged: Vec<Acknowledged>,
    rejoins: Vec<Rejoin>,
    worked: Worked,
    read_at_the_end: u64,
    trouble: (u64, Vec<String>),
    groups: GroupCounts,
    asides: AsideCounts,
}

impl Run<'_> {
    async fn all(&self, schedule: Vec<Planned>, skipped: Vec<String>) -> anyhow::Result<Report> {
        let happened = self.happen(schedule).await?;
        (self.listener)(Event::Stage("checking"));
        self.judge(happened, skipped).await
    }

    async fn happen(&self, schedule: Vec<Planned>) -> anyhow::Result<Happened> {
        let recorder = Arc::new(Recorder::create(&self.config.out)?);
        if let Some(cluster) = &self.cluster {
            (self.listener)(Event::Stage("waiting for the cluster to form"));
            cluster.wait_caught_up(PATIENCE).await?;
        }
        let shared = Arc::new(Shared::new(self.plan().await, Arc::clone(&recorder)));
        shared.create_topic().await?;
        let client = shared.client("watch")?;
        let (site, following) = self.site(&shared, client).await?;
        let (faults, worked) = self.work(&shared, &site, schedule).await?;
        let mut findings = self.heal().await?;
        (self.listener)(Event::Stage("writing to every partition"));
        // A cluster that did not come back in all that time is not given as much again.
        let whole = findings.is_empty();
        let (patience, reading) = if whole {
            (PATIENCE, READING)
        } else {
            (BROKEN, BROKEN)
        };
        findings.extend(liveness(&shared, patience).await?);
        (self.listener)(Event::Stage("bringing every group to the end"));
        findings.extend(finish_groups(&shared, patience).await?);
        (self.listener)(Event::Stage("reading the topics beside the main one"));
        findings.extend(finish_asides(&shared, patience).await?);
        (self.listener)(Event::Stage(
            "reading everything back, from leaders and from every replica",
        ));
        let reads = final_reads(&shared, reading).await?;
        findings.extend(reads.problems);
        let rots = |fault: &Record| matches!(fault.kind, Kind::BitFlip | Kind::RottenStart);
        if faults.iter().any(rots)
            && let Some(cluster) = &self.cluster
        {
            (self.listener)(Event::Stage("waiting until all that rotted is mended"));
            findings.extend(cluster.unmended(patience).await?);
        }
        following.cancel();
        if let Some(cluster) = &self.cluster {
            cluster.notice_deaths().await;
        }
        findings.extend(shared.findings());
        let rejoins = site
            .rejoins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok(Happened {
            recorded: recorder.finish()?,
            faults,
            findings,
            changes: site.leaders.changes(),
            acknowledged: shared.acknowledged(),
            rejoins,
            worked,
            read_at_the_end: reads.records,
            trouble: shared.trouble(),
            groups: shared.group_counts(),
            asides: shared.aside_counts(),
        })
    }

    async fn plan(&self) -> Plan {
        let (bootstrap, brokers) = match &self.cluster {
            Some(cluster) => (cluster.addresses().await, self.config.brokers),
            None => (self.config.bootstrap.clone(), 0),
        };
        Plan {
            bootstrap,
            topic: format!("jepsen-{:x}", rand::random::<u32>()),
            partitions: self.config.partitions,
            // As many as there may be; a cluster of somebody else's has its own default.
            replication: if brokers % 2 == 1 { brokers.min(5) } else { 0 },
            clients: self.config.clients,
            rate: self.config.rate,
            groups: self.config.groups,
            asides: self.config.asides,
            seed: self.config.seed,
        }
    }

    async fn site(
        &self,
        shared: &Arc<Shared>,
        client: Client,
    ) -> anyhow::Result<(Site, CancellationToken)> {
        let leaders = Arc::new(Leaders::default());
        let following = CancellationToken::new();
        let follow = Arc::clone(&leaders).follow(
            client.clone(),
            shared.plan.topic.clone(),
            Arc::clone(&shared.recorder),
            following.clone(),
        );
        // Ends with `following`.
        tokio::spawn(follow);
        let nodes = match &self.cluster {
            Some(cluster) => cluster.numbers(),
            None => {
                client
                    .topic(&shared.plan.topic)
                    .await
                    .context("the topic is gone")?;
                client.view().brokers.keys().map(|node| node.0).collect()
            }
        };
        let count = nodes.len().max(1) as u64;
        let rots = usize::try_from(self.config.seed % count).unwrap_or(0);
        let rots = nodes.get(rots).copied().unwrap_or(0);
        let site = Site {
            cluster: self.cluster.clone(),
            nodes,
            leaders,
            recorder: Arc::clone(&shared.recorder),
            client,
            topic: shared.plan.topic.clone(),
            partitions: shared.plan.partitions,
            compacted: shared.compacted(),
            groups: shared.group_names(),
            rots,
            shared: Arc::clone(shared),
            rejoins: Arc::new(Mutex::default()),
        };
        Ok((site, following))
    }

    /// Clients and faults, side by side.
    async fn work(
        &self,
        shared: &Arc<Shared>,
        site: &Site,
        schedule: Vec<Planned>,
    ) -> anyhow::Result<(Vec<Record>, Worked)> {
        (self.listener)(Event::Stage("clients work"));
        // Cancelled when the time is over, or from outside.
        let over = self.stop.child_token();
        let began = Instant::now();
        let clients = Clients::start(shared, &over);
        let notice = |name: &str| (self.listener)(Event::Fault(name));
        let faults = nemesis::run(site, schedule, &over, &notice);
        let watch = async {
            while began.elapsed() < self.config.time && !over.is_cancelled() {
                if let Some(cluster) = &self.cluster {
                    cluster.notice_deaths().await;
                }
                (self.listener)(Event::Working(began.elapsed(), shared.recorder.completed()));
                tokio::select! {
                    () = sleep(WATCH) => {}
                    () = over.cancelled() => {}
                }
            }
            over.cancel();
            shared.recorder.now_ns()
        };
        let (faults, until_ns) = tokio::join!(faults, watch);
        let time = began.elapsed();
        clients.join().await?;
        Ok((faults?, Worked { time, until_ns }))
    }

    /// Whatever still is broken is undone; what does not come back is a finding.
    async fn heal(&self) -> anyhow::Result<Vec<String>> {
        let Some(cluster) = &self.cluster else {
            return Ok(Vec::new());
        };
        (self.listener)(Event::Stage("waiting until every broker has caught up"));
        cluster.revive().await?;
        match cluster.wait_caught_up(PATIENCE).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) => Ok(vec![format!("after healing: {error:#}")]),
        }
    }

    async fn judge(&self, happened: Happened, skipped: Vec<String>) -> anyhow::Result<Report> {
        let (findings, recovery) = self.hold_to_goals(&happened);
        let fault = |record: &Record| Fault {
            name: format!("{} {}", record.kind.name(), record.number),
            from_ns: record.from_ns,
            to_ns: record.healed_ns,
            proven: record.proven,
        };
        let begun = happened.faults.iter().filter(|record| record.begun);
        let options = Options {
            faults: begun.map(fault).collect(),
            ..Options::default()
        };
        let history = happened.recorded.history;
        let checked = tokio::task::spawn_blocking(move || check(&history, &options));
        let verdict = checked.await.context("the check stopped")??;
        let deaths = match &self.cluster {
            Some(cluster) => cluster.deaths().await,
            None => Vec::new(),
        };
        let ours = self.cluster.is_some();
        let report = Report {
            seed: self.config.seed,
            broker: self.broker.clone(),
            brokers: if ours { self.config.brokers } else { 0 },
            tiny_checkpoints: ours && self.config.checkpoints.tiny(self.config.seed),
            seconds: happened.worked.time.as_secs_f64(),
            judgement: Judgement {
                history: verdict,
                findings,
                deaths,
                skipped,
                interrupted: self.stop.is_cancelled(),
            },
            faults: happened.faults,
            recovery,
            acknowledged: happened.acknowledged.len() as u64,
            read_at_the_end: happened.read_at_the_end,
            readers_trouble: happened.trouble,
            groups: happened.groups,
            asides: happened.asides,
        };
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(self.config.out.join("report.json"), text)?;
        let spans = &happened.recorded.spans;
        let page = timeline::page(&report, spans, &happened.acknowledged, &happened.changes)?;
        fs::write(self.config.out.join("timeline.html"), page)?;
        Ok(report)
    }

    /// All that was found outside of the history, and what the faults cost.
    fn hold_to_goals(&self, happened: &Happened) -> (Vec<String>, Vec<Sample>) {
        let seen = Seen {
            records: &happened.faults,
            acknowledged: &happened.acknowledged,
            rejoins: &happened.rejoins,
            partitions: self.config.partitions,
            until_ns: happened.worked.until_ns,
        };
        let mut findings = happened.findings.clone();
        let seen_by_faults = happened.faults.iter();
        findings.extend(seen_by_faults.filter_map(|record| record.finding.clone()));
        findings.extend(two_in_one_term(&happened.changes));
        findings.extend(bounds::findings(&seen));
        (findings, recovery::samples(&seen))
    }
}
