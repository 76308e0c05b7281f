//! Fetch step 1, before router: one stream of a client, many subscriptions.
//!
//! Each subscription is a task that follows one partition; all share the stream's credit and its
//! bounded outlet. The stream ends them all when the client goes.

use std::collections::HashMap;
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::v1::fetch_request::Request;
use highwater_proto::v1::{ErrorCode, FetchRequest, FetchResponse};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;

use super::convert;
use super::credit::Credit;
use super::egress::Sent;
use super::subscription::{self, Outlet};
use crate::node::Broker;

/// Subscriptions of one stream; each is a task.
const MAX_SUBSCRIPTIONS: usize = 16_384;
/// The fewest subscriptions among which ended ones are looked for.
const SWEEP_AT: usize = 64;

/// Serves one fetch stream until its client closes it or goes away.
pub async fn serve<E: Env>(
    broker: Arc<Broker<E>>,
    mut requests: Streaming<FetchRequest>,
    responses: mpsc::Sender<Sent>,
) {
    let outflow = broker.outflow();
    let credit = Arc::new(Credit::default());
    let mut running = Subscriptions::default();
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            // The reader of the responses went away: nothing can be delivered any more.
            () = responses.closed() => return,
        };
        let Ok(Some(request)) = request else { return };
        match request.request {
            Some(Request::CreditBytes(bytes)) => credit.add(bytes),
            Some(Request::Unsubscribe(id)) => running.end(id),
            Some(Request::Subscribe(subscribe)) => {
                let outlet = Outlet {
                    id: subscribe.subscription_id,
                    credit: Arc::clone(&credit),
                    outflow: outflow.clone(),
                    responses: responses.clone(),
                };
                if running.has_room_for(outlet.id) {
                    let id = outlet.id;
                    let task = subscription::run(Arc::clone(&broker), subscribe, outlet);
                    running.begin(id, task);
                } else if responses
                    .send((Ok(too_many(outlet.id)), None))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            None => {}
        }
    }
}

fn too_many(id: u32) -> FetchResponse {
    let text = format!("a stream may have {MAX_SUBSCRIPTIONS} subscriptions; open another stream");
    FetchResponse {
        subscription_id: id,
        error: Some(convert::error(ErrorCode::InvalidRequest, text, None)),
        ..FetchResponse::default()
    }
}

/// The subscriptions of one stream, by id. Those that ended by themselves are swept out now and
/// then, so that a client that subscribes again and again costs no memory.
struct Subscriptions {
    running: HashMap<u32, Running>,
    sweep_at: usize,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            running: HashMap::new(),
            sweep_at: SWEEP_AT,
        }
    }
}

impl Subscriptions {
    fn has_room_for(&mut self, id: u32) -> bool {
        if self.running.len() >= self.sweep_at.min(MAX_SUBSCRIPTIONS) {
            self.running.retain(|_, task| !task.0.is_finished());
            self.sweep_at = SWEEP_AT.max(2 * self.running.len());
        }
        self.running.len() < MAX_SUBSCRIPTIONS || self.running.contains_key(&id)
    }
    /// A second subscription under the same id replaces the first.
    fn begin(&mut self, id: u32, task: impl Future<Output = ()> + Send + 'static) {
        self.end(id);
        self.running.insert(id, Running(tokio::spawn(task)));
    }
    fn end(&mut self, id: u32) {
        drop(self.running.remove(&id));
    }
}

/// A subscription's task; ends with its owner.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn subscriptions_that_ended_leave_nothing_and_the_others_are_bounded() {
        let mut subscriptions = Subscriptions::default();
        for id in 0..10 * MAX_SUBSCRIPTIONS as u32 {
            assert!(subscriptions.has_room_for(id));
            subscriptions.begin(id, async {});
            tokio::task::yield_now().await;
        }
        assert!(subscriptions.running.len() < 4 * SWEEP_AT);
        for id in 0..MAX_SUBSCRIPTIONS as u32 {
            assert!(subscriptions.has_room_for(id));
            subscriptions.begin(id, std::future::pending());
        }
        assert!(!subscriptions.has_room_for(u32::MAX));
        assert!(subscriptions.has_room_for(7), "it is replaced");
    }
}
