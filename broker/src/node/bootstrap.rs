//! How brokers that know only each other's addresses become one cluster, once.
//!
//! `--join` lists the same addresses on every founder. A founder without a cluster asks all of them
//! who they are. When all answer, all have the same list and none has a cluster id, the one with
//! the lowest broker id makes the cluster id, writes it down with the list of founders, and
//! initialises the metadata group; the others adopt it as soon as they hear of it from a broker
//! that counts their incarnation among its founders or members.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_env::Net;
use highwater_proto::internal::peer_client::PeerClient;
use highwater_proto::internal::{HelloRequest, HelloResponse};

use super::channel::lazy_channel;
use super::identity::{FORMAT_VERSION, Founder, Identity};

const HELLO_DEADLINE: Duration = Duration::from_secs(2);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Why this broker cannot become part of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster said no.
    #[error("{address} refuses this broker: {reason}")]
    Refused {
        /// Who said no.
        address: String,
        /// Its words.
        reason: String,
    },
    /// Two processes have the same broker id.
    #[error("{address} is broker {node_id} too; give each broker a node.id of its own")]
    SameId {
        /// The other one.
        address: String,
        /// The id.
        node_id: u32,
    },
    /// The founders do not agree who they are.
    #[error(
        "{address} was started with another list of brokers ({theirs}) than this one ({ours}); \
         start all founders with the same --join"
    )]
    OtherList {
        /// The other one.
        address: String,
        /// Its list.
        theirs: String,
        /// Our list.
        ours: String,
    },
    /// This broker itself is not in its list.
    #[error(
        "none of the addresses in --join ({0}) is this broker; list its advertised address too"
    )]
    NotListed(String),
}

/// What asking around once told.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody is missing or not ready; ask again.
    Wait {
        /// Addresses without an answer.
        missing: Vec<String>,
    },
    /// A cluster knows this broker with another disk, and no leader has said that this still holds.
    Unconfirmed,
    /// A cluster exists and knows this broker's incarnation, or has never heard of its id.
    Adopt {
        /// Its id.
        cluster_id: String,
    },
    /// A cluster exists that does not know this broker: it may ask to be let in.
    Join {
        /// The cluster's id.
        cluster_id: String,
        /// Members that answered.
        members: Vec<String>,
    },
    /// Every founder is there and no cluster exists: this broker makes it.
    Found {
        /// All founders, this one among them.
        founders: Vec<Founder>,
    },
}

/// Decides from the answers of one round. Pure.
///
/// # Errors
/// When this broker must not join.
pub fn decide(
    me: &Identity,
    join: &[String],
    answers: &BTreeMap<String, HelloResponse>,
) -> Result<Verdict, JoinError> {
    // Lists matter to founders alone.
    let founding = !answers.values().any(|answer| answer.established);
    let strange = strange_cluster(answers);
    for (address, answer) in answers {
        // Known under another disk to one, and to another one not any more: one of them has an older image,
        // and the cluster's log decides.
        let is_old = strange.is_some() && !answer.known_incarnation.is_empty();
        if !is_old {
            check_answer(me, founding.then_some(join), address, answer)?;
        }
    }
    let adopted = answers
        .values()
        .find(|a| !a.cluster_id.is_empty() && a.member);
    if let Some(answer) = adopted {
        return Ok(Verdict::Adopt {
            cluster_id: answer.cluster_id.clone(),
        });
    }
    if let Some(verdict) = strange {
        return Ok(verdict);
    }
    let is_unsure = |a: &HelloResponse| a.established && a.known_incarnation != me.incarnation;
    if answers.values().any(is_unsure) {
        return Ok(Verdict::Unconfirmed);
    }
    let missing: Vec<String> = join
        .iter()
        .filter(|address| !answers.contains_key(*address))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Ok(Verdict::Wait { missing });
    }
    if !answers
        .values()
        .any(|answer| answer.incarnation == me.incarnation)
    {
        return Err(JoinError::NotListed(join.join(", ")));
    }
    if answers.values().any(|answer| !answer.cluster_id.is_empty()) {
        // A cluster exists without this broker: it may come in later as a member, not as a founder.
        return Ok(Verdict::Wait {
            missing: Vec::new(),
        });
    }
    let lowest = answers.values().map(|answer| answer.node_id).min();
    if lowest != Some(me.node_id) {
        return Ok(Verdict::Wait {
            missing: Vec::new(),
        });
    }
    Ok(Verdict::Found {
        founders: founders(answers),
    })
}

