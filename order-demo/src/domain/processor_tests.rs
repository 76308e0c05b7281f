//! Orders and wishes to cancel them come to the same end, whichever comes first.

use std::collections::BTreeMap;

use super::*;
use crate::domain::context::{Lookup, Nowhere};
use crate::domain::message::{Reply, SCHEMA_VERSION};
use crate::domain::state::Stage;
use crate::generate::generate_accounts;

#[derive(Default)]
struct Table(BTreeMap<String, Vec<u8>>);

impl Lookup for Table {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogicError> {
        Ok(self.0.get(key).cloned())
    }
}

impl Table {
    fn handle(&mut self, message: &Message) -> Result<Vec<Message>, LogicError> {
        let mut nowhere = Nowhere;
        let mut context = Context::new(&*self, &mut nowhere, false);
        handle(&mut context, message)?;
        let outcome = context.finish();
        for (key, value) in outcome.writes {
            self.0.extend(value.map(|value| (key, value)));
        }
        Ok(outcome.sent)
    }
}

fn message(what: &str, body: Body) -> Message {
    Message {
        event_id: format!("o/{what}"),
        order_id: "o".to_owned(),
        sequence: 0,
        causation_id: None,
        traceparent: String::new(),
        schema_version: SCHEMA_VERSION,
        intended_start_ms: 0,
        body,
    }
}

/// The events that these messages lead to, by number, and the saga that is left.
fn run(messages: &[Message]) -> (Vec<(u32, Stage)>, Option<Saga>) {
    let mut table = Table::default();
    let mut events = Vec::new();
    for message in messages {
        for sent in table.handle(message).expect("handled") {
            if let Body::Event(event) = sent.body {
                events.push((sent.sequence, event.stage));
            }
        }
    }
    let saga = table.0.get(&saga_key("o"));
    (
        events,
        saga.map(|saga| serde_json::from_slice(saga).expect("a saga")),
    )
}

#[test]
fn a_wish_to_cancel_may_come_before_its_order() {
    let account = generate_accounts(1, 1).remove(0);
    let request = OrderRequest::of(&account, Channel::Web);
    let sound = message("valid", Body::Valid(request));
    let unsound = Body::Invalid {
        account_id: "a".to_owned(),
        reason: "nothing is ordered".to_owned(),
    };
    let unsound = message("invalid", unsound);
    let cancel = message("cancel-asked", Body::CancelAsked);
    for (order, then) in [(sound, Stage::CancelAsked), (unsound, Stage::CancelRefused)] {
        let late = run(&[order.clone(), cancel.clone()]);
        assert_eq!(late.0.last(), Some(&(2, then)));
        assert_eq!(run(&[cancel.clone(), order.clone()]), late);
        // What comes again changes nothing.
        assert_eq!(run(&[cancel.clone(), order.clone(), order]), late);
    }
    assert_eq!(run(&[cancel]), (Vec::new(), None));
}

#[test]
fn an_answer_about_an_order_that_nobody_knows_is_poison() {
    let answer = message("void/re", Body::Reply(Reply::Voided));
    let error = Table::default().handle(&answer).expect_err("unknown");
    assert!(matches!(error, LogicError::Poison(_)), "{error}");
}
