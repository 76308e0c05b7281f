//! A run from the outside: topics, worker processes, phases, and what was used meanwhile.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backend::{Backend, TopicSpec};
use super::calibrate;
use super::collect::{Collector, Role};
use super::payload::now_ns;
use super::plans::plans;
use super::procfs::{Machine, Usage};
use super::result::{Costs, Outcome, ProcessCost, Span};
use super::worker::{Event, Plan};
use super::workload::Workload;
use crate::cluster::scrape;

const READY_WITHIN: Duration = Duration::from_secs(60);
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// The part of a second in which what was used is read: workers report at its half.
const MARKS: std::ops::Range<f64> = 0.7..0.95;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const USUAL_WARM_UP_MINUTES: f64 = 1.0;

/// What a workload is driven through.
pub struct Subject<'a> {
    /// Its name in results.
    pub driver: String,
    /// How it is talked to.
    pub backend: &'a dyn Backend,
    /// The words that start a worker of it.
    pub worker: Vec<String>,
    /// Process ids of its brokers, on this machine; empty: unknown.
    pub brokers: Vec<u32>,
    /// host:port of brokers' metrics, as far as there are any.
    pub metrics: Vec<String>,
    /// Where the brokers keep their data.
    pub directory: PathBuf,
    /// How many processes share the producers, and how many the consumers.
    pub processes: usize,
    /// Asked to kill a broker (by place, from 0) in the middle of the run.
    pub kill: Option<tokio::sync::mpsc::Sender<usize>>,
}

struct Worker {
    role: Role,
    pid: u32,
    child: Child,
    orders: ChildStdin,
    reader: JoinHandle<anyhow::Result<()>>,
}

/// Runs a workload and says what came out.
///
/// # Errors
/// When the brokers, or the workers, cannot do it at all. Records that fail are counted instead.
pub async fn measure(subject: &Subject<'_>, workload: &Workload) -> anyhow::Result<Outcome> {
    let calibration = calibrate::calibrate(&subject.directory)?;
    let run = now_ns() / 1_000_000;
    let topics: Vec<String> = (0..workload.topics)
        .map(|number| format!("bench-{run}-{number}"))
        .collect();
    for name in &topics {
        let topic = TopicSpec {
            name: name.clone(),
            partitions: workload.partitions_per_topic,
            config: workload.topic_config.clone(),
        };
        subject.backend.create_topic(&topic).await?;
    }
    let collector = Arc::new(Collector::default());
    let mut workers = Vec::new();
    for (role, plan) in plans(workload, &topics, subject.processes) {
        workers.push(Worker::start(subject, role, &plan, &collector).await?);
    }
    let mut phases = Phases {
        subject,
        workload,
        collector: &collector,
        workers,
    };
    let span = phases.run(&topics).await?;
    phases.finish().await?;
    let totals = collector.totals();
    let received = totals.received;
    let expected = totals.acknowledged * u64::from(workload.subscriptions_per_topic);
    let mut outcome = Outcome::of(subject, workload, &span);
    outcome.calibration = calibration;
    outcome.unread = expected.saturating_sub(received);
    outcome.failures = collector.failures();
    outcome.fill(&collector.between(span.from, span.to));
    Ok(outcome)
}

