//! The clients of a run. All use the real client.

pub mod churn;
pub mod members;
pub mod numbers;
pub mod operator;
pub mod reader;
pub mod trims;

use std::time::Duration;

use highwater_checker::Value;
use highwater_client::{AdminError, Client, ClientBuilder, ErrorCode, NewTopic};
use highwater_env::Clock;
use http::Uri;
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

macro_rules! client {
    ($sim:expr, $names:expr, $name:expr, $shared:expr, $run:path) => {{
        let (name, shared) = ($name.to_owned(), $shared);
        let (client, board) = (name.clone(), shared.board.clone());
        board.begins(&client);
        $sim.client(name.as_str(), async move {
            $run(shared).await?;
            board.ends(&client);
            Ok(())
        });
        $names.push(name);
    }};
}

/// What each client of a run gets, one after the other.
fn all_shared(settings: &Settings, board: &Board, first: u64) -> impl FnMut() -> Shared {
    let (settings, board) = (settings.clone(), board.clone());
    let mut next_seed = first;
    move || {
        next_seed = next_seed.wrapping_mul(31).wrapping_add(7);
        Shared {
            board: board.clone(),
            settings: settings.clone(),
            seed: next_seed,
        }
    }
}

/// Starts the clients that work while things break; their names. Only those that have something to
/// do: a client that waits takes as much of the processor as one that works.
pub fn start(sim: &mut Sim<'_>, settings: &Settings, board: &Board) -> Vec<String> {
    let mut names = Vec::new();
    let mut shared = all_shared(settings, board, settings.seed);
    client!(sim, names, "founder", shared(), found);
    for number in 0..settings.producers {
        let name = format!("producer{number}");
        client!(sim, names, name, shared(), numbers::produce);
    }
    client!(sim, names, "follower", shared(), numbers::follow);
    client!(sim, names, "asker", shared(), numbers::ask);
    if settings.needs_operator() {
        client!(sim, names, "operator", shared(), operator::operate);
    }
    for number in 0..settings.workload.members {
        let name = format!("member{number}");
        client!(sim, names, name, shared(), members::live);
    }
    if settings.workload.churn {
        client!(sim, names, "churner", shared(), churn::churn);
    }
    if settings.workload.trims {
        client!(sim, names, "trimmer", shared(), trims::trim);
    }
    names
}

/// Starts the clients that see, once everything is healed, what has become of it all.
pub fn start_last(sim: &mut Sim<'_>, settings: &Settings, board: &Board) {
    let mut names = Vec::new();
    let mut shared = all_shared(settings, board, !settings.seed);
    if settings.workload.members > 0 {
        client!(sim, names, "finisher", shared(), members::finish);
    }
    client!(sim, names, "reader", shared(), numbers::read_back);
}

/// Makes the topic as soon as the cluster can.
async fn found(shared: Shared) -> anyhow::Result<()> {
    let client = shared.client().build()?;
    let mut topic = NewTopic::named(TOPIC)
        .partitions(shared.settings.partitions)
        .replication_factor(3);
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
