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
