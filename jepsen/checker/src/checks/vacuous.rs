//! Vacuous: too little happened, or a fault was not proven active, for the absence of anomalies to
//! mean anything.

use serde::Serialize;

use crate::history::{Action, Function};
use crate::model::{Ended, Model, Op};

/// Of the sends begun under a fault, and of the polls, at least this many in a hundred must end ok.
pub const LEAST_OK_PERCENT: u64 = 30;

/// A time in which something was broken on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What was broken, for people.
    pub name: String,
    /// Nanoseconds since the start of the run.
    pub from_ns: u64,
    /// Nanoseconds since the start of the run; not part of it any more.
    pub to_ns: u64,
    /// Whether the harness saw it take effect: packets dropped, process ids changed, bytes flipped.
    pub proven: bool,
}

/// The reasons, one sentence each; none: the history is strong enough to pass.
pub(crate) fn reasons(model: &Model<'_>, faults: &[Fault]) -> Vec<String> {
    let mut reasons = Vec::new();
    for fault in faults.iter().filter(|fault| !fault.proven) {
        reasons.push(format!("the fault `{}` was not proven active", fault.name));
    }
    let acknowledged = model.partitions.iter().any(|part| {
        part.sent
            .iter()
            .any(|sent| model.ops[sent.op as usize].ended == Ended::Ok)
    });
    if !acknowledged {
        reasons.push("no send was acknowledged".to_owned());
    }
    if model
        .partitions
        .iter()
        .all(|partition| partition.seen.is_empty())
    {
        reasons.push("no record was polled".to_owned());
    }
    reasons.extend(too_few_ok(model, faults));
    reasons
}

/// Operations of one function that were begun, and those of them that ended ok.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    begun: u64,
    ok: u64,
}

/// Without faults the whole history is measured. Sends and polls are measured apart, and nothing else is: what
/// hardly ever fails, such as an assignment, must not make up for them.
fn too_few_ok(model: &Model<'_>, faults: &[Fault]) -> Vec<String> {
    let (sends, polls) = count(model, faults);
    let whole = if faults.is_empty() {
        ""
    } else {
        " under fault"
    };
    if sends.begun + polls.begun == 0 {
        return vec![format!("no send and no poll was begun{whole}")];
    }
    let mut reasons = Vec::new();
    for (name, count) in [("sends", sends), ("polls", polls)] {
        let Count { begun, ok } = count;
        if ok * 100 < begun * LEAST_OK_PERCENT {
            reasons.push(format!(
                "{ok} of {begun} {name}{whole} ended ok, less than {LEAST_OK_PERCENT} %"
            ));
        }
    }
    // Without faults it has been said already that nothing was polled.
    if polls.begun == 0 && !faults.is_empty() {
        reasons.push(format!("no poll{whole} brought a record"));
    }
    if sends.begun == 0 && !faults.is_empty() {
        reasons.push(format!("no send was begun{whole}"));
    }
    reasons
}

/// Sends and polls that were begun under a fault.
fn count(model: &Model<'_>, faults: &[Fault]) -> (Count, Count) {
    let spans = merge(faults);
    let (mut sends, mut polls) = (Count::default(), Count::default());
    let mut span = 0;
    let mut latest = 0;
    for op in &model.ops {
        let at = model.entry(op.invoke).time_ns;
        if at < latest {
            // Times of different processes may disagree by a little; spans are then searched anew.
            span = 0;
        }
        latest = at;
        while spans.get(span).is_some_and(|&(_, to)| to <= at) {
            span += 1;
        }
        if !faults.is_empty() && spans.get(span).is_none_or(|&(from, _)| at < from) {
            continue;
        }
        let ok = u64::from(op.ended == Ended::Ok);
        // A transaction may be both.
        let all = [
            (sends_any(model, op), &mut sends),
            (polls_any(model, op), &mut polls),
        ];
        for (_, count) in all.into_iter().filter(|(counts, _)| *counts) {
            count.begun += 1;
            count.ok += ok;
        }
    }
    (sends, polls)
}

fn sends_any(model: &Model<'_>, op: &Op) -> bool {
    let mut actions = model.entry(op.invoke).actions.iter();
    actions.any(|action| matches!(action, Action::Send { .. }))
}

/// A poll that returned nothing says as little of a cluster as no poll at all.
fn polls_any(model: &Model<'_>, op: &Op) -> bool {
    if op.ended != Ended::Ok {
        return model.entry(op.invoke).function == Function::Poll;
    }
    let mut actions = model.entry(op.complete).actions.iter();
    actions.any(|action| matches!(action, Action::Read { .. }))
}

/// Overlapping faults joined, ascending.
fn merge(faults: &[Fault]) -> Vec<(u64, u64)> {
    let mut spans: Vec<_> = faults
        .iter()
        .map(|fault| (fault.from_ns, fault.to_ns))
        .collect();
    spans.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}
