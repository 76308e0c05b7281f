//! After the last step of a fetched record: bytes of responses that are on their way out.
//!
//! What was read for a client is in memory until the transport has taken it, and a client may be
//! slow, or stop. So responses come out of a budget that all fetch streams share. When it is used
//! up, nobody waits for anybody: each stream goes on with one small response at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use highwater_proto::v1::FetchResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::Status;

use crate::gate::{Budget, Taken};

/// Bytes of a response that needs nothing of the budget. A batch that is larger is read all the
/// same: alone.
const SMALL_RESPONSE: usize = 64 << 10;
/// A stream holds at most this part of the budget, so that a few clients that stopped reading leave
/// the others theirs.
const PART_OF_A_STREAM: u64 = 8;

/// A response and the room it takes.
pub type Sent = (Result<FetchResponse, Status>, Option<Room>);

/// What one stream may have on its way.
#[derive(Debug, Clone)]
pub struct Outflow {
    shared: Budget,
    stream: Budget,
    small: Arc<Semaphore>,
}

/// Room for one response; given back when dropped.
#[derive(Debug)]
pub struct Room {
    bytes: usize,
    of: RoomOf,
}

#[derive(Debug)]
enum RoomOf {
    Budgets(Taken, Taken),
    Stream(#[allow(dead_code)] OwnedSemaphorePermit),
}

impl Room {
    /// How many bytes to read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    fn shrink_to(&mut self, bytes: usize) {
        if let RoomOf::Budgets(shared, stream) = &mut self.of {
            shared.shrink_to(bytes);
            stream.shrink_to(bytes);
        }
    }
}

impl Outflow {
    /// A stream's share of `shared`, which is a budget of `total` bytes.
    #[must_use]
    pub fn new(shared: Budget, total: u64) -> Self {
        Self {
            shared,
            stream: Budget::new(total.div_ceil(PART_OF_A_STREAM)),
            small: Arc::new(Semaphore::new(1)),
        }
    }

    /// Room for a response of up to `wanted` bytes, or for less when there is not that much.
    /// Cancellation-safe: a dropped future holds nothing.
    pub async fn room(&self, wanted: usize) -> Room {
        if let Some(stream) = self.stream.try_take(wanted)
            && let Some(shared) = self.shared.try_take(wanted)
        {
            return Room {
                bytes: wanted,
                of: RoomOf::Budgets(shared, stream),
            };
        }
        metrics::counter!("highwater_fetch_small_responses_total").increment(1);
        self.alone(wanted.min(SMALL_RESPONSE)).await
    }

    /// The room of a response that turned out to have `bytes`: less than expected, or more, when
    /// its only batch is larger. Cancellation-safe, but `room` is gone.
    pub async fn fit(&self, mut room: Room, bytes: usize) -> Room {
        if bytes <= room.bytes || matches!(room.of, RoomOf::Stream(_)) {
            room.shrink_to(bytes);
            return room;
        }
        drop(room);
        self.alone(bytes).await
    }

    async fn alone(&self, bytes: usize) -> Room {
        match Arc::clone(&self.small).acquire_owned().await {
            Ok(only) => Room {
                bytes,
                of: RoomOf::Stream(only),
            },
            // The semaphore lives as long as `self` and is never closed.
            Err(_closed) => std::future::pending().await,
        }
    }
}

/// The responses of a stream, each holding its room until the transport asks for the next one.
#[derive(Debug)]
pub struct Responses {
    queue: mpsc::Receiver<Sent>,
    under_way: Option<Room>,
}

impl Responses {
    /// The receiving end of a stream's queue.
    #[must_use]
    pub fn new(queue: mpsc::Receiver<Sent>) -> Self {
        Self {
            queue,
            under_way: None,
        }
    }
}

impl Stream for Responses {
    type Item = Result<FetchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.under_way = None;
        Poll::Ready(
            ready!(self.queue.poll_recv(context)).map(|(response, room)| {
                self.under_way = room;
                response
            }),
        )
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
