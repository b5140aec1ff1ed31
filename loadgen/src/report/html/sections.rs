//! The parts of the page, from what is waited for to what it was made of.

use std::fmt::Write;

use tidegate_settings::{Bound, Metric, Unit};

use super::chart::Chart;
use super::other_side;
use super::scale::{self, Scale};
use super::text::Escaped;
use crate::compare::{Compared, percent};
use crate::figures::{Kind, Slice, Times};
use crate::report::{DEFINITIONS, Ended, FaultCount, Judged, Quantiles, Report, Summary, time};

/// Dots in one chart: a fair sample where there were more calls.
const MOST_DOTS: usize = 2_500;
/// Places of a curve.
const STEPS: u32 = 120;

/// All of them, in their order.
pub(super) fn all(report: &Report) -> Vec<String> {
    vec![
        verdict(report),
        comparison(report),
        tiles(report),
        over_time(report),
        other_side::metrics(report),
        other_side::places(report),
        distributions(report),
        errors(report),
        table(report),
        setup(report),
    ]
}

fn verdict(report: &Report) -> String {
    let word = report.headline();
    let mut html = String::new();
    _ = write!(
        html,
        "<header><h1>Load test of {}</h1>\n<p><span class=\"verdict {word}\">{}</span></p>\n",
        Escaped(&report.run.target),
        word.to_uppercase()
    );
    if let Some(reason) = &report.invalid {
        _ = writeln!(html, "<p>The figures must not be used: {}.</p>", Escaped(reason));
    }
    if report.ended != Ended::Complete {
        _ = writeln!(html, "<p>{}</p>", Escaped(report.ended.sentence()));
    }
    if let Some(pauses) = report.pauses() {
        _ = writeln!(html, "<p>{}</p>", Escaped(&pauses));
    }
    html.push_str("</header>\n");
    if let Some(verdict) = &report.verdict {
        html.push_str("<h2>Objectives</h2>\n");
        verdict.objectives.iter().for_each(|judged| html.push_str(&objective(judged)));
    }
    html
}

fn comparison(report: &Report) -> String {
    let Some(comparison) = &report.comparison else { return String::new() };
    let sentence = Escaped(&comparison.sentence);
    let mut html = format!("<h2>Compared with the baseline</h2>\n<p>{sentence}</p>\n");
    if comparison.figures.is_empty() {
        return html;
    }
    let header = "<th>figure</th><th>baseline</th><th>now</th><th>change</th><th>at least</th>\
                  <th>at most</th><th>would have been seen</th><th></th>";
    let rows: String = comparison.figures.iter().map(compared_row).collect();
    html += &wide(header, &rows, "");
    html
}

fn compared_row(one: &Compared) -> String {
    let figure = |value| match one.quantile {
        Some(_) => time(Some(value)),
        None => percent(value),
    };
    let cells = [
        figure(one.baseline),
        figure(one.measured),
        percent(one.change),
        percent(one.at_least),
        percent(one.at_most),
        percent(one.smallest_seen),
        one.finding.as_str().to_owned(),
    ];
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr><td>{}</td>{cells}</tr>", Escaped(&one.name()))
}

fn objective(judged: &Judged) -> String {
    let word = judged.finding.as_str();
    format!(
        "<div class=\"objective {word}\"><p><span class=\"word\">{}</span> {}</p>{}<p class=\"faint\">{}</p></div>\n",
        word.to_uppercase(),
        Escaped(&judged.name),
        bounds(judged).unwrap_or_default(),
        Escaped(&judged.why)
    )
}

/// What was measured, between what is sure, beside the limit.
fn bounds(judged: &Judged) -> Option<String> {
    const WIDTH: f64 = 380.0;
    let measured = judged.measured?;
    let limit = match judged.objective.bound() {
        Bound::Below(limit) | Bound::Above(limit) => limit,
    };
    let (low, high) = (judged.at_least.unwrap_or(measured), judged.at_most.unwrap_or(measured));
    let most = [measured, limit, high].into_iter().fold(0.0, f64::max) * 1.15;
    let is_ratio = judged.objective.metric.unit() == Unit::Ratio;
    let most = if is_ratio { most.min(1.0) } else { most };
    let at = |value: f64| 4.0 + (value / most.max(1e-12)).min(1.0) * (WIDTH - 8.0);
    Some(format!(
        r#"<svg viewBox="0 0 {WIDTH} 22" role="img" aria-label="measured, and the limit"><path class="grid" d="M4 11H{:.1}"/><path class="range" d="M{:.1} 11H{:.1}"/><path class="limit" d="M{:.1} 1V21"/><circle class="point" cx="{:.1}" cy="11" r="4"/></svg>"#,
        WIDTH - 4.0,
        at(low),
        at(high),
        at(limit),
        at(measured)
    ))
}

