//! One poll of a reader: its first record, and what comes soon after it.

use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::{ConsumeError, ConsumedRecord, Consumer};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// What a reader's stream said, if it said something in time.
pub(super) type Next = Result<Option<Result<ConsumedRecord, ConsumeError>>, Elapsed>;

/// `first`, and what follows it within `time`, up to `most` records; and why no more can come.
pub(super) async fn collect(
    consumer: &mut Consumer,
    first: Next,
    (time, most): (Duration, usize),
) -> (Vec<ConsumedRecord>, Option<String>) {
    let mut records = Vec::new();
    let mut next = first;
    let end = Instant::now() + time;
    while let Ok(Some(item)) = next {
        match item {
            Ok(record) => records.push(record),
            Err(error) => return (records, Some(error.to_string())),
        }
        if records.len() >= most {
            break;
        }
        next = timeout_at(end, consumer.next()).await;
    }
    (records, None)
}
