//! What recoveries are held to: the goals of their kinds, with what clients and a busy machine add.
//!
//! A partition that took longer is a finding, but only when nothing else can be the reason. Every broker had
//! caught up when the harness set about the fault, every partition had taken a record just before, and no
//! other fault, proven or not, lay between that and the acknowledgement. Clients must have been at work for all
//! of the time allowed. In a run of many kinds this is so for few of them; reports say for how many.

use std::time::Duration;

use crate::nemesis::{REJOIN, Record};
use crate::recovery::{
    ByPartition, Measure, Rejoin, Seen, Way, affected, by_partition, seconds, way_back,
};

/// Every partition must have taken a record within this time before a fault. One with so little traffic that it
/// has not cannot show how soon it is served again either.
const BEFORE: Duration = Duration::from_secs(2);

/// What clients add to a goal at the most: writers that wait for what they had sent before, or for other partitions
/// of the same operation, and pauses of a quarter of a second between two attempts.
const CLIENTS: Duration = Duration::from_secs(3);

/// A machine that runs all brokers, clients and the harness is slower than one broker's own.
const SLOWER: u32 = 2;

/// The others must have been whole for so long before a broker that has not come back is held against it.
const OTHERS_WHOLE: Duration = Duration::from_secs(30);

/// What a goal allows here.
fn allowed(goal: Duration) -> Duration {
    (goal * SLOWER).max(goal + CLIENTS)
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What took longer than it may, one sentence for each fault.
pub(crate) fn findings(seen: &Seen<'_>) -> Vec<String> {
    let acks = by_partition(seen.acknowledged);
    let slow = seen
        .records
        .iter()
        .filter_map(|record| too_slow(seen, &acks, record));
    let stuck = seen
        .rejoins
        .iter()
        .filter_map(|rejoin| stayed_away(seen, rejoin));
    slow.chain(stuck).collect()
}

/// For how many partitions a fault can be held to its goal.
pub(crate) fn held(seen: &Seen<'_>, acks: &ByPartition, record: &Record) -> u32 {
    u32::try_from(judged(seen, acks, record).len()).unwrap_or(u32::MAX)
}

/// Partitions, with their ways back, that nothing but this fault has kept.
fn judged(seen: &Seen<'_>, acks: &ByPartition, record: &Record) -> Vec<(u32, Way)> {
    let Some(goal) = record.kind.bound() else {
        return Vec::new();
    };
    if !record.begun || !record.proven || !all_served_before(seen, acks, record) {
        return Vec::new();
    }
    let ways = affected(record, seen.partitions)
        .into_iter()
        .map(|partition| {
            let acks = acks.get(&partition).map_or(&[][..], Vec::as_slice);
            (partition, way_back(record, acks, seen.until_ns))
        });
    let fair = |(_, way): &(u32, Way)| {
        // What came, or not, after the clients had stopped says nothing, unless it was too late even then.
        let answered = way.measure != Measure::Never && way.to_ns <= seen.until_ns;
        let waited = seen.until_ns.saturating_sub(way.from_ns) > ns(allowed(goal));
        (answered || waited) && alone(seen, record, way.to_ns)
    };
    ways.filter(fair).collect()
}

fn all_served_before(seen: &Seen<'_>, acks: &ByPartition, record: &Record) -> bool {
    let since = record.asked_ns.saturating_sub(ns(BEFORE));
    let served = |partition: u32| {
        let acks = acks.get(&partition).map_or(&[][..], Vec::as_slice);
        acks.iter()
            .any(|ack| (since..=record.from_ns).contains(&ack.at_ns))
    };
    record.whole_before && (0..seen.partitions).all(served)
}

/// Whether no other fault lies between the time just before this one and a moment.
fn alone(seen: &Seen<'_>, record: &Record, to_ns: u64) -> bool {
    let since = record.asked_ns.saturating_sub(ns(BEFORE));
    let mut others = seen
        .records
        .iter()
        .filter(|other| other.number != record.number);
    others.all(|other| other.healed_ns < since || other.asked_ns > to_ns)
}

fn too_slow(seen: &Seen<'_>, acks: &ByPartition, record: &Record) -> Option<String> {
    let goal = record.kind.bound()?;
    let allowed = allowed(goal);
    let mut late = judged(seen, acks, record);
    late.retain(|(_, way)| way.took_ns() > ns(allowed));
    let worst = late.iter().map(|(_, way)| way.took_ns()).max()?;
    let partitions: Vec<u32> = late.iter().map(|(partition, _)| *partition).collect();
    let since = match late.first()?.1.measure {
        Measure::Gap => "between two acknowledgements",
        Measure::AfterHeal => "from its end to the first acknowledgement",
        Measure::UnderFault | Measure::Never => "from its beginning to the first acknowledgement",
    };
    Some(format!(
        "{} {}: partitions {partitions:?} took up to {:.1} s {since}, with all brokers whole before and nothing \
         else broken; the goal is {} s, and {} s are allowed here",
        record.kind.name(),
        record.number,
        seconds(worst),
        goal.as_secs_f64(),
        allowed.as_secs_f64(),
    ))
}

fn stayed_away(seen: &Seen<'_>, rejoin: &Rejoin) -> Option<String> {
    if rejoin.took_ns.is_some() || rejoin.others_whole_ns < ns(OTHERS_WHOLE) {
        return None;
    }
    let record = seen
        .records
        .iter()
        .find(|record| record.number == rejoin.number)?;
    let given_up = record.healed_ns.saturating_add(ns(REJOIN));
    let since = given_up.saturating_sub(rejoin.others_whole_ns);
    // While it was itself paused or cut off, the others were whole without it.
    let hit = |other: &&Record| {
        let overlaps = other.healed_ns >= since && other.asked_ns <= given_up;
        other.number != rejoin.number && overlaps && other.nodes.contains(&rejoin.node)
    };
    if seen.records.iter().any(|other| hit(&other)) {
        return None;
    }
    Some(format!(
        "{} {}: broker {} was started again and had not caught up after {} s, for the last {:.0} of which all others \
         were whole",
        record.kind.name(),
        record.number,
        rejoin.node,
        REJOIN.as_secs(),
        seconds(rejoin.others_whole_ns),
    ))
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
