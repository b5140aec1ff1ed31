//! The page of a search: the capacity, what each load came to, and each step.

use std::fmt::Write;

use tidegate_settings::Metric;

use super::chart::Chart;
use super::scale::{self, Scale};
use super::sections::wide;
use super::text::Escaped;
use super::{END, head};
use crate::figures::{Strain, Strained};
use crate::report::search::{Place, SEARCH_DEFINITIONS, SearchReport, Step};
use crate::report::{Quantiles, load_text, time};
use crate::search::Load;

/// Loads so much beyond the capacity have times that would leave no room for the others.
const IN_SIGHT: f64 = 1.1;

impl SearchReport {
    /// The report as an HTML page.
    pub fn html(&self) -> String {
        let title = format!("{}: capacity of {}", self.decision().as_str(), self.target);
        [head(&title), verdict(self), over_load(self), steps(self), setup(self), END.to_owned()]
            .concat()
    }
}

fn verdict(report: &SearchReport) -> String {
    let word = report.decision().as_str();
    let mut html = format!(
        "<header><h1>Capacity of {}</h1>\n<p><span class=\"verdict {word}\">{}</span></p>\n<p>{}</p>\n",
        Escaped(&report.target),
        word.to_uppercase(),
        Escaped(&report.sentence)
    );
    if let Some(knee) = report.knee_sentence() {
        _ = writeln!(html, "<p>{}</p>", Escaped(&knee));
    }
    html.push_str("</header>\n<h2>To be kept</h2>\n");
    for objective in &report.objectives {
        _ = writeln!(html, "<p>{}</p>", Escaped(&objective.title()));
    }
    html
}

fn over_load(report: &SearchReport) -> String {
    let charts = [
        times(report, "Time to first token", Metric::TimeToFirstToken),
        times(report, "Duration", Metric::Duration),
        Some(counts(report, "Answers", "whole answers a second", |place| place.answered_per_s)),
        Some(counts(report, "Calls in flight", "on average", |place| place.in_flight)),
    ];
    let others = report.strains().into_iter().map(|strain| Some(self::strain(report, strain)));
    let charts = charts.into_iter().chain(others);
    let figures: String = charts.flatten().map(|chart| chart.html()).collect();
    format!(
        "<h2>Over load</h2>\n<p class=\"faint\">Steps of about the same load are one place.</p>\n<div \
         class=\"charts\">\n{figures}</div>\n"
    )
}

fn times(report: &SearchReport, name: &str, metric: Metric) -> Option<Chart> {
    let quantiles: [fn(&Quantiles) -> f64; 3] = [|q| q.p50, |q| q.p90, |q| q.p99];
    let slowest = |places: &mut dyn Iterator<Item = &Place>| {
        places.filter_map(|place| place.time(metric, |q| q.p99)).reduce(f64::max)
    };
    let all = slowest(&mut report.curve.iter())?;
    let most = slowest(&mut in_sight(report));
    let most = most.unwrap_or(all);
    let title = format!("{name}, over load");
    let mut chart = chart(report, &title, Scale::up_to(most, scale::seconds));
    for (class, at) in ["p50", "p90", "p99"].into_iter().zip(quantiles) {
        let points = report.curve.iter().map(|place| Some((place.load, place.time(metric, at)?)));
        chart = chart.line(class, class, points);
    }
    let beyond = match all > most {
        true => {
            format!(" Times far beyond the capacity, up to {}, do not fit in.", time(Some(all)))
        }
        false => String::new(),
    };
    Some(chart.note(format!("From when a call was due.{beyond}")))
}

fn counts(report: &SearchReport, name: &str, unit: &str, of: fn(&Place) -> f64) -> Chart {
    let most = report.curve.iter().map(of).fold(0.0, f64::max);
    let chart = chart(report, &format!("{name}, over load"), Scale::up_to(most, scale::count));
    let points = report.curve.iter().map(|place| Some((place.load, of(place))));
    chart.line("one", unit, points)
}

