//! Deadlines that travel: one moment by which the whole chain of calls and records must be done.
//!
//! A deadline is a moment of the wall clock, because it must outlive a record's time in the log;
//! machines whose clocks differ see it earlier or later by that difference. The nearer of two
//! deadlines counts, so a deadline can only shrink on its way down.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::record::{ConsumedRecord, ProducerRecord};

/// The header that carries a deadline, in milliseconds since the Unix epoch as decimal digits.
pub const DEADLINE_HEADER: &str = "highwater-deadline-ms";

/// A moment, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub i64);

/// The deadline was reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct DeadlinePassed;

tokio::task_local! {
    static CURRENT: Deadline;
}

fn wall_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Deadline {
    /// `span` after `now_ms`.
    #[must_use]
    pub fn after(now_ms: i64, span: Duration) -> Self {
        Self(now_ms.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
    /// `span` from now, by this machine's clock.
    #[must_use]
    pub fn within(span: Duration) -> Self {
        Self::after(wall_ms(), span)
    }
    /// What is left at `now_ms`; nothing once it passed.
    #[must_use]
    pub fn left(self, now_ms: i64) -> Option<Duration> {
        let left = u64::try_from(self.0.saturating_sub(now_ms)).ok()?;
        (left > 0).then(|| Duration::from_millis(left))
    }
    /// The deadline of the code that runs now, set by [`Deadline::scope`].
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|deadline| *deadline).ok()
    }
    /// The deadline that a record carries.
    #[must_use]
    pub fn of(record: &ConsumedRecord) -> Option<Self> {
        let text = std::str::from_utf8(record.header(DEADLINE_HEADER)?).ok()?;
        text.parse().ok().map(Self)
    }
    /// The record with this deadline in its headers; a nearer one that is there already stays.
    #[must_use]
    pub fn put(self, mut record: ProducerRecord) -> ProducerRecord {
        let known = record
            .headers
            .iter()
            .find(|(key, _)| key == DEADLINE_HEADER);
        let known = known.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
        let nearest = known
            .and_then(|text| text.parse().ok())
            .map_or(self, |known| self.min(Self(known)));
        record.headers.retain(|(key, _)| key != DEADLINE_HEADER);
        let value = Bytes::from(nearest.to_string());
        record
            .headers
            .push((DEADLINE_HEADER.to_owned(), Some(value)));
        record
    }

    /// Runs `work` under this deadline, or under the one that is in force if that is nearer:
    /// inside, [`Deadline::current`] names it, and `work` is dropped when it passes.
    /// Cancellation-safe as far as `work` is.
    ///
    /// # Errors
    /// [`DeadlinePassed`].
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> Result<T, DeadlinePassed> {
        let nearest = Self::current().map_or(self, |outer| outer.min(self));
        let left = nearest.left(wall_ms()).ok_or(DeadlinePassed)?;
        tokio::time::timeout(left, CURRENT.scope(nearest, work))
            .await
            .map_err(|_| DeadlinePassed)
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_deadline_stays_on_the_record() {
        let record = Deadline(2_000).put(Deadline(1_000).put(ProducerRecord::to("t")));
        assert_eq!(record.headers.len(), 1);
        assert_eq!(record.headers[0].1.as_deref(), Some(&b"1000"[..]));
        let record = Deadline(500).put(record);
        assert_eq!(record.headers[0].1.as_deref(), Some(&b"500"[..]));
        assert_eq!(Deadline(500).left(499), Some(Duration::from_millis(1)));
        assert_eq!(Deadline(500).left(500), None);
        assert_eq!(Deadline::after(i64::MAX, Duration::MAX), Deadline(i64::MAX));
    }

    #[tokio::test]
    async fn an_inner_scope_can_only_shrink_and_ends_its_work() {
        assert_eq!(Deadline::current(), None);
        let outer = Deadline::within(Duration::from_secs(50));
        let seen = outer.scope(async {
            let far = Deadline::within(Duration::from_secs(900));
            far.scope(async { Deadline::current() }).await
        });
        assert_eq!(seen.await, Ok(Ok(Some(outer))));
        let near = Deadline::within(Duration::from_millis(5));
        assert_eq!(
            near.scope(std::future::pending::<()>()).await,
            Err(DeadlinePassed)
        );
        assert_eq!(Deadline(1).scope(async {}).await, Err(DeadlinePassed));
    }
}
