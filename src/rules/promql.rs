//! What of an objective Prometheus can watch: expressions on the sidecar's metrics.

use tidegate_proxy::export::catalog::{CALL_DURATION, TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN};
use tidegate_proxy::export::metrics::{SECONDS, SECONDS_PER_TOKEN};
use tidegate_settings::{Bound, Metric, Objective};

/// Calls that an objective is about.
#[derive(Debug, PartialEq)]
pub(super) struct Watched {
    /// How many come, per second.
    pub(super) calls: String,
    /// How many of them are not as the objective says; 0 where all are.
    pub(super) bad: String,
    /// The share that may be so.
    pub(super) allowed: f64,
    /// How true that is.
    pub(super) note: String,
}

/// By what calls are told apart: each model is watched by itself.
const LEVELS: &str = "cluster, namespace, job, model";

/// The objective as Prometheus can watch it, or why it cannot.
pub(super) fn watched(objective: &Objective) -> Result<Watched, &'static str> {
    if objective.stage.is_some() {
        return Err("stages are a load test's");
    }
    let title = objective.title();
    match (objective.metric, objective.bound(), objective.quantile) {
        (Metric::ErrorRatio, Bound::Below(share), _) => Ok(errors(objective, share, title)),
        (metric, Bound::Below(limit), Some(quantile)) => {
            let (histogram, bounds) = histogram(metric)?;
            Ok(times(objective, (histogram, bounds), limit, quantile, &title))
        }
        (Metric::Goodput, ..) => {
            Err("whether one call keeps all objectives is told by records alone, not by counters")
        }
        _ => Err("it is about what a load test sends, not about what production asks for"),
    }
}

/// The error ratio of the contract: what failed by the upstream, the sidecar or a quota, or broke
/// off, by all but what was abandoned, refused for its head, or failed by its caller.
fn errors(objective: &Objective, allowed: f64, note: String) -> Watched {
    let rate = |matchers: &str| {
        format!("rate(tidegate_calls_total{{{}}}[5m])", matching(objective, matchers))
    };
    let sum = |parts: &[&str]| {
        let parts: Vec<_> = parts.iter().map(|part| rate(part)).collect();
        format!("sum by ({LEVELS}) (\n  {}\n)", parts.join("\n    or\n  "))
    };
    let calls = sum(&[
        r#"outcome=~"completed|truncated""#,
        r#"outcome="failed", error_origin!="client""#,
        r#"outcome="refused", status!~"400|405|408|431""#,
    ]);
    let bad = sum(&[
        r#"outcome="truncated""#,
        r#"outcome="failed", error_origin=~"upstream|sidecar|quota""#,
    ]);
    Watched { bad: format!("{bad}\n  or\n0 * {calls}"), calls, allowed, note }
}

/// The share of whole answers that took longer.
fn times(
    objective: &Objective,
    (histogram, bounds): (&str, &[f64]),
    limit: f64,
    quantile: f64,
    title: &str,
) -> Watched {
    let completed = matching(objective, r#"outcome="completed""#);
    let sum = |part: &str, le: &str| {
        format!("sum by ({LEVELS}) (rate({histogram}_{part}{{{completed}{le}}}[5m]))")
    };
    let within = |bound: f64| sum("bucket", &format!(r#", le=~"{}""#, le(bound)));
    let calls = sum("count", "");
    let at = bounds.partition_point(|bound| *bound < limit);
    let (good, how) = match (bounds.get(at), at.checked_sub(1).map(|below| bounds[below])) {
        (Some(&bound), _) if bound == limit => (within(bound), "exact".to_owned()),
        (Some(&above), below) => {
            let lower = below.unwrap_or(0.0);
            let part = (limit - lower) / (above - lower);
            let upper = format!("{part:.6} * {}", within(above));
            let good = match below {
                Some(below) => format!("{:.6} * {}\n  + {upper}", 1.0 - part, within(below)),
                None => upper,
            };
            (good, format!("drawn between the bounds {lower} s and {above} s"))
        }
        (None, below) => {
            let last = below.expect("there are bounds");
            (within(last), format!("at {last} s, the last bound, for there is none beyond"))
        }
    };
    let bad = format!("clamp_min(\n{calls}\n  - (\n{good}\n), 0)");
    Watched { calls, bad, allowed: 1.0 - quantile, note: format!("{title}\nThe limit is {how}.") }
}

/// The histogram of a time, and its bounds.
fn histogram(metric: Metric) -> Result<(&'static str, &'static [f64]), &'static str> {
    match metric {
        Metric::TimeToFirstToken => Ok((TIME_TO_FIRST_TOKEN.prometheus, SECONDS)),
        Metric::TimePerOutputToken => Ok((TIME_PER_OUTPUT_TOKEN.prometheus, SECONDS_PER_TOKEN)),
        Metric::Duration => Ok((CALL_DURATION.prometheus, SECONDS)),
        _ => Err("no histogram of the sidecar has this time"),
    }
}

/// These matchers, and those of the objective itself.
fn matching(objective: &Objective, matchers: &str) -> String {
    let mut matchers = matchers.to_owned();
    for (label, pattern) in [("model", &objective.model), ("route", &objective.route)] {
        if let Some(pattern) = pattern {
            matchers += &format!(r#", {label}=~"{}""#, regex(pattern));
        }
    }
    if let Some(stream) = objective.stream {
        // What cannot stream says nothing of it.
        let sign = if stream { "=" } else { "!=" };
        matchers += &format!(r#", stream{sign}"true""#);
    }
    matchers
}

/// A pattern with `*` as a regular expression (RE2) within a string of PromQL.
fn regex(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 8);
    for character in pattern.chars() {
        match character {
            '*' => text += ".*",
            '"' => text += "\\\"",
            '\\' => text += r"\\\\",
            '\n' => text += "\\n",
            '.' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => {
                text += r"\\";
                text.push(character);
            }
            character => text.push(character),
        }
    }
    text
}

/// A bound as Prometheus writes it; version 3 writes 2 as 2.0.
fn le(bound: f64) -> String {
    match bound.fract() == 0.0 {
        true => format!("{bound}([.]0)?"),
        false => bound.to_string().replace('.', "[.]"),
    }
}
