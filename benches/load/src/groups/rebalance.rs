//! How long a change of members takes, and for how long what moves stands still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use highwater_client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::member::{Member, Place, coordinator};
use crate::raw::make_topic;
use crate::stats::Spread;

const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const WAIT: Duration = Duration::from_secs(5);

/// Who holds what, as the members know it, and when it changed.
#[derive(Debug, Default)]
struct Board {
    holders: BTreeMap<Place, usize>,
    shares: BTreeMap<usize, usize>,
    /// Since when nobody works on a partition.
    idle: BTreeMap<Place, Instant>,
    pauses: Vec<Duration>,
    /// Members to which something happened.
    touched: BTreeMap<usize, ()>,
    last_change: Option<Instant>,
    doubles: usize,
}

impl Board {
    fn lose(&mut self, member: usize, place: Place, now: Instant) {
        self.holders.remove(&place);
        self.idle.insert(place, now);
        self.touched.insert(member, ());
    }
    fn gain(&mut self, member: usize, place: Place, now: Instant) {
        if let Some(since) = self.idle.remove(&place) {
            self.pauses.push(now - since);
        }
        if self.holders.insert(place, member).is_some() {
            self.doubles += 1;
        }
        self.touched.insert(member, ());
    }
    fn is_even(&self, members: usize, partitions: usize) -> bool {
        let (low, high) = (partitions / members, partitions.div_ceil(members));
        let shares = self.shares.values().filter(|share| **share > 0);
        let even = self
            .shares
            .values()
            .all(|share| *share == 0 || (low..=high).contains(share));
        self.holders.len() == partitions && shares.count() == members && even
    }
}

type Shared = Arc<watch::Sender<Board>>;

/// Beats until it is aborted, or leaves when told to.
async fn live(
    number: usize,
    mut member: Member,
    board: Shared,
    mut leave: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    loop {
        let news = tokio::select! {
            news = member.beat(WAIT) => news?,
            told = async { leave.wait_for(|leave| *leave).await.map(|leave| *leave) } => {
                told?;
                let held: Vec<Place> = member.held.keys().copied().collect();
                let now = Instant::now();
                board.send_modify(|board| {
                    for place in held {
                        board.lose(number, place, now);
                    }
                    board.shares.insert(number, 0);
                });
                return member.leave().await;
            }
        };
        if news.gained.is_empty() && news.lost.is_empty() {
            continue;
        }
        let now = Instant::now();
        board.send_modify(|board| {
            for place in &news.lost {
                board.lose(number, *place, now);
            }
            for place in &news.gained {
                board.gain(number, *place, now);
            }
            board.shares.insert(number, member.held.len());
            board.last_change = Some(now);
        });
    }
}

async fn settled(
    board: &Shared,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    (members, partitions): (usize, usize),
) -> anyhow::Result<()> {
    let mut seen = board.subscribe();
    let even = async {
        let even = seen.wait_for(|board| board.is_even(members, partitions));
        even.await.map(drop)
    };
    let even = tokio::time::timeout(SETTLED_WITHIN, even);
    tokio::pin!(even);
    loop {
        tokio::select! {
            even = &mut even => return Ok(even.context("the group did not settle")??),
            Some(ended) = tasks.join_next() => ended??,
        }
    }
}

fn report(what: &str, board: &Shared, begin: Instant) -> anyhow::Result<()> {
    let mut line = String::new();
    let mut doubles = 0;
    board.send_modify(|board| {
        let took = board
            .last_change
            .map_or(Duration::ZERO, |last| last - begin);
        let pauses = std::mem::take(&mut board.pauses);
        let millis: Vec<f64> = pauses.iter().map(|p| p.as_secs_f64() * 1e3).collect();
        let pauses = Spread::of(&millis).map_or_else(|| "-".to_owned(), |s| s.to_string());
        let touched = std::mem::take(&mut board.touched).len();
        line = format!(
            "{what:<26} {:>9.0} {:>7} {:>9} {pauses:>24}",
            took.as_secs_f64() * 1e3,
            millis.len(),
            touched,
        );
        doubles = board.doubles;
    });
    println!("{line}");
    ensure!(doubles == 0, "{doubles} partitions had two holders");
    Ok(())
}

/// Members join at once, one more comes, one goes.
pub async fn run(
    client: &Client,
    broker: &str,
    members: usize,
    partitions: u32,
) -> anyhow::Result<()> {
    let topic = "rebalanced";
    make_topic(client, topic, partitions).await?;
    let partitions = partitions as usize;
    println!(
        "\nrebalance, {members} members, {partitions} partitions; a partition's pause: from when its \
         old member learns that it goes to when its new one has it, min / median / max"
    );
    println!(
        "{:<26} {:>9} {:>7} {:>9} {:>24}",
        "change", "ms", "moved", "members", "pause of a move, ms"
    );
    let board: Shared = Arc::new(watch::Sender::new(Board::default()));
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(coordinator(broker, topic).await?);
    }
    let join = |number: usize| {
        let connection = connections[number % 8].clone();
        Member::join(connection, topic, format!("member-{number:012}"), topic)
    };
    let (quit, leave) = watch::channel(false);
    let (_stay, stay) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut begin = Instant::now();
    let joined = try_join_all((0..members).map(|number| {
        let joining = join(number);
        async move { anyhow::Ok((number, joining.await?)) }
    }));
    for (number, member) in joined.await? {
        tasks.spawn(live(number, member, Arc::clone(&board), stay.clone()));
    }
    settled(&board, &mut tasks, (members, partitions)).await?;
    report("all join at once", &board, begin)?;
    begin = Instant::now();
    let late = join(members).await?;
    tasks.spawn(live(members, late, Arc::clone(&board), leave));
    settled(&board, &mut tasks, (members + 1, partitions)).await?;
    report("one more joins", &board, begin)?;
    begin = Instant::now();
    quit.send(true)?;
    settled(&board, &mut tasks, (members, partitions)).await?;
    report("one leaves", &board, begin)?;
    tasks.shutdown().await;
    Ok(())
}
