//! The figures in the form of k6's `--summary-export`, of which GitLab makes a widget in merge
//! requests: checks, time to the first byte, calls each second.
//!
//! A check is an objective; without objectives, that a call completes. Times are in milliseconds and
//! count from when a call was sent, as k6's do.

use serde_json::{Value, json};
use tidegate_settings::Metric;

use super::{Finding, Report};

impl Report {
    /// The figures as a JSON document of k6.
    pub fn k6_summary(&self) -> String {
        let (total, run) = (&self.total, &self.run);
        let (passes, fails) = self.checks();
        let failed = total.errors();
        let mut metrics = json!({
            "checks": rate(passes, fails),
            // Of this one, what "passes" is what failed.
            "http_req_failed": rate(failed, total.calls - failed),
            "http_reqs": counter(total.calls, run.lasted_s),
            "iterations": counter(total.calls, run.lasted_s),
            "vus": { "value": run.users, "min": run.users, "max": run.users },
            "vus_max": { "value": run.users, "min": run.users, "max": run.users },
        });
        for (name, metric) in [
            ("http_req_waiting", Metric::ServiceTimeToFirstByte),
            ("http_req_duration", Metric::ServiceDuration),
            ("iteration_duration", Metric::Duration),
            ("time_to_first_token", Metric::ServiceTimeToFirstToken),
        ] {
            if let Some(trend) = self.trend(metric) {
                metrics[name] = trend;
            }
        }
        let document = json!({ "root_group": self.root_group(), "metrics": metrics });
        serde_json::to_string_pretty(&document).expect("its keys are texts")
    }

    fn checks(&self) -> (u64, u64) {
        match &self.verdict {
            Some(verdict) => {
                let passes = verdict.objectives.iter().filter(|one| one.finding == Finding::Pass);
                let passes = passes.count() as u64;
                (passes, verdict.objectives.len() as u64 - passes)
            }
            None => (self.total.outcomes.completed, self.total.errors()),
        }
    }

    fn root_group(&self) -> Value {
        let objectives = self.verdict.iter().flat_map(|verdict| &verdict.objectives);
        let check = |(number, judged): (usize, &super::Judged)| {
            let passes = u64::from(judged.finding == Finding::Pass);
            let value = json!({
                "name": judged.name,
                "path": format!("::{}", judged.name),
                "id": format!("{number:032x}"),
                "passes": passes,
                "fails": 1 - passes,
            });
            (format!("{number}: {}", judged.name), value)
        };
        let checks: serde_json::Map<_, _> = (1..).zip(objectives).map(check).collect();
        json!({ "name": "", "path": "", "id": format!("{:032x}", 0), "groups": {}, "checks": checks })
    }

    fn trend(&self, metric: Metric) -> Option<Value> {
        let times = self.figures.times(metric);
        let quantiles = times.quantiles()?;
        let ms = |seconds: f64| seconds * 1e3;
        Some(json!({
            "avg": ms(quantiles.mean),
            "min": ms(quantiles.min),
            "med": ms(quantiles.p50),
            "max": ms(quantiles.max),
            "p(90)": ms(quantiles.p90),
            "p(95)": ms(quantiles.p95),
            "p(99)": ms(quantiles.p99),
        }))
    }
}

fn rate(passes: u64, fails: u64) -> Value {
    let value = super::summary::ratio(passes, passes + fails).unwrap_or(0.0);
    json!({ "passes": passes, "fails": fails, "value": value })
}

fn counter(count: u64, seconds: f64) -> Value {
    let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    json!({ "count": count, "rate": rate })
}
