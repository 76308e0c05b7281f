//! What is priced from the topic: the latest price of each item, and nothing that is not there.

use std::collections::BTreeMap;

use super::*;
use crate::domain::catalogue::{self, BuiltIn};
use crate::domain::context::{Context, LogicError, Lookup, Nowhere};
use crate::domain::message::{Command, SCHEMA_VERSION};
use crate::domain::message::{PriceLine, Reply};

struct Nothing;

impl Lookup for Nothing {
    fn get(&self, _: &str) -> Result<Option<Vec<u8>>, LogicError> {
        Ok(None)
    }
}

fn message(body: Body) -> Message {
    Message {
        event_id: "o/price".to_owned(),
        order_id: "o".to_owned(),
        sequence: 1,
        causation_id: None,
        traceparent: String::new(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: 0,
        body,
    }
}

fn priced(prices: &dyn Prices, charge: Cents) -> Result<Vec<PriceLine>, LogicError> {
    let command = message(Body::Command(Command::Price {
        items: vec![Sku::PhoneLine, Sku::StreamingTv],
        monthly_charges: charge,
        price_book: "list".to_owned(),
    }));
    let mut nowhere = Nowhere;
    let mut context = Context::new(&Nothing, &mut nowhere, false);
    catalogue::handle(&mut context, &command, prices)?;
    match context.take_sent().pop().map(|message| message.body) {
        Some(Body::Reply(Reply::Priced { lines })) => Ok(lines),
        other => panic!("no price: {other:?}"),
    }
}

fn by_item(lines: &[PriceLine]) -> BTreeMap<Option<Sku>, i64> {
    let line = |line: &PriceLine| (line.sku, line.amount.0);
    lines.iter().map(line).collect()
}

#[test]
fn orders_are_priced_from_what_the_topic_said_last() {
    let cache = PriceCache::default();
    for (offset, item) in (0..).zip(catalogue::published(Cents(0))) {
        cache.take(&item, offset);
    }
    assert_eq!(cache.items(), Sku::ALL.len() as u64);
    let charge = Cents(3_000);
    let lines = priced(&cache, charge).expect("priced");
    assert_eq!(lines, priced(&BuiltIn, charge).expect("priced"));

    let line = |cents| {
        message(Body::Item {
            sku: Sku::PhoneLine,
            list_price: Cents(cents),
        })
    };
    cache.take(&line(2_100), 20);
    // Read again from the beginning.
    cache.take(&line(2_000), 0);
    let lines = by_item(&priced(&cache, charge).expect("priced"));
    let expected = [
        (Some(Sku::PhoneLine), 2_100),
        (Some(Sku::StreamingTv), 1_000),
        (None, -100),
    ];
    assert_eq!(lines, BTreeMap::from(expected));
}

#[test]
fn an_item_that_the_topic_does_not_have_has_no_price() {
    let cache = PriceCache::default();
    for (offset, item) in (0..).zip(catalogue::published(Cents(0))) {
        if !matches!(
            item.body,
            Body::Item {
                sku: Sku::StreamingTv,
                ..
            }
        ) {
            cache.take(&item, offset);
        }
    }
    let error = priced(&cache, Cents(3_000)).expect_err("no price");
    assert!(matches!(error, LogicError::Poison(why) if why.contains("STREAMING-TV")));
}

#[tokio::test]
async fn nobody_is_served_before_the_topic_was_read() {
    let cache = PriceCache::default();
    let waits = tokio::spawn({
        let cache = cache.clone();
        async move { cache.whole().await }
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    cache.whole.send_replace(true);
    waits.await.expect("it goes on");
}
