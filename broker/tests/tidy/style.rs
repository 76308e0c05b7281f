//! Sizes, purposes and markers.

use super::text;
use super::tree::Source;

/// What a file should not pass.
pub const WANTED_LINES: usize = 400;
/// What no file may pass.
pub const MOST_LINES: usize = 600;
/// What no function may pass.
pub const MOST_FUNCTION_LINES: usize = 70;

/// Marks of unfinished work, as whole words anywhere in a file. Put together here so that this
/// file does not contain them.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];

/// Macros and attributes that leave something out, in code.
const LEFT_OUT: [&str; 4] = [
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("dbg", "!"),
    concat!("#[", "ignore"),
];

/// Files over the limit.
pub fn file_size(source: &Source) -> Vec<String> {
    let lines = source.lines();
    if lines <= MOST_LINES {
        return Vec::new();
    }
    vec![source.at(
        lines,
        &format!("the file has {lines} lines: split it below {MOST_LINES}"),
    )]
}

/// Functions over the limit.
pub fn function_size(source: &Source) -> Vec<String> {
    text::functions(&source.code)
        .into_iter()
        .filter(|(_, _, lines)| *lines > MOST_FUNCTION_LINES)
        .map(|(name, first, lines)| {
            source.at(
                first,
                &format!("{name} has {lines} lines: at most {MOST_FUNCTION_LINES}"),
            )
        })
        .collect()
}

/// Files whose first line does not say what they are for.
pub fn purpose(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first
        .strip_prefix("//! ")
        .is_some_and(|purpose| purpose.trim().len() >= 10);
    if says {
        Vec::new()
    } else {
        vec![source.at(1, "the first line is no `//!` purpose")]
    }
}

/// Files of the two journeys of a record, which say which of its steps they are.
const JOURNEYS: [&str; 15] = [
    "broker/src/front/ingress.rs",
    "broker/src/front/produce.rs",
    "broker/src/gate/mod.rs",
    "broker/src/router.rs",
    "broker/src/runtime/accumulate.rs",
    "broker/src/runtime/turns.rs",
    "broker/crates/raft/src/propose.rs",
    "broker/crates/raft/src/lane/mod.rs",
    "broker/crates/wal/src/lib.rs",
    "broker/src/runtime/machine.rs",
    "broker/src/front/fetch.rs",
    "broker/src/front/subscription.rs",
    "broker/src/runtime/view.rs",
    "broker/src/runtime/tail.rs",
    "broker/src/front/egress.rs",
];

/// Files of a journey that do not name their step.
pub fn steps(source: &Source) -> Vec<String> {
    let head = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"));
    let named = head
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric()))
        .any(|word| ["step", "steps"].contains(&word.to_lowercase().as_str()));
    if named || !JOURNEYS.contains(&source.path.as_str()) {
        Vec::new()
    } else {
        vec![source.at(1, "a file of a record's journey names its step")]
    }
}

/// Files of the journeys that are not there any more.
pub fn lost_steps(sources: &[Source]) -> Vec<String> {
    JOURNEYS
        .iter()
        .filter(|step| !sources.iter().any(|source| source.path == **step))
        .map(|step| format!("{step} is in tidy's list of the journeys but does not exist"))
        .collect()
}

/// Async functions of the SDK that do not say what becomes of them when they are dropped half-way.
pub fn cancellation(source: &Source) -> Vec<String> {
    let within = source.path.starts_with("client/src/") && !source.path.contains("/cli/");
    if !within || source.is_test() {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let open = (0..lines.len()).filter(|at| lines[*at].starts_with("pub async fn "));
    open.filter(|at| {
        let above = lines[..*at].iter().rev();
        let docs = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
        !docs
            .map(|line| line.to_lowercase())
            .any(|line| line.contains("cancel") || line.contains("dropp"))
    })
    .map(|at| source.at(at + 1, "say whether it is cancellation-safe"))
    .collect()
}

/// Marks of unfinished work and ignored tests.
pub fn unfinished(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (index, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let marks = MARKS.iter().filter(|mark| text::has_word(line, mark));
        let left_out = LEFT_OUT.iter().filter(|pattern| code.contains(*pattern));
        violations.extend(
            marks
                .chain(left_out)
                .map(|found| source.at(index + 1, &format!("{found} is left"))),
        );
    }
    violations
}
