//! Step 2 of a fetched record: which partition is read where, from which offset, with how much
//! credit. Pure. Before: `lane`, which carries bytes. After: `Consumer`, which decodes records.
//!
//! Invariants: a partition has at most one live subscription; what arrives for any other is
//! dropped; the next subscription starts where the last one's data ended, so a move neither skips
//! nor repeats; the bytes buffered per stream stay below the credit window plus one batch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::batch::RecordBatch;
use highwater_proto::{NodeId, Offset, TopicPartition};

use super::part::{Chunk, OutOfRange, Part, Request, Session, Trouble};
use super::shared::{ConsumerConfig, ReadFrom};
use crate::backoff::{self, Jitter};
use crate::error::{Cause, ConsumeError, ErrorCode};

#[derive(Debug)]
pub(crate) struct Reader {
    window: u64,
    out_of_range: OutOfRange,
    /// All is read from one broker, leader or not.
    one_broker: bool,
    parts: BTreeMap<TopicPartition, Part>,
    sessions: BTreeMap<u64, Session>,
    chunks: VecDeque<Chunk>,
    errors: VecDeque<(TopicPartition, ConsumeError)>,
    jitter: Jitter,
    generations: u64,
}

/// When nothing else was said for so long but that a topic or partition is unknown, it is believed. Brokers that lag
/// say it of what they have not heard of yet; of what is gone they say so.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(60);
/// The same of the broker to read from, that it has no replica.
const NO_REPLICA_PATIENCE: Duration = Duration::from_secs(5);
/// A subscription that has lived for so long was accepted: failures are counted from its end.
const LIVED: Duration = Duration::from_secs(1);

impl Reader {
    pub(crate) fn new(config: &ConsumerConfig, seed: u64) -> Self {
        Self {
            window: config.credit_bytes,
            out_of_range: config.out_of_range,
            one_broker: matches!(config.read_from, ReadFrom::Broker(_)),
            parts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            chunks: VecDeque::new(),
            errors: VecDeque::new(),
            jitter: Jitter::new(seed),
            generations: 0,
        }
    }

    pub(crate) fn assign(&mut self, tp: TopicPartition, topic: Arc<str>, offset: u64) {
        let mut part = Part::at(topic, offset);
        // What an earlier assignment of the partition left behind is void.
        self.generations += 1;
        part.generation = self.generations;
        self.parts.entry(tp).or_insert(part);
    }

    /// Reads the partition no more; what is buffered of it is void.
    pub(crate) fn unassign(&mut self, tp: TopicPartition) {
        self.detach(tp);
        self.rewind(tp);
        self.parts.remove(&tp);
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.parts.keys().copied()
    }
    pub(crate) fn assigned(&self, tp: TopicPartition) -> bool {
        self.parts.contains_key(&tp)
    }
    pub(crate) fn position(&self, tp: TopicPartition) -> Option<u64> {
        self.parts.get(&tp).map(|part| part.position)
    }
    pub(crate) fn high_watermark(&self, tp: TopicPartition) -> Option<u64> {
        self.parts.get(&tp)?.high_watermark
    }
    pub(crate) fn log_start(&self, tp: TopicPartition) -> Option<u64> {
        self.parts.get(&tp)?.log_start
    }
    pub(crate) fn avoided(&self, tp: TopicPartition) -> Option<&BTreeSet<NodeId>> {
        self.parts.get(&tp).map(|part| &part.avoid)
    }

    /// Goes to `offset`; what was buffered is void.
    pub(crate) fn seek(&mut self, tp: TopicPartition, offset: u64) {
        self.detach(tp);
        self.generations += 1;
        if let Some(part) = self.parts.get_mut(&tp) {
            part.position = offset;
            part.generation = self.generations;
            part.halted = false;
            part.failures = 0;
            part.unknown_since = None;
            part.retry_at = Duration::ZERO;
            part.avoid.clear();
        }
        self.rewind(tp);
    }

