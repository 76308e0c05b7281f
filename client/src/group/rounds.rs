//! One redrive, round by round: what is parked now is copied, handled, unparked; then what was
//! parked meanwhile.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::{PartitionId, TopicId, TopicPartition, v1};
use tokio::time::{Instant, sleep};

use super::admin::GroupAdmin;
use super::dead_letter::{self, DeadLetter};
use super::letters::{self, Handled, Name, Places, Queued};
use super::parked;
use super::redrive::{RedriveError, Redriven, Selection};
use crate::error::AdminError;
use crate::offsets::At;

/// Looks at the group's progress.
const LOOK: Duration = Duration::from_millis(200);
/// What members take to learn that keys were unparked, generously.
const NEWS: Duration = Duration::from_secs(1);

/// A partition, and what a key of it is parked as.
pub(super) type KeyPlace = (TopicPartition, Bytes);

/// Told how many records were copied, and how many of them were handled.
pub(super) type Progress<'p> = dyn FnMut(u64, u64) + Send + 'p;

/// Where the key of a letter is parked, if it is.
pub(super) fn key_place(letter: &DeadLetter) -> KeyPlace {
    let tp = TopicPartition::new(letter.topic_id, letter.partition);
    (tp, parked::name(letter.key.as_ref()))
}

/// Whether a letter is among what is parked.
pub(super) fn is_parked(parked: &BTreeMap<KeyPlace, v1::ParkedKey>, letter: &DeadLetter) -> bool {
    parked
        .get(&key_place(letter))
        .is_some_and(|key| (key.first_offset..=key.last_offset).contains(&letter.offset.0))
}

pub(super) struct Run<'a> {
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

/// A letter that the group has been given.
struct Given {
    name: Name,
    key: KeyPlace,
    from: u64,
    /// Where the copy lies that was made by this redrive, just now. None: an earlier copy was handled.
    to: Option<(PartitionId, u64)>,
}

