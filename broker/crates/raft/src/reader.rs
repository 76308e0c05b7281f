//! Reads a group's log: from the cache, else from the write-ahead log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use highwater_env::Workers;
use highwater_wal::GroupId;
use openraft::RaftLogReader;

use crate::entry::from_stored;
use crate::store::Shared;
use crate::types::{Entry, TypeConfig, Vote};

/// The most bytes of entries in one append, and read at once on the way to apply. One entry may
/// be larger.
const CHUNK_BYTES: usize = 1 << 20;

/// A reader. Clones read the same log.
#[derive(Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The part of `range` that the log holds.
    fn clamp<RB: RangeBounds<u64>>(&self, range: &RB) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        let state = self.shared.state.lock();
        let end = state.last.map_or(0, |last| last.index() + 1);
        (from.max(state.first), to.min(end))
    }

    /// Consecutive entries from `from` on, at least one; `from..to` must be in the log.
    async fn chunk(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let run = self
            .shared
            .cache
            .run(self.shared.group, from, to, max_bytes);
        if !run.entries.is_empty() {
            return Ok(run.entries);
        }
        metrics::counter!("highwater_raft_log_reads_total").increment(1);
        // What is not in the cache is durable, and so the log can serve it, up to the next entry
        // that is cached (which the log may not have written yet).
        let to = run.next_cached.map_or(to, |next| next.min(to));
        let (journal, group) = (
            Arc::clone(&self.shared.journal),
            GroupId(self.shared.group.0),
        );
        let read = match journal.workers() {
            Workers::Tasks => journal.read(group, from, to, max_bytes),
            Workers::Threads => {
                let read = move || journal.read(group, from, to, max_bytes);
                tokio::task::spawn_blocking(read)
                    .await
                    .map_err(io::Error::other)?
            }
        }?;
        let mut entries = Vec::with_capacity(read.len());
        for (expected, (index, bytes)) in (from..to).zip(read) {
            if index != expected {
                return Err(self.hole(expected));
            }
            entries.push(from_stored(index, bytes).map_err(io::Error::other)?);
        }
        if entries.is_empty() {
            Err(self.hole(from))
        } else {
            Ok(entries)
        }
    }

    fn hole(&self, index: u64) -> io::Error {
        let group = self.shared.group;
        io::Error::other(format!(
            "the log of group {group} has no entry {index} where it must"
        ))
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (mut from, to) = self.clamp(&range);
        let mut entries = Vec::new();
        while from < to {
            let chunk = self.chunk(from, to, CHUNK_BYTES).await?;
            from += chunk.len() as u64;
            entries.extend(chunk);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = self.clamp(&(start..end));
        if from >= to {
            return Ok(Vec::new());
        }
        self.chunk(from, to, CHUNK_BYTES).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = self.clamp(&range);
        let reader = self.clone();
        let chunks = stream::unfold((reader, from), move |(reader, from)| async move {
            if from >= to {
                return None;
            }
            Some(match reader.chunk(from, to, CHUNK_BYTES).await {
                Ok(chunk) => {
                    let next = from + chunk.len() as u64;
                    (
                        chunk.into_iter().map(Ok).collect::<Vec<_>>(),
                        (reader, next),
                    )
                }
                // The error ends the stream.
                Err(error) => (vec![Err(error)], (reader, to)),
            })
        });
        // Boxed, because openraft pins it on its own stack.
        chunks.map(stream::iter).flatten().boxed()
    }
}
