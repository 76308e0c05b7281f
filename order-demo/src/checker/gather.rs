//! Collects what the checker judges: the plan and the journals from the run's directory, the
//! topics from the brokers, the services' state from their stores. The services must have stopped:
//! a store is open in one process at a time.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Evidence, GroupEvidence};
use crate::bus::ClientBus;
use crate::domain::message::{Body, Message};
use crate::domain::role::Role;
use crate::domain::topics;
use crate::domain::{billing, inventory, payment, provisioning, status};
use crate::evidence::Observed;
use crate::journal::Journal;
use crate::plan::Plan;
use crate::readback::{read_copies, read_to_end};
use crate::services::config::Mode;
use crate::services::monolith::EVENTS;
use crate::services::outside::{self, Effect};
use crate::services::run::GATEWAY;
use crate::store::Database;

/// How long reading may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the driver knows and the checker cannot find out afterwards. In the run's directory, as
/// `facts.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How the services were put together.
    pub mode: Mode,
    /// The brokers: number and address.
    pub brokers: Vec<(u32, String)>,
    /// Orders parked before the repair, and after it.
    pub parked: (u64, u64),
    /// Ids of messages among the dead letters, by group.
    pub dead: BTreeMap<String, BTreeSet<String>>,
    /// Committed offsets, by group and partition, after the drain.
    pub committed: BTreeMap<String, BTreeMap<u32, u64>>,
}

/// The evidence, and how many messages all topics hold.
///
/// # Errors
/// When something cannot be read. That is no verdict.
pub fn gather(directory: &Path) -> BoxFuture<'_, anyhow::Result<(Evidence, u64)>> {
    async move {
        let facts: Facts = json(&directory.join("facts.json"))?;
        let plan: Plan = json(&directory.join("plan.json"))?;
        let journal = std::fs::read(directory.join("journal")).context("the journal")?;
        let mut evidence = Evidence {
            plan,
            journal: Journal::parse(&journal)?,
            intake: None,
            events: Vec::new(),
            effects: effects(directory, facts.mode)?,
            replicas: Vec::new(),
            groups: Vec::new(),
            paid: BTreeMap::new(),
            ledger: Vec::new(),
            lines: BTreeMap::new(),
            stock: BTreeMap::new(),
            stock_commands: None,
            invoices: BTreeMap::new(),
            statuses: BTreeMap::new(),
            audit: None,
            parked: facts.parked,
        };
        let stores = Stores {
            directory: directory.to_owned(),
            single: facts.mode.is_single(),
        };
        stores.read(&mut evidence)?;
        let messages = match facts.mode {
            Mode::Event => topics(&facts, &stores, &mut evidence).await?,
            Mode::Monolith => {
                let rows = stores.open(Role::Processor)?.scan(EVENTS)?;
                for (_, json) in rows {
                    evidence.events.push(serde_json::from_slice(&json)?);
                }
                evidence.events.len() as u64
            }
            Mode::MonolithReplicated => replicated(&facts, &mut evidence).await?,
            Mode::RestNaive | Mode::RestHardened => {
                let rows = stores.open(Role::Processor)?.scan("answer/")?;
                for (_, json) in rows {
                    let sent: Vec<Message> = serde_json::from_slice(&json)?;
                    let events = sent
                        .into_iter()
                        .filter(|m| matches!(m.body, Body::Event(_)));
                    evidence.events.extend(events);
                }
                evidence
                    .events
                    .sort_by_key(|m| (m.order_id.clone(), m.sequence));
                evidence.events.len() as u64
            }
        };
        Ok((evidence, messages))
    }
    .boxed()
}

fn json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let shown = path.display();
    let text = std::fs::read(path).with_context(|| format!("{shown} cannot be read"))?;
    serde_json::from_slice(&text).with_context(|| format!("{shown} does not read"))
}