    /// Goes on where it stands still after an error.
    pub(crate) fn go_on(&mut self, tp: TopicPartition) {
        let halted = self.parts.get(&tp).filter(|part| part.halted);
        if let Some(position) = halted.map(|part| part.position) {
            self.seek(tp, position);
        }
    }

    /// Asks again from the same place: whoever refused it was behind. The pause before that grows from time to time.
    pub(crate) fn ask_again(&mut self, tp: TopicPartition) {
        if let Some(part) = self.parts.get_mut(&tp) {
            part.halted = false;
        }
    }

    pub(crate) fn set_paused(&mut self, tp: TopicPartition, paused: bool) {
        let Some(part) = self.parts.get_mut(&tp) else {
            return;
        };
        part.paused = paused;
        if paused {
            // What is buffered would hold credit while others could use it: fetch it again later.
            self.generations += 1;
            part.generation = self.generations;
            self.detach(tp);
            self.rewind(tp);
        }
    }

    /// Drops what is buffered; fetching goes on at the application's position.
    fn rewind(&mut self, tp: TopicPartition) {
        let Some(part) = self.parts.get_mut(&tp) else {
            return;
        };
        part.fetched = part.position;
        let mut kept = VecDeque::with_capacity(self.chunks.len());
        for chunk in std::mem::take(&mut self.chunks) {
            if chunk.tp == tp {
                self.give_back(chunk.session, chunk.bytes);
            } else {
                kept.push_back(chunk);
            }
        }
        self.chunks = kept;
    }

    /// Where the partition is to be read.
    pub(crate) fn set_target(&mut self, tp: TopicPartition, target: Option<NodeId>) {
        let Some(part) = self.parts.get_mut(&tp) else {
            return;
        };
        if part.target == target {
            return;
        }
        // Without a leader the present stream may still have something to say.
        if target.is_none() && part.live.is_some() {
            return;
        }
        part.target = target;
        part.retry_at = Duration::ZERO;
        part.unknown_since = None;
        self.detach(tp);
    }

