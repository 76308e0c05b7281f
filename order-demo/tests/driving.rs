//! Whole runs over a broker in memory, on a clock that does not wait.

#[path = "support/memory_bus.rs"]
mod memory_bus;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_order_demo::driver::{Driver, EVENTS_TOPIC, INTAKE_TOPIC, RunConfig};
use highwater_order_demo::generate::generate_accounts;
use highwater_order_demo::order::RunId;
use highwater_order_demo::plan::Plan;
use highwater_order_demo::progress::Event;
use highwater_order_demo::report::{Report, Setting};
use memory_bus::{FAILOVER, Flaw, MemoryBus, MemoryControl};
use tokio::time::Instant;

const ORDERS: u64 = 900;

async fn drive(bus: &MemoryBus, kill: bool) -> (Report, Vec<Event>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = RunConfig {
        plan: Plan::new(RunId(7), generate_accounts(3, 50), ORDERS).expect("accounts"),
        rate: None,
        kill,
        journal: directory.path().join("journal"),
        now_unix_ms: 1_700_000_000_000,
        patience: Duration::from_secs(10),
        setting: Setting::default(),
    };
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let driver = Driver {
        bus: bus.clone(),
        control: Arc::new(MemoryControl(bus.clone())),
        config,
        listener: Arc::new(move |event| told.lock().expect("sound").push(event)),
        brokers: vec![1, 2, 3],
        began: Instant::now(),
    };
    let report = driver.run().await.expect("carried out");
    let events = std::mem::take(&mut *events.lock().expect("sound"));
    (report, events)
}

#[tokio::test(start_paused = true)]
async fn a_run_with_a_kill_in_the_middle_passes() {
    let bus = MemoryBus::new(&[]);
    let (report, events) = drive(&bus, true).await;
    assert!(report.passed, "{report}");
    assert_eq!((report.acknowledged, report.priced), (ORDERS, ORDERS));
    assert_eq!(report.expected_total_cents, report.priced_total_cents);
    assert_eq!(report.replica_copies, 3 * 6 * 2);
    assert!(report.duration_s >= 15.0, "{report}");

    let failover = report.failover.clone().expect("a broker was killed");
    let least = FAILOVER.as_secs_f64() * 1_000.0;
    let measured = failover.failover_ms.expect("recovered");
    assert!((least..least + 100.0).contains(&measured), "{measured}");
    assert!(failover.acknowledged_before >= ORDERS / 3);
    assert_eq!(
        bus.killed_and_restarted(),
        (vec![failover.broker], vec![failover.broker])
    );
    // The wait was measured from the intended send.
    assert!(report.ack_ms.max >= least - 100.0, "{report}");
    assert!(report.ack_ms.p50 < 20.0, "{report}");

    let at = |wanted: fn(&Event) -> bool| events.iter().position(wanted).expect("told");
    let order = [
        at(|event| matches!(event, Event::Sending { orders: ORDERS, .. })),
        at(|event| matches!(event, Event::Killed { .. })),
        at(|event| matches!(event, Event::Recovered { .. })),
        at(|event| matches!(event, Event::Restarted { .. })),
        at(|event| matches!(event, Event::CaughtUp { .. })),
        at(|event| matches!(event, Event::Draining)),
        at(|event| matches!(event, Event::Reading { broker: Some(3) })),
        at(|event| matches!(event, Event::Verifying)),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert!(report.samples.len() >= 15);
}

#[tokio::test(start_paused = true)]
async fn a_lost_order_fails_the_run() {
    let (report, _) = drive(&MemoryBus::new(&[(INTAKE_TOPIC, 100, Flaw::Lose)]), false).await;
    assert!(!report.passed);
    assert_eq!(
        (report.lost, report.duplicated, report.out_of_order),
        (1, 0, 0),
        "{report}"
    );
    assert_eq!(report.failover_ms, None);
}

#[tokio::test(start_paused = true)]
async fn a_duplicated_order_fails_the_run() {
    let (report, _) = drive(
        &MemoryBus::new(&[(INTAKE_TOPIC, 100, Flaw::Duplicate)]),
        false,
    )
    .await;
    // Its second copy is priced as well.
    assert_eq!(
        (report.passed, report.lost, report.duplicated),
        (false, 0, 2),
        "{report}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rotten_copy_fails_the_run() {
    let bus = MemoryBus::new(&[]);
    bus.rot(2);
    let (report, _) = drive(&bus, false).await;
    assert!(!report.passed && !report.replicas_equal, "{report}");
}

#[tokio::test(start_paused = true)]
async fn unknown_and_refused_orders_are_counted_and_neither_lost_nor_duplicated() {
    let bus = MemoryBus::new(&[
        (INTAKE_TOPIC, 10, Flaw::StoreUnknown),
        (INTAKE_TOPIC, 20, Flaw::DropUnknown),
        (INTAKE_TOPIC, 30, Flaw::Refuse),
    ]);
    let (report, _) = drive(&bus, false).await;
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(
        (report.acknowledged, report.unknown, report.refused),
        (ORDERS - 3, 2, 1)
    );
    assert_eq!(report.priced, ORDERS - 2);
    assert_eq!(report.expected_total_cents, report.priced_total_cents);
}

#[tokio::test(start_paused = true)]
async fn pricing_goes_on_after_a_lost_outcome_and_prices_nothing_twice() {
    let bus = MemoryBus::new(&[
        (EVENTS_TOPIC, 200, Flaw::StoreUnknown),
        (EVENTS_TOPIC, 600, Flaw::StoreUnknown),
    ]);
    let (report, _) = drive(&bus, false).await;
    assert!(report.passed, "{report}");
    assert_eq!((report.priced, report.duplicated), (ORDERS, 0), "{report}");
}
