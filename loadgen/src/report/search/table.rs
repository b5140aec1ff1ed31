//! The report of a search for people.

use std::fmt;

use tidegate_settings::Metric;

use super::{Place, SEARCH_DEFINITIONS, SearchReport, number};
use crate::figures::Strain;
use crate::report::{Grid, Quantiles, time};

/// A search as a table, to be printed.
pub struct SearchTable<'a>(&'a SearchReport);

impl SearchReport {
    /// The report for a terminal.
    pub fn table(&self) -> SearchTable<'_> {
        SearchTable(self)
    }
}

impl fmt::Display for SearchTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "{}", curve(report))?;
        writeln!(
            f,
            "{} steps against {}, seed {}",
            report.steps.len(),
            report.target,
            report.seed
        )?;
        for objective in &report.objectives {
            writeln!(f, "to be kept: {}", objective.title())?;
        }
        SEARCH_DEFINITIONS.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "\n{}", report.sentence)?;
        if let Some(knee) = report.knee_sentence() {
            writeln!(f, "{knee}")?;
        }
        writeln!(f, "\nVERDICT: {}", report.decision().as_str())
    }
}

impl SearchReport {
    /// Where the knee is, in words.
    pub(in crate::report) fn knee_sentence(&self) -> Option<String> {
        let knee = self.knee?;
        Some(format!(
            "The knee is at {}, where a call takes {} on average.",
            super::load_text(knee.load, self.what),
            time(Some(knee.duration_s))
        ))
    }
}

/// What each load came to; where steps did not all come to the same, how many held.
fn curve(report: &SearchReport) -> Grid {
    let mut grid = Grid::default();
    let load = match report.what {
        crate::search::Load::Rate => "calls/s",
        crate::search::Load::Users => "users",
    };
    let strains = report.strains();
    let above = ["", "", "", "answered", "in", "TTFT", "", "", "duration", "", ""];
    let header =
        [load, "held", "calls", "a second", "flight", "p50", "p90", "p99", "p50", "p90", "p99"];
    let means = strains.iter().map(|_| "mean");
    let words = strains.iter().map(|strain| strain.as_str());
    grid.row(above.into_iter().chain(words).chain([""]));
    grid.row(header.into_iter().chain(means).chain([""]));
    for place in &report.curve {
        grid.row(row(report, place, &strains));
    }
    grid
}

fn row(report: &SearchReport, place: &Place, strains: &[Strain]) -> Vec<String> {
    let three: [fn(&Quantiles) -> f64; 3] = [|q| q.p50, |q| q.p90, |q| q.p99];
    let mut row = vec![
        number(place.load),
        format!("{} of {}", place.held(report), place.steps),
        place.calls.to_string(),
        format!("{:.1}", place.answered_per_s),
        format!("{:.1}", place.in_flight),
    ];
    row.extend(three.map(|at| time(place.time_to_first_token_s.as_ref().map(at))));
    row.extend(three.map(|at| time(place.duration_s.as_ref().map(at))));
    row.extend(strains.iter().map(|strain| place.strain(*strain)));
    let is_knee = report.knee.is_some_and(|knee| knee.load == place.load);
    row.push(if is_knee { "knee".to_owned() } else { String::new() });
    row
}

// === impl Place ===

impl Place {
    /// Of its steps, those that held.
    pub(in crate::report) fn held(&self, report: &SearchReport) -> usize {
        let is_here = |load: f64| load >= self.lowest && load <= self.highest;
        report.steps.iter().filter(|step| step.held() && is_here(step.load)).count()
    }

    /// How hard the other side had it on average.
    pub(in crate::report) fn strain(&self, strain: Strain) -> String {
        let said = self.other_side.get(&strain);
        said.map_or_else(|| "-".to_owned(), |said| strain.text(said.mean))
    }

    /// One of its quantiles, where it was measured.
    pub(in crate::report) fn time(&self, metric: Metric, at: fn(&Quantiles) -> f64) -> Option<f64> {
        match metric {
            Metric::TimeToFirstToken => self.time_to_first_token_s.as_ref().map(at),
            Metric::Duration => self.duration_s.as_ref().map(at),
            _ => None,
        }
    }
}