    fn detach(&mut self, tp: TopicPartition) {
        let Some((session, id)) = self.parts.get_mut(&tp).and_then(|part| part.live.take()) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            session.live.remove(&id);
            session.ending.push(id);
        }
    }

    /// Brokers that something is to be read from.
    pub(crate) fn targets(&self) -> BTreeSet<NodeId> {
        let wanted = self
            .parts
            .values()
            .filter(|part| !part.paused && !part.halted);
        wanted.filter_map(|part| part.target).collect()
    }

    /// When a pause between attempts ends.
    pub(crate) fn next_wake(&self, now: Duration) -> Option<Duration> {
        let waiting = self
            .parts
            .values()
            .filter(|part| part.live.is_none() && part.retry_at > now);
        waiting.map(|part| part.retry_at).min()
    }

    pub(crate) fn open_session(&mut self, session: u64, node: NodeId) {
        let owed = self.window;
        let live = BTreeMap::new();
        let opened = Session {
            node,
            credit: 0,
            owed,
            next_id: 1,
            live,
            ending: Vec::new(),
        };
        self.sessions.insert(session, opened);
    }

    /// The stream is gone; its partitions are subscribed to anew elsewhere or later.
    pub(crate) fn session_lost(&mut self, session: u64, now: Duration) {
        let Some(lost) = self.sessions.remove(&session) else {
            return;
        };
        for tp in lost.live.into_values() {
            self.failed(tp, now);
        }
    }

    fn failed(&mut self, tp: TopicPartition, now: Duration) {
        let random = self.jitter.next();
        if let Some(part) = self.parts.get_mut(&tp) {
            part.live = None;
            if now.saturating_sub(part.subscribed_at) >= LIVED {
                part.failures = 0;
                part.unknown_since = None;
            }
            part.failures = part.failures.saturating_add(1);
            let (first, most) = (Duration::from_millis(10), Duration::from_millis(250));
            part.retry_at = now + backoff::pause(part.failures, first, most, random);
        }
    }

    /// What is to be said on the stream now.
    pub(crate) fn requests(&mut self, session_id: u64, now: Duration) -> Vec<Request> {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return Vec::new();
        };
        let mut requests: Vec<_> = session.ending.drain(..).map(Request::Unsubscribe).collect();
        for (&tp, part) in &mut self.parts {
            let wanted = !part.paused && !part.halted && part.live.is_none();
            if wanted && part.target == Some(session.node) && part.retry_at <= now {
                let id = session.next_id;
                session.next_id = id.wrapping_add(1);
                session.live.insert(id, tp);
                part.live = Some((session_id, id));
                part.subscribed_at = now;
                requests.push(Request::Subscribe {
                    id,
                    tp,
                    offset: part.fetched,
                });
            }
        }
        if session.grants(self.window) {
            let grant = std::mem::take(&mut session.owed);
            session.credit = session.credit.saturating_add_unsigned(grant);
            requests.push(Request::Credit(grant));
        }
        requests
    }

    fn give_back(&mut self, session: u64, bytes: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.owed += bytes;
        }
    }

    /// Takes in data of `bytes` bytes on the wire.
    ///
    /// # Errors
    /// The broker sent without credit: the stream must be closed.
    pub(crate) fn arrived(
        &mut self,
        (session_id, id): (u64, u32),
        batches: VecDeque<RecordBatch>,
        bytes: u64,
        (high_watermark, log_start): (u64, u64),
    ) -> Result<(), Cause> {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return Ok(());
        };
        if bytes > 0 && session.credit <= 0 {
            return Err(Cause::Transport(
                "the broker sent more than it was granted".to_owned(),
            ));
        }
        session.credit = session.credit.saturating_sub_unsigned(bytes);
        let part = session
            .live
            .get(&id)
            .and_then(|tp| Some((*tp, self.parts.get_mut(tp)?)));
        let Some((tp, part)) = part else {
            session.owed += bytes; // of a subscription that has ended meanwhile
            return Ok(());
        };
        part.failures = 0;
        part.unknown_since = None;
        part.high_watermark = Some(high_watermark.max(part.high_watermark.unwrap_or(0)));
        part.log_start = Some(log_start);
        let next = batches
            .back()
            .map(|batch| batch.header().last_offset().plus(1).0);
        match next {
            Some(next) if next > part.fetched => part.fetched = next,
            _ => {
                session.owed += bytes; // nothing new in it
                return Ok(());
            }
        }
        let (topic, generation) = (Arc::clone(&part.topic), part.generation);
        self.chunks.push_back(Chunk {
            tp,
            topic,
            batches,
            generation,
            session: session_id,
            bytes,
        });
        Ok(())
    }

    /// Whom a live subscription is for.
    pub(crate) fn partition_of(&self, (session, id): (u64, u32)) -> Option<TopicPartition> {
        self.sessions.get(&session)?.live.get(&id).copied()
    }

    /// The broker ended a subscription, or its data was bad.
    pub(crate) fn refused(
        &mut self,
        (session_id, id): (u64, u32),
        code: ErrorCode,
        cause: Cause,
        now: Duration,
    ) -> Option<(TopicPartition, Trouble)> {
        let session = self.sessions.get_mut(&session_id)?;
        let tp = session.live.remove(&id)?;
        let node = session.node;
        self.failed(tp, now);
        let policy = self.out_of_range;
        let patience = match code {
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => Some(UNKNOWN_PATIENCE),
            ErrorCode::NotLeader if self.one_broker => Some(NO_REPLICA_PATIENCE),
            _ => None,
        };
        let part = self.parts.get_mut(&tp)?;
        let believed = patience.is_some_and(|patience| {
            now.saturating_sub(*part.unknown_since.get_or_insert(now)) >= patience
        });
        if patience.is_none() {
            part.unknown_since = None;
        }
        let trouble = match code {
            ErrorCode::OffsetOutOfRange if policy == OutOfRange::Error => Trouble::Surfaced,
            ErrorCode::OffsetOutOfRange => Trouble::Reset,
            ErrorCode::Damaged | ErrorCode::CorruptBatch => {
                // Another replica may have it whole; once each was tried, say so.
                if part.avoid.insert(node) {
                    Trouble::Retried
                } else {
                    Trouble::Surfaced
                }
            }
            ErrorCode::InvalidRequest | ErrorCode::Unsupported | ErrorCode::TopicDeleted => {
                Trouble::Surfaced
            }
            _ if believed => Trouble::Surfaced,
            _ => Trouble::Retried,
        };
        match trouble {
            Trouble::Retried => {}
            // Waits for the seek that the lookup ends with.
            Trouble::Reset => part.halted = true,
            Trouble::Surfaced => self.halt(tp, cause),
        }
        Some((tp, trouble))
    }

    /// The partition's topic is gone: said once after each seek, as when a broker says so. Returns whether
    /// it was said now.
    pub(crate) fn topic_deleted(&mut self, tp: TopicPartition, cause: Cause) -> bool {
        let unsaid = self.parts.get(&tp).is_some_and(|part| !part.halted);
        if unsaid {
            self.halt(tp, cause);
        }
        unsaid
    }

    /// Hands out an error; the partition stands still until a seek.
    pub(crate) fn halt(&mut self, tp: TopicPartition, cause: Cause) {
        self.detach(tp);
        let Some(part) = self.parts.get_mut(&tp) else {
            return;
        };
        part.halted = true;
        let error = ConsumeError::Partition {
            topic: part.topic.to_string(),
            partition: tp.partition.0,
            offset: part.position,
            cause,
        };
        self.errors.push_back((tp, error));
    }

    /// The same, when what is buffered cannot be used either.
    pub(crate) fn halt_and_drop(&mut self, tp: TopicPartition, cause: Cause) {
        self.halt(tp, cause);
        self.generations += 1;
        if let Some(part) = self.parts.get_mut(&tp) {
            part.generation = self.generations;
        }
        self.rewind(tp);
    }

    /// An error whose partition has nothing buffered before it.
    pub(crate) fn next_error(&mut self) -> Option<ConsumeError> {
        let chunks = &self.chunks;
        let is_due = |tp: TopicPartition| chunks.iter().all(|chunk| chunk.tp != tp);
        let at = self.errors.iter().position(|(tp, _)| is_due(*tp))?;
        self.errors.remove(at).map(|(_, error)| error)
    }
    pub(crate) fn next_chunk(&mut self) -> Option<Chunk> {
        self.chunks.pop_front()
    }
    /// Where to go on within a chunk; nothing when a seek has made it void.
    pub(crate) fn position_in(&self, chunk: &Chunk) -> Option<u64> {
        let part = self.parts.get(&chunk.tp)?;
        (part.generation == chunk.generation).then_some(part.position)
    }
    /// The application has everything below `next`.
    pub(crate) fn advance(&mut self, chunk: &Chunk, next: Offset) {
        if let Some(part) = self.parts.get_mut(&chunk.tp)
            && part.generation == chunk.generation
        {
            part.position = part.position.max(next.0);
        }
    }
    /// A chunk is used up: its bytes can be granted again. Returns whether it is time to do so.
    pub(crate) fn finished(&mut self, chunk: &Chunk) -> bool {
        self.give_back(chunk.session, chunk.bytes);
        let session = self.sessions.get(&chunk.session);
        session.is_some_and(|session| session.grants(self.window))
    }
    /// How often in a row the partition could not be read.
    pub(crate) fn failures(&self, tp: TopicPartition) -> u32 {
        self.parts.get(&tp).map_or(0, |part| part.failures)
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
