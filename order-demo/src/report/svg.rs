//! Small charts as inline SVG: lines over time with marks, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 24.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#2da44e", "#bf8700", "#cf222e"];

/// Text that may stand in HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Lines over seconds; marks are vertical, with their names.
#[must_use]
pub fn lines(series: &[(&str, Vec<(f64, f64)>)], marks: &[(f64, String)]) -> String {
    let points = || series.iter().flat_map(|(_, points)| points);
    let right = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = round_up(points().map(|(_, y)| *y).fold(1.0, f64::max));
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - 14.0);
    let mut svg = open();
    for part in [0.0, 0.5, 1.0] {
        let (level, label) = (y(top * part), top * part);
        let _ = write!(
            svg,
            "<line x1='{LEFT}' x2='{WIDTH}' y1='{level:.1}' y2='{level:.1}' stroke='#d0d7de'/>\
             <text x='{:.1}' y='{:.1}' text-anchor='end'>{label:.0}</text>\
             <text x='{:.1}' y='{HEIGHT}' text-anchor='middle'>{:.0} s</text>",
            LEFT - 6.0,
            level + 4.0,
            x(right * part).min(WIDTH - 16.0),
            right * part
        );
    }
    for (number, (at, name)) in marks.iter().enumerate() {
        let place = x(at.min(right));
        // Names of marks that are close stand under each other, and to the left at the right edge.
        let line = 10 + 12 * (number % 3);
        let (beside, anchor) = if place > WIDTH - 120.0 {
            (place - 3.0, "end")
        } else {
            (place + 3.0, "start")
        };
        let _ = write!(
            svg,
            "<line x1='{place:.1}' x2='{place:.1}' y1='0' y2='{:.1}' stroke='#cf222e' \
             stroke-dasharray='4 3'/><text x='{beside:.1}' y='{line}' text-anchor='{anchor}' \
             fill='#cf222e'>{}</text>",
            HEIGHT - BOTTOM,
            escape(name)
        );
    }
    for ((name, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let path = points
            .iter()
            .map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py)));
        let path: Vec<String> = path.collect();
        let _ = write!(
            svg,
            "<polyline fill='none' stroke='{colour}' stroke-width='1.6' points='{}'>\
             <title>{}</title></polyline>",
            path.join(" "),
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg + &legend(series.iter().map(|(name, _)| *name))
}

/// The next round number: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = steps.iter().find(|step| **step * power >= value);
    found.unwrap_or(&10.0) * power
}

/// Horizontal bars of two values each, the larger one behind the smaller one.
#[must_use]
pub fn pairs(rows: &[(String, f64, f64)], unit: &str) -> String {
    let most = rows
        .iter()
        .map(|(_, _, large)| *large)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = 22 * rows.len();
    let mut svg = format!("<svg viewBox='0 0 {WIDTH} {height}' role='img'>");
    for (at, (name, small, large)) in rows.iter().enumerate() {
        let top = 22 * at;
        let length = |value: &f64| value / most * (WIDTH - 330.0);
        let _ = write!(
            svg,
            "<text x='150' y='{}' text-anchor='end'>{}</text>\
             <rect x='158' y='{}' height='14' width='{:.1}' fill='#b6d4fe'/>\
             <rect x='158' y='{}' height='14' width='{:.1}' fill='#1f6feb'/>\
             <text x='{:.1}' y='{}'>{small:.0} / {large:.0} {unit}</text>",
            top + 15,
            escape(name),
            top + 4,
            length(large),
            top + 4,
            length(small),
            164.0 + length(large),
            top + 15
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Horizontal bars with their values.
#[must_use]
pub fn bars(rows: &[(String, f64)], unit: &str) -> String {
    let most = rows
        .iter()
        .map(|(_, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = 22 * rows.len();
    let mut svg = format!("<svg viewBox='0 0 {WIDTH} {height}' role='img'>");
    for (at, (name, value)) in rows.iter().enumerate() {
        let (top, length) = (22 * at, value / most * (WIDTH - 300.0));
        let _ = write!(
            svg,
            "<text x='150' y='{}' text-anchor='end'>{}</text><rect x='158' y='{}' height='14' \
             width='{length:.1}' fill='#1f6feb'/><text x='{:.1}' y='{}'>{value:.1} {unit}</text>",
            top + 15,
            escape(name),
            top + 4,
            164.0 + length,
            top + 15
        );
    }
    svg.push_str("</svg>");
    svg
}

fn open() -> String {
    format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>")
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut html = String::from("<p class='legend'>");
    for (name, colour) in names.zip(COLOURS.iter().cycle()) {
        let _ = write!(
            html,
            "<span style='color:{colour}'>&#9632;</span> {} ",
            escape(name)
        );
    }
    html + "</p>"
}
