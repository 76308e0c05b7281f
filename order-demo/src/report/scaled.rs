//! What the report says of further workers, and of retries.

use std::collections::BTreeMap;

use super::{ModeRun, Scaled, Work};
use crate::services::admin::Retries;

impl Scaled {
    /// One sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self {
            service, behind, ..
        } = self;
        let mut text = format!("{service} at {:.1} s, {behind} messages behind", self.at_s);
        match (self.assigned_ms, self.pause_ms) {
            (Some(first), Some(pause)) => {
                text += &format!(
                    ": the new worker's first message after {first:.0} ms, of which nobody worked on \
                     its partitions for {pause:.0} ms"
                );
            }
            (Some(first), None) => {
                text += &format!(": the new worker's first message after {first:.0} ms");
            }
            (None, _) => text += ": the new worker handled nothing",
        }
        match self.gone_s {
            Some(gone) => text += &format!("; the lag was gone after {gone:.1} s"),
            None => text += "; the lag was not gone by the end",
        }
        match (self.stopped_s, self.handed_back_ms) {
            (Some(after), Some(back)) => {
                text +=
                    &format!("; stopped after {after:.1} s, its partitions back in {back:.0} ms");
            }
            (Some(after), None) => text += &format!("; stopped after {after:.1} s"),
            (None, _) => {}
        }
        text
    }
}

/// What further workers took at the most: from the decision to the first message, and the time for which
/// nobody worked on partitions that moved. In milliseconds; none when there were none.
pub(crate) fn slowest<'a>(all: impl Iterator<Item = &'a Scaled>) -> (Option<f64>, Option<f64>) {
    all.fold((None, None), |(assigned, pause), one| {
        let most = |so_far: Option<f64>, next: Option<f64>| match (so_far, next) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        let pauses = most(one.pause_ms, one.handed_back_ms);
        (most(assigned, one.assigned_ms), most(pause, pauses))
    })
}

/// The row of the comparison.
pub(super) fn row(run: &ModeRun) -> String {
    if run.scaled.is_empty() {
        return "no group's lag made a further worker start".to_owned();
    }
    let all: Vec<String> = run.scaled.iter().map(Scaled::sentence).collect();
    all.join("; ")
}

/// Who retried anything or was refused to, those who did most first; and the sums.
pub(super) fn retries(work: &BTreeMap<String, Work>) -> (Vec<(&str, Retries)>, Retries) {
    let mut sum = Retries::default();
    let mut those = Vec::new();
    for (name, work) in work {
        let own = work.retries;
        sum.calls += own.calls;
        sum.retries += own.retries;
        sum.refused += own.refused;
        if own.retries + own.refused > 0 {
            those.push((name.as_str(), own));
        }
    }
    those.sort_by_key(|(_, own)| std::cmp::Reverse((own.retries, own.refused)));
    (those, sum)
}
