//! Against peers that misbehave: every call ends, with the right error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_env::TcpNet;
use highwater_proto::NodeId;
use highwater_proto::internal::RaftRequest;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Lane, Route, received};
use crate::config::{Caller, Peers};
use crate::lane::{LaneError, LaneKind};

struct At(Option<SocketAddr>);

impl Peers for At {
    fn address(&self, _: NodeId) -> Option<String> {
        self.0.map(|address| address.to_string())
    }
}

fn lane(address: Option<SocketAddr>) -> (Lane, JoinSet<()>) {
    let route = Route {
        net: TcpNet,
        peer: NodeId(2),
        kind: LaneKind::Data,
        peers: Arc::new(At(address)),
        identity: Arc::new(Caller::default),
    };
    let (lane, task) = Lane::start(route);
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    (lane, tasks)
}

fn request() -> RaftRequest {
    RaftRequest {
        group: 1,
        kind: 1,
        body: Bytes::from_static(b"x"),
        ..RaftRequest::default()
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_peer_that_nobody_knows_is_unreachable_at_once() {
    let (lane, _tasks) = lane(None);
    let error = lane.call(request(), LONG).await.unwrap_err();
    assert_eq!(
        error,
        LaneError::Broken("nobody knows where broker 2 is".to_owned())
    );
}

#[tokio::test]
async fn a_refused_connection_fails_all_that_wait_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (lane, _tasks) = lane(Some(address));
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(lane.send(request()).await.unwrap());
    }
    for answer in answers {
        let error = received(answer.await).unwrap_err();
        assert!(matches!(error, LaneError::Broken(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_silent_peer_costs_no_more_than_the_deadline() {
    // Accepts by its backlog, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (lane, _tasks) = lane(Some(listener.local_addr().unwrap()));
    let deadline = Duration::from_millis(100);
    let error = lane.call(request(), deadline).await.unwrap_err();
    assert_eq!(error, LaneError::Deadline(deadline));
    // The attempt to connect has its own end, and takes what waits with it.
    let error = lane.call(request(), LONG).await.unwrap_err();
    assert!(matches!(error, LaneError::Broken(_)), "{error:?}");
}
