//! The saga of one order: which step follows which, what is undone when one fails, and the pivot
//! after which nothing is undone. Pure.
//!
//! ```text
//! price + assess -> reserve -> authorise -> activate -> capture (pivot) -> invoice -> confirm
//! ```
//!
//! Before the pivot a failure, or a wish to cancel, undoes what was done, last step first:
//! deactivate, void, release. After it steps are only repeated forward, and a wish to cancel is
//! refused. (The pattern: H. Garcia-Molina and K. Salem, "Sagas", 1987; the pivot after
//! C. Richardson, "Microservices Patterns", 2018.)

use serde::{Deserialize, Serialize};

use crate::catalogue::Sku;
use crate::domain::message::{
    Command, ItemState, OrderEvent, Payment, PriceLine, Reply, StockLine,
};
use crate::domain::request::OrderRequest;
use crate::domain::state::{OrderState, Stage};
use crate::money::Cents;

/// Parts of each item's stock: orders of one item do not all queue for one row.
pub const BUCKETS: u64 = 4;

/// The step whose answers are awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Price and eligibility, side by side.
    Assessing,
    /// Stock, all items side by side.
    Reserving,
    /// Money, set aside.
    Authorising,
    /// Services, switched on.
    Activating,
    /// Money, taken.
    Capturing,
    /// Invoice.
    Invoicing,
    /// Stock, used up.
    Confirming,
    /// Services, switched off again.
    Deactivating,
    /// Money, given back.
    Voiding,
    /// Stock, given back.
    Releasing,
    /// Nothing any more.
    Closed,
}

/// One item of the order, as far as the saga is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaItem {
    /// What.
    pub sku: Sku,
    /// How many.
    pub quantity: u32,
    /// Whether stock is set aside for it; none while nobody has answered.
    pub reserved: Option<bool>,
    /// Whether its stock was used up or given back.
    pub settled: bool,
}

/// What a saga wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A service is to do this.
    Command(Command),
    /// This has happened.
    Event(OrderEvent),
}

/// One order's saga. The processor keeps it in its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// The order.
    pub request: OrderRequest,
    /// Which bucket of each stock it uses.
    pub bucket: u32,
    /// Its state.
    pub state: OrderState,
    /// What is awaited.
    pub phase: Phase,
    /// The number of its latest event.
    pub sequence: u32,
    pub(super) items: Vec<SagaItem>,
    pub(super) lines: Option<Vec<PriceLine>>,
    pub(super) eligible: Option<bool>,
    pub(super) authorised: bool,
    pub(super) activated: bool,
    pub(super) cancel: bool,
    pub(super) ending: Option<OrderState>,
    pub(super) reason: Option<String>,
}

impl Saga {
    /// The saga of a sound order.
    #[must_use]
    pub fn begin(request: OrderRequest, bucket: u32) -> (Self, Vec<Output>) {
        let items = request.items.iter().map(|item| SagaItem {
            sku: item.sku,
            quantity: item.quantity,
            reserved: None,
            settled: false,
        });
        let mut saga = Self {
            items: items.collect(),
            bucket,
            state: OrderState::Acknowledged,
            phase: Phase::Assessing,
            sequence: 0,
            lines: None,
            eligible: None,
            authorised: false,
            activated: false,
            cancel: false,
            ending: None,
            reason: None,
            request,
        };
        let mut out = Vec::new();
        saga.tell(&mut out, Stage::Received, OrderState::Acknowledged);
        out.push(Output::Command(Command::Price {
            items: saga.request.items.iter().map(|item| item.sku).collect(),
            monthly_charges: saga.request.monthly_charges,
            price_book: saga.request.price_book.clone(),
        }));
        out.push(Output::Command(Command::Assess {
            credit_class: saga.request.credit_class.clone(),
        }));
        (saga, out)
    }

    /// The saga of an order that is not sound: it ends at once.
    #[must_use]
    pub fn reject(request: OrderRequest, reason: String) -> (Self, Vec<Output>) {
        let (mut saga, _) = Self::begin(request, 0);
        saga.sequence = 0;
        saga.phase = Phase::Closed;
        saga.reason = Some(reason);
        let mut out = Vec::new();
        saga.tell(&mut out, Stage::Closed, OrderState::Rejected);
        (saga, out)
    }

    /// What the order costs per month; zero while it has no price.
    #[must_use]
    pub fn total(&self) -> Cents {
        self.lines.iter().flatten().map(|line| line.amount).sum()
    }

    /// A service has answered. An answer that nobody awaits changes nothing: it came twice.
    #[must_use]
    pub fn answered(&mut self, reply: &Reply) -> Vec<Output> {
        let mut out = Vec::new();
        match (self.phase, reply) {
            (Phase::Assessing, Reply::Priced { lines }) => {
                self.lines = Some(lines.clone());
                self.assessed(&mut out);
            }
            (Phase::Assessing, Reply::Assessed { eligible }) => {
                self.eligible = Some(*eligible);
                self.assessed(&mut out);
            }
            (Phase::Reserving, Reply::Reserved { item, ok }) => {
                if let Some(item) = self.item(*item) {
                    item.reserved.get_or_insert(*ok);
                }
                self.reserved(&mut out);
            }
            (Phase::Authorising, Reply::Authorised { ok }) => self.authorised(&mut out, *ok),
            (Phase::Activating, Reply::Activated { ok }) => self.activated(&mut out, *ok),
            (Phase::Capturing, Reply::Captured { ok }) => self.captured(&mut out, *ok),
            (Phase::Invoicing, Reply::Invoiced { .. }) => {
                self.tell_money(&mut out, Stage::Invoiced);
                self.phase = Phase::Confirming;
                self.stock(&mut out, Command::Confirm);
            }
            (Phase::Confirming, Reply::Confirmed { item }) => {
                if self.settle(*item) {
                    self.phase = Phase::Closed;
                    self.tell(&mut out, Stage::Fulfilled, OrderState::Completed);
                }
            }
            _ => self.undone(&mut out, reply),
        }
        out
    }

