//! The checker on flawless evidence, and on evidence with one flaw each: it must find every one.

use std::collections::VecDeque;

use super::*;
use crate::domain::context::{Context, EffectKind, LogicError, Lookup, Outside};
use crate::domain::deviation::Deviation;
use crate::domain::message::{Body, SCHEMA_VERSION};
use crate::domain::role::Role;
use crate::domain::topics;
use crate::domain::{billing, inventory, payment, provisioning, status};
use crate::evidence::{Digest, Observed, Source};
use crate::generate::generate_accounts;
use crate::journal::Entry;
use crate::money::Cents;
use crate::order::{OrderNumber, RunId};

#[derive(Default)]
struct World {
    table: BTreeMap<String, Vec<u8>>,
    effects: Vec<Effect>,
}

impl Lookup for BTreeMap<String, Vec<u8>> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogicError> {
        Ok(BTreeMap::get(self, key).cloned())
    }
}

impl Outside for Vec<Effect> {
    fn effect(&mut self, kind: EffectKind, order_id: &str, amount: Cents) {
        self.push(Effect {
            kind,
            order_id: order_id.to_owned(),
            amount,
            suppressed: false,
        });
    }
}

impl World {
    fn scan<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> BTreeMap<String, T> {
        let rows = self.table.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(prefix)?;
            Some((
                key.to_owned(),
                serde_json::from_slice(value).expect("reads"),
            ))
        });
        rows.collect()
    }
}

fn record(offset: u64) -> Observed {
    Observed {
        at: Source {
            partition: 0,
            offset,
        },
        key: b"key".to_vec(),
        value: b"value".to_vec(),
        timestamp_ms: 1,
        headers: vec![("traceparent".to_owned(), Some(b"00".to_vec()))],
    }
}

/// One broker's copy of a partition.
fn replica(broker: u32) -> ReplicaRead {
    let mut digest = Digest::default();
    digest.add(&record(0));
    ReplicaRead {
        broker,
        topic: "order.events".to_owned(),
        partition: 0,
        digest,
    }
}

/// What a run of 300 orders leaves behind when everything goes well.
fn flawless() -> Evidence {
    let plan = Plan::new(RunId(9), 3, generate_accounts(4, 40), 300).expect("accounts");
    let mut world = World::default();
    let (mut intake, mut events) = (Vec::new(), Vec::new());
    let (mut audit, mut commands) = (Vec::new(), Vec::new());
    let mut journal = vec![Entry::Intended {
        from: OrderNumber(0),
        to: OrderNumber(300),
    }];
    for number in (0..300).map(OrderNumber) {
        journal.push(Entry::Accepted(number));
        let id = plan.run().order_id(number);
        let placed = Message {
            event_id: format!("{id}/placed"),
            order_id: id,
            sequence: 0,
            causation_id: None,
            traceparent: String::new(),
            schema_version: SCHEMA_VERSION,
            intended_start_ms: 0,
            body: Body::Placed(plan.request(number).expect("planned")),
        };
        let mut queue = VecDeque::from([placed]);
        while let Some(message) = queue.pop_front() {
            for role in Role::ALL
                .into_iter()
                .filter(|role| role.topic() == message.topic())
            {
                let mut context = Context::new(&world.table, &mut world.effects, false);
                role.handle(&mut context, &message).expect("handled");
                let outcome = context.finish();
                for (key, value) in outcome.writes {
                    world.table.insert(key, value.expect("nothing is deleted"));
                }
                queue.extend(outcome.sent);
            }
            match message.body {
                Body::Placed(_) => intake.push(message),
                Body::Event(_) => events.push(message),
                Body::Audit(_) => audit.push(message),
                _ if message.topic() == topics::INVENTORY => commands.push(message),
                _ => {}
            }
        }
    }
    let lines: String = journal.iter().map(Entry::to_line).collect();
    let ledger: BTreeMap<String, i64> = world.scan("ledger/");
    Evidence {
        journal: Journal::parse(lines.as_bytes()).expect("a journal"),
        intake: Some(intake),
        events,
        effects: world.effects.clone(),
        replicas: [1, 2, 3].map(replica).to_vec(),
        groups: vec![GroupEvidence {
            group: "payment".to_owned(),
            finished: 10,
            ..GroupEvidence::default()
        }],
        paid: world.scan(payment::PREFIX),
        ledger: ledger.into_values().collect(),
        lines: world.scan(provisioning::PREFIX),
        stock: world.scan(inventory::PREFIX),
        stock_commands: Some(commands),
        invoices: world.scan(billing::PREFIX),
        statuses: world.scan(status::PREFIX),
        audit: Some(audit),
        parked: (0, 0),
        plan,
    }
}

