//! The way back of a saga: what was done is undone, last step first.

use crate::domain::message::{Command, Reply};
use crate::domain::saga::{Output, Phase, Saga};
use crate::domain::state::{OrderState, Stage};

impl Saga {
    /// Turns back. The order will have been cancelled if its customer asked for it, else failed.
    pub(super) fn undo(&mut self, out: &mut Vec<Output>, why: &str) {
        if self.cancel {
            self.ending = Some(OrderState::Cancelled);
            self.tell(out, Stage::CancelGranted, OrderState::PendingCancellation);
        } else {
            self.ending = Some(OrderState::Failed);
            self.reason = Some(why.to_owned());
            self.tell(out, Stage::Undoing, OrderState::InProgress);
        }
        self.undo_next(out);
    }

    /// An answer on the way back.
    pub(super) fn undone(&mut self, out: &mut Vec<Output>, reply: &Reply) {
        match (self.phase, reply) {
            (Phase::Deactivating, Reply::Deactivated) => {
                self.activated = false;
                self.tell(out, Stage::Deactivated, self.state);
                self.undo_next(out);
            }
            (Phase::Voiding, Reply::Voided) => {
                self.authorised = false;
                self.tell_money(out, Stage::Voided);
                self.undo_next(out);
            }
            (Phase::Releasing, Reply::Released { item }) => {
                let last = self.settle(*item);
                if last {
                    self.tell(out, Stage::Released, self.state);
                    self.undo_next(out);
                }
            }
            _ => {}
        }
    }

    fn undo_next(&mut self, out: &mut Vec<Output>) {
        let held = |saga: &Self| {
            let open = |item: &super::saga::SagaItem| item.reserved == Some(true) && !item.settled;
            saga.items.iter().any(open)
        };
        if self.activated {
            self.phase = Phase::Deactivating;
            out.push(Output::Command(Command::Deactivate));
        } else if self.authorised {
            self.phase = Phase::Voiding;
            out.push(Output::Command(Command::Void(self.payment())));
        } else if held(self) {
            self.phase = Phase::Releasing;
            self.stock(out, Command::Release);
        } else {
            self.phase = Phase::Closed;
            let ending = self.ending.unwrap_or(OrderState::Failed);
            self.tell(out, Stage::Closed, ending);
        }
    }
}