impl Worker {
    async fn start(
        subject: &Subject<'_>,
        role: Role,
        plan: &Plan,
        collector: &Arc<Collector>,
    ) -> anyhow::Result<Self> {
        let (program, words) = subject.worker.split_first().context("no worker")?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let mut orders = child.stdin.take().context("no standard input")?;
        let out = child.stdout.take().context("no standard output")?;
        let mut plan = serde_json::to_vec(plan)?;
        plan.push(b'\n');
        orders.write_all(&plan).await?;
        let mut events = BufReader::new(out).lines();
        let ready = tokio::time::timeout(READY_WITHIN, next_event(&mut events)).await;
        match ready.context("a worker did not get ready")?? {
            Some(Event::Ready) => {}
            other => bail!("a worker did not get ready: {other:?}"),
        }
        let collector = Arc::clone(collector);
        let reader = tokio::spawn(async move {
            while let Some(event) = next_event(&mut events).await? {
                match event {
                    Event::Second(sample) => collector.add(role, *sample),
                    Event::Done => return Ok(()),
                    Event::Ready => bail!("a worker got ready twice"),
                }
            }
            bail!("a worker ended early")
        });
        Ok(Self {
            role,
            pid: child.id().context("the worker has ended")?,
            child,
            orders,
            reader,
        })
    }
    async fn order(&mut self, order: &str) -> anyhow::Result<()> {
        let sent = self.orders.write_all(format!("{order}\n").as_bytes()).await;
        sent.context("a worker has ended; its error stands above")
    }
    /// Tells it to stop and waits until everything has its outcome.
    async fn stop(&mut self) -> anyhow::Result<()> {
        self.order("stop").await?;
        (&mut self.reader).await??;
        self.child.wait().await?;
        Ok(())
    }
}

async fn next_event(events: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<Option<Event>> {
    match events.next_line().await? {
        Some(line) => Ok(Some(
            serde_json::from_str(&line).with_context(|| format!("a worker said {line:?}"))?,
        )),
        None => Ok(None),
    }
}

struct Phases<'a> {
    subject: &'a Subject<'a>,
    workload: &'a Workload,
    collector: &'a Collector,
    workers: Vec<Worker>,
}

/// What everything had used at one moment.
struct Mark {
    second: u64,
    machine: Machine,
    brokers: Vec<Usage>,
    workers: Vec<Usage>,
    fsyncs: Option<f64>,
}

