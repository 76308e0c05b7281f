//! The answer to "who are you?": what a founder needs to found, a broker to come back, and a
//! stranger to be turned away with a reason.

use highwater_env::Env;
use highwater_mutant::mutant;
use highwater_proto::internal::{HelloRequest, HelloResponse};

use super::Broker;

/// Answers one hello.
pub fn answer<E: Env>(broker: &Broker<E>, caller: &HelloRequest) -> HelloResponse {
    let identity = broker.membership.identity();
    let image = broker.cluster.image();
    let known = broker.membership.known_incarnation(caller.node_id);
    let (pristine, recovered) = {
        let status = broker.metadata.group().status();
        let status = status.borrow();
        (status.is_pristine(), status.recovered)
    };
    // Until then the image is older than what this broker has heard already: the caller's disk may have
    // been replaced.
    let is_sure = recovered
        || known
            .as_ref()
            .is_none_or(|known| *known == caller.incarnation);
    HelloResponse {
        node_id: identity.node_id,
        incarnation: identity.incarnation,
        cluster_id: identity.cluster_id.unwrap_or_default(),
        initial_addresses: broker.join.clone(),
        member: mutant!(
            WipedBrokerVotes => known.is_some();
            else known.as_deref() == Some(caller.incarnation.as_str())
        ),
        refusal: if is_sure {
            broker.membership.refusal(caller)
        } else {
            String::new()
        },
        known_incarnation: known.unwrap_or_default(),
        address: broker.address.clone(),
        rack: broker.config.node.rack.clone(),
        pristine,
        initiator: identity.initiator,
        established: image.cluster_id().is_some(),
    }
}
