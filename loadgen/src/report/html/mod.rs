//! The report as a page: one file that needs nothing else, without a script, and as dark as its reader
//! likes.
//!
//! Texts that come from elsewhere (models, errors, objectives) are escaped; a policy in the head
//! forbids the page to load or run anything.

mod chart;
mod other_side;
mod scale;
mod search;
mod sections;

pub(in crate::report) mod text;

use std::fmt::Write;

use super::{Decision, Report};
use text::Escaped;

impl Report {
    /// The report as an HTML page.
    pub fn html(&self) -> String {
        let title = format!("{}: load test of {}", self.headline(), self.run.target);
        let mut page = head(&title);
        sections::all(self).iter().for_each(|section| page.push_str(section));
        page + END
    }

    /// What it comes to, as a headline has it.
    pub(super) fn headline(&self) -> &'static str {
        let is_judged = self.verdict.is_some() || self.comparison.is_some();
        match self.decision() {
            Decision::Pass if !is_judged => "done",
            decision => decision.as_str(),
        }
    }
}

const END: &str = "</body>\n</html>\n";

fn head(title: &str) -> String {
    let mut head = String::new();
    let title = Escaped(title);
    _ = write!(
        head,
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="generator" content="tidegate {}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{}</style>
</head>
<body>
"#,
        env!("CARGO_PKG_VERSION"),
        include_str!("page.css")
    );
    head
}

#[cfg(test)]
mod tests {
    use crate::report::tests::report;

    #[test]
    fn what_comes_from_elsewhere_is_no_markup() {
        let html = report("<script>alert(1)</script>").html();
        assert!(!html.contains("<script"), "a model's name is a text");
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(!html.contains("http://www.") && !html.contains("src="));
    }

    #[test]
    fn every_chart_has_what_was_measured() {
        let html = report("m").html();
        for title in [
            "Time to first token, over time",
            "Duration, over time",
            "Calls, over time",
            "Time to first token, all calls",
            "Duration, all calls",
            "First token by length of the prompt",
            "Lateness of the generator",
            "Output tokens, over time",
            "First token by its parts, on average",
            "vllm:num_requests_waiting",
        ] {
            assert!(html.contains(title), "{title}");
        }
        assert!(!html.contains("NaN") && !html.contains("inf "));
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }
}
