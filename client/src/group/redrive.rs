//! Dead letters are listed, and come back to their group.
//!
//! A redrive copies the letters of parked keys, in order, into the topic `<group>.redrive`, which
//! the members of that group read and nobody else; waits until they have handled them; then the
//! keys unpark. Records of a key that came meanwhile were parked behind it and are copied next, so
//! the key's order is kept to the end. A key whose record fails again stays parked from that record
//! on.
//!
//! A letter that the group has handled is not copied again, also when an earlier redrive was
//! interrupted before it could unpark the key, or when a member's unanswered request parks the key
//! once more behind it: the redrive topic itself says which letter each copy is of, and the group's
//! committed offset how far it is. Two redrives of a key at the same time are not told apart: both
//! may copy it.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::{PartitionId, TopicId, TopicPartition, v1};
use tokio::time::{Instant, sleep};

use super::admin::{GroupAdmin, place};
use super::dead_letter::{self, DeadLetter};
use super::letters::{self, Handled};
use crate::error::{AdminError, Cause, ConsumeError, OffsetsError, SendError};
use crate::offsets::At;
use crate::record::ConsumedRecord;

/// Looks at the group's progress.
const LOOK: Duration = Duration::from_millis(200);
/// What members take to learn that keys were unparked, generously.
const NEWS: Duration = Duration::from_secs(1);

/// A record in a dead letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it comes from, and why.
    pub letter: DeadLetter,
    /// As it lies in the queue.
    pub record: ConsumedRecord,
    /// Whether it waits to be redriven. If not, it was redriven, or its handler succeeded after
    /// all before its key was parked.
    pub waiting: bool,
}

/// Which parked keys are redriven, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Only this key.
    pub key: Option<Bytes>,
    /// Only keys parked at or after this time, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only keys parked before this time.
    pub until_ms: Option<i64>,
    /// So many records a second at the most.
    pub per_second: Option<f64>,
    /// Gives up when the group handles nothing for so long. Default 60 s.
    pub patience: Duration,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            key: None,
            since_ms: None,
            until_ms: None,
            per_second: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// What a redrive did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Records that were copied and that the group has handled.
    pub records: u64,
    /// Keys that are not parked any more.
    pub keys: u64,
    /// Keys of which a record failed again; they stay parked from there on.
    pub failed_keys: u64,
}

/// A redrive, or a look at the dead letters, did not succeed. Repeating it is safe.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// The group or the cluster said no.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Letters could not be read.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Offsets could not be looked up.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A letter could not be copied.
    #[error("copying a dead letter: {0}")]
    Send(#[from] SendError),
    /// Nobody handles what was copied.
    #[error(
        "the group handles nothing: {waiting} records wait in {topic:?}; is a member running that \
         has the dead letter policy?"
    )]
    Idle {
        /// The redrive topic.
        topic: String,
        /// Records that wait.
        waiting: u64,
    },
    /// More letters than are held in memory.
    #[error("more than 256 MiB of dead letters: redrive by key or by time")]
    TooMany,
}

type KeyPlace = (TopicPartition, Bytes);

/// Told how many records were copied, and how many of them were handled.
type Progress<'p> = dyn FnMut(u64, u64) + Send + 'p;

impl GroupAdmin {
    /// The dead letters of a group, each once, in order within each partition that they come from.
    /// With `all`, also those that do not wait to be redriven. Cancellation-safe.
    ///
    /// # Errors
    /// [`RedriveError`].
    pub fn dead_letters<'a>(
        &'a self,
        group: &'a str,
        all: bool,
    ) -> BoxFuture<'a, Result<Vec<Letter>, RedriveError>> {
        async move {
            let parked = self.parked(group).await?;
            let mut letters = letters::read(self.client(), group, |_| true).await?;
            for letter in &mut letters {
                letter.waiting = waits(&parked, &letter.letter);
            }
            letters.retain(|letter| all || letter.waiting);
            Ok(letters)
        }
        .boxed()
    }

    async fn parked(&self, group: &str) -> Result<BTreeMap<KeyPlace, v1::ParkedKey>, AdminError> {
        let keys = self.parked_keys(group, &[]).await?;
        let entry =
            |key: v1::ParkedKey| ((place(key.topic_id, key.partition), key.key.clone()), key);
        Ok(keys.into_iter().map(entry).collect())
    }

    /// Redrives the selected keys; `progress` is told how many records were copied and how many of
    /// them were handled. A member of the group must be running.
    ///
    /// Dropped half-way, keys that were not unparked yet stay parked; what was copied is handled
    /// all the same.
    ///
    /// # Errors
    /// [`RedriveError`].
    pub async fn redrive(
        &self,
        group: &str,
        selection: &Selection,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<Redriven, RedriveError> {
        let mut run = Run {
            admin: self,
            group,
            topic: super::redrive_topic(group),
            selection,
            done: Redriven::default(),
            failed: BTreeSet::new(),
            keys: BTreeSet::new(),
            copied: 0,
            before: Handled::default(),
        };
        // Known from now on, if it exists: keys parked in it are told from others.
        run.is_ready().await?;
        while run.round(&mut progress).await? {}
        run.done.failed_keys = run.failed.len() as u64;
        run.done.keys = run.keys.difference(&run.failed).count() as u64;
        Ok(run.done)
    }
}

