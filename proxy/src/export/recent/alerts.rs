//! What would alert by now: the rules of `dashboards/prometheus/calls.rules.yaml`, as far as the last
//! minutes of this sidecar alone can tell.

use jiff::Timestamp;
use serde::Serialize;

use super::{By, Recent, number};
use crate::export::rollup::Sums;

/// Minutes over which each rule looks, beside the one that is not over yet.
const WINDOW: i64 = 5;

/// A rule that holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Alert {
    /// Its name, which is that of the alert and of its runbook.
    pub(crate) alert: &'static str,
    /// The model that it is about.
    pub(crate) model: String,
    /// What was measured.
    pub(crate) value: f64,
    /// What it must be over.
    pub(crate) threshold: f64,
    /// How many calls that is about.
    pub(crate) calls: u64,
}

struct Rule {
    name: &'static str,
    threshold: f64,
    /// Fewer calls tell nothing.
    floor: u64,
    /// For how many minutes it must hold.
    lasts: i64,
    measure: fn(&Sums) -> Option<(f64, u64)>,
}

const RULES: [Rule; 3] = [
    Rule {
        name: "TidegateErrorRatioHigh",
        threshold: 0.05,
        floor: 20,
        lasts: 1,
        measure: |sums| sums.error_ratio().map(|ratio| (ratio, sums.judged)),
    },
    Rule {
        name: "TidegateP99Over3s",
        threshold: 0.01,
        floor: 100,
        lasts: 1,
        measure: |sums| share_over(sums, 3.0),
    },
    Rule {
        name: "TidegateP99Over2s",
        threshold: 0.01,
        floor: 100,
        lasts: 5,
        measure: |sums| share_over(sums, 2.0),
    },
];

/// The share of calls whose callers waited for longer, and of how many.
fn share_over(sums: &Sums, seconds: f64) -> Option<(f64, u64)> {
    let latency = sums.latency();
    latency.share_over(seconds).map(|share| (share, latency.count()))
}

impl Alert {
    /// All that hold, by model.
    pub(crate) fn all(recent: &Recent, now: Timestamp) -> Vec<Self> {
        let current = number(now);
        let by_model =
            |ago: i64| recent.between(current - ago - WINDOW, current - ago, now).by(&[By::Model]);
        let now_and_then: Vec<_> = (0..=WINDOW).map(by_model).collect();
        let of_rule = |rule: &Rule| {
            let lasting = &now_and_then[..=rule.lasts as usize];
            let (latest, earlier) = lasting.split_first().expect("a rule looks at now");
            let holds_then = |model: &str, then: &Vec<(_, Sums)>| {
                let sums = then.iter().find(|(key, _): &&(super::Key, Sums)| &*key.model == model);
                sums.is_some_and(|(_, sums)| rule.value(sums).is_some())
            };
            let alerts = latest.iter().filter_map(|(key, sums)| {
                let (value, calls) = rule.value(sums)?;
                let lasts = earlier.iter().all(|then| holds_then(&key.model, then));
                let (alert, threshold) = (rule.name, rule.threshold);
                lasts.then(|| Self { alert, model: key.model.to_string(), value, threshold, calls })
            });
            alerts.collect::<Vec<_>>()
        };
        RULES.iter().flat_map(of_rule).collect()
    }
}

impl Rule {
    /// What was measured, and of how many calls, where that is over the threshold.
    fn value(&self, sums: &Sums) -> Option<(f64, u64)> {
        (self.measure)(sums)
            .filter(|(value, calls)| *value > self.threshold && *calls >= self.floor)
    }
}
