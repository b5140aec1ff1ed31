//! Whether an objective can still be met.

use tidegate_settings::{Bound, Metric, Objective, Objectives, Unit};

use super::interval;
use super::objective::independent;
use crate::figures::{Figures, Tally};

/// In the time that is left, calls may come so many times as fast as so far.
const FASTER: f64 = 1.5;

/// The first objective that would be missed even if all calls to come did well, with so much load so far
/// and so much left.
pub(crate) fn hopeless<'a>(
    objectives: &'a Objectives,
    figures: &Figures,
    so_far: f64,
    left: f64,
) -> Option<&'a Objective> {
    let more = FASTER * left / so_far;
    let confidence = objectives.confidence.share();
    objectives.objectives.iter().filter(|_| more.is_finite()).find(|objective| {
        let tally = figures.sum_for(objective.metric, |key| key.is_of(objective));
        is_lost(objective, &tally, more, confidence)
    })
}

fn is_lost(objective: &Objective, tally: &Tally, more: f64, confidence: f64) -> bool {
    let more_of = |calls: u64| (calls as f64 * more).ceil() as u64;
    match (objective.metric, objective.bound()) {
        (Metric::ErrorRatio, Bound::Below(limit)) => {
            let all = tally.accountable + more_of(tally.accountable);
            interval::of_ratio(tally.bad, all, confidence).low.is_some_and(|low| low >= limit)
        }
        (Metric::Goodput, Bound::Above(limit)) => {
            let more = more_of(tally.calls());
            let best = interval::of_ratio(tally.good + more, tally.calls() + more, confidence);
            best.high.is_some_and(|high| high <= limit)
        }
        (metric, Bound::Below(limit)) if metric.unit() == Unit::Time => {
            let Some(times) = tally.times(metric) else { return false };
            let quantile = objective.quantile.expect("a time has one: it is checked");
            let calls = independent(metric, tally, times);
            let share_below = times.below(limit) as f64 / times.count().max(1) as f64;
            let above = ((1.0 - share_below) * calls as f64).floor() as u64;
            let all = calls + more_of(calls);
            interval::at_most(all - above, all, quantile) <= 1.0 - confidence
        }
        // A rate may rise without end.
        _ => false,
    }
}
