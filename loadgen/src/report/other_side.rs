//! What the other side said of the run, in numbers that people read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::figures::{Joined, Parts, Quantiles, Series, Shows, Watched};

/// Where the time of calls went, as our records and a sidecar's say together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Places {
    /// Calls of which there are both records.
    pub calls: u64,
    /// Calls of which the sidecar told nothing.
    pub missing: u64,
    /// Of the joined ones, those of which the two say another status, or other tokens.
    pub differing: u64,
    /// To the first token, from when a call was sent: `network`, `sidecar` and `upstream`.
    pub first_token_s: BTreeMap<&'static str, Quantiles>,
    /// To the last byte, likewise.
    pub duration_s: BTreeMap<&'static str, Quantiles>,
}

/// One series of metrics of the other side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Watching {
    /// The metric.
    pub name: Arc<str>,
    /// What of it is shown: its value, its rise a second, or the mean of what was observed.
    pub shows: &'static str,
    /// Where it was read.
    pub source: Arc<str>,
    /// The labels that tell it from others of that name.
    pub labels: String,
    /// The mean of what was read.
    pub mean: f64,
    /// The highest value that was read.
    pub most: f64,
}

// === impl Places ===

impl Places {
    /// Absent where no sidecar was asked.
    pub(crate) fn of(joined: &Joined) -> Option<Self> {
        (!joined.is_empty()).then(|| Self {
            calls: joined.calls,
            missing: joined.missing,
            differing: joined.differing,
            first_token_s: quantiles(&joined.first_token),
            duration_s: quantiles(&joined.duration),
        })
    }

    /// What one must know of it.
    pub fn sentence(&self) -> String {
        let Self { calls, missing, differing, .. } = self;
        format!(
            "The sidecar has a record of {calls} of these {} calls; of {differing} it says another status or \
             other tokens than the client.",
            calls + missing
        )
    }
}

fn quantiles(parts: &Parts) -> BTreeMap<&'static str, Quantiles> {
    parts.all().into_iter().filter_map(|(name, times)| Some((name, times.quantiles()?))).collect()
}

// === impl Watching ===

impl Watching {
    /// All series of which anything was read.
    pub(crate) fn of(watched: &Watched) -> Vec<Self> {
        let series = watched.series();
        let one = |one: &&Series| {
            let total = one.total();
            Some(Self {
                name: one.id.name.clone(),
                shows: one.id.shows.as_str().trim_start_matches(", "),
                source: one.id.source.clone(),
                labels: telling_labels(one, &series),
                mean: total.mean()?,
                most: total.most()?,
            })
        };
        series.iter().filter_map(one).collect()
    }

    /// The metric, what is shown of it, and the labels that tell it from others.
    pub fn title(&self) -> String {
        let shows = match self.shows {
            "" => String::new(),
            shows => format!(", {shows}"),
        };
        match &*self.labels {
            "" => format!("{}{shows}", self.name),
            labels => format!("{}{shows} {{{labels}}}", self.name),
        }
    }
}

/// The labels that are not the same in all series of a name; of several sources, the source too.
pub(super) fn telling_labels(one: &Series, all: &[&Series]) -> String {
    let alike: Vec<_> = all
        .iter()
        .filter(|other| other.id.name == one.id.name && other.id.shows == one.id.shows)
        .collect();
    let in_all = |label: &str| alike.iter().all(|other| labels(&other.id.labels).contains(&label));
    let mut telling: Vec<_> =
        labels(&one.id.labels).into_iter().filter(|label| !in_all(label)).collect();
    let sources: BTreeSet<_> = alike.iter().map(|other| &other.id.source).collect();
    if sources.len() > 1 {
        telling.push(&one.id.source);
    }
    telling.join(",")
}

/// Labels, one by one: a comma within quotes parts nothing.
fn labels(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(|letter| {
        let parts = letter == ',' && !is_quoted;
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        parts
    })
    .filter(|label| !label.is_empty())
    .collect()
}

/// A number of anything, with about three digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e10 => format!("{:.1}G", value / 1e9),
        v if v >= 1e7 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl Shows {
    /// The unit of an axis, as far as a name tells it.
    pub(super) fn is_time(self, name: &str) -> bool {
        self != Self::PerSecond && name.ends_with("_seconds")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::figures::SeriesId;

    fn watched(series: &[(&str, &str, &str)]) -> Watched {
        let mut watched = Watched::default();
        for (name, source, labels) in series {
            let id = SeriesId {
                name: (*name).into(),
                shows: Shows::Value,
                source: (*source).into(),
                labels: (*labels).into(),
            };
            watched.record(&id, Duration::ZERO, 2.0);
        }
        watched
    }

    fn titles(series: &[(&str, &str, &str)]) -> Vec<String> {
        Watching::of(&watched(series)).iter().map(Watching::title).collect()
    }

    #[test]
    fn a_series_has_the_labels_that_tell_it_from_others() {
        assert_eq!(
            titles(&[("a", "x", r#"gpu="0",host="h,\"1""#), ("a", "x", r#"gpu="1",host="h,\"1""#)]),
            [r#"a {gpu="0"}"#, r#"a {gpu="1"}"#]
        );
        assert_eq!(titles(&[("a", "x", r#"gpu="0""#)]), ["a"]);
        assert_eq!(titles(&[("a", "x", ""), ("a", "y", "")]), ["a {x}", "a {y}"]);
    }

    #[test]
    fn a_number_has_about_three_digits() {
        let shown = [0.0, 0.125, 1.5, 12.0, 123.4, 12_345.0, 8.5e7, 2e10].map(number);
        assert_eq!(shown, ["0", "0.1250", "1.50", "12", "123", "12.3k", "85.0M", "20.0G"]);
    }
}
