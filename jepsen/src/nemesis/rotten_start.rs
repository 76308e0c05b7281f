//! A bit that flipped under a broker that does not run. At its start it must not take it for what it wrote:
//! it mends that from others and says so, or ends, says which file it is, and has removed nothing. Half of those
//! that ended get their bit back, as if from a copy; the others are given up, and an empty disk is filled again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::{Flipped, Place};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::replace::Replace;
use super::{Nemesis, Proof, Site, Started};
use crate::cluster::ROTTED;
use crate::cluster::wal::{self, Hit, Target};

/// Between two looks at a broker.
const LOOK: Duration = Duration::from_millis(100);

/// How long a broker that did not end may take, when the time of the fault is over, to come to where it
/// must have read what rotted.
const READING: Duration = Duration::from_secs(10);

/// How long it may take until a broker that ended is given up.
const GIVING_UP: Duration = Duration::from_secs(8);

/// What it may flip beside the log.
const ELSEWHERE: [(&str, Place); 3] = [
    ("data/shards/*", Place::Anywhere),
    ("data/metadata/*", Place::Middle),
    ("data/identity.json", Place::Anywhere),
];

/// What it may flip in the log: all of it is known durable, so none of it may pass for a torn tail.
const LOG: [Target; 4] = [Target::Vote, Target::Entry, Target::Last, Target::FrameHead];

/// A bit of what a broker reads when it starts.
pub(super) struct RottenStart {
    pick: u64,
    node: Option<u32>,
    flipped: Option<Flipped>,
    /// What of the log it is.
    hit: Option<Hit>,
    refused: bool,
    /// Whether a broker that did not end said what it had found.
    noticed: bool,
    finding: Option<String>,
    replace: Option<Replace>,
    replaced: Option<Json>,
    /// The files that it had.
    files: BTreeSet<PathBuf>,
}

impl RottenStart {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            flipped: None,
            hit: None,
            refused: false,
            noticed: false,
            finding: None,
            replace: None,
            replaced: None,
            files: BTreeSet::new(),
        }
    }

    /// Half of them are of the log, if there is anything to be hit; a young broker has no checkpoint yet.
    async fn flip(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let first = usize::try_from(self.pick % 6).unwrap_or(0);
        let elsewhere = first.saturating_sub(3);
        if first < 3 && self.flip_in_log(site, node).await? {
            return Ok(());
        }
        let disk = site.cluster()?.disk(node).await?;
        for at in (elsewhere..ELSEWHERE.len()).chain(0..elsewhere) {
            let (pattern, place) = ELSEWHERE[at];
            if let Ok(flipped) = disk.rot(pattern, place, self.pick).await {
                self.flipped = Some(flipped);
                return Ok(());
            }
        }
        drop(disk);
        self.flip_in_log(site, node).await.map(drop)
    }

    async fn flip_in_log(&mut self, site: &Site, node: u32) -> anyhow::Result<bool> {
        let cluster = site.cluster()?;
        let log = cluster.node(node).await?.spec().data_dir.join("wal");
        let frames = wal::frames(&log)?;
        let target = LOG[usize::try_from((self.pick >> 3) % 4).unwrap_or(0)];
        let Some(hit) = wal::choose(&frames, target, self.pick >> 5) else {
            return Ok(false);
        };
        let flipped = Flipped {
            path: format!("data/wal/{}", hit.frame.file),
            offset: hit.offset,
            bit: u8::try_from((self.pick >> 40) % 8).unwrap_or(0),
        };
        cluster.disk(node).await?.flip(flipped.clone()).await?;
        self.flipped = Some(flipped);
        self.hit = Some(hit);
        Ok(true)
    }

    /// Whether it has ended. What it then has done and said is judged at once.
    async fn look(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let mut broker = site.cluster()?.node(node).await?;
        broker.ended();
        if broker.pid().is_none() && !self.refused {
            self.refused = true;
            let data = broker.spec().data_dir.clone();
            self.finding = self.judge(&data, &broker.said()?)?;
        }
        Ok(())
    }

    /// What a broker that refused must not have done, and what it must have said.
    fn judge(&self, data: &Path, said: &str) -> anyhow::Result<Option<String>> {
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
        Ok((!names(said, &flipped.path)).then(|| {
            let path = &flipped.path;
            format!(
                "broker {node} refused to start and did not name {path}, of which a bit had flipped"
            )
        }))
    }

    /// A broker that did not end has read what rotted in its log when it has caught up at the latest, and must have
    /// said so.
    async fn notice(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let Some((hit, flipped)) = self.hit.clone().zip(self.flipped.clone()) else {
            return Ok(());
        };
        let given_up = Instant::now() + READING;
        while Instant::now() < given_up {
            self.look(site, node).await?;
            if self.refused {
                return Ok(());
            }
            let (said, caught_up) = {
                let broker = site.cluster()?.node(node).await?;
                let caught_up = broker.caught_up().await.is_ok();
                (broker.said()?, caught_up)
            };
            self.noticed = names_rotten(&said, &flipped.path);
            if self.noticed {
                return Ok(());
            }
            if caught_up {
                let frame = &hit.frame;
                self.finding = Some(format!(
                    "broker {node} started over damage without noticing: of {}, byte {}, a bit had flipped, in frame \
                     {} of group {} (kind {}, index {}), which is known durable",
                    flipped.path, flipped.offset, frame.at, frame.group, frame.kind, frame.index
                ));
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Whether a log names a file, or the directory of a shard that it lies in.
fn names(log: &str, path: &str) -> bool {
    let path = Path::new(path);
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| log.contains(name.as_ref()))
}

/// Whether a log says that something in a file had rotted. That a tail was torn is not the same.
fn names_rotten(log: &str, path: &str) -> bool {
    let mut rotten = log.lines().filter(|line| line.contains(ROTTED));
    rotten.any(|line| names(line, path))
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
        broker.start_to_be_refused()?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"flipped": self.flipped, "of-log": self.hit}),
            at_ns: Some(at_ns),
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        while Instant::now() < until && !self.refused {
            self.look(site, node).await?;
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        if self.refused && (self.pick >> 9).is_multiple_of(2) {
            let replace = self.replace.insert(Replace::of(node));
            replace.begin(site, Instant::now() + GIVING_UP).await?;
        }
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        if !self.refused {
            self.look(site, node).await?;
            self.notice(site, node).await?;
        }
        if let Some(replace) = &mut self.replace {
            self.replaced = replace.end(site).await?;
        }
        if self.refused && self.replaced.is_none() {
            // One that refused wrote nothing, so the bit is flipped back, as if from a copy. One that
            // started has read past it, and may have written there since.
            if let Some(flipped) = self.flipped.clone() {
                site.cluster()?.disk(node).await?.flip(flipped).await?;
            }
            site.cluster()?.node(node).await?.start()?;
        }
        site.cluster()?.node(node).await?.expect_end(false);
        Ok(Proof {
            active: self.flipped.is_some(),
            finding: self.finding.take(),
            detail: json!({
                "flipped": self.flipped, "of-log": self.hit, "refused": self.refused,
                "noticed": self.noticed, "replaced": self.replaced,
            }),
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
    fn a_torn_tail_is_no_rot() {
        let torn = "INFO torn=TornTail { file: \"wal/7.wal\" } cut a torn tail\n";
        assert!(!names_rotten(torn, "data/wal/7.wal"));
        let rotten = format!("{torn}ERROR {ROTTED}: nothing of it is needed place=wal/7.wal\n");
        assert!(names_rotten(&rotten, "data/wal/7.wal"));
        assert!(!names_rotten(&rotten, "data/wal/8.wal"));
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
