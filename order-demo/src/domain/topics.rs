//! The topics, by what they hold.

/// Orders from the web.
pub const INTAKE_WEB: &str = "order.intake.web";
/// Orders from agents.
pub const INTAKE_AGENT: &str = "order.intake.agent";
/// Everything that the processor is told.
pub const SAGA_INBOX: &str = "saga.inbox";
/// What has happened, by the processor alone.
pub const EVENTS: &str = "order.events";
/// The catalogue.
pub const ITEMS: &str = "catalogue.items";
/// Prices to find.
pub const CATALOGUE: &str = "catalogue.commands";
/// Accounts to assess.
pub const ELIGIBILITY: &str = "eligibility.commands";
/// Services to switch.
pub const PROVISIONING: &str = "provisioning.commands";
/// Stock to move.
pub const INVENTORY: &str = "inventory.commands";
/// Money to move.
pub const PAYMENT: &str = "payment.commands";
/// Invoices to write.
pub const BILLING: &str = "billing.commands";
/// Customers to tell.
pub const NOTIFICATION: &str = "notification.requests";
/// How far orders are.
pub const STATUS: &str = "order.status";
/// The audit chains.
pub const AUDIT: &str = "audit.log";

/// What the monolith has committed, where it is replicated, with its partitions.
pub const MONOLITH: (&str, u32) = ("monolith.log", 6);

/// Every topic, with its partitions in demo scale.
pub const ALL: [(&str, u32); 14] = [
    (INTAKE_WEB, 6),
    (INTAKE_AGENT, 3),
    (SAGA_INBOX, 6),
    (EVENTS, 6),
    (ITEMS, 1),
    (CATALOGUE, 6),
    (ELIGIBILITY, 6),
    (PROVISIONING, 6),
    (INVENTORY, 6),
    (PAYMENT, 6),
    (BILLING, 6),
    (NOTIFICATION, 3),
    (STATUS, 6),
    (AUDIT, 3),
];

/// Partitions of a topic that has so many in demo scale, where the largest are to have `wanted`.
#[must_use]
pub fn scaled(partitions: u32, wanted: u32) -> u32 {
    const LARGEST: u32 = 6;
    if partitions == 1 {
        return 1;
    }
    (partitions * wanted / LARGEST).max(1)
}

/// How long the records of a topic are kept, as settings: of what is a state by key the latest, of the
/// audit all for ever, of anything else as long as the cluster says.
#[must_use]
pub fn kept(topic: &str) -> &'static [(&'static str, &'static str)] {
    match topic {
        ITEMS | STATUS => &[("cleanup.policy", "compact")],
        AUDIT => &[("retention.ms", "-1"), ("retention.bytes", "-1")],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_keep_their_proportions() {
        assert_eq!([1, 3, 6].map(|n| scaled(n, 24)), [1, 12, 24]);
        assert_eq!([1, 3, 6].map(|n| scaled(n, 1)), [1, 1, 1]);
    }
}
