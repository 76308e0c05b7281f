//! Responses out of a budget: nobody waits for anybody, nobody takes everything.

use futures_util::{FutureExt as _, StreamExt as _};

use super::*;

fn outflow(shared: &Budget, total: u64) -> Outflow {
    Outflow::new(shared.clone(), total)
}

#[test]
fn without_budget_a_stream_goes_on_with_one_small_response_at_a_time() {
    let shared = Budget::new(8 << 20);
    let _others = shared.try_take(8 << 20).expect("free");
    let stream = outflow(&shared, 8 << 20);
    let first = stream.room(1 << 20).now_or_never().expect("at once");
    assert_eq!(first.bytes(), SMALL_RESPONSE);
    assert!(
        stream.room(1 << 20).now_or_never().is_none(),
        "one at a time"
    );
    let another = outflow(&shared, 8 << 20);
    assert!(another.room(10).now_or_never().is_some(), "each stream");
    drop(first);
    assert!(stream.room(1 << 20).now_or_never().is_some());
}

#[test]
fn a_stream_that_nobody_reads_leaves_most_of_the_budget_to_others() {
    let shared = Budget::new(8 << 20);
    let stuck = outflow(&shared, 8 << 20);
    let mut held = Vec::new();
    while let Some(room) = stuck.room(256 << 10).now_or_never() {
        held.push(room);
    }
    assert!(shared.in_use() <= (8 << 20) / PART_OF_A_STREAM);
    let other = outflow(&shared, 8 << 20);
    let room = other.room(1 << 20).now_or_never().expect("at once");
    assert_eq!(room.bytes(), 1 << 20);
}

#[test]
fn room_shrinks_to_what_was_read_and_a_larger_batch_goes_alone() {
    let shared = Budget::new(8 << 20);
    let stream = outflow(&shared, 8 << 20);
    let room = stream.room(1 << 20).now_or_never().expect("at once");
    let room = stream.fit(room, 3000).now_or_never().expect("at once");
    assert_eq!(shared.in_use(), 3 << 10);
    let larger = stream.fit(room, 5 << 20).now_or_never().expect("at once");
    assert_eq!(shared.in_use(), 0);
    let room = stream.room(10).now_or_never().expect("the budget is free");
    assert!(
        stream.fit(room, 5 << 20).now_or_never().is_none(),
        "one at a time"
    );
    drop(larger);
}

#[tokio::test]
async fn a_response_holds_its_room_until_the_next_is_asked_for() {
    let shared = Budget::new(8 << 20);
    let stream = outflow(&shared, 8 << 20);
    let (sender, queue) = mpsc::channel(4);
    let mut responses = Responses::new(queue);
    let room = stream.room(1000).await;
    sender
        .send((Ok(FetchResponse::default()), Some(room)))
        .await
        .expect("room in the queue");
    drop(sender);
    assert!(responses.next().await.is_some());
    assert_eq!(shared.in_use(), 1 << 10, "the transport has it");
    assert!(responses.next().await.is_none());
    assert_eq!(shared.in_use(), 0);
}
