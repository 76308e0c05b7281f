//! The rules of the house as a test: sizes, purposes, markers, layers, surroundings, formats.
//!
//! Each rule is a function from a source file (or a manifest, or the tree) to its violations, so
//! that `tidy/self_tests.rs` can show that each of them does find something.

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/self_tests.rs"]
mod self_tests;
#[path = "tidy/style.rs"]
mod style;
#[path = "tidy/text.rs"]
mod text;
#[path = "tidy/tree.rs"]
mod tree;

use tree::{Source, Tree};

/// More files than this may not pass the size that files should have.
const LONG_FILES: usize = 40;

/// Fails with every violation, one to a line.
fn none(violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

fn over_sources(rule: fn(&Source) -> Vec<String>) {
    let tree = Tree::load();
    assert!(
        tree.sources.len() > 50,
        "only {} files found",
        tree.sources.len()
    );
    none(&tree.sources.iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn files_are_small() {
    over_sources(style::file_size);
    let tree = Tree::load();
    let long: Vec<&str> = tree
        .sources
        .iter()
        .filter(|source| source.lines() > style::WANTED_LINES)
        .map(|source| source.path.as_str())
        .collect();
    assert!(
        long.len() <= LONG_FILES,
        "{} files are long: {long:?}",
        long.len()
    );
}

#[test]
fn functions_fit_a_screen() {
    over_sources(style::function_size);
}

#[test]
fn every_file_says_what_it_is_for() {
    over_sources(style::purpose);
}

#[test]
fn the_journeys_name_their_steps() {
    over_sources(style::steps);
    none(&style::lost_steps(&Tree::load().sources));
}

#[test]
fn the_sdk_says_what_is_cancellation_safe() {
    over_sources(style::cancellation);
}

#[test]
fn nothing_is_marked_unfinished() {
    over_sources(style::unfinished);
}

#[test]
fn unsafe_code_is_where_it_is_allowed() {
    over_sources(modules::unsafe_code);
}

#[test]
fn clocks_threads_and_files_are_parameters() {
    over_sources(modules::surroundings);
}

#[test]
fn words_of_a_layer_stay_in_it() {
    over_sources(modules::layers);
}

#[test]
fn no_channel_is_unbounded() {
    over_sources(modules::unbounded);
}

#[test]
fn crates_depend_downwards() {
    let tree = Tree::load();
    let violations: Vec<String> = tree.manifests.iter().flat_map(crates::edges).collect();
    none(&violations);
    none(&crates::missing(&tree.manifests));
}

#[test]
fn every_format_is_written_down_and_has_golden_files() {
    none(&crates::formats(&tree::root()));
}
