//! The answer to "who are you?": what a founder needs to found, a broker to come back, and a
//! stranger to be turned away with a reason.

use std::time::Duration;

use highwater_env::Env;
use highwater_mutant::mutant;
use highwater_proto::internal::{HelloRequest, HelloResponse};

use super::Broker;

/// How long a refusal may take to be confirmed; whoever asks waits longer for the whole answer.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);

/// Answers one hello.
pub async fn answer<E: Env>(broker: &Broker<E>, caller: &HelloRequest) -> HelloResponse {
    let refusal = confirmed_refusal(broker, caller).await;
    let identity = broker.membership.identity();
    let image = broker.cluster.image();
    let known = broker.membership.known_incarnation(caller.node_id);
    let pristine = broker.metadata.group().status().borrow().is_pristine();
    HelloResponse {
        node_id: identity.node_id,
        incarnation: identity.incarnation,
        cluster_id: identity.cluster_id.unwrap_or_default(),
        initial_addresses: broker.join.clone(),
        member: mutant!(
            WipedBrokerVotes => known.is_some();
            else known.as_deref() == Some(caller.incarnation.as_str())
        ),
        refusal,
        known_incarnation: known.unwrap_or_default(),
        address: broker.address.clone(),
        rack: broker.config.node.rack.clone(),
        pristine,
        initiator: identity.initiator,
        established: image.cluster_id().is_some(),
    }
}

/// Why the caller must not join, as the metadata leader sees it; empty when it may, and when nobody can say.
///
/// The image of this broker may be an old one, and the caller's disk may have been given up since: to be
/// turned away ends the caller's process, so only the newest image does that.
async fn confirmed_refusal<E: Env>(broker: &Broker<E>, caller: &HelloRequest) -> String {
    let by_image = broker.membership.refusal(caller);
    if by_image.is_empty() || broker.membership.lasting_refusal(caller).is_some() {
        return by_image;
    }
    let confirmed = tokio::time::timeout(CONFIRMED_WITHIN, ask_the_leader(broker, caller));
    confirmed.await.ok().flatten().unwrap_or_default()
}

/// What the newest image says of the caller; nothing when there is no leader, or it does not answer.
async fn ask_the_leader<E: Env>(broker: &Broker<E>, caller: &HelloRequest) -> Option<String> {
    let group = broker.metadata.group();
    if group.read_barrier().await.is_ok() {
        return Some(broker.membership.refusal(caller));
    }
    let leader = group.status().borrow().leader?;
    if caller.passed_on || leader == broker.node_id {
        return None;
    }
    let mut leader = broker.peers.client(leader).ok()?;
    let passed_on = HelloRequest {
        passed_on: true,
        ..caller.clone()
    };
    let answer = leader.hello(passed_on).await;
    answer.ok().map(|answer| answer.into_inner().refusal)
}