fn tiles(report: &Report) -> String {
    let (total, run) = (&report.total, &report.run);
    let quantile = |metric, at: fn(&Quantiles) -> f64| total.time(metric).map(at);
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}%", share * 100.0))
    };
    let mut tiles = vec![
        (total.calls.to_string(), format!("calls in {}", time(Some(run.lasted_s)))),
        (percent(total.error_ratio), format!("error ratio; {} did not complete", total.errors())),
        (time(quantile(Metric::TimeToFirstToken, |q| q.p50)), "first token, median".to_owned()),
        (time(quantile(Metric::TimeToFirstToken, |q| q.p99)), "first token, p99".to_owned()),
        (time(quantile(Metric::Duration, |q| q.p50)), "duration, median".to_owned()),
        (time(quantile(Metric::Duration, |q| q.p99)), "duration, p99".to_owned()),
        (format!("{:.1}", total.calls_per_s), "calls a second".to_owned()),
        (format!("{:.0}", total.output_tokens_per_s), "output tokens a second".to_owned()),
        (
            time(report.generator.send_lag_s.as_ref().map(|lag| lag.p99)),
            "sent after due, p99".to_owned(),
        ),
        (
            time(report.generator.read_lag_s.as_ref().map(|lag| lag.p99)),
            "read after arrival, p99".to_owned(),
        ),
    ];
    if total.goodput.is_some() {
        tiles.push((percent(total.goodput), "goodput".to_owned()));
    }
    if let Some(usd) = total.cost_usd {
        let missing = match total.unpriced {
            0 => String::new(),
            calls => format!("; {calls} calls have no price"),
        };
        tiles.push((format!("${usd:.4}"), format!("by the table of prices{missing}")));
    }
    let tile = |(figure, what): (String, String)| {
        format!("<div class=\"tile\"><b>{}</b>{}</div>\n", Escaped(&figure), Escaped(&what))
    };
    let tiles: String = tiles.into_iter().map(tile).collect();
    format!("<div class=\"tiles\">\n{tiles}</div>\n")
}

// === Charts ===

fn over_time(report: &Report) -> String {
    let charts = [
        latency_over_time(report, "Time to first token", Metric::TimeToFirstToken),
        latency_over_time(report, "Duration", Metric::Duration),
        Some(calls_over_time(report)),
        tokens_over_time(report),
    ];
    section("Over time", charts, "A call belongs to the moment at which it was due.")
}

fn latency_over_time(report: &Report, name: &str, metric: Metric) -> Option<Chart> {
    const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
    let timeline = &report.figures.timeline;
    let at =
        |slice: &Slice, quantile| slice.times.get(&metric).and_then(|times| times.at(quantile));
    let most = timeline.slices().filter_map(|(_, slice)| at(slice, 0.99)).reduce(f64::max)?;
    let title = format!("{name}, over time");
    let mut chart = Chart::new(&title, "due", moments(report), Scale::up_to(most, scale::seconds));
    for (class, quantile) in QUANTILES {
        let points = timeline.slices().map(|(start, slice)| {
            let middle = (start + timeline.slice() / 2).as_secs_f64();
            Some((middle, at(slice, quantile)?))
        });
        chart = chart.line(class, class, points);
    }
    Some(chart.note(format!("From when a call was due; each place is {}.", slice_length(report))))
}

fn calls_over_time(report: &Report) -> Chart {
    let timeline = &report.figures.timeline;
    let seconds = timeline.slice().as_secs_f64();
    let most = timeline.slices().map(|(_, slice)| slice.calls).max().unwrap_or(0);
    let y = Scale::up_to(most as f64 / seconds, scale::count);
    let mut chart = Chart::new("Calls, over time", "due", moments(report), y);
    for (start, slice) in timeline.slices() {
        let (from, to) = (start.as_secs_f64(), (start + timeline.slice()).as_secs_f64());
        let (good, all) = (slice.completed as f64 / seconds, slice.calls as f64 / seconds);
        let said = format!(
            "{} to {}: {} calls, {} whole answers",
            time(Some(from)),
            time(Some(to)),
            slice.calls,
            slice.completed
        );
        chart.bar("whole", (from, 0.0), (to, good), &said);
        if all > good {
            chart.bar("error", (from, good), (to, all), &said);
        }
    }
    chart.named("whole", "whole answers a second").named("error", "others")
}

