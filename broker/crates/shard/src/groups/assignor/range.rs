//! Range: topic by topic, neighbouring partitions to one member.

use highwater_proto::{PartitionId, TopicPartition};

use super::{Problem, Targets};

/// The first members get one more where it does not come out even. Topics with the same number of
/// partitions and the same subscribers are cut at the same places.
pub(super) fn assign(problem: &Problem) -> Targets {
    let mut targets = problem.empty_targets();
    let members = problem.sorted();
    for (id, topic) in &problem.topics {
        let subscribed: Vec<_> = members.iter().filter(|m| m.topics.contains(id)).collect();
        if subscribed.is_empty() {
            continue;
        }
        let (share, more) = (
            topic.racks.len() / subscribed.len(),
            topic.racks.len() % subscribed.len(),
        );
        let mut numbers = (0..).zip(&topic.racks);
        for (turn, member) in subscribed.into_iter().enumerate() {
            let count = share + usize::from(turn < more);
            let mine = numbers.by_ref().take(count);
            let mine = mine.map(|(number, _)| TopicPartition::new(*id, PartitionId(number)));
            targets.entry(member.id.clone()).or_default().extend(mine);
        }
    }
    targets
}
