//! Round robin: all partitions in turn over all members.

use super::{Problem, Targets};

/// A member that is not subscribed to a partition's topic is passed over.
pub(super) fn assign(problem: &Problem) -> Targets {
    let mut targets = problem.empty_targets();
    let members = problem.sorted();
    let mut next = 0;
    for tp in problem.partitions() {
        let turns = (0..members.len()).map(|step| (next + step) % members.len());
        let mut turns = turns.filter_map(|turn| Some((turn, members.get(turn)?)));
        let taker = turns.find(|(_, member)| member.topics.contains(&tp.topic));
        if let Some((turn, member)) = taker {
            targets.entry(member.id.clone()).or_default().insert(tp);
            next = turn + 1;
        }
    }
    targets
}
