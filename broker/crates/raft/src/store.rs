//! A group's log: openraft's storage traits over the shared write-ahead log and the cache.
//!
//! Step 6a of the produce journey: entries come from openraft's core, go to the cache and the
//! write-ahead log, and the log's writer reports them durable.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_mutant::mutant;
use highwater_proto::ShardId;
use highwater_wal::{GroupId, LogIndex, Op};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::cache::EntryCache;
use crate::codec::{CodecError, decode_log_id, decode_vote, encode_log_id, encode_vote};
use crate::completions::Completions;
use crate::entry::{HEAD_LEN, from_stored, stored_len, to_stored};
use crate::journal::{COMMITTED_SLOT, Journal, Recovered, VOTE_SLOT};
use crate::reader::LogReader;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// How far the log of a group has become durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// All submissions up to this one are durable.
    pub submission: u64,
    /// A write failed; the process is about to stop.
    pub failed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The lowest index that may be there.
    pub first: u64,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    /// `committed` is newer than what was handed to the log.
    committed_unsaved: bool,
    submissions: u64,
    appended_bytes: u64,
}

/// What the store and its readers share.
pub(crate) struct Shared {
    pub(crate) group: ShardId,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) cache: EntryCache,
    pub(crate) state: Mutex<State>,
    flushed: watch::Sender<Flushed>,
    completions: Mutex<Completions>,
}

impl Shared {
    fn wal_group(&self) -> GroupId {
        GroupId(self.group.0)
    }
    /// Bytes of entries handed to the log since start.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.state.lock().appended_bytes
    }
    /// The last entry, durable or not.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.state.lock().last.map(|last| last.index())
    }
    /// The newest submission.
    pub(crate) fn submitted(&self) -> u64 {
        self.state.lock().submissions
    }
    /// Waits until a submission and all before it are durable. Cancellation-safe.
    pub(crate) async fn wait_flushed(&self, submission: u64) -> io::Result<()> {
        let mut flushed = self.flushed.subscribe();
        let reached = flushed
            .wait_for(|now| now.failed || now.submission >= submission)
            .await;
        match reached {
            Ok(now) if !now.failed => Ok(()),
            _ => Err(io::Error::other("the write-ahead log has failed")),
        }
    }
    /// Takes note of the end of a submission. On a full disk a purge may end before entries that
    /// were submitted earlier: it says nothing about them.
    fn report(&self, submission: u64, ok: bool) {
        let reached = self.completions.lock().completed(submission);
        self.flushed.send_modify(|now| {
            now.submission = now.submission.max(reached);
            now.failed |= !ok;
        });
    }
}

/// The most bytes of entries in one submission; one entry may be larger.
const SUBMISSION_BYTES: usize = 4 << 20;

/// How many of `entries`, at least one, go into one submission.
fn submission_len(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        bytes += stored_len(entry);
        bytes <= SUBMISSION_BYTES
    });
    fitting.count().max(1)
}

/// Where it is told what replicas remember of their votes: the simulator holds them to it.
pub(crate) const VOTES: &str = "highwater_raft::votes";

/// The log of one group. openraft's core owns it and calls it from one task.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