impl Phases<'_> {
    /// Warm-up and measuring; says what happened in the second.
    async fn run(&mut self, topics: &[String]) -> anyhow::Result<Span> {
        let backlog = (self.workload.consumer_backlog_size_gb * 1e9) as u64;
        self.order(Role::Producer, "go").await?;
        if backlog == 0 {
            self.order(Role::Tail, "go").await?;
        }
        let warm_up = self
            .workload
            .warmup_duration_minutes
            .unwrap_or(USUAL_WARM_UP_MINUTES);
        tokio::time::sleep(minutes(warm_up)).await;
        let before = self.mark().await;
        if backlog > 0 {
            self.build_and_drain(backlog).await?;
        } else {
            self.events(topics).await?;
        }
        let after = self.mark().await;
        Ok(Span {
            from: before.second,
            to: after.second,
            costs: self.costs(&before, &after),
        })
    }
    /// Measures for its time, with what is to happen in between.
    async fn events(&mut self, topics: &[String]) -> anyhow::Result<()> {
        let whole = minutes(self.workload.test_duration_minutes);
        let started = Instant::now();
        let topic = topics.first().context("no topic")?;
        if self.workload.catch_up_readers > 0 {
            tokio::time::sleep(whole / 2).await;
            self.order(Role::CatchUp, "go").await?;
        }
        if let (Some(after), Some(kill)) =
            (self.workload.kill_leader_after_seconds, &self.subject.kill)
        {
            tokio::time::sleep_until(started + Duration::from_secs_f64(after)).await;
            let leader = self.subject.backend.leader(topic, 0).await?;
            kill.send(leader.context("the leader is not known")?)
                .await?;
        }
        tokio::time::sleep_until(started + whole).await;
        Ok(())
    }
    /// Lets a backlog grow, then lets consumers drain it beside the producers.
    async fn build_and_drain(&mut self, backlog: u64) -> anyhow::Result<()> {
        let built = Instant::now();
        let most = minutes(self.workload.test_duration_minutes);
        while self.collector.totals().bytes < backlog {
            if built.elapsed() > most {
                bail!("the backlog did not reach its size within the test's duration");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.order(Role::Tail, "go").await?;
        let drained = Instant::now();
        while self.behind() > self.one_second() {
            if drained.elapsed() > most {
                eprintln!("the backlog was not drained within the test's duration");
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
    /// Records acknowledged and not yet read.
    fn behind(&self) -> u64 {
        let totals = self.collector.totals();
        let expected = totals.acknowledged * u64::from(self.workload.subscriptions_per_topic);
        expected.saturating_sub(totals.received)
    }
    /// Records that a second brings, as the last one has: nobody can be closer than a report.
    fn one_second(&self) -> u64 {
        let now = now_ns() / 1_000_000_000;
        let last = self.collector.between(now.saturating_sub(2), now);
        last.iter()
            .map(|second| second.acknowledged)
            .max()
            .unwrap_or(0)
            * 2
    }
    async fn order(&mut self, role: Role, order: &str) -> anyhow::Result<()> {
        for worker in self.workers.iter_mut().filter(|one| one.role == role) {
            worker.order(order).await?;
        }
        Ok(())
    }
    async fn mark(&self) -> Mark {
        // Between the workers' reports, so that whole seconds are counted.
        let into = (now_ns() % 1_000_000_000) as f64 / 1e9;
        if !MARKS.contains(&into) {
            let wait = (MARKS.start + 1.0 - into) % 1.0;
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
        }
        let mut fsyncs = None;
        for address in &self.subject.metrics {
            let found = scrape(address, "highwater_wal_fsync_seconds_count").await;
            if let Some(count) = found {
                fsyncs = Some(fsyncs.unwrap_or(0.0) + count);
            }
        }
        Mark {
            second: now_ns() / 1_000_000_000,
            machine: Machine::now(&self.subject.directory),
            brokers: self
                .subject
                .brokers
                .iter()
                .map(|pid| Usage::of(*pid))
                .collect(),
            workers: self.workers.iter().map(|one| Usage::of(one.pid)).collect(),
            fsyncs,
        }
    }
    fn costs(&self, before: &Mark, after: &Mark) -> Costs {
        let since = |after: &[Usage], before: &[Usage]| -> Vec<Usage> {
            let pairs = after.iter().zip(before);
            pairs.map(|(after, before)| after.since(before)).collect()
        };
        let mut processes = Vec::new();
        let brokers = since(&after.brokers, &before.brokers);
        for (index, usage) in brokers.iter().enumerate() {
            processes.push(ProcessCost::new(format!("broker {}", index + 1), *usage));
        }
        let workers = since(&after.workers, &before.workers);
        for (worker, usage) in self.workers.iter().zip(workers) {
            let name = match worker.role {
                Role::Producer => "producers",
                Role::Tail => "consumers",
                Role::CatchUp => "catch-up readers",
            };
            processes.push(ProcessCost::new(name.to_owned(), usage));
        }
        let fsyncs = match (before.fsyncs, after.fsyncs) {
            (Some(before), Some(after)) if after >= before => Some(after - before),
            _ => None,
        };
        Costs {
            processes,
            machine: after.machine.since(&before.machine),
            fsyncs,
        }
    }
    /// Producers first; consumers when they have read what was acknowledged, or get no further.
    async fn finish(&mut self) -> anyhow::Result<()> {
        // One that never began reads the order as an order to end.
        for worker in self
            .workers
            .iter_mut()
            .filter(|one| one.role == Role::Producer)
        {
            worker.stop().await?;
        }
        let (started, mut last) = (Instant::now(), (u64::MAX, Instant::now()));
        let mut behind = self.behind();
        while behind > 0 && started.elapsed() < DRAIN_WITHIN {
            if behind != last.0 {
                last = (behind, Instant::now());
            } else if last.1.elapsed() > Duration::from_secs(5) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            behind = self.behind();
        }
        for worker in self
            .workers
            .iter_mut()
            .filter(|one| one.role != Role::Producer)
        {
            worker.stop().await?;
        }
        Ok(())
    }
}

fn minutes(minutes: f64) -> Duration {
    Duration::from_secs_f64((minutes * 60.0).max(0.0))
}