impl Given {
    fn of(letter: &Queued, to: Option<(PartitionId, u64)>) -> Self {
        let letter = &letter.letter.letter;
        Self {
            name: letters::name(letter),
            key: key_place(letter),
            from: letter.offset.0,
            to,
        }
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(admin: &'a GroupAdmin, group: &'a str, selection: &'a Selection) -> Self {
        Self {
            admin,
            group,
            topic: super::redrive_topic(group),
            selection,
            done: Redriven::default(),
            failed: BTreeSet::new(),
            keys: BTreeSet::new(),
            copied: 0,
            before: Handled::default(),
        }
    }

    /// Redrives until nothing is parked of the selected keys but what failed again.
    pub(super) async fn all(
        mut self,
        progress: &mut Progress<'_>,
    ) -> Result<Redriven, RedriveError> {
        // Known from now on, if it exists: keys parked in it are told from others.
        self.is_ready().await?;
        while self.round(progress).await? {}
        self.done.failed_keys = self.failed.len() as u64;
        self.done.keys = self.keys.difference(&self.failed).count() as u64;
        Ok(self.done)
    }

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
            let wanted = |letter: &DeadLetter| is_parked(&selected, letter);
            let (letters, end) = letters::read(client, self.group, &Places::new(), wanted).await?;
            let Some(first) = letters.first() else {
                // Parked, and not in the queue any more: there is nothing to wait for. A queue that
                // cannot be found is another matter.
                let queue = client.topic(&super::dlq_topic(self.group)).await;
                queue.map_err(AdminError::Rejected)?;
                return self.unpark_empty(&selected).await;
            };
            dead_letter::create_topics(client, self.group, &first.letter.letter.topic).await?;
            let queue = client.topic(&super::dlq_topic(self.group)).await;
            let queue = queue.map_err(AdminError::Rejected)?.id;
            let (handled, open): (Vec<_>, Vec<_>) = letters
                .into_iter()
                .partition(|letter| self.before.covers(queue, letter));
            let mut given: Vec<_> = handled.iter().map(|l| Given::of(l, None)).collect();
            given.extend(self.copy(queue, &open, progress).await?);
            self.handled(progress).await?;
            let (renewed, _) = letters::read(client, self.group, &end, wanted).await?;
            self.unpark(&selected, &given, &renewed).await?;
            sleep(NEWS).await;
            Ok(true)
        }
        .boxed()
    }

    /// Whether the redrive topic exists.
    async fn is_ready(&self) -> Result<bool, RedriveError> {
        letters::exists(self.admin.client(), &self.topic).await
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
            && (only.is_none() || parked::name(only.as_ref()) == place.1)
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
        letters: &[Queued],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Given>, RedriveError> {
        let producer = self.admin.client().producer().build();
        let pause = self.selection.per_second.filter(|rate| *rate > 0.0);
        let pause = pause.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut next = Instant::now();
        let mut acks = Vec::new();
        for queued in letters {
            if let Some(pause) = pause {
                tokio::time::sleep_until(next).await;
                next += pause;
            }
            let letter = &queued.letter;
            let mut record =
                dead_letter::to_record(self.topic.clone(), &letter.letter, &letter.record);
            record.headers.extend(letters::marks(queue, queued));
            acks.push(producer.enqueue(record).await?);
        }
        let mut copied = Vec::new();
        for (letter, ack) in letters.iter().zip(acks) {
            let stored = ack.await?;
            self.copied += 1;
            progress(self.copied, self.done.records);
            copied.push(Given::of(letter, Some((stored.partition, stored.offset.0))));
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

    /// Unparks what was handled. A key stays parked from its first record on that is not: one that
    /// failed again (it is in the queue anew), or that came into the queue just now.
    async fn unpark(
        &mut self,
        selected: &BTreeMap<KeyPlace, v1::ParkedKey>,
        given: &[Given],
        renewed: &[Queued],
    ) -> Result<(), RedriveError> {
        let again = self.parked_again().await?;
        let mut open: BTreeMap<KeyPlace, u64> = BTreeMap::new();
        let mut note = |key: &KeyPlace, offset: u64| {
            let first = open.entry(key.clone()).or_insert(offset);
            *first = offset.min(*first);
        };
        let mut names: BTreeSet<Name> = BTreeSet::new();
        for Queued { letter, .. } in renewed {
            names.insert(letters::name(&letter.letter));
            note(&key_place(&letter.letter), letter.letter.offset.0);
        }
        let mut handled = Vec::new();
        for letter in given {
            self.keys.insert(letter.key.clone());
            if names.contains(&letter.name) || is_behind(&again, letter) {
                note(&letter.key, letter.from);
            } else {
                self.done.records += u64::from(letter.to.is_some());
                handled.push(letter);
            }
        }
        let mut last: BTreeMap<&KeyPlace, u64> = BTreeMap::new();
        for letter in handled {
            // What lies behind is known to be handled by its copy; that this one waits is known by
            // the parked key alone.
            if open
                .get(&letter.key)
                .is_none_or(|first| letter.from < *first)
            {
                let last = last.entry(&letter.key).or_default();
                *last = letter.from.max(*last);
            }
        }
        let keys = last.into_iter().map(|(place, last)| {
            // Handled to the end: also offsets that are parked and not in the queue any more.
            let whole = selected.get(place).filter(|_| !open.contains_key(place));
            v1::UnparkKey {
                topic_id: place.0.topic.0,
                partition: place.0.partition.0,
                key: place.1.clone(),
                redriven_offset: whole.map_or(last, |key| key.last_offset),
            }
        });
        let keys: Vec<_> = keys.collect();
        self.failed.extend(open.into_keys());
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

/// Whether a copy made just now lies behind one of its key that failed.
fn is_behind(again: &[v1::ParkedKey], letter: &Given) -> bool {
    let Some((partition, at)) = letter.to else {
        return false;
    };
    // Records without a key have no order.
    let of = |key: &&v1::ParkedKey| {
        !key.key.is_empty() && key.partition == partition.0 && key.key == letter.key.1
    };
    let behind = again.iter().find(of);
    behind.is_some_and(|key| at >= key.first_offset)
}
