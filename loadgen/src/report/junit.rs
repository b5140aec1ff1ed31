//! The verdict as JUnit's XML, which every CI shows: one case for each objective, and one for the run
//! itself.
//!
//! What is missed is a failure; what cannot be told, and an invalid run, is an error. Nothing that does
//! not pass is ever shown as skipped.

use std::fmt::Write;

use super::html::text::Escaped;
use super::{Change, Comparison, Finding, Judged, Report};

impl Report {
    /// The verdict as a JUnit document.
    pub fn junit(&self) -> String {
        let judged = self.verdict.as_ref().map_or(&[][..], |verdict| &verdict.objectives);
        let count = |finding| judged.iter().filter(|one| one.finding == finding).count();
        let change = self.comparison.as_ref().map(|comparison| comparison.finding);
        let is = |finding| usize::from(change == Some(finding));
        let errors = count(Finding::Inconclusive)
            + usize::from(self.invalid.is_some())
            + is(Change::Unknown);
        let counts = format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{errors}\" skipped=\"0\" time=\"{:.3}\"",
            judged.len() + 1 + usize::from(change.is_some()),
            count(Finding::Fail) + is(Change::Worse),
            self.run.lasted_s
        );
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        _ = write!(
            xml,
            "<testsuites name=\"tidegate load\" {counts}>\n<testsuite name=\"load test of {}\" {counts} timestamp=\"{}\">\n",
            Escaped(&self.run.target),
            self.run.began.strftime("%Y-%m-%dT%H:%M:%S")
        );
        xml.push_str(&properties(self));
        xml.push_str(&validity(self));
        judged.iter().for_each(|one| xml.push_str(&case(one)));
        self.comparison.iter().for_each(|one| xml.push_str(&compared(one)));
        xml + "</testsuite>\n</testsuites>\n"
    }
}

fn properties(report: &Report) -> String {
    let (run, total) = (&report.run, &report.total);
    let properties = [
        ("schedule", run.schedule.clone()),
        ("users", run.users.to_string()),
        ("calls", total.calls.to_string()),
        ("calls_per_s", format!("{:.3}", total.calls_per_s)),
        ("decision", report.decision().as_str().to_owned()),
    ];
    let property = |(name, value): (&str, String)| {
        format!("<property name=\"{name}\" value=\"{}\"/>\n", Escaped(&value))
    };
    format!("<properties>\n{}</properties>\n", properties.map(property).concat())
}

/// Whether the figures may be used at all.
fn validity(report: &Report) -> String {
    let ended = report.ended.sentence();
    match &report.invalid {
        None => format!(
            "<testcase classname=\"tidegate.load\" name=\"the run is valid\"><system-out>{}</system-out></testcase>\n",
            Escaped(ended)
        ),
        Some(reason) => format!(
            "<testcase classname=\"tidegate.load\" name=\"the run is valid\"><error type=\"invalid\" message=\"{reason}\">{reason}</error></testcase>\n",
            reason = Escaped(reason)
        ),
    }
}

fn compared(comparison: &Comparison) -> String {
    let said = Escaped(&comparison.sentence);
    let result = match comparison.finding {
        Change::Better | Change::None => format!("<system-out>{said}</system-out>"),
        Change::Worse => format!("<failure type=\"worse\" message=\"{said}\">{said}</failure>"),
        Change::Unknown => {
            format!("<error type=\"inconclusive\" message=\"{said}\">{said}</error>")
        }
    };
    format!(
        "<testcase classname=\"tidegate.load\" name=\"no worse than the baseline\">{result}</testcase>\n"
    )
}

fn case(judged: &Judged) -> String {
    let (name, why) = (Escaped(&judged.name), Escaped(&judged.why));
    let result = match judged.finding {
        Finding::Pass => format!("<system-out>{why}</system-out>"),
        Finding::Fail => format!("<failure type=\"missed\" message=\"{why}\">{why}</failure>"),
        Finding::Inconclusive => {
            format!("<error type=\"inconclusive\" message=\"{why}\">{why}</error>")
        }
    };
    format!(
        "<testcase classname=\"tidegate.load.objectives\" name=\"{name}\">{result}</testcase>\n"
    )
}
