//! Becoming part of the cluster: founding it, adopting it, coming back to it, and registering.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use highwater_env::Env;
use highwater_metadata::{MetadataCommand, MetadataReply, NewBroker};
use highwater_proto::NodeId;
use highwater_proto::internal::JoinRequest;
use highwater_proto::internal::members_client::MembersClient;
use rand::Rng;

use super::Broker;
use super::bootstrap::{self, JoinError, Verdict};
use super::channel::lazy_channel;
use super::identity::{Founder, Identity};
use crate::control::proposer::MetadataError;

const ATTEMPT: Duration = Duration::from_secs(10);
/// While nobody has spoken to this broker's metadata group yet.
const SHORT_ATTEMPT: Duration = Duration::from_secs(1);
const JOIN_AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Makes this broker a registered member of its cluster.
///
/// # Errors
/// One line when the cluster refuses it for good.
pub async fn join<E: Env>(broker: &Arc<Broker<E>>) -> anyhow::Result<()> {
    loop {
        if broker.membership.cluster_id().is_some() {
            check_cluster(broker)
                .await
                .map_err(|error| with_directory(broker, error))?;
        } else {
            found_or_adopt(broker).await?;
        }
        finish_founding(broker).await?;
        if register(broker).await? || broker.stop.is_cancelled() {
            return Ok(());
        }
        give_up_founding(broker)?;
    }
}

/// The broker that made the cluster's id lost its disk before it made the cluster: the id means
/// nothing. Nothing was promised under it here, and nothing will be.
fn give_up_founding<E: Env>(broker: &Broker<E>) -> anyhow::Result<()> {
    tracing::warn!("the founding that was begun cannot be finished; founding anew");
    let identity = Identity {
        cluster_id: None,
        ..broker.membership.identity()
    };
    store(broker, identity)
}

/// A data directory that belongs to another cluster, or was exchanged, shows at the first answer.
async fn check_cluster<E: Env>(broker: &Broker<E>) -> Result<(), JoinError> {
    let me = broker.membership.identity();
    let answers = bootstrap::ask_all(broker.env.net(), &me, &broker.join, &broker.address).await;
    for (address, answer) in answers {
        if !answer.refusal.is_empty() {
            return Err(JoinError::Refused {
                address,
                reason: answer.refusal,
            });
        }
    }
    Ok(())
}

/// A refusal is about what lies in the data directory: the line names it.
fn with_directory<E: Env>(broker: &Broker<E>, error: JoinError) -> anyhow::Error {
    let about_data = matches!(error, JoinError::Refused { .. });
    let error = anyhow::Error::new(error);
    if about_data {
        error.context(broker.config.node.data_dir.display().to_string())
    } else {
        error
    }
}

async fn found_or_adopt<E: Env>(broker: &Broker<E>) -> anyhow::Result<()> {
    let me = broker.membership.identity();
    let mut announced = None;
    loop {
        let net = broker.env.net();
        let answers = bootstrap::ask_all(net, &me, &broker.join, &broker.address).await;
        let verdict = bootstrap::decide(&me, &broker.join, &answers)
            .map_err(|error| with_directory(broker, error))?;
        match verdict {
            verdict @ (Verdict::Wait { .. } | Verdict::Unconfirmed) => {
                bootstrap::pause(verdict, &mut announced).await;
            }
            Verdict::Adopt { cluster_id } => {
                tracing::info!(cluster_id, "adopting the cluster");
                return store(
                    broker,
                    Identity {
                        cluster_id: Some(cluster_id),
                        ..me
                    },
                );
            }
            Verdict::Join {
                cluster_id,
                members,
            } => {
                if ask_to_join(broker, &cluster_id, &members).await? {
                    tracing::info!(cluster_id, "the cluster took this broker in");
                    return store(
                        broker,
                        Identity {
                            cluster_id: Some(cluster_id),
                            ..me
                        },
                    );
                }
                tokio::time::sleep(JOIN_AGAIN_AFTER).await;
            }
            Verdict::Found { founders } => {
                let cluster_id = random_id();
                tracing::info!(cluster_id, brokers = founders.len(), "founding the cluster");
                let founded = Identity {
                    cluster_id: Some(cluster_id),
                    founders,
                    initiator: true,
                    ..me
                };
                return store(broker, founded);
            }
        }
    }
}

