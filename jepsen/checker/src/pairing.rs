//! Matches completions with invocations, process by process, and refuses what is no history.

use std::collections::{BTreeSet, HashMap};

use crate::history::{History, HistoryError, Kind, Process};
use crate::model::{Ended, NONE, Op, number};

/// All operations in order of invocation, and the operation of every position.
pub(crate) fn pair(history: &History) -> Result<(Vec<Op>, Vec<u32>), HistoryError> {
    let mut ops = Vec::with_capacity(history.len() / 2);
    let mut op_at = Vec::with_capacity(history.len());
    let mut open: HashMap<Process, u32> = HashMap::new();
    let mut retired = BTreeSet::new();
    for (position, entry) in history.iter().enumerate() {
        let (index, process) = (entry.index, entry.process);
        if entry.kind == Kind::Invoke {
            if retired.contains(&process) {
                return Err(HistoryError::Retired { index, process });
            }
            let op = number(ops.len());
            if open.insert(process, op).is_some() {
                return Err(HistoryError::AlreadyOpen { index, process });
            }
            let invoke = number(position);
            ops.push(Op {
                invoke,
                complete: NONE,
                ended: Ended::Info,
                committed: false,
            });
            op_at.push(op);
            continue;
        }
        let Some(op) = open.remove(&process) else {
            return Err(HistoryError::NothingOpen { index, process });
        };
        let slot = &mut ops[op as usize];
        slot.complete = number(position);
        slot.ended = match entry.kind {
            Kind::Ok => Ended::Ok,
            Kind::Fail => Ended::Fail,
            Kind::Info | Kind::Invoke => Ended::Info,
        };
        if entry.kind == Kind::Info {
            retired.insert(process);
        }
        op_at.push(op);
    }
    Ok((ops, op_at))
}
