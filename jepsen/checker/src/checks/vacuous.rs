//! Vacuous: too little happened, or a fault was not proven active, for the absence of anomalies to
//! mean anything.

use serde::Serialize;

use crate::history::Function;
use crate::model::{Ended, Model, Op};

/// Of the operations begun under a fault, at least this many in a hundred must end ok.
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
    if let Some(reason) = too_few_ok(model, faults) {
        reasons.push(reason);
    }
    reasons
}

/// Without faults the whole history is measured.
fn too_few_ok(model: &Model<'_>, faults: &[Fault]) -> Option<String> {
    let spans = merge(faults);
    let (mut begun, mut ok) = (0_u64, 0_u64);
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
        if is_empty_poll(model, op) {
            continue;
        }
        begun += 1;
        ok += u64::from(op.ended == Ended::Ok);
    }
    let whole = if faults.is_empty() {
        ""
    } else {
        " under fault"
    };
    if begun == 0 {
        return Some(format!("no operation was begun{whole}"));
    }
    (ok * 100 < begun * LEAST_OK_PERCENT).then(|| {
        format!("{ok} of {begun} operations{whole} ended ok, less than {LEAST_OK_PERCENT} %")
    })
}

/// A poll that returned nothing says as little of a cluster as no poll at all.
fn is_empty_poll(model: &Model<'_>, op: &Op) -> bool {
    let poll = model.entry(op.invoke).function == Function::Poll;
    poll && op.ended == Ended::Ok && model.entry(op.complete).actions.is_empty()
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
