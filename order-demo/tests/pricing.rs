//! Prices add up to what the account is charged, whatever the account takes.

use highwater_order_demo::account::Account;
use highwater_order_demo::catalogue::Sku;
use highwater_order_demo::money::Cents;
use highwater_order_demo::order::{OrderNumber, PlacedEvent, PricedEvent, RunId, Source, place};
use highwater_order_demo::pricing::price;
use proptest::prelude::*;

fn account(services: Vec<Sku>, monthly: i64) -> Account {
    Account {
        id: "0000-AAAAA".to_owned(),
        services,
        contract: "One year".to_owned(),
        payment_method: "Mailed check".to_owned(),
        monthly_charges: Cents(monthly),
        total_charges: None,
    }
}

const AT: Source = Source {
    partition: 4,
    offset: 17,
};

#[test]
fn an_adjustment_brings_list_prices_to_the_charge() {
    let account = account(vec![Sku::PhoneLine, Sku::InternetDsl], 4_230);
    let placed = place(RunId(1), OrderNumber(2), &account, 99);
    let priced = price(&placed, AT);
    let amounts: Vec<_> = priced
        .body
        .lines
        .iter()
        .map(|line| (line.sku, line.amount_cents.0))
        .collect();
    let expected = [
        (Some(Sku::PhoneLine), 2_000),
        (Some(Sku::InternetDsl), 2_500),
        (None, -270),
    ];
    assert_eq!(amounts, expected);
    assert_eq!(priced.body.total_cents, Cents(4_230));
    assert_eq!(priced.event_id, "priced-4-17");
    assert_eq!(
        priced.causation_id.as_deref(),
        Some(placed.event_id.as_str())
    );
    assert_eq!((priced.sequence, priced.intended_start_ms), (2, 99));
}

#[test]
fn a_charge_at_list_price_needs_no_adjustment() {
    let placed = place(
        RunId(1),
        OrderNumber(2),
        &account(vec![Sku::PhoneLine], 2_000),
        0,
    );
    assert_eq!(price(&placed, AT).body.lines.len(), 1);
}

#[test]
fn the_envelope_is_flat_json_with_integer_cents() {
    let placed = place(
        RunId(0xab),
        OrderNumber(7),
        &account(vec![Sku::StreamingTv], 1_005),
        123,
    );
    let json = serde_json::to_value(&placed).expect("serialisable");
    assert_eq!(json["order_id"], "00000000000000ab-000000007");
    assert_eq!(json["event_id"], "placed-00000000000000ab-000000007");
    assert_eq!(json["sequence"], 1);
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["intended_start_ms"], 123);
    assert_eq!(json["state"], "acknowledged");
    assert_eq!(json["monthly_charges_cents"], 1_005);
    assert_eq!(json["items"][0]["sku"], "STREAMING-TV");
    assert_eq!(Sku::StreamingTv.code(), "STREAMING-TV");
    let trace = json["traceparent"].as_str().expect("a text");
    let parts: Vec<usize> = trace.split('-').map(str::len).collect();
    assert_eq!(parts, [2, 32, 16, 2], "{trace}");
    let again: PlacedEvent = serde_json::from_value(json).expect("its own shape");
    assert_eq!(again, placed);
}

#[test]
fn every_code_on_the_wire_is_the_catalogues() {
    for sku in Sku::ALL {
        assert_eq!(serde_json::to_value(sku).expect("serialisable"), sku.code());
    }
}

#[test]
fn only_its_own_orders_belong_to_a_run() {
    let run = RunId(0xab);
    let id = run.order_id(OrderNumber(12));
    assert_eq!(run.number_of(&id), Some(OrderNumber(12)));
    assert_eq!(RunId(0xac).number_of(&id), None);
    for other in [
        "",
        "ab-12",
        "00000000000000ab-12",
        "00000000000000ab-+00000012",
        "x-y",
    ] {
        assert_eq!(run.number_of(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn lines_add_up_to_the_monthly_charges(
        services in proptest::sample::subsequence(Sku::ALL.to_vec(), 0..=10),
        monthly in -5_000_i64..20_000,
        number in 0_u64..1_000_000,
    ) {
        let account = account(services.clone(), monthly);
        let placed = place(RunId(3), OrderNumber(number), &account, 0);
        let priced = price(&placed, AT);
        let sum: Cents = priced.body.lines.iter().map(|line| line.amount_cents).sum();
        prop_assert_eq!(sum, Cents(monthly));
        prop_assert_eq!(priced.body.total_cents, Cents(monthly));
        let items: Vec<Sku> = priced.body.lines.iter().filter_map(|line| line.sku).collect();
        prop_assert_eq!(items, services);
        let adjustments = priced.body.lines.iter().filter(|line| line.sku.is_none()).count();
        prop_assert!(adjustments <= 1);
        prop_assert_eq!(&price(&placed, AT), &priced);
        let text = serde_json::to_vec(&priced).expect("serialisable");
        let again: PricedEvent = serde_json::from_slice(&text).expect("its own shape");
        prop_assert_eq!(again, priced);
    }
}