/// A cluster that knows nothing of this broker and may take it in.
fn strange_cluster(answers: &BTreeMap<String, HelloResponse>) -> Option<Verdict> {
    let open = |answer: &HelloResponse| answer.established && answer.known_incarnation.is_empty();
    let cluster_id = answers.values().find(|a| open(a))?.cluster_id.clone();
    let members = answers
        .iter()
        .filter(|(_, answer)| open(answer) && answer.cluster_id == cluster_id)
        .map(|(address, _)| address.clone())
        .collect();
    Some(Verdict::Join {
        cluster_id,
        members,
    })
}

/// Whether a founding was begun that nobody can finish: everyone in the list answers, nobody has
/// promised anything to the cluster whose id some of them adopted, and the one that made the id is
/// not among them: its disk is gone. Pure.
pub fn is_abandoned(join: &[String], answers: &BTreeMap<String, HelloResponse>) -> bool {
    join.iter().all(|address| answers.contains_key(address))
        && answers.values().all(|a| a.pristine && !a.initiator)
        && answers.values().any(|a| !a.cluster_id.is_empty())
}

fn check_answer(
    me: &Identity,
    join: Option<&[String]>,
    address: &str,
    answer: &HelloResponse,
) -> Result<(), JoinError> {
    let address = address.to_owned();
    if !answer.refusal.is_empty() {
        return Err(JoinError::Refused {
            address,
            reason: answer.refusal.clone(),
        });
    }
    if answer.incarnation == me.incarnation {
        return Ok(());
    }
    if answer.node_id == me.node_id {
        return Err(JoinError::SameId {
            address,
            node_id: me.node_id,
        });
    }
    if let Some(join) = join
        && answer.cluster_id.is_empty()
        && answer.initial_addresses != join
    {
        let (theirs, ours) = (answer.initial_addresses.join(", "), join.join(", "));
        return Err(JoinError::OtherList {
            address,
            theirs,
            ours,
        });
    }
    Ok(())
}

fn founders(answers: &BTreeMap<String, HelloResponse>) -> Vec<Founder> {
    let mut by_id: BTreeMap<u32, Founder> = BTreeMap::new();
    for (address, answer) in answers {
        let founder = Founder {
            node_id: answer.node_id,
            incarnation: answer.incarnation.clone(),
            address: address.clone(),
            rack: answer.rack.clone(),
        };
        by_id.insert(answer.node_id, founder);
    }
    by_id.into_values().collect()
}

/// Asks everybody in `join` at once; who does not answer in time is absent.
pub async fn ask_all<N: Net>(
    net: &N,
    me: &Identity,
    join: &[String],
    address: &str,
) -> BTreeMap<String, HelloResponse> {
    let request = HelloRequest {
        node_id: me.node_id,
        incarnation: me.incarnation.clone(),
        cluster_id: me.cluster_id.clone().unwrap_or_default(),
        initial_addresses: join.to_vec(),
        address: address.to_owned(),
        format_version: FORMAT_VERSION,
        passed_on: false,
    };
    let asked = join.iter().map(|peer| async {
        let answer = ask(net, peer, request.clone()).await?;
        Some((peer.clone(), answer))
    });
    futures_util::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .collect()
}

async fn ask<N: Net>(net: &N, peer: &str, request: HelloRequest) -> Option<HelloResponse> {
    let channel = lazy_channel(net, peer).ok()?;
    let call = async move { PeerClient::new(channel).hello(request).await };
    match tokio::time::timeout(HELLO_DEADLINE, call).await {
        Ok(Ok(answer)) => Some(answer.into_inner()),
        Ok(Err(status)) => {
            tracing::debug!(peer, %status, "no hello");
            None
        }
        Err(_elapsed) => None,
    }
}

/// Waits before the next round. Says why when that changed.
pub async fn pause(verdict: Verdict, announced: &mut Option<Verdict>) {
    if announced.as_ref() != Some(&verdict) {
        match &verdict {
            Verdict::Wait { missing } if !missing.is_empty() => {
                let missing = missing.join(", ");
                tracing::info!(missing, "waiting for the other founders");
            }
            Verdict::Unconfirmed => tracing::warn!(
                "the cluster knows this broker with another data directory; waiting for its metadata \
                 leader to say whether that was given up (if there cannot be one without this broker, \
                 bring the old directory back)"
            ),
            _ => tracing::info!("all founders answer; waiting for the cluster to be made"),
        }
        *announced = Some(verdict);
    }
    tokio::time::sleep(ASK_AGAIN_AFTER).await;
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
