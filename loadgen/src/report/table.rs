//! The report for people.

use std::fmt::{self, Write};

use tidegate_settings::Metric;

use super::other_side::number;
use super::{
    DEFINITIONS, Ended, FaultCount, Kind, Part, Places, Quantiles, Report, Summary, Watching,
};

/// Series of the other side that are printed.
const MOST_SERIES: usize = 20;

/// The report as a table, to be printed.
pub struct Table<'a>(pub(super) &'a Report);

/// Rows of cells: the first column stands left, the others right, each as wide as it must be.
#[derive(Default)]
pub struct Grid {
    rows: Vec<Vec<String>>,
}

// === impl Table ===

impl Report {
    /// The report for a terminal.
    pub fn table(&self) -> Table<'_> {
        Table(self)
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "{}", latencies(report))?;
        if report.stages.len() > 1 {
            writeln!(f, "{}", stages(report))?;
        }
        if !report.errors.is_empty() {
            writeln!(f, "{}", errors(report))?;
        }
        if let Some(places) = &report.places {
            writeln!(f, "{}{}\n", self::places(places), places.sentence())?;
        }
        if !report.other_side.is_empty() {
            writeln!(f, "{}", other_side(&report.other_side))?;
        }
        totals(f, report)?;
        if report.ended != Ended::Complete {
            writeln!(f, "\n{}", report.ended.sentence())?;
        }
        decision(f, report)
    }
}

/// What a team waits for stands last, where a terminal shows it.
fn decision(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    if let Some(comparison) = &report.comparison {
        writeln!(f, "\n{}", comparison.sentence)?;
    }
    if let Some(verdict) = &report.verdict {
        writeln!(f)?;
        for judged in &verdict.objectives {
            writeln!(f, "{}: {}: {}", judged.finding.as_str(), judged.name, judged.why)?;
        }
    }
    if let Some(reason) = &report.invalid {
        return writeln!(f, "\nINVALID RUN: {reason}.");
    }
    match report.verdict.is_some() || report.comparison.is_some() {
        true => writeln!(f, "\nVERDICT: {}", report.decision().as_str()),
        false => Ok(()),
    }
}

fn latencies(report: &Report) -> Grid {
    let mut grid = Grid::default();
    grid.row(["", "", "", "tokens", "", "", "duration", "", "", "", "TTFT", "", "", "", "gap", ""]);
    grid.row([
        "model", "calls", "errors", "in", "out", "USD", "p50", "p90", "p99", "p99.9", "p50", "p90",
        "p99", "p99.9", "p50", "p99",
    ]);
    for model in &report.models {
        grid.row(latency_row(&model.name, &model.summary));
    }
    grid.row(latency_row("all", &report.total));
    grid
}

fn latency_row(name: &str, summary: &Summary) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        summary.calls.to_string(),
        summary.errors().to_string(),
        tokens(summary.tokens.input),
        tokens(summary.tokens.output),
        money(summary),
    ];
    let four: [fn(&Quantiles) -> f64; 4] = [|q| q.p50, |q| q.p90, |q| q.p99, |q| q.p999];
    let two: [fn(&Quantiles) -> f64; 2] = [|q| q.p50, |q| q.p99];
    row.extend(four.map(|at| time(summary.time(Metric::Duration).map(at))));
    row.extend(four.map(|at| time(summary.time(Metric::TimeToFirstToken).map(at))));
    row.extend(two.map(|at| time(summary.time(Metric::Gap).map(at))));
    row
}

/// What each stage came to.
fn stages(report: &Report) -> Grid {
    let mut grid = Grid::default();
    let mut header: Vec<_> = ["stage", "calls", "errors", "calls/s"].map(str::to_owned).into();
    header.extend(["TTFT p50", "p99", "duration p50", "p99"].map(str::to_owned));
    grid.row(header);
    let two: [fn(&Quantiles) -> f64; 2] = [|q| q.p50, |q| q.p99];
    for Part { name, summary } in &report.stages {
        let mut row = vec![name.to_string(), summary.calls.to_string()];
        row.extend([summary.errors().to_string(), format!("{:.1}", summary.calls_per_s)]);
        for metric in [Metric::TimeToFirstToken, Metric::Duration] {
            row.extend(two.map(|at| time(summary.time(metric).map(at))));
        }
        grid.row(row);
    }
    grid
}

fn errors(report: &Report) -> Grid {
    let mut grid = Grid::default();
    grid.row(["error", "kind", "status", "outcome", "calls"]);
    for FaultCount { fault, calls } in &report.errors {
        let status = fault.status.map_or("-".to_owned(), |status| status.to_string());
        let kind = fault.kind.map_or("-", Kind::as_str).to_owned();
        let outcome = fault.outcome.as_str().to_owned();
        grid.row([fault.error_type.clone(), kind, status, outcome, calls.to_string()]);
    }
    grid
}

