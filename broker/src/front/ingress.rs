//! Before step 1 of a produced record: bytes of requests that are still coming in.
//!
//! The transport puts a message together before anybody sees it, so the gate comes too late for the
//! memory of large ones. Here a message that is longer than what has arrived of it waits for its
//! bytes of a budget before the rest is read; the transport pushes back meanwhile. The bytes are
//! given back when the handler asks for more, which it does only after the gate has admitted what it
//! took. (What fits into the frame that brought it is bounded by the connection's window.)
//!
//! The head of such a message is handed on alone. The decoder then makes its buffer large enough
//! before the first byte, instead of moving that byte again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use crate::gate::{Budget, Taken};

/// How long a message may take from its bytes of the budget to its end. A client that stops in the
/// middle would keep others from theirs.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(30);

/// Calls whose client sends message after message. The others send one, and end.
const STREAMS: [&str; 2] = ["/highwater.v1.Log/Produce", "/highwater.v1.Log/Fetch"];

/// A service whose large requests come out of a budget.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    budget: Budget,
}

impl<S> Metered<S> {
    /// `inner`, with requests held by `budget`.
    pub fn new(inner: S, budget: Budget) -> Self {
        Self { inner, budget }
    }
}

impl<S: NamedService> NamedService for Metered<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<http::Request<Body>> for Metered<S>
where
    S: tower::Service<http::Request<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let held = Held::default();
        parts.extensions.insert(held.clone());
        let body = Incoming {
            body,
            budget: self.budget.clone(),
            held,
            is_stream: STREAMS.contains(&parts.uri.path()),
            framing: Framing::default(),
            rest: None,
            stage: Stage::Free,
        };
        let body = Body::new(body);
        self.inner.call(http::Request::from_parts(parts, body))
    }
}

/// The budget's bytes of a request. The handler of a call with one message, whose body is gone when
/// it starts, keeps this as long as it keeps the message.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<Option<Taken>>>);

/// A body that hands on messages only as far as the budget goes.
struct Incoming {
    body: Body,
    budget: Budget,
    held: Held,
    is_stream: bool,
    framing: Framing,
    /// What of the last frame is not handed on yet: the beginning of a large message.
    rest: Option<Bytes>,
    stage: Stage,
}

enum Stage {
    /// Nothing of a large message is missing.
    Free,
    /// The head of a message of this length was handed on.
    Asked(usize),
    Waiting(Pin<Box<dyn Future<Output = Taken> + Send>>),
    Arriving(Pin<Box<Sleep>>),
}

impl Incoming {
    /// Gets as far as a stage in which data may be handed on.
    fn poll_budget(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            match &mut self.stage {
                Stage::Free => {
                    // The message before was taken: the handler asks for more.
                    if self.is_stream {
                        drop(self.held.0.lock().take());
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Asked(bytes) => {
                    drop(self.held.0.lock().take());
                    let (budget, bytes) = (self.budget.clone(), *bytes);
                    let taken = async move { budget.take(bytes).await };
                    self.stage = Stage::Waiting(Box::pin(taken));
                }
                Stage::Waiting(taken) => {
                    let taken = ready!(taken.as_mut().poll(context));
                    *self.held.0.lock() = Some(taken);
                    let deadline = tokio::time::sleep(ARRIVAL_DEADLINE);
                    self.stage = Stage::Arriving(Box::pin(deadline));
                }
                Stage::Arriving(deadline) => {
                    if deadline.as_mut().poll(context).is_ready() {
                        let text = "a request did not arrive in full within 30 s of its head";
                        return Poll::Ready(Err(Status::deadline_exceeded(text)));
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Hands on what can be handled, keeps back what needs the budget first.
    fn hand_on(&mut self, mut data: Bytes) -> Bytes {
        let scan = self.framing.scan(&data);
        if scan.ended_one {
            self.stage = Stage::Free;
        }
        if let Some((at, length)) = scan.large {
            let rest = data.split_off(at);
            self.rest = (!rest.is_empty()).then_some(rest);
            self.stage = Stage::Asked(length);
        }
        data
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Err(status) = ready!(this.poll_budget(context)) {
            return Poll::Ready(Some(Err(status)));
        }
        if let Some(rest) = this.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(this.hand_on(rest)))));
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let frame = match frame.into_data() {
            Ok(data) => Frame::data(this.hand_on(data)),
            Err(trailers) => trailers,
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in the sequence of messages the bytes are: five bytes of head (a flag, then the length,
/// big-endian), then that many bytes, and so on.
#[derive(Debug, Default)]
struct Framing {
    head: [u8; Self::HEAD],
    head_bytes: usize,
    /// Bytes left of the message whose head was read.
    left: usize,
}

/// What a piece of the sequence holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scan {
    /// A message that began in an earlier piece ended here.
    ended_one: bool,
    /// Where the body of a message begins that goes on beyond this piece, and its length. What
    /// follows in the piece has to be scanned again, as a piece of its own.
    large: Option<(usize, usize)>,
}

impl Framing {
    const HEAD: usize = 5;

    fn scan(&mut self, piece: &[u8]) -> Scan {
        let mut scan = Scan::default();
        let began_within = self.left > 0;
        let mut at = self.left.min(piece.len());
        self.left -= at;
        scan.ended_one = began_within && self.left == 0;
        while self.left == 0 && at < piece.len() {
            let head = self.head.iter_mut().skip(self.head_bytes);
            let taken = head.zip(piece.iter().skip(at));
            let taken = taken.map(|(to, from)| *to = *from).count();
            self.head_bytes += taken;
            at += taken;
            if self.head_bytes < Self::HEAD {
                break;
            }
            self.head_bytes = 0;
            let [_flag, a, b, c, d] = self.head;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length <= piece.len() - at {
                at += length;
            } else {
                self.left = length;
                scan.large = Some((at, length));
                break;
            }
        }
        scan
    }
}

#[cfg(test)]
#[path = "ingress_tests.rs"]
mod tests;
