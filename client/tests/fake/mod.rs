//! A broker for tests: an honest log in memory behind the public services, with faults on demand.
#![allow(dead_code)] // each test program uses a part of it

mod admin;
mod fetch;
pub mod groups;
pub mod log;
mod produce;
mod topics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_client::{Client, ClientBuilder, ErrorCode};
use highwater_proto::v1;
use highwater_proto::v1::admin_server::AdminServer;
use highwater_proto::v1::groups_server::GroupsServer;
use highwater_proto::v1::log_server::LogServer;
use highwater_proto::v1::metadata_server::MetadataServer;
use highwater_proto::v1::topics_server::TopicsServer;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

pub use log::Partition;

/// What is done to one produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: lets one request pass before the next fault.
    None,
    /// The stream is reset before anything is appended.
    ResetBefore,
    /// The batches are appended, and the stream is reset before any verdict.
    ResetAfter,
    /// Rejected with this code; nothing is appended.
    Reject(ErrorCode),
    /// Appended, but answered as unknown.
    AnswerUnknown,
    /// Not appended, and answered as unknown.
    LoseUnknown,
    /// Never answered; nothing is appended.
    Swallow,
}

pub struct Topic {
    pub id: u64,
    pub replication_factor: u32,
    pub configs: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
}

#[derive(Default)]
pub struct State {
    pub addresses: BTreeMap<u32, String>,
    pub topics: BTreeMap<String, Topic>,
    /// Consumed one per produce request, by broker.
    pub faults: BTreeMap<u32, VecDeque<Fault>>,
    pub next_producer: u64,
    pub init_calls: u32,
    /// Requests are read and kept while set.
    pub hold: bool,
    /// Bytes that clients granted for fetching, in all.
    pub granted: u64,
    /// Bytes that were pushed, in all.
    pub pushed: u64,
    /// Brokers that have no replica of anything.
    pub empty: BTreeSet<u32>,
    /// The next fetch streams to be reset after one response.
    pub fetch_resets: u32,
    pub create_faults: VecDeque<ErrorCode>,
    pub groups: BTreeMap<String, groups::Group>,
}

/// A cluster of fakes in this process; they share one state.
pub struct FakeCluster {
    pub state: Arc<Mutex<State>>,
    pub changed: watch::Sender<u64>,
    _servers: JoinSet<()>,
}

#[derive(Clone)]
pub struct Node {
    pub id: u32,
    pub state: Arc<Mutex<State>>,
    pub changed: watch::Sender<u64>,
}

impl FakeCluster {
    pub async fn start(brokers: u32) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let changed = watch::Sender::new(0);
        let mut servers = JoinSet::new();
        for id in 1..=brokers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            state.lock().addresses.insert(id, address);
            let node = Node {
                id,
                state: Arc::clone(&state),
                changed: changed.clone(),
            };
            let server = tonic::transport::Server::builder()
                .add_service(LogServer::new(node.clone()).max_decoding_message_size(64 << 20))
                .add_service(MetadataServer::new(node.clone()))
                .add_service(GroupsServer::new(node.clone()))
                .add_service(TopicsServer::new(node.clone()))
                .add_service(AdminServer::new(node))
                .serve_with_incoming(TcpListenerStream::new(listener));
            servers.spawn(async move { server.await.unwrap() });
        }
        Self {
            state,
            changed,
            _servers: servers,
        }
    }

    pub fn builder(&self) -> ClientBuilder {
        let addresses: Vec<_> = self.state.lock().addresses.values().cloned().collect();
        Client::builder().brokers(addresses).seed(1)
    }
    pub fn brokers(&self) -> String {
        let addresses: Vec<_> = self.state.lock().addresses.values().cloned().collect();
        addresses.join(",")
    }
    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Creates a topic whose partitions are led by the brokers in turn.
    pub fn topic(&self, name: &str, partitions: u32) {
        self.state
            .lock()
            .create(name, partitions, 3, BTreeMap::new());
        self.announce();
    }
    /// Gives a topic so many more partitions, led by broker 1.
    pub fn add_partitions(&self, name: &str, more: u32) {
        let partitions = (0..more).map(|_| Partition::led_by(1));
        let mut state = self.state.lock();
        let topic = state.topics.get_mut(name).unwrap();
        topic.partitions.extend(partitions);
        drop(state);
        self.announce();
    }
    pub fn faults(&self, broker: u32, faults: &[Fault]) {
        self.state
            .lock()
            .faults
            .entry(broker)
            .or_default()
            .extend(faults);
    }
    pub fn hold(&self, hold: bool) {
        self.state.lock().hold = hold;
        self.announce();
    }
    pub fn announce(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }
    /// Moves leadership; watchers are told unless `quietly`.
    pub fn lead(&self, topic: &str, partition: usize, broker: u32, quietly: bool) {
        {
            let mut state = self.state.lock();
            let partition = &mut state.topics.get_mut(topic).unwrap().partitions[partition];
            partition.leader = broker;
            partition.term += 1;
            if !quietly {
                partition.told = (partition.leader, partition.term);
            }
        }
        self.announce();
    }
    /// Every value of the partition, in order, as text.
    pub fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        self.state.lock().topics[topic].partitions[partition].values()
    }
    pub fn all_values(&self, topic: &str) -> Vec<String> {
        let count = self.state.lock().topics[topic].partitions.len();
        (0..count)
            .flat_map(|partition| self.values(topic, partition))
            .collect()
    }
}