/// The id of an order that was fulfilled.
fn fulfilled(evidence: &Evidence) -> String {
    let run = evidence.plan.run();
    let mut numbers = (0..300).map(OrderNumber);
    let plain = numbers.find(|number| evidence.plan.deviation(*number) == Deviation::Plain);
    run.order_id(plain.expect("most are plain"))
}

/// Judges evidence with one flaw.
fn flawed(flaw: impl FnOnce(&mut Evidence, &str)) -> Verdict {
    let mut evidence = flawless();
    let id = fulfilled(&evidence);
    flaw(&mut evidence, &id);
    judge(&evidence)
}

#[track_caller]
fn found(verdict: &Verdict, kinds: &[Violation]) {
    let there: Vec<Violation> = verdict.violations.keys().copied().collect();
    assert_eq!(there, kinds, "{verdict}");
    assert!(!verdict.passed);
}

#[test]
fn a_flawless_run_passes() {
    let verdict = judge(&flawless());
    assert!(verdict.passed, "{verdict}");
    assert_eq!(verdict.acknowledged, 300);
    assert_eq!(verdict.expected_total_cents, verdict.priced_total_cents);
    assert_eq!(verdict.invariants.len(), 8);
    assert_eq!(verdict.ends.values().sum::<u64>(), 300);
    assert!(verdict.ends.contains_key("failed") && verdict.ends.contains_key("rejected"));
}

#[test]
fn nothing_looked_at_is_nothing_shown() {
    let verdict = flawed(|evidence, _| evidence.replicas.clear());
    assert!(
        !verdict.passed && verdict.violations.is_empty(),
        "{verdict}"
    );
}

#[test]
fn what_is_wrong_with_the_intake_is_found() {
    let lost = flawed(|evidence, id| {
        let intake = evidence.intake.as_mut().expect("there is one");
        intake.retain(|message| message.order_id != id);
    });
    found(&lost, &[Violation::Lost, Violation::Phantom]);
    let twice = flawed(|evidence, id| {
        let intake = evidence.intake.as_mut().expect("there is one");
        let again = intake
            .iter()
            .find(|message| message.order_id == id)
            .cloned();
        intake.extend(again);
    });
    found(&twice, &[Violation::Duplicated]);
    let altered = flawed(|evidence, id| {
        let intake = evidence.intake.as_mut().expect("there is one");
        let message = intake.iter_mut().find(|message| message.order_id == id);
        if let Some(Body::Placed(request)) = message.map(|message| &mut message.body) {
            request.site.push('!');
        }
    });
    found(&altered, &[Violation::Altered]);
    let refused = flawed(|evidence, _| {
        let refused = Entry::Intended {
            from: OrderNumber(0),
            to: OrderNumber(300),
        };
        let lines = refused.to_line() + &Entry::Refused(OrderNumber(7)).to_line();
        evidence.journal = Journal::parse(lines.as_bytes()).expect("a journal");
    });
    found(&refused, &[Violation::RefusedButPresent]);
    // Without an entry nobody knows: neither lost nor kept.
    assert_eq!((refused.unknown, refused.unknown_present), (299, 299));
}

#[test]
fn an_effect_too_many_or_too_few_is_found() {
    let twice = flawed(|evidence, id| {
        let capture = |e: &&Effect| e.order_id == id && e.kind == EffectKind::Capture;
        let again = evidence.effects.iter().find(capture).cloned();
        evidence.effects.extend(again);
    });
    found(&twice, &[Violation::EffectTwice, Violation::EffectWrong]);
    let never = flawed(|evidence, id| {
        evidence
            .effects
            .retain(|e| e.order_id != id || e.kind != EffectKind::Activate);
    });
    found(&never, &[Violation::EffectWrong]);
    let suppressed = flawed(|evidence, id| {
        let capture = |e: &&Effect| e.order_id == id && e.kind == EffectKind::Capture;
        let again = evidence.effects.iter().find(capture).cloned();
        evidence.effects.extend(again.map(|effect| Effect {
            suppressed: true,
            ..effect
        }));
    });
    assert!(
        suppressed.passed && suppressed.suppressed == 1,
        "{suppressed}"
    );
}

