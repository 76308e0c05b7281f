//! The checks, one anomaly each. Every one is a pass over the prepared history.

mod aborted_read;
mod duplicate;
mod group_regress;
mod inconsistent_offset;
mod lost_write;
mod non_monotonic_poll;
mod non_monotonic_send;
mod over_trim;
mod phantom;
mod poll_skip;
mod positions;
mod precommitted_read;
mod read_before_send;
mod replica_divergence;
mod revenant;
mod stale_key;
mod stale_latest;
mod trim_regress;
mod unseen;
pub(crate) mod vacuous;

use crate::model::Model;
use crate::verdict::{Anomaly, Collector};

/// Looks for one anomaly.
pub(crate) fn run(anomaly: Anomaly, model: &Model<'_>, out: &mut Collector) {
    match anomaly {
        Anomaly::InconsistentOffset => inconsistent_offset::check(model, out),
        Anomaly::Duplicate => duplicate::check(model, out),
        Anomaly::LostWrite => lost_write::check(model, out),
        Anomaly::Unseen => unseen::check(model, out),
        Anomaly::Phantom => phantom::check(model, out),
        Anomaly::AbortedRead => aborted_read::check(model, out),
        Anomaly::PrecommittedRead => precommitted_read::check(model, out),
        Anomaly::PollSkip => poll_skip::check(model, out),
        Anomaly::NonMonotonicPoll => non_monotonic_poll::check(model, out),
        Anomaly::NonMonotonicSend => non_monotonic_send::check(model, out),
        Anomaly::ReadBeforeSend => read_before_send::check(model, out),
        Anomaly::StaleLatest => stale_latest::check(model, out),
        Anomaly::GroupRegress => group_regress::check(model, out),
        Anomaly::ReplicaDivergence => replica_divergence::check(model, out),
        Anomaly::TrimRegress => trim_regress::check(model, out),
        Anomaly::OverTrim => over_trim::check(model, out),
        Anomaly::StaleKey => stale_key::check(model, out),
        Anomaly::Revenant => revenant::check(model, out),
    }
}
