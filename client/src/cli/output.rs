//! Tables, JSON, colour and progress.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// A table as command lines know it: capital headings, no lines.
pub(super) fn table<const COLUMNS: usize>(headings: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Prints a table, without the blanks that end its lines.
pub(super) fn print_table(table: &Table) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

pub(super) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

pub(super) fn print_json(value: &Value) -> io::Result<()> {
    print_line(&format!("{value:#}"))
}

/// Text in a colour of the terminal, if standard output is one and nobody objects. Not for cells
/// of tables: their width would count what is not seen.
pub(super) fn coloured(text: &str, code: u8) -> String {
    let wanted = io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

pub(super) const RED: u8 = 31;
pub(super) const GREEN: u8 = 32;

/// Counts records on standard error, when that is a terminal and standard output is not: else the
/// two would write over each other.
pub(super) fn progress(verb: &'static str, total: Option<u64>) -> ProgressBar {
    let visible = io::stderr().is_terminal() && !io::stdout().is_terminal();
    let target = if visible {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let (template, bar) = match total {
        Some(total) => (
            "{msg} {bar:30} {human_pos}/{human_len}, {per_sec}, {eta} left",
            ProgressBar::with_draw_target(Some(total), target),
        ),
        None => (
            "{spinner} {msg} {human_pos}, {per_sec}",
            ProgressBar::with_draw_target(None, target),
        ),
    };
    let style = ProgressStyle::with_template(template);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(verb);
    if visible {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

/// Bytes as JSON: text where they are text.
pub(super) fn bytes_json(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else {
        return Value::Null;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

/// Bytes for people: 1.5 MiB.
pub(super) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for name in UNITS {
        if whole < 1024 {
            break;
        }
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit = name;
    }
    if unit == "B" {
        format!("{whole} B")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bytes_are_shown() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(u64::MAX), "15.9 EiB");
        assert_eq!(bytes_json(Some(b"a\"")).to_string(), "\"a\\\"\"");
        assert_eq!(
            bytes_json(Some(&[0xff, 0])).to_string(),
            "{\"hex\":\"ff00\"}"
        );
        assert_eq!(bytes_json(None), Value::Null);
    }
}
