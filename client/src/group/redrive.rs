//! Dead letters are listed, and come back to their group.
//!
//! A redrive copies the letters of parked keys, in order, into the topic `<group>.redrive`, which
//! the members of that group read and nobody else; waits until they have handled them; then the
//! keys unpark. Records of a key that came meanwhile were parked behind it and are copied next, so
//! the key's order is kept to the end. A key whose record fails again stays parked from that record
//! on. So does what is parked without a key, whatever of it was handled behind that record.
//!
//! A letter that the group has handled is not copied again, also when an earlier redrive was
//! interrupted before it could unpark the key, or when a member's unanswered request parks the key
//! once more behind it: the redrive topic itself says which letter each copy is of, and the group's
//! committed offset how far it is. Two redrives of a key at the same time are not told apart: both
//! may copy it.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::v1;

use super::admin::{GroupAdmin, place};
use super::dead_letter::DeadLetter;
use super::letters::{self, Handled, Places};
use super::rounds::{KeyPlace, Run, is_parked, key_place};
use crate::error::{AdminError, ConsumeError, OffsetsError, SendError};
use crate::record::ConsumedRecord;

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
            let client = self.client();
            let parked = self.parked(group).await?;
            if parked.is_empty() && !all {
                return Ok(Vec::new());
            }
            // Records without a key are parked as one range. One that failed again keeps those behind
            // it parked, which may have been handled.
            let mut handled = Handled::default();
            let ranges = parked.keys().any(|(_, name)| name.is_empty());
            if ranges && letters::exists(client, &super::redrive_topic(group)).await? {
                handled.follow(self, group).await?;
            }
            let (letters, _) = letters::read(client, group, &Places::new(), |_| true).await?;
            if letters.is_empty() {
                return Ok(Vec::new());
            }
            let queue = client.topic(&super::dlq_topic(group)).await;
            let queue = queue.map_err(AdminError::Rejected)?.id;
            let letters = letters.into_iter().map(|mut queued| {
                let (_, name) = key_place(&queued.letter.letter);
                let done = name.is_empty() && handled.covers(queue, &queued);
                queued.letter.waiting = is_parked(&parked, &queued.letter.letter) && !done;
                queued.letter
            });
            Ok(letters.filter(|letter| all || letter.waiting).collect())
        }
        .boxed()
    }

    pub(super) async fn parked(
        &self,
        group: &str,
    ) -> Result<BTreeMap<KeyPlace, v1::ParkedKey>, AdminError> {
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
        Run::new(self, group, selection).all(&mut progress).await
    }
}
