//! `tidegate rules`: Prometheus' rules for the objectives that load tests are judged by.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use tidegate_settings::Objectives;

use crate::Exit;

mod promql;
#[cfg(test)]
mod tests;

/// What is the same for all objectives: windows, and the alerts on them.
const ALERTS: &str = include_str!("../dashboards/prometheus/slo.alerts.yaml");

/// At how many times the pace that an objective allows somebody is told (Google's SRE workbook,
/// "Alerting on SLOs").
const PACES: [f64; 4] = [1.0, 3.0, 6.0, 14.4];

/// Write Prometheus' rules and alerts for objectives.
///
/// They are those that `tidegate load --slo` judges by, in one file. Each model that an objective is
/// about is watched by itself. TidegateSloMissed fires when it is missed for five minutes,
/// TidegateSloBurnsFast and TidegateSloBurnsSlowly when the budget of 30 days will not last. Limits are
/// exact where they are bounds of the sidecar's histograms (1s, 1.5s, 2s, 2.5s, 3s, 4s, 5s, ...), and drawn between
/// two of them otherwise. What no metric of the sidecar tells is left out, and said on standard error.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The objectives (YAML), such as config/examples/slo.yaml
    #[arg(long, value_name = "FILE", env = "TIDEGATE_RULES_SLO")]
    slo: PathBuf,
    /// For Prometheus' own configuration (`rule_files`), or a PrometheusRule for its operator
    #[arg(long, value_enum, default_value = "prometheus", env = "TIDEGATE_RULES_FORM")]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Prometheus,
    Operator,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let objectives = Objectives::read(&args.slo)?;
    let (rules, left_out) = rules(&objectives);
    for reason in &left_out {
        eprintln!("tidegate: left out: {reason}");
    }
    let Some(rules) = rules else {
        eprintln!("tidegate: no objective is left that Prometheus could watch");
        return Ok(Exit::NotSo);
    };
    let text = match args.form {
        Form::Prometheus => rules,
        Form::Operator => resource(&rules),
    };
    std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(Exit::Good)
}

/// A file of rules, if there is anything to watch, and what it leaves out.
fn rules(objectives: &Objectives) -> (Option<String>, Vec<String>) {
    let mut groups = String::new();
    let mut left_out = Vec::new();
    for objective in &objectives.objectives {
        let title = objective.title();
        match promql::watched(objective) {
            Ok(watched) => groups += &group(&title, &watched),
            Err(reason) => left_out.push(format!("`{title}`: {reason}")),
        }
    }
    let (head, alerts) = ALERTS.split_once("groups:\n").expect("it is a file of rules");
    let head = head.replacen("# Alerts on", "# Written by `tidegate rules`. Alerts on", 1);
    let rules = format!("{head}groups:\n  - name: tidegate-slo\n    rules:\n{groups}\n{alerts}");
    ((!groups.is_empty()).then_some(rules), left_out)
}

/// What is recorded of one objective.
fn group(title: &str, watched: &promql::Watched) -> String {
    let promql::Watched { calls, bad, allowed, note } = watched;
    // JSON's strings are YAML's, too.
    let objective = serde_json::Value::from(title);
    let record = |name: &str, expression: &str| {
        format!(
            "      - record: slo:tidegate_calls{name}\n        labels: {{ objective: {objective} }}\n        expr: |\n          {}\n",
            expression.replace('\n', "\n          ")
        )
    };
    let mut text = format!("      # {}\n", note.replace('\n', "\n      # "));
    text += &record(":rate5m", calls);
    text += &record("_bad:rate5m", bad);
    for pace in PACES {
        // Where much may go wrong, so many times as much would be more than there is.
        let share = (allowed * pace).min((1.0 + allowed) / 2.0);
        text += &format!(
            "      - {{ record: \"slo:tidegate_calls_allowed:ratio\", labels: {{ objective: {objective}, pace: \"{pace}\" }}, expr: vector({}) }}\n",
            rounded(share)
        );
    }
    text
}

/// Without what arithmetic adds: 0.01, not 0.010000000000000009.
fn rounded(share: f64) -> f64 {
    (share * 1e12).round() / 1e12
}

/// The rules as a resource of Prometheus' operator.
fn resource(rules: &str) -> String {
    let (head, groups) = rules.split_once("groups:\n").expect("it is a file of rules");
    let groups: String = groups
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    format!(
        "{head}apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: tidegate-slo\n  labels:\n    app.kubernetes.io/name: tidegate\nspec:\n  groups:\n{groups}"
    )
}
