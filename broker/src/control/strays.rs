//! What a move has left in a shard: a hold or fence whose move was given up, a copy that nobody goes on with,
//! a partition that is in another shard now. Pure: judged by an image that is new enough to know.
//!
//! An image that is old must not undo what goes on: everything here is decided only by one that has
//! heard of the plans that are concerned. What it says of them then is true for ever, because a move
//! that was given up is never taken up again, and plans are never numbered twice.

use highwater_env::Disk;
use highwater_metadata::Image;
use highwater_mutant::mutant;
use highwater_proto::{ShardId, TopicPartition};
use highwater_shard::{MoveCommand, MoveStep};

use crate::runtime::view::PartitionView;

/// A partition as a shard has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub tp: TopicPartition,
    pub shard: ShardId,
    pub arrival: u64,
    pub importing: bool,
    pub leaves_by: Option<u64>,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Judged {
    /// It is here, and is treated as its topic says.
    Belongs,
    /// It is on its way, or the image is too old to know.
    Moves,
    /// It is not what it should be.
    Astray(MoveCommand),
}

impl Found {
    pub fn of<D: Disk>(shard: ShardId, view: &PartitionView<D>) -> Self {
        let standing = view.standing();
        Self {
            tp: view.topic_partition(),
            shard,
            arrival: view.arrival(),
            importing: standing == crate::runtime::standing::Standing::Importing,
            leaves_by: standing.leaves_by(),
        }
    }
}

/// Whether a partition belongs where it was found.
pub(super) fn due(image: &Image, found: &Found) -> Judged {
    let Found {
        tp,
        shard,
        arrival,
        importing,
        leaves_by,
    } = *found;
    // Of a deleted topic everything goes, and of one that this image does not know nothing.
    let Some(topic) = image.topic(tp.topic) else {
        return Judged::Belongs;
    };
    let Some(placed) = topic.shard_of(tp.partition) else {
        return Judged::Moves; // more partitions were added since
    };
    let newest = arrival.max(leaves_by.unwrap_or(0));
    if !image.has_heard_of_plan(newest) {
        return Judged::Moves;
    }
    let running = image.running_plan();
    let moving = running.and_then(|plan| Some((plan.id, *plan.moving(tp.topic, tp.partition)?)));
    let is_meant = placed == shard && topic.arrival(tp.partition) == arrival;
    if mutant!(ForgetsArrivals => false; else is_meant && importing) {
        // The move is done, so it is whole: this leader has not applied as much of the log yet.
        return Judged::Moves;
    }
    let is_here = mutant!(ForgetsArrivals => is_meant && !importing; else is_meant);
    let step = match (moving, leaves_by) {
        // A copy, whole or not, that the running plan goes on with.
        (Some((plan, going)), _) if plan == arrival && going.to == shard => return Judged::Moves,
        (Some((plan, going)), Some(by)) if is_here && plan == by && going.from == shard => {
            return Judged::Moves;
        }
        (_, Some(plan)) if is_here => (plan, MoveStep::Release),
        (_, None) if is_here => return Judged::Belongs,
        _ => (arrival, MoveStep::Forget),
    };
    let (plan, step) = step;
    Judged::Astray(MoveCommand { tp, plan, step })
}

/// Whether nobody has, or will have, a use for files of a partition that a move (0: none) has brought.
pub(super) fn is_gone(image: &Image, tp: TopicPartition, arrival: u64) -> bool {
    let Some(topic) = image.topic(tp.topic) else {
        return image.was_deleted(tp.topic);
    };
    let known = topic.shard_of(tp.partition).is_some() && image.has_heard_of_plan(arrival);
    let moving = image.running_plan();
    let moving = moving.and_then(|plan| plan.moving(tp.topic, tp.partition));
    known && moving.is_none() && topic.arrival(tp.partition) != arrival
}

#[cfg(test)]
#[path = "strays_tests.rs"]
mod tests;