/// Asks the members to register this broker. Its data directory knows no cluster until one of them
/// did: before that it answers no group. `false`: not now.
async fn ask_to_join<E: Env>(
    broker: &Broker<E>,
    cluster_id: &str,
    members: &[String],
) -> anyhow::Result<bool> {
    for address in members {
        let request = JoinRequest {
            node_id: broker.node_id.0,
            address: broker.address.clone(),
            incarnation: broker.incarnation.clone(),
            rack: broker.config.node.rack.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: cluster_id.to_owned(),
        };
        let channel = lazy_channel(broker.env.net(), address)?;
        let call = async move { MembersClient::new(channel).join(request).await };
        let later = match tokio::time::timeout(ATTEMPT, call).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if !answer.refusal.is_empty() {
                    bail!("{address} refuses this broker: {}", answer.refusal);
                }
                if answer.later.is_empty() {
                    return Ok(true);
                }
                answer.later
            }
            Ok(Err(status)) => status.to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        tracing::info!(address, reason = later, "not taken in yet; trying again");
    }
    Ok(false)
}

/// A random id of 128 bits, in hexadecimal.
pub fn random_id() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

fn store<E: Env>(broker: &Broker<E>, identity: Identity) -> anyhow::Result<()> {
    identity.store(broker.env.disk(), &broker.config.node.data_dir)?;
    broker.addresses.set_founders(identity.founders.clone());
    broker.membership.set_identity(identity);
    Ok(())
}

/// The initiator initialises the metadata group and writes the cluster's first command, again
/// after a restart until it sees its effect. Both may be repeated.
async fn finish_founding<E: Env>(broker: &Broker<E>) -> anyhow::Result<()> {
    let me = broker.membership.identity();
    if !me.initiator {
        return Ok(());
    }
    let voters: BTreeMap<NodeId, String> = me
        .founders
        .iter()
        .map(|f| (NodeId(f.node_id), f.address.clone()))
        .collect();
    let group = broker.metadata.group();
    let uninitialized = group.status().borrow().voters.is_empty();
    if uninitialized {
        group
            .initialize(voters)
            .await
            .context("cannot initialise the metadata group")?;
    }
    while broker.cluster.image().cluster_id().is_none() {
        let command = MetadataCommand::CreateCluster {
            cluster_id: me.cluster_id.clone().unwrap_or_default(),
            brokers: me.founders.iter().map(founder).collect(),
            shards_per_broker: broker.config.node.shards_per_broker,
        };
        match broker.metadata.propose(&command, ATTEMPT).await {
            Ok(MetadataReply::Refused(refusal)) => bail!("{}", refusal.message),
            Ok(_) => {}
            Err(error) => {
                tracing::info!(%error, "the cluster is not made yet; trying again");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
        if broker.stop.is_cancelled() {
            bail!("stopped before the cluster was made");
        }
    }
    Ok(())
}

/// The founders of a cluster are of one release: nothing else is written down before it exists.
fn founder(founder: &Founder) -> NewBroker {
    NewBroker {
        id: NodeId(founder.node_id),
        address: founder.address.clone(),
        incarnation: founder.incarnation.clone(),
        rack: founder.rack.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Tells the metadata group where this broker is now. `false`: there is no such group, and nobody
/// is left who could make it.
async fn register<E: Env>(broker: &Broker<E>) -> anyhow::Result<bool> {
    let command = MetadataCommand::RegisterBroker(NewBroker {
        id: broker.node_id,
        address: broker.address.clone(),
        incarnation: broker.incarnation.clone(),
        rack: broker.config.node.rack.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    while !broker.stop.is_cancelled() {
        let pristine = broker.metadata.group().status().borrow().is_pristine();
        let attempt = if pristine { SHORT_ATTEMPT } else { ATTEMPT };
        match broker.metadata.propose(&command, attempt).await {
            Ok(MetadataReply::Refused(refusal)) => bail!("{}", refusal.message),
            Ok(_) => {
                broker.membership.set_registered();
                return Ok(true);
            }
            // Registering twice is harmless, so an unknown outcome is simply tried again.
            Err(MetadataError::Unavailable(reason) | MetadataError::Unknown(reason)) => {
                tracing::info!(reason, "not registered yet; trying again");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
        if pristine && is_abandoned(broker).await {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn is_abandoned<E: Env>(broker: &Broker<E>) -> bool {
    let me = broker.membership.identity();
    let answers = bootstrap::ask_all(broker.env.net(), &me, &broker.join, &broker.address).await;
    !me.initiator && bootstrap::is_abandoned(&broker.join, &answers)
}
