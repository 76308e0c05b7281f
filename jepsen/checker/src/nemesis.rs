//! Lines of a history that say what was broken: for people and other tools. The checks pass over
//! them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::format::Notation;

/// One nemesis operation as a line, without its end. Its type is always `info`: Jepsen's own
/// nemeses write it so.
#[must_use]
pub fn format_nemesis(
    index: u64,
    time_ns: u64,
    function: &str,
    value: &Value,
    notation: Notation,
) -> String {
    match notation {
        Notation::Json => json!({
            "index": index, "time": time_ns, "type": "info",
            "process": "nemesis", "f": function, "value": value,
        })
        .to_string(),
        Notation::Edn => {
            let mut line = format!(
                "{{:index {index}, :time {time_ns}, :type :info, :process :nemesis, \
                 :f :{function}, :value "
            );
            write(value, &mut line);
            line.push('}');
            line
        }
    }
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(flag) => drop(write!(out, "{flag}")),
        Value::Number(number) => drop(write!(out, "{number}")),
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(' ');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (place, (name, item)) in fields.iter().enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                string(name, out);
                out.push(' ');
                write(item, out);
            }
            out.push('}');
        }
    }
}

/// EDN's strings know the same escapes as the ones needed here.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read;

    #[test]
    fn both_notations_are_read_and_passed_over() {
        let value = json!({"target": [1, 2], "why": "a \"quoted\"\nline \\", "done": null});
        for notation in [Notation::Edn, Notation::Json] {
            let line = format_nemesis(7, 1_000, "kill", &value, notation);
            assert_eq!(line.lines().count(), 1, "{line}");
            let history = read(line.as_bytes(), notation).expect("readable");
            assert!(history.is_empty());
        }
        let line = format_nemesis(7, 1_000, "kill", &json!([1]), Notation::Edn);
        let expected =
            "{:index 7, :time 1000, :type :info, :process :nemesis, :f :kill, :value [1]}";
        assert_eq!(line, expected);
    }
}
