//! Whole orders through all services' logic at once: money, stock and states come out right.

use std::collections::BTreeMap;

use super::*;
use crate::domain::billing::Invoice;
use crate::domain::context::{EffectKind, Lookup, Outside};
use crate::domain::deviation::Deviation;
use crate::domain::inventory::{self, Stock};
use crate::domain::message::SCHEMA_VERSION;
use crate::domain::payment::{self, Paid};
use crate::domain::request::OrderRequest;
use crate::domain::state::OrderState;
use crate::generate::generate_accounts;
use crate::money::Cents;

#[derive(Default)]
struct Table(BTreeMap<String, Vec<u8>>);

impl Lookup for Table {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogicError> {
        Ok(self.0.get(key).cloned())
    }
}

impl Table {
    fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        Some(serde_json::from_slice(self.0.get(key)?).expect("reads"))
    }

    fn scan<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> Vec<T> {
        let rows = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        rows.map(|(_, value)| serde_json::from_slice(value).expect("reads"))
            .collect()
    }
}

#[derive(Default)]
struct Effects(BTreeMap<EffectKind, u32>);

impl Outside for Effects {
    fn effect(&mut self, kind: EffectKind, _: &str, _: Cents) {
        *self.0.entry(kind).or_default() += 1;
    }
}

fn run(deviation: Deviation) -> (Table, Effects, OrderRequest) {
    let account = generate_accounts(11, 1).remove(0);
    let mut request = OrderRequest::of(&account, Channel::Web);
    deviation.apply(&mut request);
    let message = Message {
        event_id: "o/placed".to_owned(),
        order_id: "o".to_owned(),
        sequence: 0,
        causation_id: None,
        traceparent: String::new(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: 0,
        body: Body::Placed(request.clone()),
    };
    let (mut table, mut effects) = (Table::default(), Effects::default());
    let mut context = Context::new(&table, &mut effects, false);
    let outcome = whole(&mut context, &message).map(|()| context.finish());
    if let Ok(outcome) = outcome {
        for (key, value) in outcome.writes {
            table.0.insert(key, value.expect("nothing is deleted"));
        }
    }
    (table, effects, request)
}

#[test]
fn every_kind_of_order_ends_as_it_should_and_leaves_nothing_over() {
    for deviation in [
        Deviation::Plain,
        Deviation::Invalid,
        Deviation::Ineligible,
        Deviation::OutOfStock,
        Deviation::Declined,
        Deviation::CaptureDeclined,
        Deviation::NoLine,
    ] {
        let (table, effects, request) = run(deviation);
        let status: OrderStatus = table.read("status/o").expect("a status");
        assert!(
            deviation.ends().contains(&status.state),
            "{deviation:?}: {status:?}"
        );
        let complete = status.state == OrderState::Completed;
        let count = |kind| effects.0.get(&kind).copied().unwrap_or(0);
        assert_eq!(
            count(EffectKind::Capture),
            u32::from(complete),
            "{deviation:?}"
        );
        assert_eq!(
            count(EffectKind::Activate) - count(EffectKind::Deactivate),
            u32::from(complete)
        );
        let paid: Vec<Paid> = table.scan(payment::PREFIX);
        for paid in &paid {
            assert_eq!(
                paid.authorised,
                paid.captured + paid.voided,
                "{deviation:?}"
            );
        }
        let stocks: Vec<Stock> = table.scan(inventory::PREFIX);
        assert!(
            stocks
                .iter()
                .all(|stock| stock.adds_up() && stock.reserved == 0),
            "{stocks:?}"
        );
        let consumed: i64 = stocks.iter().map(|stock| stock.consumed).sum();
        let invoices: Vec<Invoice> = table.scan(crate::domain::billing::PREFIX);
        if complete {
            assert_eq!(consumed, request.items.len() as i64);
            assert_eq!(invoices[0].total, request.monthly_charges);
            assert_eq!(paid[0].captured, request.monthly_charges);
        } else {
            assert_eq!((consumed, invoices.len()), (0, 0));
        }
        let ledger = [payment::CUSTOMERS, payment::CASH].map(|side| table.read::<i64>(side));
        assert_eq!(ledger.into_iter().flatten().sum::<i64>(), 0);
    }
}

#[test]
fn poison_leaves_nothing_at_all() {
    let (table, effects, _) = run(Deviation::Poison);
    assert!(table.0.is_empty() && effects.0.is_empty());
}
