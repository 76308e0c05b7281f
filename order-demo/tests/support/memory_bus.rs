//! A broker in memory, with a leader that can die and flaws that can be ordered.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use highwater_order_demo::ClusterControl;
use highwater_order_demo::bus::{Bus, Outcome, Placement, Sender};
use highwater_order_demo::evidence::Observed;
use highwater_order_demo::order::Source;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

/// How long a partition whose leader died takes nothing.
pub const FAILOVER: Duration = Duration::from_millis(700);

/// What goes wrong, and with which record of a topic (counted as they are sent).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Acknowledged, and not stored.
    Lose,
    /// Stored twice.
    Duplicate,
    /// Stored, and reported as unknown.
    StoreUnknown,
    /// Not stored, and reported as unknown.
    DropUnknown,
    /// Not stored, and reported so.
    Refuse,
}

type Stored = (Vec<u8>, Vec<u8>);
type Waiting = (String, u32, Stored, oneshot::Sender<Outcome>);

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Vec<Vec<Stored>>>,
    sent: BTreeMap<String, u64>,
    flaws: BTreeMap<(String, u64), Flaw>,
    dead: Option<u32>,
    waiting: Vec<Waiting>,
    killed: Vec<u32>,
    restarted: Vec<u32>,
    /// A broker whose copies of the first topic's records differ.
    rotten: Option<u32>,
}

