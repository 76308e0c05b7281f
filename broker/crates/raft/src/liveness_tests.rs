//! A leadership from beat to beat, as time passes and peers answer or do not.

use super::*;

const BEAT: u64 = 100;

/// A leader of two others, and what reaches them.
struct World {
    start: Instant,
    now: u64,
    cover: Cover,
    view: View,
    /// Heartbeats are answered.
    answers: bool,
    /// Coalesced heartbeats count at both.
    counts: bool,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        let view = View {
            term: 3,
            peers: [NodeId(2), NodeId(3)].into(),
            last: Some(40),
            settled: true,
            alone: false,
            answered: None,
        };
        Self {
            start,
            now: 0,
            cover: Cover::new(&Timings::default()),
            view,
            answers: true,
            counts: true,
        }
    }
    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }
    /// One beat; its answers come at once.
    fn beat(&mut self) -> Next {
        self.now += BEAT;
        let at = self.at();
        let next = self.cover.beat(at, &self.view);
        if next.heartbeat && self.answers {
            self.view.answered = Some(at);
        }
        if next.coalesced && self.counts {
            for peer in &self.view.peers {
                self.cover.counts(*peer, self.view.term, at);
            }
        }
        next
    }
    fn beats(&mut self, count: usize) -> Vec<Next> {
        (0..count).map(|_| self.beat()).collect()
    }
    fn heartbeats(&mut self, count: usize) -> usize {
        self.beats(count).iter().filter(|n| n.heartbeat).count()
    }
    fn silent(&mut self, count: usize) -> usize {
        let beats = self.beats(count);
        beats.iter().filter(|n| **n == Next::default()).count()
    }
}

#[test]
fn an_idle_group_hardly_has_heartbeats_of_its_own() {
    let mut world = World::new();
    world.beats(10);
    assert_eq!(world.heartbeats(10 * REST as usize), 10);
    assert!(world.beats(80).iter().all(|next| next.coalesced));
}

#[test]
fn every_beat_is_a_heartbeat_while_there_is_something_to_tell() {
    let mut world = World::new();
    world.beats(10);
    world.view.last = Some(41);
    assert!(
        world.beats(3).iter().all(|next| next.heartbeat),
        "a new entry"
    );
    world.beats(10);
    world.view.settled = false;
    assert!(
        world.beats(10).iter().all(|next| next.heartbeat),
        "somebody lacks it"
    );
}

#[test]
fn every_beat_is_a_heartbeat_while_coalesced_ones_do_not_count_everywhere() {
    let mut world = World::new();
    world.beats(10);
    world.counts = false;
    // Two beats pass before it shows.
    world.beats(2);
    assert_eq!(world.heartbeats(20), 20);
    world.counts = true;
    world.beats(2);
    assert!(world.heartbeats(16) <= 2);
    // One of three is away, or of a release that does not know them.
    let mut world = World::new();
    world.counts = false;
    for _ in 0..20 {
        let at = world.at();
        world.cover.counts(NodeId(2), 3, at);
        assert!(world.beat().heartbeat);
    }
}

#[test]
fn what_counted_in_another_term_does_not_count() {
    let mut world = World::new();
    world.beats(10);
    world.view.term = 5;
    let at = world.at();
    world.cover.counts(NodeId(2), 3, at);
    world.cover.counts(NodeId(3), 3, at);
    assert!(world.beat().heartbeat);
    assert!(!world.cover.is_covered(world.at()), "of the term before");
}

#[test]
fn a_leader_that_nobody_answers_falls_silent_and_tries_again_in_turns() {
    for idle in [10, 17] {
        let mut world = World::new();
        world.beats(idle);
        (world.answers, world.counts) = (false, false);
        let spoke = (0..)
            .take_while(|_| world.beat() != Next::default())
            .count();
        assert!((4..=5).contains(&spoke), "a lease: {spoke}");
        let silent = 1 + world.silent(10);
        assert!(
            (10..=11).contains(&silent),
            "long enough for an election: {silent}"
        );
        assert!(world.cover.is_silent() || world.now > 0);
        world.beat();
        assert_eq!(world.silent(8), 0, "then it tries");
        (world.answers, world.counts) = (true, true);
        world.beats(12);
        assert_eq!(world.silent(40), 0);
    }
}

#[test]
fn the_silence_of_a_leadership_is_over_with_it() {
    let mut world = World::new();
    world.beats(10);
    (world.answers, world.counts) = (false, false);
    while !world.cover.is_silent() {
        world.beat();
    }
    world.cover.ended();
    assert!(!world.cover.is_silent() && !world.cover.is_covered(world.at()));
}

#[test]
fn a_leader_that_does_not_answer_itself_is_not_covered_for_long() {
    let mut world = World::new();
    world.beats(10);
    // Its broker speaks for it; its own heartbeats get nowhere.
    world.answers = false;
    let beats = world.beats(40);
    let named = beats.iter().take_while(|next| next.coalesced).count();
    assert!(named < 5 + REST as usize, "{named} beats");
    assert!(
        beats
            .iter()
            .skip(named)
            .any(|next| *next == Next::default())
    );
}

#[test]
fn a_rest_is_remembered_for_a_lease() {
    let mut world = World::new();
    world.beats(2);
    assert!(!world.cover.has_rested(world.at()), "none yet");
    world.beats(8);
    assert!(world.cover.has_rested(world.at()));
    world.view.settled = false;
    world.beats(4);
    assert!(world.cover.has_rested(world.at()), "400 ms later");
    world.beats(1);
    assert!(!world.cover.has_rested(world.at()), "500 ms later");
    world.view.settled = true;
    world.beats(10);
    world.cover.ended();
    assert!(!world.cover.has_rested(world.at()), "of another leadership");
}

#[test]
fn who_is_a_majority_by_itself_never_falls_silent() {
    let mut world = World::new();
    world.view.alone = true;
    (world.answers, world.counts) = (false, false);
    assert_eq!(world.heartbeats(60), 60);
    world.view.peers.clear();
    assert_eq!(world.heartbeats(60), 0, "to nobody");
}
