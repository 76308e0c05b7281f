//! Large requests wait for the budget, small ones do not, and nothing is held too long.

use std::collections::VecDeque;

use http_body::Body as _;
use http_body::Frame;
use proptest::prelude::*;

use super::*;

/// Frames that are there, and then silence.
struct Frames(VecDeque<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None => Poll::Pending,
        }
    }
}

fn incoming(frames: impl IntoIterator<Item = Bytes>, budget: &Budget, is_stream: bool) -> Incoming {
    Incoming {
        body: Body::new(Frames(frames.into_iter().collect())),
        budget: budget.clone(),
        held: Held::default(),
        is_stream,
        framing: Framing::default(),
        rest: None,
        stage: Stage::Free,
    }
}

fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length).expect("short").to_be_bytes());
    bytes.extend((0..length).map(|n| n as u8));
    bytes
}

fn frames(bytes: &[u8], size: usize) -> Vec<Bytes> {
    bytes.chunks(size).map(Bytes::copy_from_slice).collect()
}

/// Everything that can be had now.
fn drain(body: &mut Incoming) -> Vec<Bytes> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut got = Vec::new();
    while let Poll::Ready(Some(frame)) = Pin::new(&mut *body).poll_frame(&mut context) {
        got.push(frame.expect("no error").into_data().expect("data"));
    }
    got
}

#[tokio::test]
async fn a_large_request_waits_for_its_bytes_before_it_is_read() {
    let budget = Budget::new(64 << 10);
    let others = budget.try_take(40 << 10).expect("free");
    let mut body = incoming(frames(&message(30 << 10), 16 << 10), &budget, true);
    assert_eq!(
        drain(&mut body),
        [message(30 << 10)[..5].to_vec()],
        "its head alone"
    );
    drop(others);
    let rest: usize = drain(&mut body).iter().map(Bytes::len).sum();
    assert_eq!(rest, 30 << 10);
    assert_eq!(
        budget.in_use(),
        0,
        "asked for more, the handler has taken it"
    );
}

#[tokio::test]
async fn a_stream_holds_its_bytes_until_more_is_asked_for_and_a_call_until_it_is_done() {
    for is_stream in [true, false] {
        let budget = Budget::new(64 << 10);
        let mut body = incoming(frames(&message(20 << 10), 16 << 10), &budget, is_stream);
        let held = body.held.clone();
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..3 {
            let frame = Pin::new(&mut body).poll_frame(&mut context);
            assert!(frame.is_ready());
        }
        assert_eq!(budget.in_use(), 20 << 10, "nobody asked for more yet");
        assert!(drain(&mut body).is_empty());
        assert_eq!(budget.in_use(), if is_stream { 0 } else { 20 << 10 });
        drop(body);
        assert_eq!(budget.in_use(), if is_stream { 0 } else { 20 << 10 });
        drop(held);
        assert_eq!(budget.in_use(), 0);
    }
}

#[tokio::test]
async fn small_requests_need_no_budget() {
    let budget = Budget::new(1 << 10);
    let _all = budget.try_take(1 << 10).expect("free");
    let many: Vec<u8> = (0..50).flat_map(|n| message(n * 7)).collect();
    let mut body = incoming([Bytes::from(many.clone())], &budget, true);
    assert_eq!(drain(&mut body).concat(), many);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stops_in_the_middle_gives_its_bytes_back() {
    let budget = Budget::new(64 << 10);
    let half = &message(30 << 10)[..20 << 10];
    let mut body = incoming(frames(half, 16 << 10), &budget, true);
    let held: usize = drain(&mut body).iter().map(Bytes::len).sum();
    assert_eq!((held, budget.in_use()), (20 << 10, 30 << 10));
    let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
    let error = next.await.expect("an end").expect_err("too late");
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    drop(body);
    assert_eq!(budget.in_use(), 0);
}

proptest! {
    #[test]
    fn whatever_the_frames_nothing_is_lost_and_nothing_stays_held(
        lengths in prop::collection::vec(0_usize..5000, 0..30),
        cuts in prop::collection::vec(1_usize..3000, 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _inside = runtime.enter();
        let all: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        let mut left = Bytes::from(all.clone());
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if left.is_empty() { break; }
            pieces.push(left.split_to((*cut).min(left.len())));
        }
        let budget = Budget::new(8 << 10);
        let mut body = incoming(pieces, &budget, true);
        prop_assert_eq!(drain(&mut body).concat(), all);
        prop_assert_eq!(budget.in_use(), 0);
    }
}
