//! An asker: wants to know from the leaders where partitions end.

use std::sync::Arc;

use highwater_checker::{Action, Function, Key, Kind, Offset};
use highwater_client::{At, PartitionId};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::pace::Pace;

/// Questions a second of one asker.
const RATE: f64 = 20.0;

/// Runs until `stop`.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: u32,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut random = shared.random(number.into());
    let client = shared.client(&format!("asker-{number}"))?;
    let process = shared.recorder.new_process();
    let mut pace = Pace::new(RATE);
    while pace.wait(&mut random, &stop).await {
        let key = random.random_range(0..shared.plan.partitions);
        let asked = |end| {
            let key = Key(key);
            vec![Action::Latest { key, end }]
        };
        shared
            .recorder
            .invoke(process, Function::Latest, asked(None));
        let queries = [(PartitionId(key), At::Latest)];
        let found = client.list_offsets(&shared.plan.topic, &queries).await;
        let end = found
            .ok()
            .and_then(|found| found.first().map(|found| Offset(found.offset.0)));
        // A question leaves nothing behind: without an answer it failed for certain.
        let kind = if end.is_some() { Kind::Ok } else { Kind::Fail };
        shared
            .recorder
            .complete(kind, process, Function::Latest, asked(end));
    }
    Ok(())
}
