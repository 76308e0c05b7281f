//! Fetch step 1, before router: one stream of a client, many subscriptions.
//!
//! Each subscription is a task that follows one partition; all share the stream's credit and its
//! bounded outlet. The stream ends them all when the client goes.

use std::collections::HashMap;
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::v1::fetch_request::Request;
use highwater_proto::v1::{FetchRequest, FetchResponse};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use super::credit::Credit;
use super::subscription::{self, Outlet};
use crate::node::Broker;

/// Serves one fetch stream until its client closes it or goes away.
pub async fn serve<E: Env>(
    broker: Arc<Broker<E>>,
    mut requests: Streaming<FetchRequest>,
    responses: mpsc::Sender<Result<FetchResponse, Status>>,
) {
    let credit = Arc::new(Credit::default());
    let mut running: HashMap<u32, Running> = HashMap::new();
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            // The reader of the responses went away: nothing can be delivered any more.
            () = responses.closed() => return,
        };
        let Ok(Some(request)) = request else { return };
        match request.request {
            Some(Request::CreditBytes(bytes)) => credit.add(bytes),
            Some(Request::Unsubscribe(id)) => drop(running.remove(&id)),
            Some(Request::Subscribe(subscribe)) => {
                let outlet = Outlet {
                    id: subscribe.subscription_id,
                    credit: Arc::clone(&credit),
                    responses: responses.clone(),
                };
                let id = subscribe.subscription_id;
                let task = subscription::run(Arc::clone(&broker), subscribe, outlet);
                // A second subscription under the same id replaces the first.
                running.insert(id, Running(tokio::spawn(task)));
            }
            None => {}
        }
    }
}

/// A subscription's task; ends with its owner.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