impl State {
    pub fn create(
        &mut self,
        name: &str,
        partitions: u32,
        replication_factor: u32,
        configs: BTreeMap<String, String>,
    ) -> &Topic {
        // Ids are not given again.
        let id = 1 + self
            .topics
            .values()
            .map(|topic| topic.id)
            .max()
            .unwrap_or(0);
        let brokers = self.addresses.len().max(1) as u32;
        let partitions = (0..partitions)
            .map(|p| Partition::led_by(1 + p % brokers))
            .collect();
        let topic = Topic {
            id,
            replication_factor,
            configs,
            partitions,
        };
        self.topics.entry(name.to_owned()).or_insert(topic)
    }
    pub fn partition(&mut self, topic: u64, partition: u32) -> Option<&mut Partition> {
        let topic = self.topics.values_mut().find(|t| t.id == topic)?;
        topic.partitions.get_mut(partition as usize)
    }
    pub fn hint(&self, leader: u32, term: u64) -> v1::LeaderHint {
        let address = self.addresses[&leader].clone();
        v1::LeaderHint {
            broker_id: leader,
            address,
            term,
            ..Default::default()
        }
    }
    pub fn metadata(&self, name: &str) -> v1::TopicMetadata {
        let topic = &self.topics[name];
        let partition = |(number, p): (usize, &Partition)| v1::PartitionMetadata {
            partition: number as u32,
            // A shard of its own for each, so that a hint speaks for one partition.
            shard: 1 + 1000 * topic.id as u32 + number as u32,
            leader: Some(p.told.0),
            term: p.told.1,
            replicas: self.addresses.keys().copied().collect(),
            ..Default::default()
        };
        v1::TopicMetadata {
            id: topic.id,
            name: name.to_owned(),
            ready: true,
            replication_factor: topic.replication_factor,
            configs: topic.configs.clone().into_iter().collect(),
            partitions: topic.partitions.iter().enumerate().map(partition).collect(),
        }
    }
    pub fn brokers(&self) -> Vec<v1::Broker> {
        let broker = |(&id, address): (&u32, &String)| v1::Broker {
            id,
            address: address.clone(),
            alive: true,
            version: "0.1.0".into(),
            ..Default::default()
        };
        self.addresses.iter().map(broker).collect()
    }
}

pub fn error(code: ErrorCode, leader: Option<v1::LeaderHint>) -> v1::Error {
    v1::Error {
        code: code.into(),
        message: format!("fake: {}", code.as_str_name()),
        leader,
    }
}
