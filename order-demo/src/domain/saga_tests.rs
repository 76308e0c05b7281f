//! Sagas under every mixture of answers, refusals, repetitions and wishes to cancel.

use proptest::prelude::*;

use super::*;
use crate::domain::catalogue;
use crate::domain::deviation::Deviation;
use crate::domain::request::Channel;
use crate::generate::generate_accounts;

fn request(seed: u64, deviation: Deviation) -> OrderRequest {
    let account = generate_accounts(seed, 1).remove(0);
    let mut request = OrderRequest::of(&account, Channel::Web);
    deviation.apply(&mut request);
    request
}

/// What the services would answer; `refuse` says which command is refused.
fn answer(command: &Command, refuse: &str) -> Reply {
    let ok = command.name() != refuse;
    match command {
        Command::Price {
            items,
            monthly_charges,
            ..
        } => Reply::Priced {
            lines: catalogue::price(items, *monthly_charges, &catalogue::BuiltIn)
                .expect("everything has a price"),
        },
        Command::Assess { .. } => Reply::Assessed { eligible: ok },
        Command::Reserve(line) => Reply::Reserved {
            item: line.item,
            ok,
        },
        Command::Confirm(line) => Reply::Confirmed { item: line.item },
        Command::Release(line) => Reply::Released { item: line.item },
        Command::Authorise(_) => Reply::Authorised { ok },
        Command::Capture(_) => Reply::Captured { ok },
        Command::Void(_) => Reply::Voided,
        Command::Activate { .. } => Reply::Activated { ok },
        Command::Deactivate => Reply::Deactivated,
        Command::Invoice { .. } => Reply::Invoiced { number: 1 },
    }
}

#[derive(Default)]
struct World {
    open: Vec<Command>,
    answered: Vec<Reply>,
    events: Vec<OrderEvent>,
    done: Vec<String>,
}

impl World {
    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Command(command) => self.open.push(command),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn count(&self, name: &str) -> usize {
        self.done
            .iter()
            .filter(|done| done.starts_with(name))
            .count()
    }

    fn has(&self, stage: Stage) -> bool {
        self.events.iter().any(|event| event.stage == stage)
    }
}

/// Runs a saga to its end: open commands are answered in any order, answers come again, and the
/// customer asks to cancel after `cancel_at` steps.
fn run(refuse: &str, cancel_at: Option<usize>, choices: &[usize]) -> (Saga, World) {
    let (mut saga, outputs) = Saga::begin(request(7, Deviation::Plain), 1);
    let mut world = World::default();
    world.take(outputs);
    let mut choices = choices.iter().copied().cycle();
    for step in 0..1_000 {
        if cancel_at == Some(step) {
            let outputs = saga.cancel_asked();
            world.take(outputs);
        }
        if world.open.is_empty() {
            break;
        }
        let choice = choices.next().unwrap_or(0);
        let command = world.open.remove(choice % world.open.len());
        let reply = answer(&command, refuse);
        if !matches!(
            reply,
            Reply::Reserved { ok: false, .. }
                | Reply::Authorised { ok: false }
                | Reply::Captured { ok: false }
                | Reply::Activated { ok: false }
        ) {
            world.done.push(command.name());
        }
        let outputs = saga.answered(&reply);
        world.take(outputs);
        world.answered.push(reply);
        if choice % 3 == 0 {
            // An answer of before, again: nothing may come of it.
            let again = world.answered[choice % world.answered.len()].clone();
            let outputs = saga.answered(&again);
            assert!(outputs.is_empty(), "{again:?} led to {outputs:?}");
        }
    }
    (saga, world)
}

fn check(saga: &Saga, world: &World) {
    assert!(
        world.open.is_empty() && saga.phase == Phase::Closed,
        "{saga:?}"
    );
    assert_eq!(saga.sequence as usize, world.events.len());
    let states: Vec<OrderState> = world.events.iter().map(|event| event.state).collect();
    for pair in states.windows(2) {
        assert!(pair[0].may_become(pair[1]), "{states:?}");
    }
    let ends = world
        .events
        .iter()
        .filter(|event| event.state.is_terminal() && event.stage != Stage::CancelRefused);
    assert_eq!(ends.count(), 1, "{states:?}");
    let kept = saga.state == OrderState::Completed;
    // Done and undone come to nothing, unless the order is complete.
    assert_eq!(
        world.count("activate") - world.count("deactivate"),
        usize::from(kept)
    );
    assert_eq!(world.count("capture"), usize::from(kept));
    let voided = world.count("void");
    assert_eq!(world.count("authorise"), voided + usize::from(kept));
    let (reserved, released) = (world.count("reserve"), world.count("release"));
    assert_eq!(reserved, released + world.count("confirm"));
    assert_eq!(world.has(Stage::Captured), kept);
    assert_eq!(world.count("invoice"), usize::from(kept));
}