impl LogStore {
    /// A store over what the log recovered of `group`.
    pub(crate) fn open(
        group: ShardId,
        journal: Arc<dyn Journal>,
        cache: EntryCache,
        recovered: &Recovered,
    ) -> io::Result<Self> {
        let invalid = io::Error::other::<CodecError>;
        let decode_id = |bytes: &Option<Bytes>| bytes.as_ref().map(decode_log_id).transpose();
        let purged = decode_id(&recovered.purged).map_err(invalid)?;
        let vote = recovered
            .vote
            .as_ref()
            .map(decode_vote)
            .transpose()
            .map_err(invalid)?;
        let committed = decode_id(&recovered.committed).map_err(invalid)?;
        let stored = |index: u64| -> io::Result<Option<LogId>> {
            let read = journal.read(GroupId(group.0), index, index + 1, 0)?;
            let Some((_, bytes)) = read.into_iter().next() else {
                return Ok(None);
            };
            Ok(Some(from_stored(index, bytes).map_err(invalid)?.log_id))
        };
        let mut state = State {
            vote,
            first: recovered.first_index.unwrap_or_default(),
            last: purged,
            purged,
            ..State::default()
        };
        let beyond_purged = |index: &u64| purged.is_none_or(|purged| *index > purged.index());
        if let Some(index) = recovered.last_index.filter(beyond_purged) {
            let missing = format!("the log has no entry {index} although it ends there");
            state.last = Some(stored(index)?.ok_or_else(|| io::Error::other(missing))?);
        }
        // Worth applying at once only if the log has that very entry; else a leader will say.
        if let Some(id) = committed
            && (purged.is_some_and(|purged| id <= purged) || stored(id.index())? == Some(id))
        {
            state.committed = Some(id);
        }
        let term = vote.map_or(0, |vote| vote.leader_id.term);
        tracing::debug!(target: VOTES, group = group.0, term, "recovered");
        let flushed = watch::Sender::new(Flushed::default());
        let shared = Shared {
            group,
            journal,
            cache,
            state: Mutex::new(state),
            flushed,
            completions: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
    pub(crate) fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Hands `ops` to the log; `entries` of them become evictable and `then` runs when they are
    /// durable.
    async fn submit(
        &self,
        mut ops: Vec<Op>,
        entries: Option<(u64, Range<u64>)>,
        then: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let submission = {
            let mut state = self.shared.state.lock();
            // The committed id is worth no sync of its own: it rides along with entries, so that
            // it never becomes durable before what it speaks of.
            if entries.is_some()
                && std::mem::take(&mut state.committed_unsaved)
                && let Some(committed) = &state.committed
            {
                let value = encode_log_id(committed);
                ops.push(Op::SetState {
                    slot: COMMITTED_SLOT,
                    value,
                });
            }
            match &entries {
                Some((submission, _)) => *submission,
                None => {
                    state.submissions += 1;
                    state.submissions
                }
            }
        };
        let shared = Arc::clone(&self.shared);
        let done = Box::new(move |result: Result<(), highwater_wal::WalError>| {
            if let (Ok(()), Some((_, indexes))) = (&result, entries) {
                shared.cache.durable(shared.group, submission, indexes);
            }
            shared.report(submission, result.is_ok());
            then(result.map_err(|error| io::Error::other(error.to_string())));
        });
        self.shared
            .journal
            .submit(self.shared.wal_group(), ops, done)
            .await
    }

    async fn append_part(
        &self,
        entries: &[Entry],
        then: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let indexes = first.log_id.index()..last.log_id.index() + 1;
        let mut heads = BytesMut::with_capacity(HEAD_LEN * entries.len());
        let ops = entries.iter().map(|entry| Op::Append {
            index: LogIndex(entry.log_id.index()),
            payload: to_stored(entry, &mut heads),
        });
        let ops: Vec<Op> = ops.collect();
        let submission = {
            let mut state = self.shared.state.lock();
            state.submissions += 1;
            state.appended_bytes += entries.iter().map(|e| stored_len(e) as u64).sum::<u64>();
            state.submissions
        };
        // Readable before it is queued, hence before anyone can be told that it is durable.
        self.shared
            .cache
            .insert(self.shared.group, submission, entries);
        {
            let mut state = self.shared.state.lock();
            if state.last == state.purged {
                state.first = first.log_id.index();
            }
            state.last = Some(last.log_id);
        }
        self.submit(ops, Some((submission, indexes)), then).await
    }

    async fn submit_and_wait(&self, ops: Vec<Op>) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.submit(ops, None, |result| drop(done.send(result)))
            .await?;
        durable
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the write-ahead log has stopped")))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.shared.state.lock();
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let op = Op::SetState {
            slot: VOTE_SLOT,
            value: encode_vote(vote),
        };
        mutant!(VoteNotFsynced => drop(op); else self.submit_and_wait(vec![op]).await?);
        self.shared.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut state = self.shared.state.lock();
        state.committed = committed;
        state.committed_unsaved = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.state.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            flushed.io_completed(Ok(()));
            return Ok(());
        };
        let last = last.log_id;
        tracing::trace!(group = self.shared.group.0, %first, %last, "append");
        let mut flushed = Some(flushed);
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(submission_len(rest));
            rest = behind;
            // Submissions become durable in order: the last one speaks for all.
            let then = if rest.is_empty() {
                flushed.take()
            } else {
                None
            };
            self.append_part(part, move |result| {
                if let Some(flushed) = then {
                    flushed.io_completed(result);
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index() + 1);
        {
            let mut state = self.shared.state.lock();
            if state.last.is_none_or(|there| there.index() < from) {
                return Ok(());
            }
            state.last = last.max(state.purged);
        }
        self.shared.cache.truncate(self.shared.group, from);
        // Later operations follow it in the log, so nothing needs to wait for it.
        self.submit(
            vec![Op::Truncate {
                from: LogIndex(from),
            }],
            None,
            drop,
        )
        .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let next = upto.index() + 1;
        let mut ops = vec![Op::Purge {
            upto: LogIndex(upto.index()),
            meta: encode_log_id(&upto),
        }];
        {
            let mut state = self.shared.state.lock();
            if state
                .last
                .is_some_and(|last| last < upto && last.index() > upto.index())
            {
                // Entries of an older term behind the purge point never became part of the log.
                ops.insert(
                    0,
                    Op::Truncate {
                        from: LogIndex(next),
                    },
                );
                self.shared.cache.truncate(self.shared.group, next);
            }
            state.first = state.first.max(next);
            state.purged = Some(upto).max(state.purged);
            state.last = state.last.max(state.purged);
        }
        self.shared.cache.purge(self.shared.group, next);
        self.submit(ops, None, drop).await
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