fn waits(parked: &BTreeMap<KeyPlace, v1::ParkedKey>, letter: &DeadLetter) -> bool {
    parked
        .get(&key_place(letter))
        .is_some_and(|key| (key.first_offset..=key.last_offset).contains(&letter.offset.0))
}

/// A record without a key counts as one with an empty key.
fn key_place(letter: &DeadLetter) -> KeyPlace {
    let tp = TopicPartition::new(letter.topic_id, letter.partition);
    (tp, letter.key.clone().unwrap_or_default())
}

struct Run<'a> {
    admin: &'a GroupAdmin,
    group: &'a str,
    topic: String,
    selection: &'a Selection,
    done: Redriven,
    failed: BTreeSet<KeyPlace>,
    keys: BTreeSet<KeyPlace>,
    copied: u64,
    /// What the group has handled by way of the redrive topic.
    before: Handled,
}

/// A letter that was copied, and where to.
struct Copied {
    key: KeyPlace,
    from: u64,
    to: (PartitionId, u64),
    /// By this redrive, just now.
    fresh: bool,
}

impl Run<'_> {
    /// Redrives what is parked of the selected keys now. False: nothing is.
    fn round<'r>(
        &'r mut self,
        progress: &'r mut Progress<'_>,
    ) -> BoxFuture<'r, Result<bool, RedriveError>> {
        async move {
            let parked = self.admin.parked(self.group).await?;
            let selected: BTreeMap<KeyPlace, v1::ParkedKey> = parked
                .into_iter()
                .filter(|(place, key)| self.selects(place, key))
                .collect();
            if selected.is_empty() {
                return Ok(false);
            }
            let client = self.admin.client();
            // First what was copied before, so that the letters show what failed of it.
            if self.is_ready().await? {
                self.clear(progress).await?;
                self.before.follow(self.admin, self.group).await?;
            }
            let letters =
                letters::read(client, self.group, |letter| waits(&selected, letter)).await?;
            let Some(first) = letters.first() else {
                // Parked, and not in the queue any more: there is nothing to wait for. A queue that
                // cannot be found is another matter.
                let queue = client.topic(&super::dlq_topic(self.group)).await;
                queue.map_err(AdminError::Rejected)?;
                return self.unpark_empty(&selected).await;
            };
            dead_letter::create_topics(client, self.group, &first.letter.topic).await?;
            let queue = client.topic(&super::dlq_topic(self.group)).await;
            let queue = queue.map_err(AdminError::Rejected)?.id;
            let mut copied = Vec::new();
            let mut open = Vec::new();
            for letter in letters {
                match self.before.copy_of(queue, &letter) {
                    Some(to) => copied.push(Copied {
                        key: key_place(&letter.letter),
                        from: letter.letter.offset.0,
                        to,
                        fresh: false,
                    }),
                    None => open.push(letter),
                }
            }
            copied.extend(self.copy(queue, &open, progress).await?);
            self.handled(progress).await?;
            self.unpark(&selected, &copied).await?;
            sleep(NEWS).await;
            Ok(true)
        }
        .boxed()
    }

    /// Whether the redrive topic exists.
    async fn is_ready(&self) -> Result<bool, RedriveError> {
        match self.admin.client().topic(&self.topic).await {
            Ok(_) => Ok(true),
            Err(Cause::UnknownTopic(_)) => Ok(false),
            Err(cause) => Err(AdminError::Rejected(cause).into()),
        }
    }

    fn selects(&self, place: &KeyPlace, key: &v1::ParkedKey) -> bool {
        let Selection {
            key: only,
            since_ms,
            until_ms,
            ..
        } = self.selection;
        // Keys of the redrive topic itself stand for keys of other topics.
        let client = self.admin.client();
        let of_redrive = client
            .view()
            .topic(place.0.topic)
            .is_some_and(|t| *t.name == *self.topic);
        !of_redrive
            && !self.failed.contains(place)
            && only.as_ref().is_none_or(|only| *only == place.1)
            && since_ms.is_none_or(|since| key.parked_time_ms >= since)
            && until_ms.is_none_or(|until| key.parked_time_ms < until)
    }

    /// Lets an earlier redrive, interrupted perhaps, come to its end, and forgets what it parked.
    async fn clear(&mut self, progress: &mut Progress<'_>) -> Result<(), RedriveError> {
        self.handled(progress).await?;
        let left = self.parked_again().await?;
        if left.is_empty() {
            return Ok(());
        }
        self.forget(left).await?;
        sleep(NEWS).await;
        Ok(())
    }

    /// Keys that members parked while they handled redriven records.
    async fn parked_again(&self) -> Result<Vec<v1::ParkedKey>, RedriveError> {
        let topic = self.admin.client().topic(&self.topic).await;
        let topic = topic.map_err(AdminError::Rejected)?;
        let partitions: Vec<_> = (0..topic.partition_count())
            .map(|p| TopicPartition::new(topic.id, PartitionId(p)))
            .collect();
        Ok(self.admin.parked_keys(self.group, &partitions).await?)
    }

    async fn forget(&self, keys: Vec<v1::ParkedKey>) -> Result<(), RedriveError> {
        let key = |key: v1::ParkedKey| v1::UnparkKey {
            topic_id: key.topic_id,
            partition: key.partition,
            key: key.key,
            redriven_offset: key.last_offset,
        };
        let keys = keys.into_iter().map(key).collect();
        self.admin.unpark(self.group, keys).await?;
        Ok(())
    }

    async fn copy(
        &mut self,
        queue: TopicId,
        letters: &[Letter],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Copied>, RedriveError> {
        let producer = self.admin.client().producer().build();
        let pause = self.selection.per_second.filter(|rate| *rate > 0.0);
        let pause = pause.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut next = Instant::now();
        let mut acks = Vec::new();
        for letter in letters {
            if let Some(pause) = pause {
                tokio::time::sleep_until(next).await;
                next += pause;
            }
            let mut record =
                dead_letter::to_record(self.topic.clone(), &letter.letter, &letter.record);
            record.headers.push(letters::mark(queue, &letter.record));
            acks.push(producer.enqueue(record).await?);
        }
        let mut copied = Vec::new();
        for (letter, ack) in letters.iter().zip(acks) {
            let stored = ack.await?;
            self.copied += 1;
            progress(self.copied, self.done.records);
            copied.push(Copied {
                key: key_place(&letter.letter),
                from: letter.letter.offset.0,
                to: (stored.partition, stored.offset.0),
                fresh: true,
            });
        }
        Ok(copied)
    }

    /// Waits until the group has committed everything in the redrive topic.
    async fn handled(&self, progress: &mut Progress<'_>) -> Result<(), RedriveError> {
        let client = self.admin.client();
        let topic = client.topic(&self.topic).await;
        let topic = topic.map_err(AdminError::Rejected)?;
        let ends = client.topic_offsets(&self.topic, At::Latest).await?;
        let firsts = client.topic_offsets(&self.topic, At::Earliest).await?;
        let mut best = u64::MAX;
        let mut since = Instant::now();
        loop {
            let committed = letters::committed(self.admin, self.group).await?;
            let waiting: u64 = ends
                .iter()
                .zip(&firsts)
                .map(|(end, first)| {
                    let of = committed
                        .iter()
                        .find(|c| c.topic_id == topic.id.0 && c.partition == end.partition.0);
                    let at = of.map_or(0, |c| c.offset).max(first.offset.0);
                    end.offset.0.saturating_sub(at)
                })
                .sum();
            progress(self.copied, self.copied.saturating_sub(waiting));
            if waiting == 0 {
                return Ok(());
            }
            if waiting < best {
                (best, since) = (waiting, Instant::now());
            }
            if since.elapsed() > self.selection.patience {
                let topic = self.topic.clone();
                return Err(RedriveError::Idle { topic, waiting });
            }
            sleep(LOOK).await;
        }
    }

    /// Unparks what was handled; keys of which a record failed again stay parked from it on.
    async fn unpark(
        &mut self,
        selected: &BTreeMap<KeyPlace, v1::ParkedKey>,
        copied: &[Copied],
    ) -> Result<(), RedriveError> {
        let again = self.parked_again().await?;
        let failed_from = |copy: &Copied| {
            let of = |k: &&v1::ParkedKey| k.partition == copy.to.0.0 && k.key == copy.key.1;
            again.iter().find(of).map(|key| key.first_offset)
        };
        let mut handled: BTreeMap<&KeyPlace, u64> = BTreeMap::new();
        for copy in copied {
            self.keys.insert(copy.key.clone());
            if failed_from(copy).is_some_and(|first| copy.to.1 >= first) {
                self.failed.insert(copy.key.clone());
            } else {
                self.done.records += u64::from(copy.fresh);
                handled.insert(&copy.key, copy.from);
            }
        }
        let mut keys = Vec::new();
        for (place, last) in handled {
            // Handled to the end: also offsets that are parked and not in the queue any more.
            let whole = selected.get(place).filter(|_| !self.failed.contains(place));
            keys.push(v1::UnparkKey {
                topic_id: place.0.topic.0,
                partition: place.0.partition.0,
                key: place.1.clone(),
                redriven_offset: whole.map_or(last, |key| key.last_offset),
            });
        }
        if !keys.is_empty() {
            self.admin.unpark(self.group, keys).await?;
        }
        if again.is_empty() {
            return Ok(());
        }
        self.forget(again).await
    }

    async fn unpark_empty(
        &mut self,
        selected: &BTreeMap<KeyPlace, v1::ParkedKey>,
    ) -> Result<bool, RedriveError> {
        tracing::warn!(
            group = self.group,
            keys = selected.len(),
            "parked keys have no record in the dead letter queue (any more): they are unparked"
        );
        self.keys.extend(selected.keys().cloned());
        self.forget(selected.values().cloned().collect()).await?;
        Ok(true)
    }
}
