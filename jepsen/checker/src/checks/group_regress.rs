//! Group regress: a group's offset went back, or passed records that the group had not processed.
//!
//! A group consists of the processes that ever commit for it. What a member polled counts as
//! processed. An offset that was acknowledged, or was told, is a lower bound for every request that
//! begins later. Histories in which somebody resets a group on purpose are not for this check.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Action, Entry, Key, Kind, Offset, Process};
use crate::model::{Model, Partition};
use crate::verdict::{Collector, Finding};

/// A group's work on one partition.
type Place = (u32, Key);

/// An offset that was stored or told, and the entry that shows it.
type Shown = (Offset, u64);

/// What a request must not go below.
type Bounds = Vec<(Place, Option<Shown>)>;

#[derive(Default)]
struct Progress {
    /// Ranks that members have polled, beyond those below `done`.
    polled: HashSet<u32>,
    /// Every rank below this was polled.
    done: u32,
    /// The highest offset stored or told so far, and the entry that shows it.
    highest: Option<Shown>,
}

impl Progress {
    fn poll(&mut self, rank: u32) {
        if rank >= self.done {
            self.polled.insert(rank);
        }
        while self.polled.remove(&self.done) {
            self.done += 1;
        }
    }
}

pub(super) fn check(model: &Model<'_>, out: &mut Collector) {
    let members = members(model);
    if members.is_empty() && !asked(model) {
        return;
    }
    let mut progress: BTreeMap<Place, Progress> = BTreeMap::new();
    // What an open request must not go below. A process has one operation open at a time.
    let mut bounds: HashMap<Process, Bounds> = HashMap::new();
    for entry in model.history.iter() {
        match entry.kind {
            Kind::Invoke => {
                let places = entry.actions.iter().filter_map(place_of);
                let bound = |place| (place, progress.get(&place).and_then(|p| p.highest));
                let bound: Bounds = places.map(bound).collect();
                if !bound.is_empty() {
                    bounds.insert(entry.process, bound);
                }
            }
            Kind::Ok => {
                note_polls(model, &members, &entry, &mut progress);
                let bound = bounds.remove(&entry.process).unwrap_or_default();
                for action in entry.actions {
                    judge(model, &entry, action, &bound, (&mut progress, out));
                }
            }
            Kind::Fail | Kind::Info => drop(bounds.remove(&entry.process)),
        }
    }
}

fn place_of(action: &Action) -> Option<Place> {
    match *action {
        Action::Commit { key, group, .. } | Action::Committed { key, group, .. } => {
            Some((group, key))
        }
        _ => None,
    }
}

/// The groups of every process that commits.
fn members(model: &Model<'_>) -> HashMap<Process, Vec<u32>> {
    let mut members: HashMap<Process, Vec<u32>> = HashMap::new();
    for entry in model.history.iter() {
        for action in entry.actions {
            if let Action::Commit { group, .. } = *action {
                let groups = members.entry(entry.process).or_default();
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
    }
    members
}

fn asked(model: &Model<'_>) -> bool {
    let mut actions = model.history.all_actions().iter();
    actions.any(|action| matches!(action, Action::Committed { .. }))
}

fn note_polls(
    model: &Model<'_>,
    members: &HashMap<Process, Vec<u32>>,
    entry: &Entry<'_>,
    progress: &mut BTreeMap<Place, Progress>,
) {
    let Some(groups) = members.get(&entry.process) else {
        return;
    };
    for action in entry.actions {
        if let Action::Read { key, offset, .. } = *action
            && let Some(rank) = model.partition(key).and_then(|p| p.rank(offset))
        {
            for group in groups {
                progress.entry((*group, key)).or_default().poll(rank);
            }
        }
    }
}

fn judge(
    model: &Model<'_>,
    entry: &Entry<'_>,
    action: &Action,
    bounds: &[(Place, Option<Shown>)],
    (progress, out): (&mut BTreeMap<Place, Progress>, &mut Collector),
) {
    let Some(place) = place_of(action) else {
        return;
    };
    let (group, key) = place;
    let offset = match *action {
        Action::Commit { offset, .. } => offset,
        // Nothing stored is the same as nothing processed.
        Action::Committed { offset, .. } => offset.unwrap_or(Offset(0)),
        _ => return,
    };
    let bound = bounds.iter().find(|(known, _)| *known == place);
    if let Some((_, Some((before, shown_by)))) = bound
        && offset < *before
    {
        out.add(|| {
            let detail = format!(
                "partition {key}: group {group} went back from offset {before} to {offset}"
            );
            Finding::new(key, vec![*shown_by, entry.index], detail).offset(offset)
        });
    }
    let progress = progress.entry(place).or_default();
    if let Some(skipped) = model
        .partition(key)
        .and_then(|p| unprocessed(p, progress, offset))
    {
        out.add(|| {
            let detail = format!(
                "partition {key}: group {group} is at offset {offset} but nobody in it has \
                 polled offset {skipped}"
            );
            Finding::new(key, vec![entry.index], detail).offset(skipped)
        });
    }
    if progress.highest.is_none_or(|(known, _)| offset > known) {
        progress.highest = Some((offset, entry.index));
    }
}

/// The first record below an offset that no member polled.
fn unprocessed(partition: &Partition, progress: &Progress, offset: Offset) -> Option<Offset> {
    let first = partition.offsets.get(progress.done as usize).copied()?;
    (first < offset).then_some(first)
}
