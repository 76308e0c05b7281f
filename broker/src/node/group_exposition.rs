//! Metrics of the consumer groups that this broker coordinates, as of the last collection of lag.

use std::fmt::Write as _;

use highwater_env::Env;
use highwater_metadata::Image;
use highwater_proto::TopicPartition;
use highwater_shard::groups::Group;

use super::Broker;
use super::exposition::Family;
use crate::groups::GroupLag;

/// Series by partition, and series by group.
struct Families {
    lag: Family,
    seconds: Family,
    offset: Family,
    members: Family,
    unowned: Family,
    stalled: Family,
    parked: Family,
    rebalancing: Family,
}

impl Families {
    /// The first four have the names that dashboards for Kafka already use.
    fn new() -> Self {
        let gauge = |name, help| Family::new(name, "gauge", help);
        Self {
            lag: gauge(
                "kafka_consumergroup_lag",
                "Records that the group has not finished",
            ),
            offset: gauge("kafka_consumergroup_current_offset", "Committed offset"),
            members: gauge("kafka_consumergroup_members", "Members of the group"),
            seconds: gauge(
                "kafka_consumergroup_lag_seconds",
                "Age of the first record that the group has not finished",
            ),
            unowned: gauge(
                "highwater_consumergroup_unowned_partitions",
                "Partitions that nobody has owned for longer than a session timeout",
            ),
            stalled: gauge(
                "highwater_consumergroup_stalled_members",
                "Members that commit nothing though there are records to read",
            ),
            parked: gauge("highwater_consumergroup_parked_keys", "Keys set aside"),
            rebalancing: gauge(
                "highwater_consumergroup_rebalancing",
                "1 while members do not hold yet what they should",
            ),
        }
    }
    fn text(self) -> String {
        let all = [
            self.lag,
            self.offset,
            self.members,
            self.seconds,
            self.unowned,
            self.stalled,
            self.parked,
            self.rebalancing,
        ];
        all.map(|family| family.text).concat()
    }
}

/// All of them.
pub fn exposition<E: Env>(broker: &Broker<E>) -> String {
    let image = broker.cluster.image();
    let mut families = Families::new();
    for shard in broker.shards.all() {
        if !shard.group.is_leader() || !shard.coordinator.is_ready() {
            continue;
        }
        for (name, group) in shard.groups.all() {
            let labels = format!("consumergroup=\"{}\"", escaped(&name));
            let lag = shard.coordinator.lag(&name).unwrap_or_default();
            add_group(&mut families, &labels, &group, &lag);
            add_partitions(&mut families, (&image, &labels), &group, &lag);
        }
    }
    families.text()
}

/// A label's value, as the text format wants it.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' | '\\' => write!(escaped, "\\{c}"),
            c => write!(escaped, "{c}"),
        };
    }
    escaped
}

fn add_group(families: &mut Families, labels: &str, group: &Group, lag: &GroupLag) {
    use highwater_shard::groups::GroupPhase::{Assigning, Reconciling};
    let rebalancing = matches!(group.phase(), Assigning | Reconciling);
    families.members.add(labels, group.members.len());
    families.unowned.add(labels, lag.long_unowned(group));
    families
        .stalled
        .add(labels, lag.stalled_members(group).len());
    families.parked.add(labels, group.parked.len());
    families.rebalancing.add(labels, u8::from(rebalancing));
}

fn add_partitions(
    families: &mut Families,
    (image, group_labels): (&Image, &str),
    group: &Group,
    lag: &GroupLag,
) {
    let labels = |tp: &TopicPartition| {
        let topic = image.topic(tp.topic)?;
        let (topic, partition) = (topic.name(), tp.partition);
        Some(format!(
            "{group_labels},topic=\"{topic}\",partition=\"{partition}\""
        ))
    };
    for (tp, committed) in group.offsets.iter() {
        if let Some(labels) = labels(tp) {
            families.offset.add(&labels, committed.offset);
        }
    }
    for (tp, seen) in &lag.partitions {
        let Some(labels) = labels(tp) else { continue };
        if let Some(lag) = seen.lag {
            families.lag.add(&labels, lag);
        }
        if let Some(seconds) = seen.lag_seconds {
            families.seconds.add(&labels, seconds);
        }
    }
}
