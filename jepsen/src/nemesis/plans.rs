//! Plans that move replicas, started and watched while other faults go on.

use std::time::Duration;

use highwater_client::{NewPlan, v1};
use tokio::time::{Instant, sleep};

use super::Site;

/// Bound of one request.
const ASK: Duration = Duration::from_secs(4);
/// Between two requests.
const AGAIN: Duration = Duration::from_millis(300);

/// The plan that runs or was the last; nothing when nobody says before `until`.
pub(super) async fn last(site: &Site, until: Instant) -> Option<v1::Plan> {
    let admin = site.client.admin().timeout(ASK);
    loop {
        if let Ok(plan) = admin.plan().await {
            return Some(plan.unwrap_or_default());
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(AGAIN).await;
    }
}

/// Starts a plan as soon as none runs, and answers with it. Nothing: it has not begun before `until`, as far as
/// anybody knows.
pub(super) async fn start(
    site: &Site,
    plan: &NewPlan,
    (kind, broker): (v1::PlanKind, u32),
    until: Instant,
) -> Option<v1::Plan> {
    let before = last(site, until).await?.id;
    let admin = site.client.admin().timeout(ASK);
    while Instant::now() < until {
        match admin.start_plan(plan.clone()).await {
            Ok(started) => return Some(started),
            // An attempt whose answer was lost may have begun it.
            Err(_) => {
                let found = last(site, until).await?;
                let ours = found.kind() == kind && found.broker == broker;
                if ours && found.id > before {
                    return Some(found);
                }
            }
        }
        sleep(AGAIN).await;
    }
    None
}

/// Waits until a plan has ended; how many of its moves were made, and whether it has.
pub(super) async fn ended(site: &Site, id: u64, until: Instant) -> (usize, bool) {
    let mut done = 0;
    while let Some(plan) = last(site, until).await {
        if plan.id != id {
            return (done, true);
        }
        let made = |step: &&v1::PlanMove| step.state() == v1::MoveState::Done;
        done = plan.moves.iter().filter(made).count();
        if plan.ended {
            return (done, true);
        }
        if Instant::now() >= until {
            break;
        }
        sleep(AGAIN).await;
    }
    (done, false)
}

/// Takes back what a plan has not begun, if it still runs.
pub(super) async fn cancel(site: &Site, id: u64, until: Instant) {
    let admin = site.client.admin().timeout(ASK);
    while Instant::now() < until {
        let running = last(site, until).await.filter(|plan| plan.id == id);
        let running = running.is_some_and(|plan| !plan.ended && !plan.cancelled);
        if !running || admin.cancel_plan().await.is_ok() {
            return;
        }
        sleep(AGAIN).await;
    }
}
