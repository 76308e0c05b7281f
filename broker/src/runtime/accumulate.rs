//! Steps 4 and 5 of a produced record, after router, before the log: batches of many partitions
//! become one entry, and the entry is proposed.
//!
//! One task per shard takes batches in the order they arrived. While fewer than
//! `PROPOSALS_IN_FLIGHT` entries are on their way, and it is the shard's turn, it proposes what waits;
//! otherwise batches gather until then, up to `ENTRY_BYTES` each. Entries are proposed in order, so the batches
//! of a partition are appended in the order they were taken.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use highwater_proto::{NodeId, TimestampMs, TopicPartition};
use highwater_raft::{Group, ProposeError};
use highwater_shard::{AppendRequest, ShardCommand, ShardReply, Verdict};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::turns::{LONGEST_TURN, Turn, Turns};
use crate::gate::Admitted;

/// An entry is closed when it holds this much.
const ENTRY_BYTES: usize = 1 << 20;
/// Entries of one shard between proposal and verdict.
const PROPOSALS_IN_FLIGHT: usize = 4;
/// A shard takes turns only while it has so many batches on their way and gathered. With fewer, its clients wait for
/// each batch before they send the next, and nothing is gained by letting them wait longer.
const WORTH_A_TURN: usize = 16;
/// Batches waiting in front of a shard; bytes are bounded by the gate already.
const QUEUE: usize = 4096;

/// A validated batch on its way into the log.
#[derive(Debug)]
pub struct Produced {
    /// Where to.
    pub tp: TopicPartition,
    /// When the leader took it.
    pub append_time: TimestampMs,
    /// One RecordBatch, validated.
    pub batch: Bytes,
    /// Given back after the reply.
    pub admitted: Admitted,
    /// Gets exactly one outcome; dropped only if the broker stops (then the outcome is unknown).
    pub reply: oneshot::Sender<ProduceOutcome>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProduceOutcome {
    /// The log decided: appended, duplicate or rejected.
    Decided(Verdict),
    /// Certainly not written: this broker does not lead the shard.
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
        /// Of that leadership.
        term: u64,
    },
    /// Certainly not written: the group has too much to do.
    Busy,
    /// May or may not be written.
    Unknown(String),
}

/// Where batches are handed in.
#[derive(Debug, Clone)]
pub struct Accumulator(mpsc::Sender<Produced>);

/// Answers with the number of its batches.
type Proposal = BoxFuture<'static, usize>;

impl Accumulator {
    /// Starts the shard's task. It ends when every handle is gone.
    #[must_use]
    pub fn start(group: Group, turns: Arc<Turns>) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Self(sender), tokio::spawn(run(group, turns, queue)))
    }
    /// Hands in a batch; waits while the queue is full. Cancellation-safe: a dropped future has
    /// handed in nothing.
    ///
    /// # Errors
    /// The batch comes back when the shard has stopped: certainly not written.
    pub async fn push(&self, produced: Produced) -> Result<(), Box<Produced>> {
        self.0.send(produced).await.map_err(|e| Box::new(e.0))
    }
}

