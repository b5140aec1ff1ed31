//! The report as Markdown, for the note of a merge request or the summary of a job.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use tidegate_settings::Metric;

use super::other_side::number;
use super::{Ended, FaultCount, Kind, Quantiles, Report, Summary, time};

/// Series of the other side in the table; the HTML and the JSON have all.
const MOST_SERIES: usize = 20;
/// Kinds of errors in the table; the HTML and the JSON have all.
const MOST_ERRORS: usize = 10;

/// A text in a cell: shown as it is, whatever it says, and not taken for a mention or a link.
pub(super) struct Code<'a>(pub(super) &'a str);

impl Report {
    /// The report as a document of GitHub's and GitLab's Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "## Load test: {}\n\n{} against {}: {} calls in {:.1} s, {:.1} a second, {:.0} output tokens a second.\n",
            self.headline().to_uppercase(),
            said(&self.run.schedule),
            Code(&self.run.target),
            self.total.calls,
            self.run.lasted_s,
            self.total.calls_per_s,
            self.total.output_tokens_per_s
        );
        if let Some(reason) = &self.invalid {
            _ = writeln!(text, "\n**The figures must not be used:** {}.", plain(reason));
        }
        if self.ended != Ended::Complete {
            _ = writeln!(text, "\n{}", self.ended.sentence());
        }
        if let Some(pauses) = self.pauses() {
            _ = writeln!(text, "\n{pauses}");
        }
        text += &objectives(self);
        if let Some(comparison) = &self.comparison {
            _ = writeln!(text, "\n{}", plain(&comparison.sentence));
        }
        text += &models(self);
        text += &stages(self);
        text += &errors(self);
        text += &other_side(self);
        _ = write!(text, "\n<details><summary>How it was measured</summary>\n\n");
        if let Some(from) = &self.run.from {
            _ = writeln!(text, "- {}", plain(&from.sentence()));
        }
        for line in super::DEFINITIONS {
            _ = writeln!(text, "- {}", plain(line));
        }
        text + "\n</details>\n"
    }
}

fn said(schedule: &str) -> String {
    match schedule {
        "closed" => "Closed loop".to_owned(),
        "recorded" => "Recorded traffic".to_owned(),
        "staged" => "A rate in stages".to_owned(),
        other => format!("{}{} arrivals", other[..1].to_uppercase(), &other[1..]),
    }
}

fn objectives(report: &Report) -> String {
    let Some(verdict) = &report.verdict else { return String::new() };
    let mut text = "\n| | objective | what was found |\n|---|---|---|\n".to_owned();
    for judged in &verdict.objectives {
        _ = writeln!(
            text,
            "| **{}** | {} | {} |",
            judged.finding.as_str(),
            Code(&judged.name),
            plain(&judged.why)
        );
    }
    text
}

/// The head of a table of models, or of stages.
const MODELS: &str = "\n| model | calls | errors | tokens in | out | USD | TTFT p50 | p99 | duration p50 | p99 |\n\
                      |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";

fn models(report: &Report) -> String {
    let mut text = MODELS.to_owned();
    for part in &report.models {
        text += &row(&Code(&part.name).to_string(), &part.summary);
    }
    text + &row("**all**", &report.total)
}

fn stages(report: &Report) -> String {
    if report.stages.len() < 2 {
        return String::new();
    }
    let mut text = MODELS.replacen("model", "stage", 1);
    for part in &report.stages {
        text += &row(&Code(&part.name).to_string(), &part.summary);
    }
    text
}

fn row(name: &str, summary: &Summary) -> String {
    let tokens = |tokens: Option<u64>| tokens.map_or("-".to_owned(), |tokens| tokens.to_string());
    let at = |metric, at: fn(&Quantiles) -> f64| time(summary.time(metric).map(at));
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        summary.calls,
        summary.errors(),
        tokens(summary.tokens.input),
        tokens(summary.tokens.output),
        summary.cost_usd.map_or("-".to_owned(), |usd| format!("{usd:.4}")),
        at(Metric::TimeToFirstToken, |q| q.p50),
        at(Metric::TimeToFirstToken, |q| q.p99),
        at(Metric::Duration, |q| q.p50),
        at(Metric::Duration, |q| q.p99),
    )
}

fn errors(report: &Report) -> String {
    if report.errors.is_empty() {
        return String::new();
    }
    let mut text = "\n| error | kind | status | calls |\n|---|---|--:|--:|\n".to_owned();
    for FaultCount { fault, calls } in report.errors.iter().take(MOST_ERRORS) {
        let status = fault.status.map_or("-".to_owned(), |status| status.to_string());
        let kind = fault.kind.map_or("-", Kind::as_str);
        _ = writeln!(text, "| {} | {kind} | {status} | {calls} |", Code(&fault.error_type));
    }
    match report.errors.len().checked_sub(MOST_ERRORS) {
        Some(more @ 1..) => text + &format!("\n{more} more kinds of errors are in the report.\n"),
        _ => text,
    }
}

/// Where the time went, and what the other side said.
fn other_side(report: &Report) -> String {
    let mut text = String::new();
    if let Some(places) = &report.places {
        text += "\n| where the time went | TTFT p50 | p99 | duration p50 | p99 |\n|---|--:|--:|--:|--:|\n";
        for part in ["network", "sidecar", "upstream"] {
            let two: [fn(&Quantiles) -> f64; 2] = [|q| q.p50, |q| q.p99];
            let of = |times: &BTreeMap<_, Quantiles>| two.map(|at| time(times.get(part).map(at)));
            let cells = [of(&places.first_token_s), of(&places.duration_s)].concat().join(" | ");
            _ = writeln!(text, "| {part} | {cells} |");
        }
        _ = writeln!(text, "\n{}", places.sentence());
    }
    if !report.other_side.is_empty() {
        text += "\n| the other side | mean | most |\n|---|--:|--:|\n";
        for one in report.other_side.iter().take(MOST_SERIES) {
            let (name, mean, most) = (one.title(), number(one.mean), number(one.most));
            _ = writeln!(text, "| {} | {mean} | {most} |", Code(&name));
        }
    }
    text
}

/// A sentence of ours, in which a text of others may be quoted.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            '|' | '*' | '`' | '[' | ']' | '_' | '\\' | '~' => {
                shown.push('\\');
                shown.push(letter);
            }
            // No mention of whoever has that name.
            '@' => shown.push_str("&#64;"),
            _ if letter.is_control() => shown.push(' '),
            _ => shown.push(letter),
        }
    }
    shown
}

impl fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = |letter: char| match letter {
            '`' => '\'',
            '|' => '¦',
            _ if letter.is_control() => ' ',
            _ => letter,
        };
        write!(f, "`{}`", self.0.chars().map(clean).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use crate::report::tests::report;

    #[test]
    fn a_name_is_neither_markup_nor_a_column() {
        let text = report("a|b`<img src=x>`\n@all").markdown();
        let row = text.lines().find(|line| line.contains("img")).expect("its row");
        assert_eq!(row.matches('|').count(), 11, "{row}");
        assert!(row.starts_with("| `a¦b'<img src=x>' @all` |"), "{row}");
        assert!(text.starts_with("## Load test: DONE\n"), "{text}");
    }
}
