//! A leader's disk that is full, slow, or stands still: its process lives, and must live with it.

use std::time::Duration;

use async_trait::async_trait;
use highwater_client::ErrorCode;
use highwater_powerfs::{Fault, FaultKind, FaultStatus};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};
use crate::schedule::Kind;
use crate::workload::Prober;

/// Between two records to a leader whose disk is full, and how long it may take to notice, to refuse and to let
/// others read: it looks four times a second.
const AGAIN: Duration = Duration::from_millis(300);
const NOTICED_AFTER: Duration = Duration::from_secs(5);

/// One of these, until it is over.
pub(super) struct BadDisk {
    kind: Kind,
    pick: u64,
    node: Option<u32>,
    seen: Seen,
}

/// What a leader whose disk says that it is full did with what it was sent, and asked for.
#[derive(Debug, Default)]
struct Seen {
    took: Tries,
    refused: Tries,
    read: Tries,
    did_not_read: Tries,
    moved: bool,
}

/// Attempts that ended alike since something else happened.
#[derive(Debug, Default)]
struct Tries {
    count: u32,
    first: Option<Instant>,
}

impl Tries {
    fn add(&mut self) {
        self.count += 1;
        self.first.get_or_insert_with(Instant::now);
    }

    fn lasted(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| first.elapsed())
    }
}

impl Seen {
    /// A broken promise, when nothing else explains what was seen.
    fn finding(&self, node: u32) -> Option<String> {
        let never = |tries: &Tries| tries.count == 0;
        let long = |tries: &Tries| tries.count >= 5 && tries.lasted() > NOTICED_AFTER;
        if never(&self.refused) && !self.moved && long(&self.took) {
            let count = self.took.count;
            return Some(format!(
                "broker {node} took {count} records while its disk said that it was full"
            ));
        }
        (never(&self.read) && long(&self.did_not_read) && !never(&self.refused)).then(|| {
            format!("broker {node} let nobody read while its disk was full and it refused records")
        })
    }
}

impl BadDisk {
    pub(super) fn new(kind: Kind, pick: u64) -> Self {
        Self {
            kind,
            pick,
            node: None,
            seen: Seen::default(),
        }
    }

    /// Sends to what the broker leads, and reads from it.
    async fn probe(&mut self, site: &Site, node: u32, prober: &mut Prober) {
        let Some(partition) = site.leaders.led_by(node).first().copied() else {
            self.seen.moved = true;
            return;
        };
        let sent = prober.send(partition).await;
        if site.leaders.of(partition) != Some(node) {
            self.seen.moved = true;
            return;
        }
        match sent {
            Ok(()) => self.seen.took.add(),
            // It was the broker that answered, so it can be reached.
            Err(error) if error.cause().code() == Some(ErrorCode::StorageFull) => {
                self.seen.refused.add();
                match prober.read(partition).await {
                    Ok(()) => self.seen.read.add(),
                    Err(_) => self.seen.did_not_read.add(),
                }
            }
            // Other faults may be the reason.
            Err(_) => {}
        }
    }

    /// Half of the full disks say how full they are, the others refuse although there seems to be
    /// room, as a quota does.
    const fn fault(&self) -> FaultKind {
        match self.kind {
            Kind::SlowFsync => FaultKind::SlowSync {
                millis: 50 + self.pick % 450,
            },
            Kind::StalledFsync => FaultKind::SlowSync {
                millis: 1_000 + self.pick % 29_000,
            },
            _ if self.pick.is_multiple_of(2) => FaultKind::DiskFull,
            _ => FaultKind::NoSpace,
        }
    }
}

#[async_trait]
impl Nemesis for BadDisk {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        self.node = Some(node);
        let kind = self.fault();
        let fault = Fault {
            pattern: "data*".to_owned(),
            kind,
            times: None,
        };
        site.cluster()?.disk(node).await?.add_fault(fault).await?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"fault": kind}),
            at_ns: None,
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node.filter(|_| self.fault() == FaultKind::DiskFull) else {
            sleep_until(until).await;
            return Ok(());
        };
        let mut prober = Prober::new(&site.shared)?;
        while Instant::now() < until {
            self.probe(site, node, &mut prober).await;
            sleep_until(until.min(Instant::now() + AGAIN)).await;
        }
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        // Before the disk has room again.
        let finding = self.seen.finding(node);
        let cleared = site.cluster()?.disk(node).await?.clear_faults().await?;
        let struck = struck(&cleared);
        let seen = &self.seen;
        Ok(Proof {
            active: struck > 0 || seen.refused.count > 0,
            finding,
            detail: json!({
                "fault": self.fault(), "struck": struck, "took": seen.took.count,
                "refused": seen.refused.count, "read": seen.read.count,
                "did-not-read": seen.did_not_read.count, "leader-moved": seen.moved,
            }),
            ..Proof::default()
        })
    }
}

/// How often faults struck.
pub(super) fn struck(faults: &[FaultStatus]) -> u64 {
    faults.iter().map(|fault| fault.struck).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(count: u32) -> Tries {
        let long_ago = Instant::now().checked_sub(NOTICED_AFTER * 2);
        Tries {
            count,
            first: long_ago.filter(|_| count > 0),
        }
    }

    #[test]
    fn a_full_disk_refuses_and_lets_read() {
        let seen = |took, refused, read, did_not_read| Seen {
            took: tries(took),
            refused: tries(refused),
            read: tries(read),
            did_not_read: tries(did_not_read),
            moved: false,
        };
        assert_eq!(seen(2, 9, 9, 0).finding(1), None);
        assert!(
            seen(9, 0, 0, 0)
                .finding(1)
                .is_some_and(|f| f.contains("took 9 records"))
        );
        assert!(
            seen(0, 9, 0, 9)
                .finding(1)
                .is_some_and(|f| f.contains("let nobody read"))
        );
        assert_eq!(seen(0, 9, 1, 9).finding(1), None);
        assert_eq!(seen(4, 0, 0, 0).finding(1), None, "too soon to tell");
        let moved = Seen {
            moved: true,
            ..seen(9, 0, 0, 0)
        };
        assert_eq!(moved.finding(1), None);
    }
}
