//! A broker comes back with an empty disk. It must not vote: the cluster refuses it until its own
//! disk is back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};

/// Between two looks at the broker.
const LOOK: Duration = Duration::from_millis(100);

/// Its data is put aside, and put back.
pub(super) struct Wipe {
    pick: u64,
    node: Option<u32>,
    killed: bool,
    aside: Option<(PathBuf, PathBuf)>,
    started: Vec<u32>,
    admitted: bool,
}

impl Wipe {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            killed: false,
            aside: None,
            started: Vec::new(),
            admitted: false,
        }
    }
}

/// Renames for good: a later power loss must not undo what only this harness did.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let directory = to.parent().unwrap_or(to);
    File::open(directory)?.sync_all()
}

#[async_trait]
impl Nemesis for Wipe {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let at_ns = site.recorder.now_ns();
        let mut broker = site.cluster()?.node(node).await?;
        self.node = Some(node);
        broker.kill().await?;
        self.killed = true;
        let data = broker.spec().data_dir.clone();
        let aside = data.with_file_name("aside");
        rename(&data, &aside).context("cannot put the data aside")?;
        self.aside = Some((data, aside));
        self.started.push(broker.start_to_be_refused()?);
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"pid": self.started}),
            at_ns: Some(at_ns),
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        while Instant::now() < until {
            {
                let mut broker = site.cluster()?.node(node).await?;
                broker.ended();
                if broker.pid().is_none() {
                    // Refused. A supervisor would start it again, and so it goes.
                    self.started.push(broker.start_to_be_refused()?);
                } else if broker.caught_up().await.is_ok() {
                    self.admitted = true;
                }
            }
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node.filter(|_| self.killed) else {
            return Ok(Proof::default());
        };
        let mut broker = site.cluster()?.node(node).await?;
        broker.ended();
        if broker.pid().is_some() {
            broker.kill().await?;
        }
        if let Some((data, aside)) = self.aside.take() {
            if data.exists() {
                fs::remove_dir_all(&data).context("cannot remove what the empty broker made")?;
            }
            rename(&aside, &data).context("cannot put the data back")?;
        }
        broker.start()?;
        let finding = format!("broker {node} came back with an empty disk and was let in");
        Ok(Proof {
            active: !self.started.is_empty(),
            finding: self.admitted.then_some(finding),
            detail: json!({"started-empty": self.started, "let-in": self.admitted}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.into_iter().collect()
    }
}
