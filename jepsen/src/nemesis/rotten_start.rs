//! A bit that flipped under a broker that does not run. At its start it must not take it for what it wrote:
//! it mends that from others, or ends, says which file it is, and has removed nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::{Flipped, Place};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};

/// Between two looks at a broker.
const LOOK: Duration = Duration::from_millis(100);

/// What it may flip. In the log only the head of a file: rot in its very last
/// group cannot be told from a torn tail, and this is not to be held against it.
const DEAD: [(&str, Place); 4] = [
    ("data/wal/*", Place::Head),
    ("data/shards/*", Place::Anywhere),
    ("data/metadata/*", Place::Middle),
    ("data/identity.json", Place::Anywhere),
];

/// A bit of what a broker reads when it starts.
pub(super) struct RottenStart {
    pick: u64,
    node: Option<u32>,
    flipped: Option<Flipped>,
    refused: bool,
    /// The files that it had, and how long its log was in bytes.
    files: BTreeSet<PathBuf>,
    log_bytes: u64,
}

impl RottenStart {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            flipped: None,
            refused: false,
            files: BTreeSet::new(),
            log_bytes: 0,
        }
    }

    async fn flip(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let cluster = site.cluster()?;
        let first = usize::try_from(self.pick % 4).unwrap_or(0);
        for at in (first..DEAD.len()).chain(0..first) {
            let (pattern, place) = DEAD[at];
            let disk = cluster.disk(node).await?;
            // A young broker has no checkpoint yet.
            if let Ok(flipped) = disk.rot(pattern, place, self.pick).await {
                self.flipped = Some(flipped);
                break;
            }
        }
        Ok(())
    }

    /// What a broker that refused must not have done, and what it must have said.
    fn judge(&self, data: &Path, log: &Path) -> anyhow::Result<Option<String>> {
        let Some(flipped) = &self.flipped else {
            return Ok(None);
        };
        let node = self.node.unwrap_or(0);
        let left = files(data)?;
        let missing: Vec<String> = self
            .files
            .difference(&left)
            .map(|path| path.display().to_string())
            .collect();
        if !missing.is_empty() {
            let what = missing.join(", ");
            return Ok(Some(format!(
                "broker {node} removed {what} when a bit of {} had flipped",
                flipped.path
            )));
        }
        let said = fs::read(log)?;
        let from = usize::try_from(self.log_bytes).unwrap_or(0);
        let said = String::from_utf8_lossy(said.get(from..).unwrap_or_default()).into_owned();
        Ok((!names(&said, &flipped.path)).then(|| {
            let path = &flipped.path;
            format!(
                "broker {node} refused to start and did not name {path}, of which a bit had flipped"
            )
        }))
    }
}

/// Whether a log names a file, or the directory of a shard that it lies in.
fn names(log: &str, path: &str) -> bool {
    let path = Path::new(path);
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| log.contains(name.as_ref()))
}

/// All files below a directory, but those that are not finished.
fn files(directory: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let unfinished = |end: &std::ffi::OsStr| end == "tmp" || end == "new";
            if path.is_dir() {
                open.push(path);
            } else if !path.extension().is_some_and(unfinished) {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

#[async_trait]
impl Nemesis for RottenStart {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let cluster = site.cluster()?;
        let at_ns = site.recorder.now_ns();
        let node = site.rots;
        cluster.node(node).await?.kill().await?;
        self.node = Some(node);
        self.flip(site, node).await?;
        let mut broker = cluster.node(node).await?;
        self.files = files(&broker.spec().data_dir)?;
        self.log_bytes = fs::metadata(&broker.spec().log)?.len();
        broker.start_to_be_refused()?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"flipped": self.flipped}),
            at_ns: Some(at_ns),
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        while Instant::now() < until && !self.refused {
            {
                let mut broker = site.cluster()?.node(node).await?;
                broker.ended();
                self.refused = broker.pid().is_none();
            }
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let cluster = site.cluster()?;
        let mut broker = cluster.node(node).await?;
        broker.ended();
        // One that refused wrote nothing, so the bit is flipped back, as if from a copy. One that
        // started has read past it, and may have written there since.
        self.refused = broker.pid().is_none();
        let mut finding = None;
        if self.refused {
            let spec = broker.spec();
            finding = self.judge(&spec.data_dir, &spec.log)?;
            if let Some(flipped) = self.flipped.clone() {
                cluster.disk(node).await?.flip_back(flipped).await?;
            }
            broker.start()?;
        }
        broker.expect_end(false);
        Ok(Proof {
            active: self.flipped.is_some(),
            finding,
            detail: json!({"flipped": self.flipped, "refused": self.refused}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_name() {
        assert!(names(
            "error: wal/0007.log: bad checksum",
            "data/wal/0007.log"
        ));
        assert!(!names(
            "error: wal/0008.log: bad checksum",
            "data/wal/0007.log"
        ));
    }

    #[test]
    fn unfinished_files_do_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("wal")).expect("made");
        for name in ["wal/a.log", "b.tmp", "c"] {
            fs::write(at(name), "x").expect("written");
        }
        let found = files(directory.path()).expect("readable");
        assert_eq!(found, BTreeSet::from([at("wal/a.log"), at("c")]));
    }
}