fn effects(directory: &Path, mode: Mode) -> anyhow::Result<Vec<Effect>> {
    let names = match mode {
        mode if mode.is_single() => vec![GATEWAY],
        _ => vec![Role::Payment.name(), Role::Provisioning.name()],
    };
    let mut all = Vec::new();
    for name in names {
        let path = directory.join(format!("{name}.effects"));
        let shown = path.display();
        let text = std::fs::read_to_string(&path).with_context(|| format!("{shown}"))?;
        let (effects, _) = outside::parse(&text)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{shown}"))?;
        all.extend(effects);
    }
    Ok(all)
}

/// The services' stores.
struct Stores {
    directory: PathBuf,
    /// One store has everything.
    single: bool,
}

impl Stores {
    fn open(&self, role: Role) -> anyhow::Result<Database> {
        self.named(if self.single { GATEWAY } else { role.name() })
    }

    fn named(&self, name: &str) -> anyhow::Result<Database> {
        let path = self.path(name);
        Database::open(&path).with_context(|| format!("{}", path.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.store"))
    }

    /// The inboxes of all workers that a service had.
    fn inboxes(&self, role: Role) -> anyhow::Result<Vec<Database>> {
        let mut inboxes = vec![self.open(role)?];
        let further = (2..).map(|number| role.worker(number));
        for name in further.take_while(|name| self.path(name).exists()) {
            inboxes.push(self.named(&name)?);
        }
        Ok(inboxes)
    }

    fn read(&self, evidence: &mut Evidence) -> anyhow::Result<()> {
        evidence.paid = self.scan(Role::Payment, payment::PREFIX)?;
        evidence.lines = self.scan(Role::Provisioning, provisioning::PREFIX)?;
        evidence.stock = self.scan(Role::Inventory, inventory::PREFIX)?;
        evidence.invoices = self.scan(Role::Billing, billing::PREFIX)?;
        evidence.statuses = self.scan(Role::Status, status::PREFIX)?;
        let ledger = self.open(Role::Payment)?;
        for side in [payment::CUSTOMERS, payment::CASH] {
            if let Some(json) = ledger.value(side)? {
                evidence.ledger.push(serde_json::from_slice(&json)?);
            }
        }
        Ok(())
    }

    fn scan<T: DeserializeOwned>(
        &self,
        role: Role,
        prefix: &str,
    ) -> anyhow::Result<BTreeMap<String, T>> {
        let rows = self.open(role)?.scan(prefix)?;
        let row = |(key, json): (String, Vec<u8>)| {
            let key = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
            Ok((key, serde_json::from_slice(&json)?))
        };
        rows.into_iter().map(row).collect()
    }
}

/// Reads every topic: the leaders' records, and every broker's own copies.
async fn topics(facts: &Facts, stores: &Stores, evidence: &mut Evidence) -> anyhow::Result<u64> {
    let addresses: Vec<String> = facts.brokers.iter().map(|(_, a)| a.clone()).collect();
    let bus = ClientBus::connect(&addresses).await?;
    let (mut intake, mut audit, mut stock, mut messages) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (topic, _) in topics::ALL {
        let ends = bus.ends(topic).await?;
        messages += ends.values().sum::<u64>();
        let mut readers = Vec::new();
        for role in Role::ALL.into_iter().filter(|role| role.topic() == topic) {
            readers.push(Reader::new(role, facts, stores, &ends)?);
        }
        let mut failure = None;
        let mut take = |record: Observed| -> anyhow::Result<()> {
            let message: Message = serde_json::from_slice(&record.value)
                .with_context(|| format!("{topic}/{}/{}", record.at.partition, record.at.offset))?;
            for reader in &mut readers {
                reader.take(&record, &message)?;
            }
            match topic {
                topics::INTAKE_WEB | topics::INTAKE_AGENT => intake.push(message),
                topics::EVENTS => evidence.events.push(message),
                topics::AUDIT => audit.push(message),
                topics::INVENTORY => stock.push(message),
                _ => {}
            }
            Ok(())
        };
        read_to_end(&bus, topic, &ends, None, PATIENCE, |record| {
            if let Err(error) = take(record) {
                failure.get_or_insert(error);
            }
        })
        .await?;
        if let Some(error) = failure {
            return Err(error);
        }
        evidence
            .groups
            .extend(readers.into_iter().map(|reader| reader.found));
        for (broker, _) in &facts.brokers {
            let copies = read_copies(&bus, topic, &ends, *broker, PATIENCE).await?;
            evidence.replicas.extend(copies);
        }
    }
    evidence.intake = Some(intake);
    evidence.audit = Some(audit);
    evidence.stock_commands = Some(stock);
    Ok(messages)
}

/// Reads the log of a replicated monolith. What it holds is judged, and not what the monolith's own
/// store holds: an order that only the store knows was not replicated.
async fn replicated(facts: &Facts, evidence: &mut Evidence) -> anyhow::Result<u64> {
    let addresses: Vec<String> = facts.brokers.iter().map(|(_, a)| a.clone()).collect();
    let bus = ClientBus::connect(&addresses).await?;
    let (topic, _) = topics::MONOLITH;
    let ends = bus.ends(topic).await?;
    let mut placed = BTreeMap::new();
    let mut events: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    let mut failure = None;
    read_to_end(&bus, topic, &ends, None, PATIENCE, |record| {
        match serde_json::from_slice::<Vec<Message>>(&record.value) {
            Ok(mut messages) if !messages.is_empty() => {
                let first = messages.remove(0);
                let known = events.entry(first.order_id.clone()).or_default();
                // A record repeats what earlier ones of its order hold.
                if messages.len() >= known.len() {
                    *known = messages;
                }
                if matches!(first.body, Body::Placed(_)) {
                    placed.insert(first.order_id.clone(), first);
                }
            }
            Ok(_) => {}
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    })
    .await?;
    if let Some(error) = failure {
        return Err(error).context("the monolith's log");
    }
    for (broker, _) in &facts.brokers {
        let copies = read_copies(&bus, topic, &ends, *broker, PATIENCE).await?;
        evidence.replicas.extend(copies);
    }
    evidence.events = events.into_values().flatten().collect();
    evidence.intake = Some(placed.into_values().collect());
    Ok(ends.values().sum())
}

/// One group's inboxes beside its topic.
struct Reader {
    /// Of each of its workers.
    inboxes: Vec<Database>,
    committed: BTreeMap<u32, u64>,
    dead: BTreeSet<String>,
    found: GroupEvidence,
}

impl Reader {
    fn new(
        role: Role,
        facts: &Facts,
        stores: &Stores,
        ends: &BTreeMap<u32, u64>,
    ) -> anyhow::Result<Self> {
        let committed = facts
            .committed
            .get(role.name())
            .cloned()
            .unwrap_or_default();
        let mut found = GroupEvidence {
            group: role.name().to_owned(),
            ..GroupEvidence::default()
        };
        for (partition, end) in ends {
            let at = committed.get(partition).copied().unwrap_or(0);
            if at != *end {
                found
                    .behind
                    .push(format!("partition {partition}: {at} of {end} committed"));
            }
        }
        Ok(Self {
            inboxes: stores.inboxes(role)?,
            committed,
            dead: facts.dead.get(role.name()).cloned().unwrap_or_default(),
            found,
        })
    }

    fn take(&mut self, record: &Observed, message: &Message) -> anyhow::Result<()> {
        let committed = self
            .committed
            .get(&record.at.partition)
            .copied()
            .unwrap_or(0);
        if record.at.offset >= committed {
            return Ok(());
        }
        self.found.finished += 1;
        let id = &message.event_id;
        for inbox in &self.inboxes {
            if inbox.has_handled(id)? {
                return Ok(());
            }
        }
        if !self.dead.contains(id) {
            self.found.skipped.push(id.clone());
        }
        Ok(())
    }
}
