//! Which words may stand in which modules.

use super::text;
use super::tree::Source;

/// Files that may contain unsafe code, each with the reason beside the code.
const UNSAFE: [&str; 3] = [
    // One setting of the allocator.
    "broker/src/main.rs",
    // Two C functions that the simulator defines itself, to fix randomness and clocks.
    "broker/crates/sim/src/fixed.rs",
    // The memory map of a sealed index file.
    "broker/crates/segment/src/map.rs",
];

/// Where clocks, threads and files of the operating system may be used: the crate that wraps them,
/// the binary's shell, and everything that is not part of a broker.
const SHELL: [&str; 12] = [
    "broker/crates/env/src/",
    // Starts test programs again; nothing of it is in a broker.
    "broker/crates/mutant/src/",
    "broker/src/main.rs",
    "broker/src/cli/",
    "broker/src/node/lock.rs",
    "broker/src/process/",
    // What the kernel says of the memory of a simulation, after it.
    "broker/crates/sim/src/memory.rs",
    // What the kernel says of this process's threads; no simulation asks.
    "broker/src/runtime/turns.rs",
    "client/src/cli/",
    "order-demo/",
    "jepsen/",
    "benches/",
];

/// The types of open files, which a map of one needs, without any way to open them.
const FILE_TYPES: [&str; 1] = ["broker/crates/segment/src/map.rs"];

/// A word with the only places that may use it, among the files below a folder.
struct Layer {
    word: &'static str,
    within: &'static str,
    allowed: &'static [&'static str],
    reason: &'static str,
}

const LAYERS: [Layer; 6] = [
    Layer {
        word: "openraft",
        within: "",
        allowed: &["broker/crates/raft/"],
        reason: "only the raft crate knows openraft",
    },
    Layer {
        word: "turmoil",
        within: "",
        allowed: &["broker/crates/sim/"],
        reason: "only the simulator knows turmoil",
    },
    Layer {
        word: "highwater_sim",
        within: "",
        allowed: &["broker/crates/sim/"],
        reason: "nothing imports the simulator",
    },
    Layer {
        word: "v1",
        within: "broker/",
        allowed: &[
            "broker/src/front/",
            // Mounts the services of front/ on the server.
            "broker/src/node/serve.rs",
            "broker/tests/",
            "broker/crates/sim/",
        ],
        reason: "the public protocol's types stop at the front",
    },
    Layer {
        word: "tonic",
        within: "broker/",
        allowed: &[
            "broker/src/front/",
            "broker/src/node/",
            "broker/src/control/",
            "broker/src/runtime/pull.rs",
            "broker/crates/raft/",
            "broker/crates/sim/",
            "broker/tests/",
        ],
        reason: "gRPC ends where calls leave or enter the broker",
    },
    Layer {
        word: "highwater_broker",
        within: "",
        allowed: &["broker/src/", "broker/tests/", "broker/crates/sim/"],
        reason: "libraries do not know the broker",
    },
];

/// Words of the public protocol that are the broker's own words too: what went wrong, and who leads.
const SHARED_WORDS: [&str; 2] = ["v1::ErrorCode", "v1::LeaderHint"];

fn below(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Unsafe code outside the list.
pub fn unsafe_code(source: &Source) -> Vec<String> {
    if UNSAFE.contains(&source.path.as_str()) {
        return Vec::new();
    }
    source
        .with_word("unsafe")
        .map(|(line, _)| source.at(line, "unsafe code outside the list of this rule"))
        .collect()
}

/// Clocks, threads and files of the operating system, used past their parameters.
///
/// `Instant` of tokio is fine: a simulator replaces it.
pub fn surroundings(source: &Source) -> Vec<String> {
    if source.is_test() || below(&source.path, &SHELL) {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let file_types = FILE_TYPES.contains(&source.path.as_str());
    for (index, line) in source.code.lines().enumerate() {
        let words = |all: &[&str]| all.iter().all(|word| text::has_word(line, word));
        let found = [
            (
                words(&["SystemTime"]),
                "the wall clock is the `Clock` parameter",
            ),
            (
                words(&["std", "time", "Instant"]),
                "monotonic time is tokio's, which a simulator replaces",
            ),
            (words(&["std", "thread"]), "threads are `Worker`s"),
            (words(&["tokio", "fs"]), "files are the `Disk` parameter"),
            (
                words(&["std", "fs"]) && !file_types,
                "files are the `Disk` parameter",
            ),
        ];
        violations.extend(
            found
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, why)| source.at(index + 1, why)),
        );
    }
    violations
}

/// Words outside their layer.
pub fn layers(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for layer in &LAYERS {
        if !source.path.starts_with(layer.within) || below(&source.path, layer.allowed) {
            continue;
        }
        let paths = source
            .with_word(layer.word)
            .filter(|(_, line)| is_path(line, layer.word));
        violations.extend(paths.map(|(line, _)| {
            source.at(
                line,
                &format!("{} is used here: {}", layer.word, layer.reason),
            )
        }));
    }
    violations
}

/// Whether the word is part of a path or of a use declaration, not the name of a value.
fn is_path(line: &str, word: &str) -> bool {
    let line = SHARED_WORDS
        .iter()
        .fold(line.trim_start().to_owned(), |line, shared| {
            line.replace(&format!("highwater_proto::{shared}"), "")
                .replace(shared, "")
        });
    if !text::has_word(&line, word) {
        return false;
    }
    line.contains(&format!("{word}::"))
        || line.contains(&format!("::{word}"))
        || line.starts_with("use ")
        || line.starts_with("pub use ")
}

/// Channels without a bound.
pub fn unbounded(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    ["unbounded_channel", "unbounded"]
        .iter()
        .flat_map(|word| source.with_word(word))
        .map(|(line, _)| source.at(line, "a channel without a bound grows with the load"))
        .collect()
}
