//! Tests of the circuit breaker: by example, and against a model that keeps every call.

use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings() -> BreakerSettings {
    BreakerSettings {
        window: ms(1_000),
        least_calls: 4,
        failure_percent: 50,
        open_for: ms(500),
        probes: 2,
    }
}

fn fail(breaker: &mut Breaker, at: u64) {
    let admission = breaker.admit(ms(at)).unwrap();
    breaker.failed(admission, ms(at));
}

fn succeed(breaker: &mut Breaker, at: u64) {
    let admission = breaker.admit(ms(at)).unwrap();
    breaker.succeeded(admission, ms(at));
}

#[test]
fn it_opens_at_the_rate_and_closes_after_good_probes() {
    let mut breaker = Breaker::new(settings());
    for _ in 0..3 {
        fail(&mut breaker, 0);
    }
    assert_eq!(breaker.state(ms(0)), BreakerState::Closed, "too few calls");
    fail(&mut breaker, 10);
    let refused = breaker.admit(ms(110)).unwrap_err();
    assert_eq!(refused.retry_after, ms(400));
    let first = breaker.admit(ms(510)).unwrap();
    let second = breaker.admit(ms(510)).unwrap();
    assert!(breaker.admit(ms(510)).is_err(), "the probes are out");
    breaker.succeeded(first, ms(520));
    assert!(breaker.admit(ms(520)).is_err(), "one good probe is not two");
    breaker.succeeded(second, ms(530));
    assert_eq!(breaker.state(ms(530)), BreakerState::Closed);
    fail(&mut breaker, 540);
    assert_eq!(breaker.state(ms(540)), BreakerState::Closed, "counts anew");
}

#[test]
fn a_bad_probe_opens_it_again_and_a_dropped_one_leaves_its_place() {
    let mut breaker = Breaker::new(settings());
    let slow = breaker.admit(ms(0)).unwrap();
    for _ in 0..4 {
        fail(&mut breaker, 0);
    }
    breaker.failed(slow, ms(400));
    assert!(
        breaker.admit(ms(499)).is_err(),
        "a late failure moved the end"
    );
    let dropped = breaker.admit(ms(500)).unwrap();
    let bad = breaker.admit(ms(500)).unwrap();
    breaker.withdrawn(dropped);
    assert!(breaker.admit(ms(501)).is_ok());
    breaker.failed(bad, ms(600));
    assert_eq!(breaker.admit(ms(601)).unwrap_err().retry_after, ms(499));
}

#[test]
fn old_failures_leave_the_window() {
    let mut breaker = Breaker::new(settings());
    for _ in 0..3 {
        fail(&mut breaker, 0);
    }
    for at in [1_100, 1_200, 1_300] {
        succeed(&mut breaker, at);
    }
    fail(&mut breaker, 1_300);
    assert_eq!(breaker.state(ms(1_300)), BreakerState::Closed, "1 of 4");
}

#[tokio::test(start_paused = true)]
async fn the_shell_counts_what_the_caller_says() {
    let breaker = CircuitBreaker::new(settings());
    for _ in 0..10 {
        let own = breaker
            .call_if(async { Err::<(), _>("bad argument") }, |_| false)
            .await;
        assert_eq!(own, Err(BrokenCall::Failed("bad argument")));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for _ in 0..4 {
        let _ = breaker.call(async { Err::<(), _>("down") }).await;
    }
    let refused = breaker.call(async { Ok::<_, &str>(1) }).await;
    assert!(matches!(refused, Err(BrokenCall::Refused(_))));
    tokio::time::advance(ms(500)).await;
    for _ in 0..2 {
        // Dropped half-way: the probe's place is free again.
        let dropped = breaker.call(std::future::pending::<Result<(), &str>>());
        let _ = tokio::time::timeout(ms(1), dropped).await;
    }
    for _ in 0..2 {
        assert_eq!(breaker.call(async { Ok::<_, &str>(1) }).await, Ok(1));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Admit,
    Succeed(usize),
    Fail(usize),
    Withdraw(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Admit),
        2 => (0_usize..8).prop_map(Step::Succeed),
        3 => (0_usize..8).prop_map(Step::Fail),
        1 => (0_usize..8).prop_map(Step::Withdraw),
        2 => (1_u64..400).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens: nothing passes while it is open; it is open for no longer than it says;
    /// never more probes are out than there may be; it opens only at the rate, counted by hand
    /// over a window that is at most one bucket short.
    #[test]
    fn it_keeps_its_word(steps in steps()) {
        let settings = settings();
        let (mut breaker, mut now) = (Breaker::new(settings), 0_u64);
        let mut out: Vec<(Admission, BreakerState)> = Vec::new();
        let mut ended: Vec<(u64, bool)> = Vec::new();
        let mut open_until = None;
        for step in steps {
            let before = breaker.state(ms(now));
            let turn = breaker.turn;
            match step {
                Step::Wait(by) => now += by,
                Step::Admit => match breaker.admit(ms(now)) {
                    Ok(admission) => {
                        prop_assert!(open_until.is_none_or(|until| now >= until));
                        out.push((admission, breaker.state(ms(now))));
                    }
                    Err(refused) => {
                        prop_assert_ne!(before, BreakerState::Closed);
                        prop_assert!(refused.retry_after <= settings.open_for);
                    }
                },
                Step::Succeed(at) | Step::Fail(at) | Step::Withdraw(at) if !out.is_empty() => {
                    let (admission, _) = out.swap_remove(at % out.len());
                    let counts = admission.0 == breaker.turn && before == BreakerState::Closed;
                    match step {
                        Step::Succeed(_) => breaker.succeeded(admission, ms(now)),
                        Step::Fail(_) => breaker.failed(admission, ms(now)),
                        _ => breaker.withdrawn(admission),
                    }
                    if counts && !matches!(step, Step::Withdraw(_)) {
                        ended.push((now, matches!(step, Step::Fail(_))));
                    }
                }
                _ => {}
            }
            let half = out.iter().filter(|(a, state)| {
                a.0 == breaker.turn && *state == BreakerState::HalfOpen
            });
            prop_assert!(half.count() <= 2);
            if breaker.turn != turn && matches!(breaker.phase, Phase::Open { .. }) {
                open_until = Some(now + 500);
                if before == BreakerState::Closed {
                    let rate = |span: u64| {
                        let of = ended.iter().filter(|(at, _)| at + span > now);
                        let (calls, failed) = of.fold((0, 0), |(c, f), (_, bad)| {
                            (c + 1, f + u32::from(*bad))
                        });
                        calls >= 4 && failed * 2 >= calls
                    };
                    prop_assert!((900..=1_000).step_by(1).any(rate), "opened without cause");
                }
            }
            if breaker.turn != turn && breaker.phase == Phase::Closed {
                ended.clear();
                open_until = None;
            }
        }
    }
}
