//! What can be broken here: by the rights of this process, by what is installed, and by the number of brokers.

use crate::cluster::clock;
use crate::cluster::network::Network;
use crate::cluster::{can_make_namespaces, can_mount};
use crate::run::RunConfig;
use crate::schedule::{Kind, Need};

/// Which of the wanted kinds can be had, and why not the others.
#[must_use]
pub async fn possible(config: &RunConfig) -> (Vec<Kind>, Vec<String>) {
    let ours = config.bootstrap.is_empty();
    let namespaces = can_make_namespaces();
    let power = namespaces.clone().and_then(|()| can_mount());
    let links = match &namespaces {
        Ok(()) => Network::can_make_trouble().await,
        Err(why) => Err(why.clone()),
    };
    let mut skipped = Vec::new();
    let mut kinds = Vec::new();
    for kind in &config.kinds {
        let reason = match kind.need() {
            Need::Nothing => None,
            _ if !ours => Some("the brokers are not ours".to_owned()),
            Need::Processes => None,
            Need::Network => namespaces.clone().err(),
            Need::Links => links.clone().err(),
            Need::Clock => clock::library().err(),
            Need::Power | Need::NetworkAndPower => power.clone().err(),
        };
        let suits = if ours {
            kind.suits(config.brokers)
        } else {
            Ok(())
        };
        match (reason, suits) {
            (Some(reason), _) => skipped.push(format!("{}: {reason}", kind.name())),
            // Of a group of kinds, or of all, it is not missing where it means nothing.
            (None, Err(why)) if config.named.contains(kind) => {
                skipped.push(format!("{}: {why}", kind.name()));
            }
            (None, Err(_)) => {}
            (None, Ok(())) => kinds.push(*kind),
        }
    }
    (kinds, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{named_kinds, parse_kinds};

    fn config(faults: &str, brokers: u32) -> RunConfig {
        RunConfig {
            kinds: parse_kinds(faults).expect("known"),
            named: named_kinds(faults),
            brokers,
            ..RunConfig::default()
        }
    }

    #[tokio::test]
    async fn who_names_a_kind_is_told_that_it_is_left_out() {
        let of = |faults: &'static str, brokers| async move {
            let (kinds, skipped) = possible(&config(faults, brokers)).await;
            let ring = skipped
                .iter()
                .any(|why| why.starts_with("ring: it takes five"));
            (kinds.contains(&Kind::KillAll), ring)
        };
        let can = can_make_namespaces().is_ok();
        assert_eq!(of("kill-all,ring", 3).await, (true, can));
        assert_eq!(of("kill,partition", 3).await, (true, false));
        assert_eq!(of("kill-all,ring", 5).await, (true, false));
    }
}