#[test]
fn a_gap_a_repetition_and_a_wrong_turn_are_found() {
    let gap = flawed(|evidence, id| {
        evidence
            .events
            .retain(|event| event.order_id != id || event.sequence != 4);
    });
    assert!(gap.count(Violation::OutOfOrder) == 1 && gap.count(Violation::IllegalState) == 1);
    let again = flawed(|evidence, id| {
        let event = evidence
            .events
            .iter()
            .find(|e| e.order_id == id && e.sequence == 2);
        let event = event.cloned();
        evidence.events.extend(event);
    });
    assert_eq!(again.count(Violation::Duplicated), 1, "{again}");
    let skipped = flawed(|evidence, _| {
        evidence.groups[0].skipped.push("o/capture".to_owned());
        evidence.groups[0]
            .behind
            .push("partition 3: 1 of 2 committed".to_owned());
    });
    found(&skipped, &[Violation::Skipped, Violation::Unfinished]);
}

#[test]
fn an_order_that_did_not_end_or_was_not_unparked_is_found() {
    let open = flawed(|evidence, id| {
        evidence
            .events
            .retain(|event| event.order_id != id || event.sequence < 8);
    });
    assert_eq!(open.count(Violation::EndCount), 1, "{open}");
    let parked = flawed(|evidence, _| evidence.parked = (2, 1));
    found(&parked, &[Violation::Parked]);
}

#[test]
fn money_that_does_not_add_up_is_found() {
    let price = flawed(|evidence, id| {
        evidence.invoices.get_mut(id).expect("invoiced").total.0 += 1;
    });
    found(&price, &[Violation::PriceMismatch]);
    let ledger = flawed(|evidence, _| evidence.ledger.push(5));
    found(&ledger, &[Violation::Money]);
    let held = flawed(|evidence, id| {
        evidence.paid.get_mut(id).expect("paid").authorised.0 += 100;
    });
    found(&held, &[Violation::Money, Violation::ReplayDiffers]);
    let line = flawed(|evidence, id| {
        evidence.lines.insert(id.to_owned(), 0);
    });
    found(&line, &[Violation::Money]);
}

#[test]
fn stock_replicas_chains_and_views_that_are_wrong_are_found() {
    // What an inventory without its inbox does when a reservation comes again.
    let stock = flawed(|evidence, _| {
        let stock = evidence.stock.values_mut().next().expect("stock");
        stock.reserve(1);
    });
    found(&stock, &[Violation::Stock, Violation::ReplayDiffers]);
    // It adds up, nothing is reserved, and it is not what the commands lead to.
    let replenished = flawed(|evidence, _| {
        let stock = evidence.stock.values_mut().next().expect("stock");
        stock.replenished += 1;
        stock.available += 1;
    });
    found(&replenished, &[Violation::ReplayDiffers]);
    let again = flawed(|evidence, _| {
        let commands = evidence.stock_commands.as_mut().expect("there are");
        let all = commands.clone();
        commands.extend(all);
    });
    assert!(
        again.passed,
        "a command that is there twice counts once: {again}"
    );
    let replicas = flawed(|evidence, _| evidence.replicas[1].digest.add(&record(1)));
    found(&replicas, &[Violation::ReplicasDiffer]);
    for alter in [
        |record: &mut Observed| record.timestamp_ms += 1,
        |record: &mut Observed| record.headers[0].1 = Some(Vec::new()),
        |record: &mut Observed| record.headers.clear(),
    ] {
        let other = flawed(|evidence, _| {
            let (mut altered, mut digest) = (record(0), Digest::default());
            alter(&mut altered);
            digest.add(&altered);
            evidence.replicas[1].digest = digest;
        });
        found(&other, &[Violation::ReplicasDiffer]);
    }
    let audit = flawed(|evidence, id| {
        let event = evidence
            .events
            .iter_mut()
            .find(|e| e.order_id == id && e.sequence == 3);
        if let Some(Body::Event(event)) = event.map(|message| &mut message.body) {
            event.reason = Some("nobody will notice".to_owned());
        }
    });
    found(&audit, &[Violation::AuditBroken]);
    let view = flawed(|evidence, id| {
        evidence.statuses.get_mut(id).expect("a status").sequence -= 1;
    });
    found(&view, &[Violation::ReplayDiffers]);
}
