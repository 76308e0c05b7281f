//! Result files as one page of charts: SVG in HTML, nothing loaded from anywhere.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 8] = [
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f",
];

/// A line of a chart.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// A chart.
struct Chart {
    title: String,
    x: &'static str,
    y: &'static str,
    /// Labels of the x axis by place.
    ticks: Vec<(f64, String)>,
    series: Vec<Series>,
}

/// The page of some results.
pub fn page(results: &[Value]) -> String {
    let mut html = String::from(
        "<!doctype html><meta charset=utf-8><title>Benchmark</title>\
         <style>body{font:14px sans-serif;margin:2em}svg{margin:1em 0;display:block}\
         td,th{padding:2px 10px;text-align:right}td:first-child{text-align:left}</style>\n",
    );
    html.push_str(&table(results));
    let rates = over_time(results, "Records per second", "records/s", &|result| {
        vec![
            ("produced", list(result, "publishRate")),
            ("consumed", list(result, "consumeRate")),
        ]
    });
    let publish = over_time(results, "Publish latency, 99 %", "ms", &|result| {
        vec![("", list(result, "publishLatency99pct"))]
    });
    let read = over_time(results, "End-to-end latency, 99 %", "ms", &|result| {
        vec![("", list(result, "endToEndLatency99pct"))]
    });
    let backlog = over_time(results, "Records not yet read", "records", &|result| {
        vec![("", list(result, "backlog"))]
    });
    let publish_shape = distribution(
        results,
        "Publish latency",
        "aggregatedPublishLatencyQuantiles",
    );
    let read_shape = distribution(
        results,
        "End-to-end latency",
        "aggregatedEndToEndLatencyQuantiles",
    );
    for chart in [rates, publish_shape, read_shape, publish, read, backlog] {
        // Writing to a string cannot fail.
        let _ = draw(&mut html, &chart);
    }
    html
}

fn label(result: &Value) -> String {
    let text = |name: &str| result[name].as_str().unwrap_or("?").to_owned();
    format!("{}: {}", text("driver"), text("workload"))
}

fn list(result: &Value, name: &str) -> Vec<f64> {
    let values = result[name].as_array().map(Vec::as_slice);
    values
        .unwrap_or_default()
        .iter()
        .map(|value| value.as_f64().unwrap_or(0.0))
        .collect()
}

fn table(results: &[Value]) -> String {
    let mut html = String::from(
        "<table><tr><th>run<th>records/s<th>MB/s<th>publish p50, ms<th>p99<th>p99.9\
         <th>end to end p50<th>p99<th>p99.9</tr>\n",
    );
    for result in results {
        let extras = &result["highwater"];
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let seconds = number(&extras["seconds"]).max(1e-9);
        let _ = write!(
            html,
            "<tr><td>{}<td>{:.0}<td>{:.2}",
            escape(&label(result)),
            number(&extras["acknowledgedRecords"]) / seconds,
            number(&extras["acknowledgedBytes"]) / 1e6 / seconds
        );
        for kind in ["Publish", "EndToEnd"] {
            for ending in ["50pct", "99pct", "999pct"] {
                let value = number(&result[format!("aggregated{kind}Latency{ending}")]);
                let _ = write!(html, "<td>{value:.3}");
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
    html
}

type Lines<'a> = &'a dyn Fn(&Value) -> Vec<(&'static str, Vec<f64>)>;

fn over_time(results: &[Value], title: &str, y: &'static str, lines: Lines<'_>) -> Chart {
    let mut series = Vec::new();
    for result in results {
        for (name, values) in lines(result) {
            series.push(Series {
                name: format!("{} {name}", label(result)),
                points: (0u32..).map(f64::from).zip(values).collect(),
            });
        }
    }
    Chart {
        title: title.to_owned(),
        x: "seconds",
        y,
        ticks: Vec::new(),
        series,
    }
}

/// Latency over the percentile, each nine as wide as the one before it.
fn distribution(results: &[Value], title: &str, name: &str) -> Chart {
    let place = |percentile: f64| -((1.0 - percentile / 100.0).max(1e-5)).log10();
    let series = results.iter().map(|result| {
        let quantiles = result[name].as_object();
        let mut points: Vec<(f64, f64)> = quantiles
            .into_iter()
            .flatten()
            .filter_map(|(at, value)| Some((place(at.parse().ok()?), value.as_f64()?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series {
            name: label(result),
            points,
        }
    });
    let ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
    Chart {
        title: format!("{title} by percentile"),
        x: "percentile",
        y: "ms",
        ticks: ticks
            .iter()
            .map(|&at| (place(at), format!("{at} %")))
            .collect(),
        series: series.collect(),
    }
}

fn draw(html: &mut String, chart: &Chart) -> std::fmt::Result {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let most_x = points().map(|point| point.0).fold(1e-9, f64::max);
    let most_y = points().map(|point| point.1).fold(1e-9, f64::max) * 1.05;
    let x = |value: f64| LEFT + value / most_x * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / most_y * (HEIGHT - BOTTOM - 30.0);
    let whole = HEIGHT + 16.0 * chart.series.len() as f64;
    writeln!(
        html,
        "<svg width=\"{WIDTH}\" height=\"{whole}\" font-size=\"11\" xmlns=\"http://www.w3.org/2000/svg\">\
         <text x=\"{LEFT}\" y=\"16\" font-size=\"14\">{}, {}</text>",
        escape(&chart.title),
        chart.y
    )?;
    for step in 0..=5 {
        let value = most_y * f64::from(step) / 5.0;
        let at = y(value);
        writeln!(
            html,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        )?;
    }
    let even = (0..=5).map(|step| most_x * f64::from(step) / 5.0);
    let ticks = match chart.ticks.is_empty() {
        true => even.map(|value| (value, short(value))).collect(),
        false => chart.ticks.clone(),
    };
    for (value, text) in ticks.iter().filter(|tick| tick.0 <= most_x * 1.001) {
        writeln!(
            html,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            x(*value),
            HEIGHT - BOTTOM + 16.0
        )?;
    }
    writeln!(
        html,
        "<text x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        HEIGHT - 8.0,
        chart.x
    )?;
    for (index, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for (px, py) in &series.points {
            let word = if path.is_empty() { "M" } else { "L" };
            write!(path, "{word}{:.1} {:.1}", x(*px), y(*py))?;
        }
        let at = HEIGHT + 16.0 * index as f64 + 4.0;
        writeln!(
            html,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{LEFT}\" y=\"{at:.1}\" fill=\"{colour}\">{}</text>",
            escape(&series.name)
        )?;
    }
    writeln!(html, "</svg>")
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::page;

    #[test]
    fn a_page_shows_every_run_and_loads_nothing() {
        let result = |driver: &str| {
            json!({
                "driver": driver, "workload": "a < b",
                "publishRate": [1.0, 2.0], "consumeRate": [1.0, 2.0], "backlog": [0, 0],
                "publishLatency99pct": [3.0, 4.0], "endToEndLatency99pct": [5.0, 6.0],
                "aggregatedPublishLatencyQuantiles": {"50.0": 1.0, "99.0": 2.0, "100.0": 9.0},
                "highwater": {"seconds": 2.0, "acknowledgedRecords": 3, "acknowledgedBytes": 3072},
            })
        };
        let html = page(&[result("one"), result("two")]);
        assert_eq!(html.matches("<svg").count(), 6);
        assert!(html.contains("one: a &lt; b") && html.contains("two: a &lt; b"));
        assert!(!html.contains("<script") && !html.contains("src="));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }
}