/// How hard the other side had it, on the same loads.
fn strain(report: &SearchReport, strain: Strain) -> Chart {
    let (name, note) = match strain {
        Strain::Waiting => ("Calls that wait at the other side", TOGETHER),
        Strain::Running => ("Calls that run at the other side", TOGETHER),
        Strain::Cache => ("Cache in use", OF_EACH),
        Strain::Gpu => ("GPU in use", OF_EACH),
    };
    let of = |place: &Place, at: fn(&Strained) -> f64| {
        Some((place.load, at(place.other_side.get(&strain)?)))
    };
    let places = report.curve.iter();
    let most = in_sight(report).filter_map(|place| of(place, |said| said.most));
    let y = match strain.is_share() {
        true => Scale::up_to(1.0, scale::percent),
        false => Scale::up_to(most.map(|(_, most)| most).fold(0.0, f64::max), scale::count),
    };
    chart(report, &format!("{name}, over load"), y)
        .line("one", "on average", places.clone().map(|place| of(place, |said| said.mean)))
        .line("p99", "the most", places.map(|place| of(place, |said| said.most)))
        .note(note.to_owned())
}

/// The places that are to fit in.
fn in_sight(report: &SearchReport) -> impl Iterator<Item = &Place> {
    let most = report.capacity.map_or(f64::INFINITY, |capacity| capacity.load * IN_SIGHT);
    report.curve.iter().filter(move |place| place.load <= most)
}

/// What the lines of charts are of, where there are several servers.
const TOGETHER: &str = "Of all servers together, while calls counted.";
const OF_EACH: &str =
    "The mean of all servers, and the one that had the most, while calls counted.";

/// An empty one, with the capacity and the knee in it.
fn chart(report: &SearchReport, title: &str, y: Scale) -> Chart {
    let most = report.curve.iter().map(|place| place.load).fold(0.0, f64::max);
    let across = match report.what {
        Load::Rate => "calls a second",
        Load::Users => "users",
    };
    let mut chart = Chart::new(title, across, Scale::up_to(most, scale::count), y);
    if let Some(capacity) = report.capacity {
        let (low, high) = (capacity.at_least.min(most), capacity.at_most.min(most));
        chart = chart.upright("capacity", (low, capacity.load.min(most), high), "capacity");
    }
    if let Some(knee) = report.knee {
        chart = chart.upright("knee", (knee.load, knee.load, knee.load), "knee");
    }
    chart
}

fn steps(report: &SearchReport) -> String {
    let header = "<th>load</th><th></th><th>counted</th><th>calls</th><th>answered/s</th>\
                  <th>in flight</th><th>grew by</th><th>TTFT p50</th><th>p99</th><th>duration p50</th>\
                  <th>p99</th><th>why</th>";
    let rows: String = report.steps.iter().map(|step| step_row(report, step)).collect();
    format!("<h2>Steps</h2>\n{}", wide(header, &rows, ""))
}

fn step_row(report: &SearchReport, step: &Step) -> String {
    let at = |metric, at: fn(&Quantiles) -> f64| time(step.summary.time(metric).map(at));
    let answered = step.summary.outcomes.completed as f64 / step.duration_s;
    let cells = [
        format!(
            "{}{}",
            time(Some(step.duration_s)),
            if step.is_near { "" } else { ", on the way" }
        ),
        step.summary.calls.to_string(),
        format!("{answered:.1}"),
        format!("{:.1}", step.in_flight),
        format!("{:.0}", step.growth),
        at(Metric::TimeToFirstToken, |q| q.p50),
        at(Metric::TimeToFirstToken, |q| q.p99),
        at(Metric::Duration, |q| q.p50),
        at(Metric::Duration, |q| q.p99),
    ];
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!(
        "<tr><td>{}</td><td class=\"{}\"><span class=\"word\">{}</span></td>{cells}<td>{}</td></tr>",
        load_text(step.load, report.what),
        step.held.class(),
        step.held.as_str(),
        Escaped(&step.why.join("; "))
    )
}

fn setup(report: &SearchReport) -> String {
    let began = report.began.strftime("%Y-%m-%d %H:%M:%S UTC");
    let mut lines =
        vec![format!("Began {began}, {} steps, seed {}.", report.steps.len(), report.seed)];
    lines.extend(SEARCH_DEFINITIONS.map(str::to_owned));
    let lines: String =
        lines.iter().map(|line| format!("<p class=\"faint\">{}</p>\n", Escaped(line))).collect();
    format!("<h2>How it was measured</h2>\n{lines}")
}
