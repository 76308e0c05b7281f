//! A run in miniature, without a broker: plan, journal, and what a consumer would read.
#![allow(dead_code)]

use highwater_order_demo::evidence::{Digest, Observed, ReplicaRead};
use highwater_order_demo::generate::generate_accounts;
use highwater_order_demo::journal::{Entry, Journal};
use highwater_order_demo::order::{OrderNumber, PlacedEvent, PricedEvent, RunId, Source};
use highwater_order_demo::plan::Plan;
use highwater_order_demo::pricing::price;
use highwater_order_demo::verify::{Evidence, Verification, verify};

pub const PARTITIONS: u64 = 3;

/// Everything the checker sees, open to sabotage.
pub struct Run {
    pub plan: Plan,
    pub journal: Vec<Entry>,
    pub intake: Vec<Observed>,
    pub events: Vec<Observed>,
    pub replicas: Vec<ReplicaRead>,
}

/// Order `n` lies in partition n modulo three, at offset n divided by three.
pub fn place_of(number: u64) -> Source {
    Source {
        partition: (number % PARTITIONS) as u32,
        offset: number / PARTITIONS,
    }
}

impl Run {
    /// A flawless run.
    pub fn flawless(count: u64) -> Self {
        let accounts = generate_accounts(1, 5);
        let plan = Plan::new(RunId(0xfeed), accounts, count).expect("there are accounts");
        let mut run = Self {
            plan,
            journal: vec![Entry::Intended {
                from: OrderNumber(0),
                to: OrderNumber(count),
            }],
            intake: Vec::new(),
            events: Vec::new(),
            replicas: Vec::new(),
        };
        for number in 0..count {
            let event = run.placed(number);
            let at = place_of(number);
            run.journal
                .push(Entry::Acknowledged(OrderNumber(number), at));
            run.intake.push(record(at, &event.order_id, &event));
            let priced = price(&event, at);
            run.events.push(record(at, &priced.order_id, &priced));
        }
        for broker in 1..=3 {
            run.replicas.push(copy(broker, 0, &run.intake));
        }
        run
    }

    pub fn placed(&self, number: u64) -> PlacedEvent {
        self.plan
            .event(OrderNumber(number), 1_000)
            .expect("within the plan")
    }

    pub fn priced(&self, place: usize) -> PricedEvent {
        serde_json::from_slice(&self.events[place].value).expect("a priced event")
    }

    pub fn set_priced(&mut self, place: usize, event: &PricedEvent) {
        self.events[place].value = serde_json::to_vec(event).expect("serialisable");
    }

    /// Puts another end of an order into the journal.
    pub fn fate(&mut self, number: u64, fate: Option<Entry>) {
        let about = |entry: &Entry| matches!(entry, Entry::Acknowledged(n, _) if n.0 == number);
        self.journal.retain(|entry| !about(entry));
        self.journal.extend(fate);
    }

    pub fn verify(&self) -> Verification {
        let text: String = self.journal.iter().map(Entry::to_line).collect();
        let journal = Journal::parse(text.as_bytes()).expect("a whole journal");
        verify(&Evidence {
            plan: &self.plan,
            journal: &journal,
            intake: &self.intake,
            events: &self.events,
            replicas: &self.replicas,
        })
    }
}

pub fn record(at: Source, key: &str, event: &impl serde::Serialize) -> Observed {
    let value = serde_json::to_vec(event).expect("serialisable");
    Observed {
        at,
        key: key.as_bytes().to_vec(),
        value,
    }
}

pub fn copy(broker: u32, partition: u32, records: &[Observed]) -> ReplicaRead {
    let mut digest = Digest::default();
    for record in records
        .iter()
        .filter(|record| record.at.partition == partition)
    {
        digest.add(record.at.offset, &record.key, &record.value);
    }
    ReplicaRead {
        broker,
        topic: "order.intake".to_owned(),
        partition,
        digest,
    }
}
