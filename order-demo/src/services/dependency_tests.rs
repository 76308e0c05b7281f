//! Retries of a service share one budget, so that its layers do not multiply calls of a provider.

use futures_util::future::join_all;
use highwater_client::resilience::{BudgetCounts, BudgetSettings};
use proptest::prelude::*;

use super::*;
use crate::services::control::Change;

/// What a consumer group gives each message.
const ATTEMPTS: u32 = 3;

/// So many messages at once, through the retries of a group's handlers and those of the calls that
/// they make, to a provider that fails so many of 100 calls: what the budget was asked, how many
/// calls the provider got, and how many messages were handled.
fn storm(
    settings: BudgetSettings,
    messages: u64,
    errors: u64,
) -> (BudgetCounts, CallCounts, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let control = Arc::new(Control::default());
        control.apply(Change {
            error_percent: Some(errors),
            ..Change::default()
        });
        let budget = Arc::new(RetryBudget::new(settings));
        let parts = (control, Arc::clone(&budget));
        let outside = Dependency::new(parts, Duration::from_millis(1));
        let handled = |message: u64| {
            let (budget, outside) = (&budget, &outside);
            async move {
                let random = crate::order::mix(message);
                budget.deposit();
                for attempt in 1..=ATTEMPTS {
                    if outside.call(random).await.is_ok() {
                        return true;
                    }
                    if attempt < ATTEMPTS {
                        budget.granted(random).await;
                    }
                }
                false
            }
        };
        let limited = |message| timeout_at(Instant::now() + 4 * PATIENCE, handled(message));
        let ended = join_all((0..messages).map(limited)).await;
        let handled = ended.iter().filter(|ended| matches!(ended, Ok(true)));
        (budget.counts(), outside.counts(), handled.count())
    })
}

/// No more retries than one in five calls, however long it takes.
const STRICT: BudgetSettings = BudgetSettings {
    window: Duration::from_secs(3_600),
    percent: 20,
    free_per_second: 0,
};

/// As good as none.
const NO_BUDGET: BudgetSettings = BudgetSettings {
    window: Duration::from_secs(3_600),
    percent: 0,
    free_per_second: 1_000_000,
};

#[test]
fn a_provider_that_fails_often_is_not_asked_much_more_often() {
    // Below what opens the circuit: only the budget stands between the layers and the provider.
    let (asked, made, handled) = storm(NO_BUDGET, 1_000, 40);
    assert_eq!((asked.refused, made.opened, handled), (0, 0, 1_000));
    assert!(made.calls > 1_600, "{made:?}");

    let (asked, made, handled) = storm(STRICT, 1_000, 40);
    assert!(made.calls <= 1_000 + asked.calls / 5, "{asked:?}, {made:?}");
    assert!(
        asked.refused > 0 && made.calls < 1_600,
        "{asked:?}, {made:?}"
    );
    assert!(handled >= 600, "{handled} of those that did not fail");
}

#[test]
fn a_short_trouble_is_over_when_the_budget_has_some_retries_for_everybody() {
    let (asked, _, handled) = storm(BudgetSettings::default(), 200, 30);
    assert_eq!(handled, 200, "{asked:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    /// Whatever fails, all layers together retry no more than their share.
    #[test]
    fn all_layers_together_stay_within_the_share(messages in 1_u64..300, errors in 0_u64..=100) {
        let (asked, made, _) = storm(STRICT, messages, errors);
        prop_assert!(asked.retries * 5 <= asked.calls, "{asked:?}");
        // A message is a call of its own beside those that it makes.
        prop_assert!(made.calls + messages <= asked.calls + asked.retries, "{asked:?}, {made:?}");
    }
}
