//! The clients of a run. All use the real client.

pub mod churn;
pub mod compacted;
pub mod members;
pub mod numbers;
pub mod operator;
pub mod reader;
pub mod retained;
pub mod trims;

use std::pin::Pin;
use std::time::Duration;

use anyhow::anyhow;
use highwater_checker::{Action, Function, Key, Kind, Offset, Process, Value};
use highwater_client::{
    AdminError, Client, ClientBuilder, ErrorCode, NewTopic, Producer, ProducerRecord, SendError,
};
use highwater_env::Clock;
use http::Uri;
use tokio::task::JoinSet;
use tokio::time::sleep;
use turmoil::Sim;

use crate::board::{Board, Phase};
use crate::settings::Settings;
use crate::surroundings::{self, SimClock};

/// The topic of a run that is written all the time.
pub const TOPIC: &str = "numbers";
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// What each client gets: the board, the settings, and a seed of its own.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The board.
    pub board: Board,
    /// What the seed has decided.
    pub settings: Settings,
    /// This client's own.
    pub seed: u64,
}

impl Shared {
    fn client(&self) -> ClientBuilder {
        let clock = SimClock::default();
        Client::builder()
            .brokers(self.settings.addresses())
            .connector(tower::service_fn(|uri: Uri| async move {
                let address = uri.authority().map_or("", |a| a.as_str()).to_owned();
                surroundings::connect(&address).await
            }))
            .seed(self.seed)
            .wall_clock(move || clock.now_ms())
    }

    async fn until(&self, phase: Phase) {
        while self.board.phase() < phase {
            sleep(AGAIN).await;
        }
    }
}

/// Machines that the clients of a run share: each costs time at every step of the simulation. What breaks on
/// the way to one breaks for all clients there.
const MACHINES: usize = 2;

type Running = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// Clients on their way to their machines.
struct Clients<'a> {
    settings: &'a Settings,
    board: &'a Board,
    next_seed: u64,
    machines: Vec<Vec<Running>>,
    next: usize,
}

impl<'a> Clients<'a> {
    fn new(settings: &'a Settings, board: &'a Board, first_seed: u64, machines: usize) -> Self {
        Self {
            settings,
            board,
            next_seed: first_seed,
            machines: (0..machines).map(|_| Vec::new()).collect(),
            next: 0,
        }
    }

    /// Adds a client, which gets a seed of its own, to the next machine.
    fn add<F>(&mut self, name: &str, run: impl FnOnce(Shared) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        self.next_seed = self.next_seed.wrapping_mul(31).wrapping_add(7);
        let running = run(Shared {
            board: self.board.clone(),
            settings: self.settings.clone(),
            seed: self.next_seed,
        });
        let (name, board) = (name.to_owned(), self.board.clone());
        board.begins(&name);
        let to_its_end = async move {
            running
                .await
                .map_err(|error| anyhow!("{name}: {error:#}"))?;
            board.ends(&name);
            Ok(())
        };
        let count = self.machines.len();
        if let Some(machine) = self.machines.get_mut(self.next % count) {
            machine.push(Box::pin(to_its_end));
        }
        self.next += 1;
    }

    /// Starts the machines; their names.
    fn start(self, sim: &mut Sim<'_>, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        for (number, clients) in (1..).zip(self.machines) {
            let name = format!("{prefix}{number}");
            sim.client(name.as_str(), async move {
                let mut running = JoinSet::new();
                for client in clients {
                    running.spawn_local(client);
                }
                while let Some(ended) = running.join_next().await {
                    ended??;
                }
                Ok(())
            });
            names.push(name);
        }
        names
    }
}

/// Starts the clients that work while things break; the names of their machines. Only those that have
/// something to do.
pub fn start(sim: &mut Sim<'_>, settings: &Settings, board: &Board) -> Vec<String> {
    let mut clients = Clients::new(settings, board, settings.seed, MACHINES);
    clients.add("founder", found);
    for number in 0..settings.producers {
        clients.add(&format!("producer{number}"), numbers::produce);
    }
    clients.add("follower", numbers::follow);
    clients.add("asker", numbers::ask);
    if settings.needs_operator() {
        clients.add(operator::NAME, operator::operate);
    }
    for number in 0..settings.workload.members {
        clients.add(&format!("member{number}"), members::live);
    }
    if settings.workload.churn {
        clients.add("churner", churn::churn);
    }
    if settings.workload.trims {
        clients.add("trimmer", trims::trim);
    }
    if let Some(compacted) = &settings.compacted {
        clients.add("compacted-writer", compacted::write);
        if !compacted.forgets {
            clients.add("compacted-scanner", compacted::scan);
        }
    }
    if settings.retained.is_some() {
        clients.add("retainer", retained::retain);
    }
    clients.start(sim, "clients")
}

/// Starts the clients that see, once everything is healed, what has become of it all.
pub fn start_last(sim: &mut Sim<'_>, settings: &Settings, board: &Board) {
    let mut clients = Clients::new(settings, board, !settings.seed, 1);
    if settings.workload.members > 0 {
        clients.add("finisher", members::finish);
    }
    if settings.compacted.is_some() {
        clients.add("compacted-reader", compacted::read_back);
    }
    clients.add("reader", numbers::read_back);
    clients.start(sim, "last");
}

/// Makes the topic as soon as the cluster can.
async fn found(shared: Shared) -> anyhow::Result<()> {
    let client = shared.client().build()?;
    let mut topic = NewTopic::named(TOPIC)
        .partitions(shared.settings.partitions)
        .replication_factor(shared.settings.replicas);
    for (key, value) in &shared.settings.topic {
        topic = topic.config(*key, value);
    }
    make(&client, &topic).await;
    shared.board.set_phase(Phase::Breaking);
    Ok(())
}

/// Makes a topic, however long that takes.
async fn make(client: &Client, topic: &NewTopic) {
    loop {
        match client.admin().create_topic(topic.clone()).await {
            Ok(_) => return,
            Err(error) if code(&error) == Some(ErrorCode::TopicExists) => return,
            Err(error) => tracing::info!(%error, "no topic yet"),
        }
        sleep(AGAIN).await;
    }
}

/// One send, with its place in the history: the offset, if it was acknowledged. A process that cannot know what
/// became of it is retired.
async fn send(
    board: &Board,
    producer: &Producer,
    process: &mut Process,
    (key, value): (Key, Value),
    record: ProducerRecord,
) -> anyhow::Result<Result<u64, SendError>> {
    let action = |offset| vec![Action::Send { key, value, offset }];
    board.push(*process, Kind::Invoke, Function::Send, action(None))?;
    let (kind, offset, outcome) = match producer.send(record).await {
        Ok(delivery) => (
            Kind::Ok,
            Some(Offset(delivery.offset.0)),
            Ok(delivery.offset.0),
        ),
        Err(error) if error.may_be_written() => (Kind::Info, None, Err(error)),
        Err(error) => (Kind::Fail, None, Err(error)),
    };
    board.push(*process, kind, Function::Send, action(offset))?;
    if kind == Kind::Info {
        *process = board.process();
    }
    Ok(outcome)
}

fn code(error: &AdminError) -> Option<ErrorCode> {
    error.cause().code()
}

/// A value with padding behind it, so that a short run fills more than one log file.
fn encode(value: Value, most: usize) -> String {
    let padding = usize::try_from(value.0.unsigned_abs() * 37).unwrap_or(0) % most.max(1);
    format!("{value} {:padding$}", "")
}

fn decode(bytes: &[u8]) -> anyhow::Result<Value> {
    Ok(Value(std::str::from_utf8(bytes)?.trim_end().parse()?))
}
