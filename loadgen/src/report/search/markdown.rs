//! The report of a search as Markdown, for the note of a merge request or the summary of a job.

use std::fmt::Write;

use super::{SEARCH_DEFINITIONS, SearchReport, number};
use crate::report::markdown::{Code, plain};
use crate::report::{Quantiles, time};

impl SearchReport {
    /// The report as a document of GitHub's and GitLab's Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "## Search for the capacity: {}\n\nOf {}, in {} steps. {}\n",
            self.decision().as_str().to_uppercase(),
            Code(&self.target),
            self.steps.len(),
            plain(&self.sentence)
        );
        if let Some(knee) = self.knee_sentence() {
            _ = writeln!(text, "\n{}", plain(&knee));
        }
        _ = writeln!(text);
        for objective in &self.objectives {
            _ = writeln!(text, "- to be kept: {}", Code(&objective.title()));
        }
        let strains = self.strains();
        let words: String =
            strains.iter().map(|strain| format!(" {} |", strain.as_str())).collect();
        _ = writeln!(
            text,
            "\n| load | held | calls | answered/s | in flight | TTFT p50 | p99 | duration p50 | p99 |{words}\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|--:|{}",
            "--:|".repeat(strains.len())
        );
        let two: [fn(&Quantiles) -> f64; 2] = [|q| q.p50, |q| q.p99];
        for place in &self.curve {
            let [first, first_slow] =
                two.map(|at| time(place.time_to_first_token_s.as_ref().map(at)));
            let [whole, whole_slow] = two.map(|at| time(place.duration_s.as_ref().map(at)));
            let said: String =
                strains.iter().map(|strain| format!(" {} |", place.strain(*strain))).collect();
            _ = writeln!(
                text,
                "| {} | {} of {} | {} | {:.1} | {:.1} | {first} | {first_slow} | {whole} | {whole_slow} |{said}",
                number(place.load),
                place.held(self),
                place.steps,
                place.calls,
                place.answered_per_s,
                place.in_flight,
            );
        }
        _ = write!(text, "\n<details><summary>How it was measured</summary>\n\n");
        for line in SEARCH_DEFINITIONS {
            _ = writeln!(text, "- {}", plain(line));
        }
        text + "\n</details>\n"
    }
}