#[test]
fn a_plain_order_goes_through_every_step_once() {
    let (saga, world) = run("", None, &[1]);
    check(&saga, &world);
    let stages: Vec<Stage> = world.events.iter().map(|event| event.stage).collect();
    assert_eq!(
        stages,
        [
            Stage::Received,
            Stage::Assessed,
            Stage::Reserved,
            Stage::Authorised,
            Stage::Activated,
            Stage::Captured,
            Stage::Invoiced,
            Stage::Fulfilled
        ]
    );
    assert_eq!(saga.total(), saga.request.monthly_charges);
}

#[test]
fn a_capture_that_is_refused_undoes_everything_in_reverse() {
    let (saga, world) = run("capture", None, &[1]);
    check(&saga, &world);
    assert_eq!(saga.state, OrderState::Failed);
    let stages: Vec<Stage> = world.events.iter().map(|event| event.stage).collect();
    let undone = [
        Stage::Undoing,
        Stage::Deactivated,
        Stage::Voided,
        Stage::Released,
        Stage::Closed,
    ];
    assert!(stages.ends_with(&undone), "{stages:?}");
}

#[test]
fn a_late_wish_to_cancel_is_refused() {
    let (mut saga, world) = run("", None, &[1]);
    let sequence = saga.sequence;
    let outputs = saga.cancel_asked();
    let [Output::Event(event)] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    assert_eq!(
        (event.stage, event.state),
        (Stage::CancelRefused, OrderState::Completed)
    );
    assert_eq!(saga.sequence, sequence + 1);
    assert!(world.has(Stage::Fulfilled));
}

#[test]
fn an_order_that_is_not_sound_ends_with_its_first_event() {
    let (saga, outputs) = Saga::reject(request(1, Deviation::Invalid), "twice".to_owned());
    assert_eq!(
        (saga.state, saga.sequence, outputs.len()),
        (OrderState::Rejected, 1, 1)
    );
}

#[test]
fn deviations_are_spread_as_stated() {
    let of = |number| Deviation::of(3, crate::order::OrderNumber(number));
    let plain = (0..100_000)
        .filter(|number| of(*number) == Deviation::Plain)
        .count();
    assert!((92_500..93_500).contains(&plain), "{plain}");
}

proptest! {
    #[test]
    fn every_saga_ends_once_and_leaves_nothing_behind(
        refused in 0_usize..7,
        cancel_at in proptest::option::of(0_usize..40),
        choices in proptest::collection::vec(0_usize..97, 1..60),
    ) {
        let refuse = ["", "assess", "reserve-0", "authorise", "activate", "capture", "reserve-1"];
        let (saga, world) = run(refuse[refused], cancel_at, &choices);
        check(&saga, &world);
        if cancel_at.is_none() {
            let expected = match refused {
                0 => OrderState::Completed,
                1 => OrderState::Rejected,
                _ => OrderState::Failed,
            };
            prop_assert_eq!(saga.state, expected);
        }
    }

    #[test]
    fn stock_always_adds_up(steps in proptest::collection::vec((0_u8..3, 1_i64..900), 0..200)) {
        let mut stock = crate::domain::inventory::Stock::default();
        let mut held = Vec::new();
        for (what, quantity) in steps {
            match what {
                0 => {
                    if stock.reserve(quantity) {
                        held.push(quantity);
                    }
                }
                1 => held.pop().into_iter().for_each(|quantity| stock.confirm(quantity)),
                _ => held.pop().into_iter().for_each(|quantity| stock.release(quantity)),
            }
            prop_assert!(stock.adds_up(), "{:?}", stock);
            prop_assert_eq!(stock.reserved, held.iter().sum::<i64>());
        }
    }
}