async fn run(group: Group, turns: Arc<Turns>, mut queue: mpsc::Receiver<Produced>) {
    let mut in_line: Option<BoxFuture<'static, Turn>> = None;
    let mut turn: Option<Turn> = None;
    let mut batches_out = 0;
    let mut on_their_way: FuturesUnordered<Proposal> = FuturesUnordered::new();
    let mut gathered = Gathered::default();
    let mut open = true;
    while open || !gathered.is_empty() || !on_their_way.is_empty() {
        let may_propose = on_their_way.len() < PROPOSALS_IN_FLIGHT && !gathered.is_empty();
        if may_propose && turn.is_none() {
            // What is full gains nothing by waiting, and where few batches come nothing gathers.
            let at_once = gathered.is_full() || batches_out + gathered.len() < WORTH_A_TURN;
            if at_once {
                in_line = None;
                turn = Some(Turn::free());
            } else if in_line.is_none() {
                turn = turns.now();
                in_line = (turn.is_none()).then(|| Arc::clone(&turns).wait().boxed());
            }
        }
        if may_propose && let Some(turn) = turn.take() {
            while !gathered.is_full() {
                let Ok(produced) = queue.try_recv() else {
                    break;
                };
                gathered.push(produced);
            }
            batches_out += gathered.len();
            let proposal = propose(&group, std::mem::take(&mut gathered));
            on_their_way.push(within(turn, proposal));
            continue;
        }
        tokio::select! {
            taken = queue.recv(), if open && !gathered.is_full() => match taken {
                Some(produced) => gathered.push(produced),
                None => open = false,
            },
            Some(count) = on_their_way.next(), if !on_their_way.is_empty() => batches_out -= count,
            taken = next_in(&mut in_line), if in_line.is_some() => {
                in_line = None;
                turn = Some(taken);
            }
            else => break,
        }
    }
}

async fn next_in(line: &mut Option<BoxFuture<'static, Turn>>) -> Turn {
    match line {
        Some(next) => next.await,
        None => std::future::pending().await,
    }
}

/// The proposal, and the end of its turn.
fn within(turn: Turn, mut proposal: Proposal) -> Proposal {
    if turn.is_free() {
        return proposal;
    }
    Box::pin(async move {
        match timeout(LONGEST_TURN, &mut proposal).await {
            Ok(count) => count,
            Err(_elapsed) => {
                drop(turn);
                proposal.await
            }
        }
    })
}

/// Batches of the next entry.
#[derive(Default)]
struct Gathered {
    requests: Vec<AppendRequest>,
    waiting: Vec<(oneshot::Sender<ProduceOutcome>, Admitted)>,
    bytes: usize,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
    fn len(&self) -> usize {
        self.requests.len()
    }
    fn is_full(&self) -> bool {
        self.bytes >= ENTRY_BYTES
    }
    fn push(&mut self, produced: Produced) {
        let Produced {
            tp,
            append_time,
            batch,
            admitted,
            reply,
        } = produced;
        self.bytes += batch.len();
        self.requests.push(AppendRequest {
            tp,
            append_time,
            batch,
        });
        self.waiting.push((reply, admitted));
    }
}

/// Enqueues the entry at once; the future only waits for its verdicts and hands them out.
fn propose(group: &Group, gathered: Gathered) -> Proposal {
    let Gathered {
        requests, waiting, ..
    } = gathered;
    metrics::histogram!("highwater_entry_batches").record(requests.len() as f64);
    let command = ShardCommand::Append { batches: requests };
    let proposal = group.propose_ordered(command.encode());
    Box::pin(async move {
        let count = waiting.len();
        let outcomes = outcomes(proposal.await, count);
        for ((reply, admitted), outcome) in waiting.into_iter().zip(outcomes) {
            // A requester that has gone (deadline, disconnect) no longer wants to know.
            let _ = reply.send(outcome);
            drop(admitted);
        }
        count
    })
}

fn outcomes(proposal: Result<Bytes, ProposeError>, count: usize) -> Vec<ProduceOutcome> {
    let all = |outcome: ProduceOutcome| vec![outcome; count];
    match proposal {
        Ok(reply) => match ShardReply::decode(&reply) {
            Ok(ShardReply::Append(verdicts)) if verdicts.len() == count => {
                verdicts.into_iter().map(ProduceOutcome::Decided).collect()
            }
            Ok(other) => all(ProduceOutcome::Unknown(format!(
                "unexpected reply {other:?}"
            ))),
            Err(error) => all(ProduceOutcome::Unknown(error.to_string())),
        },
        Err(ProposeError::NotLeader { leader, term }) => {
            all(ProduceOutcome::NotLeader { leader, term })
        }
        Err(ProposeError::Busy) => all(ProduceOutcome::Busy),
        Err(ProposeError::Unknown(reason)) => all(ProduceOutcome::Unknown(reason)),
    }
}
