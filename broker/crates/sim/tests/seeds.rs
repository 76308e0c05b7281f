//! A seed twice gives the same trace, line by line; another seed keeps every promise too.

use std::process::{Child, Command, Output, Stdio};

const SIM: &str = env!("CARGO_BIN_EXE_highwater-sim");

/// Starts a seed in its own process, which writes its trace to standard output.
fn start(seed: u64) -> Child {
    Command::new(SIM)
        .args(["--seed", &seed.to_string(), "--trace", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn text(output: Output) -> String {
    let text = String::from_utf8(output.stdout).unwrap();
    let end: Vec<_> = text.lines().rev().take(20).collect();
    assert!(
        output.status.success(),
        "{}: {:#?}",
        output.status,
        end.into_iter().rev().collect::<Vec<_>>()
    );
    text
}

/// Both runs at once, each on a processor of its own.
fn both(seeds: [u64; 2]) -> [String; 2] {
    let [one, other] = seeds.map(start);
    // The second waits at a full pipe until the first has been read.
    [one, other].map(|child| text(child.wait_with_output().unwrap()))
}

#[test]
fn a_seed_repeats_itself_and_another_passes() {
    let [one, again] = both([19, 19]);
    let differing = one
        .lines()
        .zip(again.lines())
        .enumerate()
        .find(|(_, (one, again))| one != again);
    assert_eq!(differing, None, "the first line that differs");
    assert_eq!(one.lines().count(), again.lines().count());
    for what in [
        "Send",
        "Delivered",
        "file",
        "leader",
        "acknowledged",
        "fault",
    ] {
        assert!(
            one.contains(&format!("; {what} ")),
            "the trace has no {what:?}"
        );
    }
    let other = text(start(36).wait_with_output().unwrap());
    assert_ne!(other.lines().last(), one.lines().last());
}

/// Not one seed alone: each meets other code. Also of those of a run that is bounded, enough must be run.
#[test]
fn other_seeds_repeat_themselves() {
    let twice = ["--seeds", "40..44", "--twice", "--at-least", "4"];
    let output = Command::new(SIM).args(twice).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let none = ["--seeds", "40..44", "--seconds", "0", "--at-least", "1"];
    let output = Command::new(SIM).args(none).output().unwrap();
    assert!(!output.status.success(), "none was run, and it passed");
}

/// What was found once is not there any more.
#[test]
fn the_corpus_passes() {
    let output = Command::new(SIM).arg("--corpus").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
}

/// A run that could not fail would prove nothing: with disks that lose what they said was durable,
/// it must. Seed 1 has power losses of all nodes at once.
#[test]
fn lying_disks_are_noticed() {
    let output = Command::new(SIM)
        .args(["--seed", "1", "--lying-disks"])
        .output()
        .unwrap();
    assert!(!output.status.success());
}
