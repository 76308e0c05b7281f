//! The watch stream: a client's view of topics and leaders, complete at first, then what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_env::Env;
use highwater_proto::TopicId;
use highwater_proto::v1::metadata_server::Metadata;
use highwater_proto::v1::{Broker as BrokerInfo, MetadataUpdate, TopicMetadata, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{RESPONSES_IN_FLIGHT, view};
use crate::node::Broker;

/// The service `Metadata` over one broker.
pub struct MetadataService<E: Env>(pub Arc<Broker<E>>);

#[tonic::async_trait]
impl<E: Env> Metadata for MetadataService<E> {
    type WatchStream = ReceiverStream<Result<MetadataUpdate, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        tokio::spawn(watch(Arc::clone(&self.0), request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Serves one watch until its client goes.
async fn watch<E: Env>(
    broker: Arc<Broker<E>>,
    request: WatchRequest,
    updates: mpsc::Sender<Result<MetadataUpdate, Status>>,
) {
    let mut changes = broker.cluster.changes();
    let mut sent = Sent::default();
    loop {
        changes.borrow_and_update();
        let update = sent.difference(&broker, &request);
        if let Some(update) = update
            && updates.send(Ok(update)).await.is_err()
        {
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = updates.closed() => return,
        }
    }
}

/// What the client has been told.
#[derive(Default)]
struct Sent {
    first_done: bool,
    brokers: Vec<BrokerInfo>,
    topics: BTreeMap<TopicId, TopicMetadata>,
    missing: BTreeSet<String>,
}

impl Sent {
    /// What the client does not know yet; `None` when it knows everything.
    fn difference<E: Env>(
        &mut self,
        broker: &Broker<E>,
        request: &WatchRequest,
    ) -> Option<MetadataUpdate> {
        let image = broker.cluster.image();
        let mut update = MetadataUpdate {
            cluster_id: image.cluster_id().unwrap_or_default().to_owned(),
            ..MetadataUpdate::default()
        };
        let brokers = view::brokers(&broker.cluster);
        if brokers != self.brokers {
            self.brokers.clone_from(&brokers);
            update.brokers = brokers;
        }
        let mut missing = BTreeSet::new();
        let mut wanted = Vec::new();
        if request.all_topics {
            wanted.extend(image.topics().cloned());
        } else {
            for name in &request.topics {
                match image.topic_by_name(name) {
                    Some(topic) => wanted.push(Arc::clone(topic)),
                    None => drop(missing.insert(name.clone())),
                }
            }
        }
        for topic in wanted {
            let now = view::topic(&broker.cluster, &topic);
            if self.topics.get(&topic.id()) != Some(&now) {
                self.topics.insert(topic.id(), now.clone());
                update.topics.push(now);
            }
        }
        if missing != self.missing || !self.first_done {
            update.missing_topics = missing.iter().cloned().collect();
        }
        let changed = !self.first_done
            || !update.brokers.is_empty()
            || !update.topics.is_empty()
            || missing != self.missing;
        self.missing = missing;
        self.first_done = true;
        changed.then_some(update)
    }
}
