//! When a service gets a further worker, and when it loses it.

use super::*;

const SCALING: Scaling = Scaling { most: 3, lag: 100 };

/// The looks at which something is done, and what.
fn steps(lags: impl IntoIterator<Item = u64>, mut workers: u32) -> Vec<(usize, Step)> {
    let mut decider = Decider::new(SCALING);
    let mut steps = Vec::new();
    for (at, lag) in lags.into_iter().enumerate() {
        let step = decider.look(lag, workers);
        match step {
            Some(Step::Start { .. }) => workers += 1,
            Some(Step::Stop) => workers -= 1,
            None => {}
        }
        steps.extend(step.map(|step| (at, step)));
    }
    steps
}

#[test]
fn a_lag_that_stays_brings_workers_one_after_the_other() {
    let start = Step::Start { behind: 150 };
    assert_eq!(steps([150; 40], 1), [(3, start), (7, start)]);
    // It was there, and is no more.
    assert_eq!(steps([300, 300, 300, 24, 24, 24, 24, 24], 1), []);
}

#[test]
fn a_lag_that_each_commit_takes_away_brings_none() {
    let commits = [160, 10, 150, 20].into_iter().cycle().take(200);
    assert_eq!(steps(commits, 1), []);
    assert_eq!(steps([99; 40], 1), []);
    // Neither is it gone.
    assert_eq!(steps([99; 40], 2), []);
}

#[test]
fn workers_go_one_after_the_other_when_the_lag_is_gone() {
    let lags = [200, 200, 200, 200].into_iter().chain([5; 40]);
    // The old lag leaves the mean of the last looks first.
    let expected = [(3, Step::Start { behind: 200 }), (15, Step::Stop)];
    assert_eq!(steps(lags, 1), expected);
    let expected = [(11, Step::Stop), (23, Step::Stop)];
    assert_eq!(steps([24; 40], 3), expected);
    // The first worker stays.
    assert_eq!(steps([0; 40], 1), []);
}
