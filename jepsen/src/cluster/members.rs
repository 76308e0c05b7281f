//! Who belongs to the cluster now, and what all of them must come to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use tokio::time::sleep;

use super::probe::{metrics, number};
use super::{Cluster, POLL};

/// Stored ranges that are not as they were written.
const DAMAGED: &str = "highwater_damaged_ranges";
/// What a broker says when it finds that a part of its log is not as it was written, and when that is gone.
pub(crate) const ROTTED: &str = "a part of the log had rotted";
const RENEWED: &str = "the log was written anew";
/// How often everything stored was read again.
const PASSES: &str = "highwater_scrub_passes_total";

impl Cluster {
    /// The brokers that faults are for: all but the spare one.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        let all = self.nodes.keys().copied();
        all.filter(|node| Some(*node) != self.spare).collect()
    }

    /// The broker that may join and leave, for the holder of the answer alone: what it sees of the broker and
    /// of its disk is then nobody else's doing. Nothing when there is none, or somebody has it.
    #[must_use]
    pub fn take_spare(&self) -> Option<(u32, OwnedMutexGuard<()>)> {
        let owner = Arc::clone(&self.spare_owner).try_lock_owned().ok()?;
        Some((self.spare?, owner))
    }

    /// Says whether the spare broker is to be counted as one of the cluster.
    pub fn spare_belongs(&self, belongs: bool) {
        self.spare_joined.store(belongs, Ordering::SeqCst);
    }

    /// All that belong to it now.
    #[must_use]
    pub fn members(&self) -> Vec<u32> {
        let joined = self.spare_joined.load(Ordering::SeqCst);
        let all = self.nodes.keys().copied();
        all.filter(|node| joined || Some(*node) != self.spare)
            .collect()
    }

    /// Whether every member serves and holds everything, right now.
    ///
    /// # Errors
    /// When a member is not there.
    pub async fn is_whole(&self) -> anyhow::Result<bool> {
        self.is_whole_but(None).await
    }

    /// The same of all members but one.
    ///
    /// # Errors
    /// As there.
    pub async fn is_whole_but(&self, one: Option<u32>) -> anyhow::Result<bool> {
        for node in self.members() {
            if Some(node) == one {
                continue;
            }
            let admin = self.admin_address(node).await?;
            if super::caught_up(admin).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until every member has read everything stored again, from the first to the last byte after
    /// now, and none knows of a range that is not as it was written. Answers with those who still do, or have not,
    /// when `patience` is over, one sentence each.
    ///
    /// # Errors
    /// When there is no such broker.
    pub async fn unmended(&self, patience: Duration) -> anyhow::Result<Vec<String>> {
        let given_up = Instant::now() + patience;
        let mut wanted: BTreeMap<u32, u64> = BTreeMap::new();
        loop {
            let mut bad = Vec::new();
            for node in self.members() {
                let admin = self.admin_address(node).await?;
                let text = match metrics(admin).await {
                    Ok(text) => text,
                    Err(why) => {
                        bad.push(format!("broker {node}: {why}"));
                        continue;
                    }
                };
                let passes = number(&text, PASSES).unwrap_or(0);
                // The pass that goes on now may have begun before the last flip.
                let wanted = *wanted.entry(node).or_insert(passes + 2);
                match number(&text, DAMAGED) {
                    Some(0) if passes >= wanted => bad.extend(self.rotten_log(node).await?),
                    Some(0) => bad.push(format!("broker {node} has not read everything again")),
                    Some(count) => bad.push(format!("broker {node}: {count} bad ranges")),
                    None => bad.push(format!("broker {node} does not count bad ranges")),
                }
            }
            if bad.is_empty() || Instant::now() > given_up {
                return Ok(bad);
            }
            sleep(POLL).await;
        }
    }

    /// A broker that has started on a log of which a part had rotted writes it anew, and says so.
    async fn rotten_log(&self, node: u32) -> anyhow::Result<Option<String>> {
        let said = self.node(node).await?.said()?;
        Ok((!is_renewed(&said)).then(|| {
            format!("broker {node} has not written its log anew since it found that a part of it had rotted")
        }))
    }
}

/// Whether a process has written its log anew since it found something rotten in it.
fn is_renewed(said: &str) -> bool {
    said.rfind(ROTTED)
        .is_none_or(|at| said[at..].contains(RENEWED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rotted_is_gone_when_the_log_was_written_anew_since() {
        assert!(is_renewed("started\n"));
        assert!(!is_renewed(&format!(
            "{RENEWED}\n{ROTTED}: nothing of it is needed\n"
        )));
        assert!(is_renewed(&format!(
            "{ROTTED}: nothing of it is needed\n{RENEWED}\n"
        )));
    }
}
