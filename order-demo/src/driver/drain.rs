//! After the load: everything that was accepted ends, what was parked is repaired and redriven,
//! every group finishes its topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use highwater_client::Client;
use highwater_client::group::{dlq_topic, redrive::Selection};
use tokio::time::{Instant, sleep};

use super::lag;
use super::supervisor::Supervisor;
use super::watch::Watch;
use crate::domain::message::Message;
use crate::domain::role::Role;
use crate::driver::progress::{Event, Listener};
use crate::services::control::Change;

const POLL: Duration = Duration::from_millis(100);

/// What a drain found.
#[derive(Debug, Default)]
pub struct Drained {
    /// Orders parked before the repair, and after the redrive.
    pub parked: (u64, u64),
    /// Ids of messages that were among the dead letters, by group.
    pub dead: BTreeMap<String, BTreeSet<String>>,
    /// Committed offsets, by group and partition.
    pub committed: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Orders that had ended before anything was repaired, and when the last of them had, in
    /// milliseconds since 1970.
    pub unaided: (u64, i64),
    /// What went wrong.
    pub problems: Vec<String>,
}

/// The parts of a run that a drain looks at.
pub struct Drain<'a> {
    /// The brokers' door.
    pub client: &'a Client,
    /// The services.
    pub supervisor: &'a Supervisor,
    /// The events.
    pub watch: &'a Watch,
    /// Who watches.
    pub listener: &'a Listener,
    /// How long the pipeline may stand still.
    pub patience: Duration,
    /// Poisoned orders.
    pub poison: u64,
}

impl Drain<'_> {
    /// Waits for `accepted` orders to end, or for all but the poisoned ones, which are then
    /// repaired and redriven; then for every group to finish.
    ///
    /// # Errors
    /// When the brokers do not answer. A pipeline that stands still is a problem in the answer.
    pub async fn run(&self, accepted: u64) -> anyhow::Result<Drained> {
        let mut drained = Drained::default();
        self.ended(accepted.saturating_sub(self.poison), &mut drained)
            .await;
        drained.unaided = {
            let seen = self.watch.seen();
            (seen.ended, seen.last_end_ms)
        };
        if self.poison > 0 {
            self.redrive(&mut drained).await?;
        }
        self.ended(accepted, &mut drained).await;
        self.finished(&mut drained).await?;
        let letters = self.letters().await?;
        drained.parked.1 = letters.values().map(|ids| ids.len() as u64).sum();
        for (group, ids) in letters {
            drained.dead.entry(group).or_default().extend(ids);
        }
        Ok(drained)
    }

    async fn ended(&self, goal: u64, drained: &mut Drained) {
        let mut last = (0, Instant::now());
        loop {
            let (ended, events) = {
                let seen = self.watch.seen();
                (seen.ended, seen.events)
            };
            if ended >= goal {
                return;
            }
            if events > last.0 {
                last = (events, Instant::now());
            }
            if last.1.elapsed() > self.patience {
                let why = format!("the pipeline stood still at {ended} of {goal} ended orders");
                drained.problems.push(why);
                return;
            }
            sleep(POLL).await;
        }
    }

    /// Waiting dead letters, as message ids by group.
    async fn letters(&self) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
        let queues = self.client.admin().all_topics(".dlq").await?;
        let admin = self.client.groups();
        let mut found = BTreeMap::new();
        for role in Role::ALL {
            // A group without a queue has no dead letters.
            let queue = dlq_topic(role.name());
            if !queues.iter().any(|topic| topic.name == queue) {
                continue;
            }
            let letters = admin.dead_letters(role.name(), false).await;
            let letters = letters.with_context(|| format!("the dead letters of {role}"))?;
            let mut ids = BTreeSet::new();
            for letter in letters {
                let value = letter.record.value.as_deref().unwrap_or_default();
                let message: Message = serde_json::from_slice(value)?;
                ids.insert(message.event_id);
            }
            found.insert(role.name().to_owned(), ids);
        }
        Ok(found)
    }

    async fn redrive(&self, drained: &mut Drained) -> anyhow::Result<()> {
        // The last of them may still be on their way to the queue: the more there are, the longer, as
        // their attempts share a budget.
        let mut letters = self.letters().await?;
        let count = |letters: &BTreeMap<String, BTreeSet<String>>| -> u64 {
            letters.values().map(|ids| ids.len() as u64).sum()
        };
        let mut last = (count(&letters), Instant::now());
        while last.0 < self.poison && last.1.elapsed() < self.patience {
            sleep(POLL).await;
            letters = self.letters().await?;
            if count(&letters) > last.0 {
                last = (count(&letters), Instant::now());
            }
        }
        drained.parked.0 = count(&letters);
        let said = format!(
            "{} poisoned orders are parked; repaired, redriving",
            drained.parked.0
        );
        (self.listener)(Event::Said(said));
        let repaired = Change {
            repaired: Some(true),
            ..Change::default()
        };
        self.supervisor
            .change(Role::Catalogue.name(), repaired)
            .await?;
        for (group, ids) in &letters {
            if !ids.is_empty() {
                let selection = Selection::default();
                let admin = self.client.groups();
                let redriven = admin.redrive(group, &selection, |_, _| {});
                let redriven = redriven
                    .await
                    .with_context(|| format!("redrive of {group}"))?;
                if redriven.failed_keys > 0 {
                    let failed = redriven.failed_keys;
                    drained
                        .problems
                        .push(format!("{failed} keys of {group} failed again"));
                }
            }
        }
        drained.dead = letters;
        Ok(())
    }

    /// Waits until every group has committed the end of its topic and every outbox is empty.
    async fn finished(&self, drained: &mut Drained) -> anyhow::Result<()> {
        let mut last = (u64::MAX, Instant::now());
        loop {
            let (mut behind, mut committed) = (0, BTreeMap::new());
            for role in Role::ALL {
                let place = lag::place(self.client, role).await?;
                behind += place.behind;
                committed.insert(role.name().to_owned(), place.committed);
            }
            for name in self.supervisor.workers() {
                let stats = self.supervisor.stats(&name).await;
                behind += stats.map_or(1, |stats| stats.waiting);
            }
            if behind < last.0 {
                last = (behind, Instant::now());
            }
            drained.committed = committed;
            if behind == 0 {
                return Ok(());
            }
            if last.1.elapsed() > self.patience {
                let why = format!("the groups stood still with {behind} messages to go");
                drained.problems.push(why);
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
}