/// Where the time went.
fn places(places: &Places) -> Grid {
    let mut grid = Grid::default();
    grid.row(["where the time went", "TTFT p50", "p90", "p99", "duration p50", "p90", "p99"]);
    let three: [fn(&Quantiles) -> f64; 3] = [|q| q.p50, |q| q.p90, |q| q.p99];
    for part in ["network", "sidecar", "upstream"] {
        let mut row = vec![part.to_owned()];
        for times in [&places.first_token_s, &places.duration_s] {
            row.extend(three.map(|at| time(times.get(part).map(at))));
        }
        grid.row(row);
    }
    grid
}

/// What the other side said; the page shows it over time.
fn other_side(watching: &[Watching]) -> Grid {
    let mut grid = Grid::default();
    grid.row(["the other side", "mean", "most"]);
    for one in watching.iter().take(MOST_SERIES) {
        grid.row([one.title(), number(one.mean), number(one.most)]);
    }
    if let Some(more @ 1..) = watching.len().checked_sub(MOST_SERIES) {
        grid.row([format!("{more} more in the report")]);
    }
    grid
}

fn totals(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let (run, total) = (&report.run, &report.total);
    let outcomes = &total.outcomes;
    writeln!(
        f,
        "{} calls in {:.1} s: {} completed, {} failed, {} truncated, {} refused, {} abandoned",
        total.calls,
        run.lasted_s,
        outcomes.completed,
        outcomes.failed,
        outcomes.truncated,
        outcomes.refused,
        outcomes.abandoned,
    )?;
    write!(
        f,
        "{:.1} calls/s, {:.0} output tokens/s; ",
        total.calls_per_s, total.output_tokens_per_s
    )?;
    match (run.rate, run.from.as_ref().and_then(|from| from.speed)) {
        (Some(rate), _) => write!(f, "{} at {rate} calls/s, ", run.schedule)?,
        (None, Some(speed)) => write!(f, "as recorded, {speed} times as fast, ")?,
        (None, None) if run.schedule == "staged" => write!(f, "rate in stages, ")?,
        (None, None) => write!(f, "{} loop, ", run.schedule)?,
    }
    let [sent, read] = [report.generator.send_lag_s, report.generator.read_lag_s]
        .map(|lag| time(lag.map(|lag| lag.p99)));
    writeln!(f, "{} users; sent {sent} after due, read {read} after arrival (p99)", run.users)?;
    if let Some(from) = &run.from {
        writeln!(f, "{}", from.sentence())?;
        if total.calls > from.calls {
            writeln!(f, "Its calls were made more than once: caches may have known them.")?;
        }
    }
    if let Some(pauses) = report.pauses() {
        writeln!(f, "{pauses}")?;
    }
    if report.invalid.is_none() && report.generator.is_late() {
        writeln!(f, "This machine was busy: its own delays are part of these times.")?;
    }
    DEFINITIONS.iter().try_for_each(|line| writeln!(f, "{line}"))
}

/// Tokens, unless no answer stated any.
fn tokens(tokens: Option<u64>) -> String {
    tokens.map_or_else(|| "-".to_owned(), count)
}

/// What calls cost, unless none has a price; `+` where some have none.
fn money(summary: &Summary) -> String {
    let mark = if summary.unpriced > 0 { "+" } else { "" };
    summary.cost_usd.map_or_else(|| "-".to_owned(), |usd| format!("{usd:.4}{mark}"))
}

/// A time in the unit that suits it, with three digits: `812µs`, `81.2ms`, `8.12s`.
pub fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(s) if s.abs() < 999.5e-6 => format!("{:.0}µs", s * 1e6),
        Some(s) if s.abs() < 9.995e-3 => format!("{:.2}ms", s * 1e3),
        Some(s) if s.abs() < 99.95e-3 => format!("{:.1}ms", s * 1e3),
        Some(s) if s.abs() < 0.9995 => format!("{:.0}ms", s * 1e3),
        Some(s) if s.abs() < 9.995 => format!("{s:.2}s"),
        Some(s) if s.abs() < 99.95 => format!("{s:.1}s"),
        Some(s) => format!("{s:.0}s"),
    }
}

/// A count short enough for a column: `950`, `12.3k`, `4.5M`.
pub(super) fn count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

// === impl Grid ===

impl Grid {
    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                match column {
                    0 => write!(line, "{cell:<width$}")?,
                    _ => write!(line, "  {cell:>width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_digits_and_its_unit() {
        let shown = [0.000_812, 0.00812, 0.0812, 0.812, 8.12, 81.2, 812.0].map(|s| time(Some(s)));
        assert_eq!(shown, ["812µs", "8.12ms", "81.2ms", "812ms", "8.12s", "81.2s", "812s"]);
        assert_eq!(time(Some(0.999_7)), "1.00s", "rounding carries over into the next unit");
        assert_eq!(time(None), "-");
    }

    #[test]
    fn a_grid_lines_its_columns_up() {
        let mut grid = Grid::default();
        grid.row(["model", "calls"]);
        grid.row(["a-long-name", "7"]);
        assert_eq!(grid.to_string(), "model        calls\na-long-name      7\n");
    }
}
