//! The other side: where the time of calls went, and what its metrics said meanwhile.

use super::chart::Chart;
use super::scale::{self, Scale};
use super::sections::{moments, section, wide};
use super::text::Escaped;
use crate::figures::{Quantiles, Series};
use crate::report::other_side::{number, telling_labels};
use crate::report::{Places, Report, time};

/// Lines in one chart; more would be told apart by nobody.
const MOST_LINES: usize = 6;
/// Charts, at most; the JSON has all.
const MOST_CHARTS: usize = 24;

/// Where the time went, by our records and a sidecar's.
pub(super) fn places(report: &Report) -> String {
    let Some(places) = &report.places else { return String::new() };
    let chart = section(
        "Where the time went",
        [parts_over_time(report)],
        "Network: between the client and the sidecar, and the client itself. Sidecar: what it did, and made \
         calls wait for. Upstream: all behind it.",
    );
    format!("{chart}<p>{}</p>\n{}", Escaped(&places.sentence()), table(places))
}

fn table(places: &Places) -> String {
    let header = "<th></th><th>TTFT p50</th><th>p90</th><th>p99</th><th>duration p50</th><th>p90</th>\
                  <th>p99</th>";
    let cells = |quantiles: Option<&Quantiles>| -> String {
        let three: [fn(&Quantiles) -> f64; 3] = [|q| q.p50, |q| q.p90, |q| q.p99];
        three.map(|at| format!("<td>{}</td>", time(quantiles.map(at)))).concat()
    };
    let row = |name: &str| {
        let (first, whole) = (places.first_token_s.get(name), places.duration_s.get(name));
        format!("<tr><td>{name}</td>{}{}</tr>", cells(first), cells(whole))
    };
    let rows: String = ["network", "sidecar", "upstream"].map(row).concat();
    wide(header, &rows, "")
}

/// The means of the three parts, each above those before it.
fn parts_over_time(report: &Report) -> Option<Chart> {
    const NAMES: [(&str, &str); 3] =
        [("p90", "network"), ("p99", "and the sidecar"), ("one", "and upstream")];
    let timeline = &report.figures.joined.over_time;
    let sums = |parts: [f64; 3]| [parts[0], parts[0] + parts[1], parts.iter().sum::<f64>()];
    let most = timeline.slices().filter_map(|(_, means)| Some(sums(means.parts()?)[2]));
    let y = Scale::up_to(most.reduce(f64::max)?, scale::seconds);
    let mut chart = Chart::new("First token by its parts, on average", "due", moments(report), y);
    for (number, (class, name)) in NAMES.into_iter().enumerate() {
        let points = timeline.slices().map(|(start, means)| {
            let middle = (start + timeline.slice() / 2).as_secs_f64();
            Some((middle, sums(means.parts()?)[number]))
        });
        chart = chart.line(class, name, points);
    }
    Some(
        chart.note("From when a call was sent; each line is the sum of those below it.".to_owned()),
    )
}

/// What its metrics said, on the same time as the latency.
pub(super) fn metrics(report: &Report) -> String {
    let watched = &report.figures.watched;
    if watched.is_empty() {
        return String::new();
    }
    let all = watched.series();
    let mut charts = Vec::new();
    for series in all.chunk_by(|a, b| (&a.id.name, a.id.shows) == (&b.id.name, b.id.shows)) {
        charts.extend(over_time(report, series, &all));
    }
    let note = format!(
        "Read {} times, every second{}{}. The time is that of the latency above.",
        watched.reads,
        told(watched.failures, "times in vain"),
        told(watched.left_out, "values left out"),
    );
    charts.truncate(MOST_CHARTS);
    section("What the other side said", charts.into_iter().map(Some), &note)
}

fn told(count: u64, what: &str) -> String {
    if count > 0 { format!(", {count} {what}") } else { String::new() }
}

fn over_time(report: &Report, series: &[&Series], all: &[&Series]) -> Option<Chart> {
    const CLASSES: [&str; MOST_LINES] = ["one", "p90", "p99", "whole", "error", "knee"];
    let id = &series.first()?.id;
    let most = series.iter().filter_map(|one| one.total().most()).reduce(f64::max)?;
    let write = if id.shows.is_time(&id.name) { scale::seconds } else { number };
    let title = format!("{}{}", id.name, id.shows.as_str());
    let end = report.figures.timeline.end().as_secs_f64();
    let mut chart = Chart::new(&title, "time", moments(report), Scale::up_to(most, write));
    for (one, class) in series.iter().zip(CLASSES) {
        let over_time = &one.over_time;
        let points = over_time.slices().filter_map(|(start, level)| {
            let middle = (start + over_time.slice() / 2).as_secs_f64();
            // Read every second, slices of a quarter have nothing in between: that is no gap. And
            // when the last calls end, none is due any more.
            (middle <= end).then_some(Some((middle, level.mean()?)))
        });
        chart = chart.line(class, &telling_labels(one, all), points);
    }
    let unseen = series.len().saturating_sub(MOST_LINES);
    Some(chart.note(if unseen > 0 { format!("{unseen} more series") } else { String::new() }))
}
