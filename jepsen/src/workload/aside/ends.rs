//! What must hold of the topics beside the main one when everything is healed: they are read from their
//! leaders and from every replica, and have become smaller as they should.

use std::sync::Arc;
use std::time::Duration;

use highwater_client::{Client, NodeId};
use tokio::time::{Instant, sleep};

use super::{AsideCounts, CALM_REQUEST, COMPACTED, Place, RETAINED, TRIMMED, key, places};
use super::{compacted, scan, trimmed};
use crate::workload::Shared;

/// Between two looks whether something has become smaller.
const LOOK: Duration = Duration::from_secs(1);

/// Reads everything back, and answers with what is wrong.
///
/// # Errors
/// Only errors of the harness.
pub async fn finish_asides(
    shared: &Arc<Shared>,
    patience: Duration,
) -> anyhow::Result<Vec<String>> {
    if !shared.plan.asides {
        return Ok(Vec::new());
    }
    let client = shared.client_with("asides-end", CALM_REQUEST)?;
    let given_up = Instant::now() + patience;
    let mut wrong = Vec::new();
    let mut counts = AsideCounts {
        lives: shared.aside.lives.count(),
        ..AsideCounts::default()
    };
    for place in places(shared) {
        let Some(end) = scan::end_of(&client, &place).await else {
            wrong.push(format!("{} has no end", place.topic));
            continue;
        };
        let compacted = place.key.0 >= key(shared, COMPACTED).0;
        let kept = if compacted {
            smaller(shared, &client, &place, end, given_up).await
        } else {
            begun(shared, &client, &place, end, given_up).await
        };
        match kept {
            Ok(kept) if place.key == key(shared, TRIMMED) => counts.trimmed = (kept, end),
            Ok(kept) if place.key == key(shared, RETAINED) => counts.retained = (kept, end),
            Ok(kept) => {
                counts.compacted.0 += kept;
                counts.compacted.1 += end;
            }
            Err(why) => wrong.push(why),
        }
        let read = read_all(shared, &client, &place, end, given_up).await;
        wrong.extend(read.err());
    }
    if let Some((place, id)) = shared.aside.lives.living(shared) {
        let fresh = client.topic(&place.topic).await;
        match (fresh, scan::end_of(&client, &place).await) {
            (Ok(topic), Some(end)) if topic.id == id => {
                let read = read_all(shared, &client, &place, end, given_up).await;
                wrong.extend(read.err());
            }
            _ => wrong.push(format!("{}, made again, cannot be read", place.topic)),
        }
    }
    shared.note_asides(counts);
    Ok(wrong)
}

/// From the leader, and from every replica's own copy.
async fn read_all(
    shared: &Shared,
    client: &Client,
    place: &Place,
    end: u64,
    given_up: Instant,
) -> Result<(), String> {
    let left = || given_up.saturating_duration_since(Instant::now()).max(LOOK);
    scan::scan(shared, client, place, None, (end, left())).await?;
    for replica in replicas(client, place).await? {
        scan::scan(shared, client, place, Some(replica), (end, left())).await?;
    }
    Ok(())
}

async fn replicas(client: &Client, place: &Place) -> Result<Vec<NodeId>, String> {
    let topic = client.topic(&place.topic).await;
    let topic = topic.map_err(|error| format!("{}: {error}", place.topic))?;
    let partition = topic.partitions.get(place.partition as usize);
    Ok(partition.map_or(Vec::new(), |found| found.replicas.clone()))
}

/// Where a partition begins now. One that retention should have made smaller is waited for.
async fn begun(
    shared: &Shared,
    client: &Client,
    place: &Place,
    end: u64,
    given_up: Instant,
) -> Result<u64, String> {
    let retained = place.key == key(shared, RETAINED);
    // Segments of 64 KiB hold several records: it need not begin at the bound, but not at the first either.
    let due = retained && shared.aside.kept.bound() > end / 2;
    loop {
        let start = trimmed::begin_of(shared, client, place).await;
        match start {
            Some(0) if due => {}
            Some(start) => return Ok(start),
            None => {}
        }
        if Instant::now() > given_up {
            return Err(format!(
                "{} has {end} records and begins at {start:?}",
                place.topic
            ));
        }
        sleep(LOOK).await;
    }
}

/// How many records a compacted partition holds, once it has become smaller on its leader or another replica:
/// one that came back lately may still read from memory what it has compacted.
async fn smaller(
    shared: &Shared,
    client: &Client,
    place: &Place,
    end: u64,
    given_up: Instant,
) -> Result<u64, String> {
    loop {
        let mut held = scan::scan(shared, client, place, None, (end, scan::PATIENCE)).await?;
        for replica in replicas(client, place).await? {
            if held == end && end >= compacted::MANY {
                let there = (end, scan::PATIENCE);
                held = scan::scan(shared, client, place, Some(replica), there).await?;
            }
        }
        if held < end || end < compacted::MANY {
            return Ok(held);
        }
        if Instant::now() > given_up {
            return Err(format!(
                "{} was never compacted: {held} records",
                place.topic
            ));
        }
        sleep(LOOK).await;
    }
}