    /// The customer wants to cancel.
    #[must_use]
    pub fn cancel_asked(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        match self.phase {
            Phase::Assessing
            | Phase::Reserving
            | Phase::Authorising
            | Phase::Activating
            | Phase::Capturing => {
                if !self.cancel {
                    self.cancel = true;
                    self.tell(
                        &mut out,
                        Stage::CancelAsked,
                        OrderState::AssessingCancellation,
                    );
                }
            }
            Phase::Invoicing
            | Phase::Confirming
            | Phase::Deactivating
            | Phase::Voiding
            | Phase::Releasing
            | Phase::Closed => self.tell(&mut out, Stage::CancelRefused, self.state),
        }
        out
    }

    fn assessed(&mut self, out: &mut Vec<Output>) {
        let (Some(eligible), Some(_)) = (self.eligible, &self.lines) else {
            return;
        };
        if self.cancel {
            return self.undo(out, "cancelled");
        }
        if !eligible {
            self.phase = Phase::Closed;
            self.reason = Some("the account is not eligible".to_owned());
            return self.tell(out, Stage::Closed, OrderState::Rejected);
        }
        self.state = OrderState::InProgress;
        self.tell_money(out, Stage::Assessed);
        self.phase = Phase::Reserving;
        self.stock(out, Command::Reserve);
    }

    fn reserved(&mut self, out: &mut Vec<Output>) {
        if self.items.iter().any(|item| item.reserved.is_none()) {
            return;
        }
        if self.cancel {
            return self.undo(out, "cancelled");
        }
        if self.items.iter().any(|item| item.reserved == Some(false)) {
            return self.undo(out, "out of stock");
        }
        self.tell(out, Stage::Reserved, OrderState::InProgress);
        self.phase = Phase::Authorising;
        out.push(Output::Command(Command::Authorise(self.payment())));
    }

    fn authorised(&mut self, out: &mut Vec<Output>, ok: bool) {
        self.authorised = ok;
        if ok {
            self.tell_money(out, Stage::Authorised);
        }
        if self.cancel || !ok {
            return self.undo(out, "the payment was declined");
        }
        self.phase = Phase::Activating;
        out.push(Output::Command(Command::Activate {
            site: self.request.site.clone(),
            items: self.items.iter().map(|item| item.sku).collect(),
        }));
    }

    fn activated(&mut self, out: &mut Vec<Output>, ok: bool) {
        self.activated = ok;
        if ok {
            self.tell(out, Stage::Activated, self.state);
        }
        if self.cancel || !ok {
            return self.undo(out, "no line at the site");
        }
        self.phase = Phase::Capturing;
        out.push(Output::Command(Command::Capture(self.payment())));
    }

    fn captured(&mut self, out: &mut Vec<Output>, ok: bool) {
        if !ok {
            return self.undo(out, "the payment was declined at the capture");
        }
        self.tell_money(out, Stage::Captured);
        if std::mem::take(&mut self.cancel) {
            self.tell(out, Stage::CancelRefused, OrderState::InProgress);
        }
        self.phase = Phase::Invoicing;
        out.push(Output::Command(Command::Invoice {
            account_id: self.request.account_id.clone(),
            lines: self.lines.clone().unwrap_or_default(),
            captured: self.total(),
        }));
    }

    fn item(&mut self, place: u32) -> Option<&mut SagaItem> {
        self.items.get_mut(usize::try_from(place).ok()?)
    }

    /// An item's stock was moved for good. Whether that was the last one.
    pub(super) fn settle(&mut self, place: u32) -> bool {
        if let Some(item) = self.item(place) {
            item.settled = true;
        }
        let open = |item: &SagaItem| item.reserved == Some(true) && !item.settled;
        !self.items.iter().any(open)
    }

    pub(super) fn payment(&self) -> Payment {
        Payment {
            account_id: self.request.account_id.clone(),
            token: self.request.payment_token.clone(),
            amount: self.total(),
        }
    }

    /// A stock command for every item that it concerns.
    pub(super) fn stock(&self, out: &mut Vec<Output>, command: fn(StockLine) -> Command) {
        for (place, item) in (0_u32..).zip(&self.items) {
            if item.reserved != Some(false) && !item.settled {
                out.push(Output::Command(command(StockLine {
                    item: place,
                    sku: item.sku,
                    quantity: item.quantity,
                    bucket: self.bucket,
                })));
            }
        }
    }

    /// Adds an event; the order is in `state` from now on.
    pub(super) fn tell(&mut self, out: &mut Vec<Output>, stage: Stage, state: OrderState) {
        self.event(out, (stage, state), None);
    }

    /// Adds an event about the order's money, in the state that it has.
    pub(super) fn tell_money(&mut self, out: &mut Vec<Output>, stage: Stage) {
        self.event(out, (stage, self.state), Some(self.total()));
    }

    fn event(
        &mut self,
        out: &mut Vec<Output>,
        (stage, state): (Stage, OrderState),
        amount: Option<Cents>,
    ) {
        self.state = state;
        self.sequence += 1;
        let whole = self.sequence == 1 || state.is_terminal();
        let items = self.items.iter().filter(|_| whole).map(|item| ItemState {
            sku: item.sku,
            state,
        });
        out.push(Output::Event(OrderEvent {
            stage,
            state,
            account_id: self.request.account_id.clone(),
            amount,
            reason: self.reason.clone(),
            items: items.collect(),
        }));
    }
}

#[cfg(test)]
#[path = "saga_tests.rs"]
mod tests;
