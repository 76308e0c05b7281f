//! What is broken during a run, and when.

use std::str::FromStr;
use std::time::Duration;

use crate::domain::role::Role;
use crate::services::run::GATEWAY;

/// One thing to break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The broker that leads the busiest shard is killed, started again, and has to catch up.
    BrokerLeader,
    /// A service is killed; its supervisor starts it again.
    Kill(&'static str),
    /// Some orders cannot be handled until somebody repairs what they name.
    Poison,
    /// 60 of 100 calls to the payment provider fail.
    PaymentErrors,
    /// The notifier is down.
    NotifierOutage,
    /// The network that services are switched in answers half a second later.
    SlowDependency,
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// When, from the first order on; none: when it suits the length of the run.
    pub at: Option<Duration>,
}

/// The service that keeps nothing in mind between two messages and is killed for it.
pub const STATELESS: Role = Role::Eligibility;
/// The service with the most to lose.
pub const STATEFUL: Role = Role::Payment;

/// Every name that `--fault` takes, for its help.
pub const NAMES: &str = "broker-leader, stateless-worker, stateful-worker, kill-SERVICE, poison, \
                         payment-errors, notifier-outage, slow-dependency";

impl FaultKind {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::BrokerLeader => "broker-leader".to_owned(),
            Self::Kill(name) if *name == STATELESS.name() => "stateless-worker".to_owned(),
            Self::Kill(name) if *name == STATEFUL.name() => "stateful-worker".to_owned(),
            Self::Kill(name) => format!("kill-{name}"),
            Self::Poison => "poison".to_owned(),
            Self::PaymentErrors => "payment-errors".to_owned(),
            Self::NotifierOutage => "notifier-outage".to_owned(),
            Self::SlowDependency => "slow-dependency".to_owned(),
        }
    }

    /// Whether it can be done without a broker.
    #[must_use]
    pub const fn needs_broker(&self) -> bool {
        matches!(self, Self::BrokerLeader | Self::Poison)
    }

    /// Which service it concerns, if it concerns one.
    #[must_use]
    pub const fn service(&self) -> Option<&'static str> {
        match self {
            Self::Kill(name) => Some(name),
            Self::PaymentErrors => Some(Role::Payment.name()),
            Self::NotifierOutage => Some(Role::Notifier.name()),
            Self::SlowDependency => Some(Role::Provisioning.name()),
            Self::BrokerLeader | Self::Poison => None,
        }
    }

    /// When it comes if nobody says: this part of the run.
    #[must_use]
    pub fn share(&self) -> f64 {
        match self {
            // The circuit looks at a minute: what was well before counts, too.
            Self::PaymentErrors => 0.05,
            Self::BrokerLeader => 0.33,
            Self::Kill(name) if *name == STATELESS.name() => 0.55,
            Self::Kill(_) => 0.70,
            Self::NotifierOutage | Self::SlowDependency => 0.40,
            Self::Poison => 0.0,
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, at) = match text.split_once('@') {
            Some((name, at)) => (name, Some(at)),
            None => (text, None),
        };
        let kind = match name {
            "broker-leader" => FaultKind::BrokerLeader,
            "stateless-worker" => FaultKind::Kill(STATELESS.name()),
            "stateful-worker" => FaultKind::Kill(STATEFUL.name()),
            "kill-gateway" => FaultKind::Kill(GATEWAY),
            "poison" => FaultKind::Poison,
            "payment-errors" => FaultKind::PaymentErrors,
            "notifier-outage" => FaultKind::NotifierOutage,
            "slow-dependency" => FaultKind::SlowDependency,
            _ => {
                let role = name.strip_prefix("kill-").and_then(Role::named);
                let role = role.ok_or_else(|| format!("{name:?} is none of {NAMES}"))?;
                FaultKind::Kill(role.name())
            }
        };
        let wrong = || format!("{text:?} has no time that reads: write {name}@12s");
        let seconds = |at: &str| {
            let at: f64 = at
                .strip_suffix('s')
                .unwrap_or(at)
                .parse()
                .map_err(|_| wrong())?;
            Duration::try_from_secs_f64(at).map_err(|_| wrong())
        };
        let at = at.map(seconds).transpose()?;
        Ok(Self { kind, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_by_name_and_time() {
        let fault: Fault = "broker-leader@12.5s".parse().expect("a fault");
        assert_eq!(fault.kind, FaultKind::BrokerLeader);
        assert_eq!(fault.at, Some(Duration::from_millis(12_500)));
        let fault: Fault = "kill-inventory".parse().expect("a fault");
        assert_eq!((fault.kind, fault.at), (FaultKind::Kill("inventory"), None));
        for wrong in ["", "kill-nobody", "poison@soon", "poison@-3"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
        for name in NAMES.split(", ").filter(|name| *name != "kill-SERVICE") {
            let fault: Fault = name.parse().expect("a fault");
            assert_eq!(fault.kind.name(), name);
        }
    }
}