#[derive(Clone)]
pub struct MemoryBus {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

impl MemoryBus {
    pub fn new(flaws: &[(&str, u64, Flaw)]) -> Self {
        let flaws = flaws
            .iter()
            .map(|(topic, at, flaw)| (((*topic).to_owned(), *at), *flaw));
        let state = State {
            flaws: flaws.collect(),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    pub fn rot(&self, broker: u32) {
        self.state.lock().expect("sound").rotten = Some(broker);
    }

    pub fn killed_and_restarted(&self) -> (Vec<u32>, Vec<u32>) {
        let state = self.state.lock().expect("sound");
        (state.killed.clone(), state.restarted.clone())
    }

    fn store(&self, state: &mut State, (topic, partition, record, done): Waiting) {
        let count = state.sent.entry(topic.clone()).or_default();
        let flaw = state.flaws.get(&(topic.clone(), *count)).copied();
        *count += 1;
        let log = &mut state.topics.get_mut(&topic).expect("created")[partition as usize];
        let offset = log.len() as u64;
        let copies = match flaw {
            None | Some(Flaw::StoreUnknown) => 1,
            Some(Flaw::Duplicate) => 2,
            Some(Flaw::Lose | Flaw::DropUnknown | Flaw::Refuse) => 0,
        };
        log.extend(std::iter::repeat_n(record, copies));
        let _ = done.send(match flaw {
            Some(Flaw::StoreUnknown | Flaw::DropUnknown) => Outcome::Unknown("planted".into()),
            Some(Flaw::Refuse) => Outcome::Refused("planted".into()),
            _ => Outcome::Acknowledged(Source { partition, offset }),
        });
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn records(&self, topic: &str, at: Source, broker: Option<u32>) -> Option<Observed> {
        let state = self.state.lock().expect("sound");
        let log = &state.topics[topic][at.partition as usize];
        let (key, mut value) = log.get(usize::try_from(at.offset).expect("small"))?.clone();
        if broker.is_some() && broker == state.rotten && at.offset == 0 {
            value.push(b' ');
        }
        Some(Observed { at, key, value })
    }
}

/// Two shards: even partitions under broker 1, odd ones under broker 2. The dead one's are led by
/// broker 3 once the failover is over.
fn leader_of(partition: u32) -> u32 {
    partition % 2 + 1
}

pub struct MemoryControl(pub MemoryBus);

impl ClusterControl for MemoryControl {
    async fn start(&self) -> anyhow::Result<Vec<(u32, String)>> {
        anyhow::bail!("these brokers have no addresses")
    }

    async fn kill(&self, broker: u32) -> anyhow::Result<()> {
        {
            let mut state = self.0.state.lock().expect("sound");
            state.dead = Some(broker);
            state.killed.push(broker);
        }
        let bus = self.0.clone();
        tokio::spawn(async move {
            sleep(FAILOVER).await;
            let mut state = bus.state.lock().expect("sound");
            state.dead = None;
            for waiting in std::mem::take(&mut state.waiting) {
                bus.store(&mut state, waiting);
            }
        });
        Ok(())
    }

    async fn restart(&self, broker: u32) -> anyhow::Result<()> {
        sleep(Duration::from_millis(300)).await;
        self.0.state.lock().expect("sound").restarted.push(broker);
        Ok(())
    }

    async fn caught_up(&self, _broker: u32) -> anyhow::Result<()> {
        sleep(Duration::from_millis(200)).await;
        Ok(())
    }
}

impl Bus for MemoryBus {
    type Sender = MemorySender;
    type Records = Pin<Box<dyn Stream<Item = anyhow::Result<Observed>> + Send>>;

    async fn create_topic(&self, topic: &str, partitions: u32, _: u32) -> anyhow::Result<()> {
        let logs = vec![Vec::new(); partitions as usize];
        self.state
            .lock()
            .expect("sound")
            .topics
            .insert(topic.to_owned(), logs);
        Ok(())
    }

    fn sender(&self) -> MemorySender {
        MemorySender(self.clone())
    }

    async fn read(
        &self,
        topic: &str,
        from: &BTreeMap<u32, u64>,
        broker: Option<u32>,
    ) -> anyhow::Result<Self::Records> {
        let positions = from.iter().map(|(partition, offset)| {
            let start = Source {
                partition: *partition,
                offset: *offset,
            };
            let (bus, topic) = (self.clone(), topic.to_owned());
            stream::unfold(
                (start, bus.changed.subscribe()),
                move |(at, mut changes)| {
                    let (bus, topic) = (bus.clone(), topic.clone());
                    async move {
                        loop {
                            if let Some(record) = bus.records(&topic, at, broker) {
                                let next = Source {
                                    offset: at.offset + 1,
                                    ..at
                                };
                                return Some((Ok(record), (next, changes)));
                            }
                            changes.changed().await.ok()?;
                        }
                    }
                },
            )
            .boxed()
        });
        Ok(stream::select_all(positions).boxed())
    }

    async fn ends(&self, topic: &str) -> anyhow::Result<BTreeMap<u32, u64>> {
        let state = self.state.lock().expect("sound");
        Ok((0..)
            .zip(state.topics[topic].iter().map(|log| log.len() as u64))
            .collect())
    }

    async fn placement(&self, topic: &str) -> anyhow::Result<Vec<Placement>> {
        let state = self.state.lock().expect("sound");
        let partitions = 0..u32::try_from(state.topics[topic].len())?;
        let place = |partition| {
            let leader = leader_of(partition);
            Placement {
                partition,
                shard: 10 + leader,
                leader: Some(leader),
            }
        };
        Ok(partitions.map(place).collect())
    }
}

#[derive(Clone)]
pub struct MemorySender(MemoryBus);

impl Sender for MemorySender {
    type Ended = MemoryEnded;

    async fn enqueue(
        &self,
        topic: &str,
        key: String,
        value: Vec<u8>,
        _: String,
    ) -> Result<MemoryEnded, Outcome> {
        let (done, ended) = oneshot::channel();
        let mut state = self.0.state.lock().expect("sound");
        let partitions = state.topics[topic].len();
        let sum: usize = key.bytes().map(usize::from).sum();
        let partition = u32::try_from(sum % partitions).expect("few");
        let record = (topic.to_owned(), partition, (key.into_bytes(), value), done);
        if state.dead == Some(leader_of(partition)) {
            state.waiting.push(record);
        } else {
            self.0.store(&mut state, record);
        }
        Ok(MemoryEnded(ended))
    }
}

pub struct MemoryEnded(oneshot::Receiver<Outcome>);

impl Future for MemoryEnded {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let gone = || Outcome::Unknown("gone".into());
        Pin::new(&mut self.0)
            .poll(context)
            .map(|end| end.unwrap_or_else(|_| gone()))
    }
}