fn tokens_over_time(report: &Report) -> Option<Chart> {
    let timeline = &report.figures.timeline;
    let seconds = timeline.slice().as_secs_f64();
    let most =
        timeline.slices().map(|(_, slice)| slice.output_tokens).max().filter(|most| *most > 0)?;
    let y = Scale::up_to(most as f64 / seconds, scale::count);
    let points = timeline.slices().map(|(start, slice)| {
        let middle = (start + timeline.slice() / 2).as_secs_f64();
        Some((middle, slice.output_tokens as f64 / seconds))
    });
    let chart = Chart::new("Output tokens, over time", "due", moments(report), y);
    let chart = chart.line("one", "tokens a second, of calls that were due then", points);
    Some(chart.note("As the provider stated them.".to_owned()))
}

fn distributions(report: &Report) -> String {
    let charts = [
        distribution(
            report,
            "Time to first token",
            (Metric::TimeToFirstToken, Metric::ServiceTimeToFirstToken),
        ),
        distribution(report, "Duration", (Metric::Duration, Metric::ServiceDuration)),
        prompt_size(report),
        lateness(report),
    ];
    section("Distributions", charts, "Of whole answers: a refusal is no fast answer.")
}

/// How long the slowest half, tenth, hundredth took, from due and from sent.
fn distribution(report: &Report, name: &str, (due, sent): (Metric, Metric)) -> Option<Chart> {
    let (due, sent) = (report.figures.times(due), report.figures.times(sent));
    let most = [due.at(1.0)?, sent.at(1.0).unwrap_or_default()].into_iter().fold(0.0, f64::max);
    let x = Scale::quantiles(due.count());
    let curve = |times: &Times| {
        let points: Vec<_> =
            x.steps(STEPS).map(|quantile| Some((quantile, times.at(quantile)?))).collect();
        points
    };
    let (from_due, from_sent) = (curve(&due), curve(&sent));
    let title = format!("{name}, all calls");
    let at = |quantile| scale::exactly(due.at(quantile).unwrap_or_default());
    let note = format!(
        "{} calls: half within {}, nine in ten within {}, the slowest {}.",
        due.count(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    let chart = Chart::new(
        &title,
        "share of calls that took no longer",
        x.clone(),
        Scale::up_to(most, scale::seconds),
    );
    Some(
        chart
            .line("due", "from when it was due", from_due)
            .line("sent", "from when it was sent", from_sent)
            .note(note),
    )
}

fn prompt_size(report: &Report) -> Option<Chart> {
    let points = report.figures.points.all();
    let places = points.filter_map(|point| Some((point.input_tokens? as f64, point.first_token?)));
    let places: Vec<_> = places.take(MOST_DOTS).collect();
    let longest = places.iter().map(|place| place.0).reduce(f64::max)?;
    let slowest = places.iter().map(|place| place.1).reduce(f64::max)?;
    let (x, y) = (Scale::up_to(longest, scale::count), Scale::up_to(slowest, scale::seconds));
    let note = format!("{} calls, drawn by chance where there were more.", places.len());
    let chart = Chart::new("First token by length of the prompt", "input tokens, as stated", x, y);
    Some(chart.dots("one", "", places).note(note))
}

fn lateness(report: &Report) -> Option<Chart> {
    let points = report.figures.points.all().map(|point| (point.due, point.send_lag));
    let places: Vec<_> = points.take(MOST_DOTS).collect();
    let most = places.iter().map(|place| place.1).reduce(f64::max)?;
    let lag = report.generator.send_lag_s.as_ref()?;
    let note = format!(
        "How long after it was due a call was sent: half within {}, 99 in a hundred within {}. {} were \
         due while every user was busy, {} were never sent.",
        scale::exactly(lag.p50),
        scale::exactly(lag.p99),
        report.generator.found_no_user,
        report.generator.unsent
    );
    let y = Scale::up_to(most, scale::seconds);
    let chart = Chart::new("Lateness of the generator", "due", moments(report), y);
    Some(chart.dots("sent", "", places).note(note))
}

/// The time of the run.
pub(super) fn moments(report: &Report) -> Scale {
    Scale::up_to(report.figures.timeline.end().as_secs_f64(), scale::seconds)
}

fn slice_length(report: &Report) -> String {
    scale::exactly(report.figures.timeline.slice().as_secs_f64())
}

/// A heading, and the charts for which there is something to draw.
pub(super) fn section(
    title: &str,
    charts: impl IntoIterator<Item = Option<Chart>>,
    note: &str,
) -> String {
    let figures: String = charts.into_iter().flatten().map(|chart| chart.html()).collect();
    format!(
        "<h2>{title}</h2>\n<p class=\"faint\">{note}</p>\n<div class=\"charts\">\n{figures}</div>\n"
    )
}

// === Tables ===

fn errors(report: &Report) -> String {
    if report.errors.is_empty() {
        return "<h2>Errors</h2>\n<p>None.</p>\n".to_owned();
    }
    let most = report.total.kinds.values().copied().max().unwrap_or(1);
    let mut rows = String::new();
    for (kind, calls) in &report.total.kinds {
        let width = 100.0 * *calls as f64 / most as f64;
        _ = write!(
            rows,
            "<tr><td>{}</td><td>{calls}</td><td style=\"min-width:8rem\"><div class=\"error\" style=\"background:var(--c);height:.7rem;width:{width:.1}%\"></div></td></tr>",
            kind.as_str()
        );
    }
    let kinds = wide("<th>kind</th><th>calls</th><th></th>", &rows, "");
    let details: String = report.errors.iter().map(error_row).collect();
    let header = "<th>what was said</th><th>kind</th><th>status</th><th>outcome</th><th>calls</th>";
    format!("<h2>Errors</h2>\n{kinds}<h2>Errors in detail</h2>\n{}", wide(header, &details, ""))
}

fn error_row(FaultCount { fault, calls }: &FaultCount) -> String {
    let status = fault.status.map_or("-".to_owned(), |status| status.to_string());
    format!(
        "<tr><td>{}</td><td>{}</td><td>{status}</td><td>{}</td><td>{calls}</td></tr>",
        Escaped(&fault.error_type),
        fault.kind.map_or("-", Kind::as_str),
        fault.outcome.as_str()
    )
}

fn table(report: &Report) -> String {
    let header = "<th>model</th><th>calls</th><th>errors</th><th>tokens in</th><th>cached</th>\
                  <th>tokens out</th><th>USD</th><th>TTFT p50</th><th>p99</th><th>duration p50</th>\
                  <th>p99</th>";
    let parts = |parts: &[crate::report::Part]| -> String {
        parts.iter().map(|part| row(&part.name, &part.summary)).collect()
    };
    let models = wide(header, &parts(&report.models), &row("all", &report.total));
    let routes = wide(&header.replacen("model", "route", 1), &parts(&report.routes), "");
    let stages = match report.stages.len() {
        0 | 1 => String::new(),
        _ => {
            let rows = parts(&report.stages);
            format!("<h2>By stage</h2>\n{}", wide(&header.replacen("model", "stage", 1), &rows, ""))
        }
    };
    let note = match report.total.unpriced {
        0 => String::new(),
        calls => {
            format!("<p class=\"faint\">{calls} calls have no price and are not in the sums.</p>\n")
        }
    };
    format!(
        "<h2>Tokens, cost and times by model</h2>\n{models}{note}{stages}<h2>By route</h2>\n{routes}"
    )
}

fn row(name: &str, summary: &Summary) -> String {
    let tokens = |tokens: Option<u64>| tokens.map_or("-".to_owned(), |tokens| tokens.to_string());
    let at = |metric, at: fn(&Quantiles) -> f64| time(summary.time(metric).map(at));
    let cells = [
        summary.calls.to_string(),
        summary.errors().to_string(),
        tokens(summary.tokens.input),
        tokens(summary.tokens.cache_read),
        tokens(summary.tokens.output),
        summary.cost_usd.map_or("-".to_owned(), |usd| format!("{usd:.4}")),
        at(Metric::TimeToFirstToken, |q| q.p50),
        at(Metric::TimeToFirstToken, |q| q.p99),
        at(Metric::Duration, |q| q.p50),
        at(Metric::Duration, |q| q.p99),
    ];
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr><td>{}</td>{cells}</tr>", Escaped(name))
}

fn setup(report: &Report) -> String {
    let run = &report.run;
    let mut lines = vec![format!(
        "Began {}, {} users, schedule {}{}, seed {}.",
        run.began.strftime("%Y-%m-%d %H:%M:%S UTC"),
        run.users,
        run.schedule,
        run.rate.map(|rate| format!(" at {rate} calls/s")).unwrap_or_default(),
        run.seed
    )];
    lines.extend(run.from.as_ref().map(|from| from.sentence()));
    lines.extend(DEFINITIONS.map(str::to_owned));
    let lines: String =
        lines.iter().map(|line| format!("<p class=\"faint\">{}</p>\n", Escaped(line))).collect();
    format!("<h2>How it was measured</h2>\n{lines}")
}

/// A table that is scrolled by itself where it is wider than the page.
pub(super) fn wide(header: &str, rows: &str, foot: &str) -> String {
    format!(
        "<div class=\"wide\"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody><tfoot>{foot}</tfoot></table></div>\n"
    )
}
