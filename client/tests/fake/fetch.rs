//! The fake's fetch stream: pushes as far as credit reaches.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_client::ErrorCode;
use highwater_proto::v1;
use highwater_proto::v1::fetch_request::Request;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Node, error};

type Answer = Result<v1::FetchResponse, Status>;

struct Stream {
    node: Node,
    credit: i64,
    subscriptions: BTreeMap<u32, v1::Subscribe>,
}

pub async fn serve(
    node: Node,
    mut requests: Streaming<v1::FetchRequest>,
    answers: mpsc::Sender<Answer>,
) {
    let mut changed = node.changed.subscribe();
    let mut stream = Stream {
        node,
        credit: 0,
        subscriptions: BTreeMap::new(),
    };
    loop {
        while let Some(response) = stream.next_response() {
            let reset = stream.takes_reset();
            if answers.send(Ok(response)).await.is_err() {
                return;
            }
            if reset {
                let _ = answers.send(Err(Status::unavailable("reset"))).await;
                return;
            }
        }
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => stream.take(request),
                _ => return,
            },
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

impl Stream {
    fn take(&mut self, request: v1::FetchRequest) {
        match request.request {
            Some(Request::Subscribe(subscribe)) => {
                self.subscriptions
                    .insert(subscribe.subscription_id, subscribe);
            }
            Some(Request::Unsubscribe(id)) => {
                self.subscriptions.remove(&id);
            }
            Some(Request::CreditBytes(bytes)) => {
                self.credit += bytes as i64;
                self.node.state.lock().granted += bytes;
            }
            None => {}
        }
    }

    fn takes_reset(&self) -> bool {
        let mut state = self.node.state.lock();
        let reset = state.fetch_resets > 0;
        state.fetch_resets = state.fetch_resets.saturating_sub(1);
        reset
    }

    fn next_response(&mut self) -> Option<v1::FetchResponse> {
        let ids: Vec<u32> = self.subscriptions.keys().copied().collect();
        ids.into_iter().find_map(|id| self.response_of(id))
    }

    fn response_of(&mut self, id: u32) -> Option<v1::FetchResponse> {
        let mut state = self.node.state.lock();
        let subscription = self.subscriptions.get_mut(&id)?;
        let ended = |error| {
            Some(v1::FetchResponse {
                subscription_id: id,
                error: Some(error),
                ..Default::default()
            })
        };
        let is_empty = state.empty.contains(&self.node.id);
        let partition = state.partition(subscription.topic_id, subscription.partition)?;
        if partition.leader != self.node.id && !subscription.allow_follower {
            let (leader, term) = (partition.leader, partition.term);
            self.subscriptions.remove(&id);
            let hint = state.hint(leader, term);
            return ended(error(ErrorCode::NotLeader, Some(hint)));
        }
        if subscription.allow_follower && is_empty {
            self.subscriptions.remove(&id);
            return ended(error(ErrorCode::NotLeader, None));
        }
        if subscription.offset < partition.log_start || subscription.offset > partition.end() {
            self.subscriptions.remove(&id);
            return ended(error(ErrorCode::OffsetOutOfRange, None));
        }
        if self.credit <= 0 {
            return None;
        }
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        let from = subscription.offset;
        for stored in partition.stored.iter().filter(|stored| stored.next > from) {
            if bytes > 0 && bytes + stored.batch.len() > subscription.max_bytes as usize {
                break;
            }
            pieces.push(Bytes::copy_from_slice(&stored.batch.head));
            pieces.push(stored.batch.body.clone());
            bytes += stored.batch.len();
            subscription.offset = stored.next;
            if bytes as i64 >= self.credit {
                break;
            }
        }
        let (high_watermark, log_start_offset) = (partition.end(), partition.log_start);
        state.pushed += bytes as u64;
        self.credit -= bytes as i64;
        (bytes > 0).then_some(v1::FetchResponse {
            subscription_id: id,
            pieces,
            high_watermark,
            log_start_offset,
            error: None,
        })
    }
}
