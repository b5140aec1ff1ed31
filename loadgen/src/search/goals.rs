//! What a load must keep to count as one that the target can bear.

use tidegate_settings::{Abort, Bound, Limit, Metric, Objective, Objectives, Ratio, Unit};

use crate::verdict::{fewest, fewest_without_fault};

/// Objectives by which loads are told apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goals(Objectives);

/// Why no capacity can be searched for by some objectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsearchable {
    /// There is nothing to tell loads apart by.
    #[error("there are no objectives to be kept: give them by --slo")]
    NoObjectives,
    /// More of it is kept by more load, so it bounds no load from above.
    #[error("{metric} rises with the load, so no capacity can be found by it: leave it out")]
    Rises {
        /// What is measured.
        metric: Metric,
    },
    /// The model of the simulator does not say it.
    #[error("{metric} is not in the model of the simulator: leave it out")]
    NotModelled {
        /// What is measured.
        metric: Metric,
    },
}

// === impl Goals ===

impl Goals {
    /// Of these objectives. Where none is about errors, there must be few: a server that refuses half of
    /// its calls would else be quick enough at any load.
    pub(crate) fn of(objectives: &Objectives) -> Result<Self, Unsearchable> {
        let mut objectives = Objectives { abort: Abort::Early, ..objectives.clone() };
        let all = &mut objectives.objectives;
        if let Some(other) = all.iter().find(|one| one.metric.unit() == Unit::Rate) {
            return Err(Unsearchable::Rises { metric: other.metric });
        }
        let tells_errors = |one: &Objective| one.metric.unit() == Unit::Ratio;
        if !all.iter().any(tells_errors) {
            all.push(few_errors());
        }
        Ok(Self(objectives))
    }

    /// All of them.
    pub(crate) fn objectives(&self) -> &Objectives {
        &self.0
    }

    /// The fewest calls that can tell whether all are met.
    pub(crate) fn fewest_calls(&self) -> u64 {
        let confidence = self.0.confidence.share();
        let fewest = |one: &Objective| match (one.quantile, one.bound()) {
            (Some(quantile), _) => fewest(quantile, confidence),
            (None, Bound::Below(limit)) => fewest_without_fault(limit, confidence),
            (None, Bound::Above(limit)) => fewest_without_fault(1.0 - limit, confidence),
        };
        self.0.objectives.iter().map(fewest).max().unwrap_or(1)
    }

    /// The same ten times as lax: what a load misses by far.
    pub(crate) fn by_far(&self) -> Objectives {
        const FAR: f64 = 10.0;
        const HALF: f64 = 0.5;
        let mut far = self.0.clone();
        for (one, allowed) in far.objectives.iter_mut().zip(self.allowed()) {
            let allowed = (FAR * allowed).min(HALF).max(allowed);
            let percent = Ratio::of(allowed);
            match (one.quantile, one.bound()) {
                (Some(_), _) => one.quantile = Some(1.0 - allowed),
                (None, Bound::Below(_)) => one.below = Some(Limit::Ratio(percent)),
                (None, Bound::Above(_)) => one.above = Some(Limit::Ratio(Ratio::of(1.0 - allowed))),
            }
        }
        far
    }

    /// The longest time, in seconds, that a whole call may take by any of them; none where they leave
    /// that open.
    pub(crate) fn longest(&self) -> Option<f64> {
        let is_whole = |one: &&Objective| {
            !matches!(one.metric, Metric::Gap | Metric::TimePerOutputToken)
                && one.metric.unit() == Unit::Time
        };
        let limits = self.0.objectives.iter().filter(is_whole).filter_map(|one| one.below);
        limits.map(|limit| limit.value()).reduce(f64::max)
    }

    /// Of each, the share of calls that may miss it.
    pub(crate) fn allowed(&self) -> Vec<f64> {
        let allowed = |one: &Objective| match (one.quantile, one.bound()) {
            (Some(quantile), _) => 1.0 - quantile,
            (None, Bound::Below(limit)) => limit,
            (None, Bound::Above(limit)) => 1.0 - limit,
        };
        self.0.objectives.iter().map(allowed).collect()
    }

    /// Those that are missed where of each so many calls did as it says, of all that it is about. What no
    /// call was about is not missed.
    pub(crate) fn missed(&self, scores: &[(u64, u64)]) -> Vec<String> {
        let missed = |(objective, (did, all)): (&Objective, &(u64, u64))| {
            let (did, all) = (*did as f64, *all as f64);
            let is_met = match (objective.quantile, objective.bound()) {
                (Some(quantile), _) => did >= (quantile * all).ceil(),
                (None, Bound::Below(limit)) => all - did < limit * all,
                (None, Bound::Above(limit)) => did > limit * all,
            };
            (all > 0.0 && !is_met).then(|| objective.title())
        };
        self.0.objectives.iter().zip(scores).filter_map(missed).collect()
    }
}

fn few_errors() -> Objective {
    Objective {
        name: None,
        metric: Metric::ErrorRatio,
        quantile: None,
        below: Some(Limit::Ratio(Ratio::percent(1))),
        above: None,
        model: None,
        route: None,
        stage: None,
        stream: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goals(list: &str) -> Result<Goals, Unsearchable> {
        Goals::of(&Objectives::parse(&format!("objectives: [{list}]")).expect("good objectives"))
    }

    #[test]
    fn what_rises_with_the_load_is_no_goal_and_few_errors_always_are() {
        let told = goals("{ metric: calls_per_second, above: 10 }").expect_err("no goal");
        assert_eq!(told, Unsearchable::Rises { metric: Metric::CallsPerSecond });
        let titles = |list| {
            let goals = goals(list).expect("goals");
            goals.objectives().objectives.iter().map(Objective::title).collect::<Vec<_>>()
        };
        let time = "{ metric: duration, quantile: 0.9, below: 3s }";
        assert_eq!(titles(time), ["duration p90 below 3s", "error_ratio below 1%"]);
        let good = "{ metric: goodput, above: 95% }";
        assert_eq!(titles(good), ["goodput above 95%"]);
    }

    #[test]
    fn the_fewest_calls_are_those_of_the_hardest_goal() {
        let of = |list: &str| goals(list).expect("goals").fewest_calls();
        let (half, few) = (
            "{ metric: duration, quantile: 0.5, below: 3s }",
            "{ metric: error_ratio, below: 50% }",
        );
        assert_eq!(of(&format!("{half}, {few}")), 5);
        assert_eq!(
            of(&format!("{half}, {{ metric: duration, quantile: 0.99, below: 9s }}, {few}")),
            299
        );
        assert_eq!(of(half), 268, "so many without a fault are surely less than one in a hundred");
    }

    #[test]
    fn a_goal_is_missed_where_too_few_calls_did_as_it_says() {
        let goals = goals(
            "{ metric: duration, quantile: 0.9, below: 3s }, { metric: error_ratio, below: 10% }, \
             { metric: goodput, above: 80% }",
        )
        .expect("goals");
        let missed = |scores: &[(u64, u64)]| goals.missed(scores).len();
        assert_eq!(missed(&[(90, 100), (91, 100), (81, 100)]), 0);
        assert_eq!(missed(&[(89, 100), (90, 100), (80, 100)]), 3);
        assert_eq!(missed(&[(0, 0), (0, 0), (0, 0)]), 0);
    }
}
