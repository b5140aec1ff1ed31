//! What a step came to, from the report of its run.

use std::time::Duration;

use tidegate_settings::{Metric, Objective};

use super::Load;
use super::backlog;
use super::course::{Course, Seen};
use super::goals::Goals;
use crate::figures::{Figures, Tally};
use crate::report::{Ended, Held, Step, Summary, load_text, time};
use crate::run::Outcome;
use crate::verdict::independent;

// === impl Step ===

impl Step {
    /// Of what its run came to, before it is judged.
    pub(crate) fn of(
        load: f64,
        is_near: bool,
        warm_up: Duration,
        outcome: Outcome,
        goals: &Goals,
    ) -> Self {
        let Outcome { report, in_flight, was_stalled } = outcome;
        let objectives = &goals.objectives().objectives;
        let shares = objectives.iter().map(|one| share_of(one, &report.figures));
        let looks = in_flight.len().max(1) as f64;
        let mean = in_flight.iter().map(|(_, calls)| *calls as f64).sum::<f64>() / looks;
        let total = report.figures.total();
        let other_side =
            report.figures.watched.strain(Duration::from_secs_f64(report.run.duration_s));
        Self {
            load,
            is_near,
            held: Held::Held,
            why: Vec::new(),
            began: report.run.began,
            warm_up_s: warm_up.as_secs_f64(),
            duration_s: report.run.duration_s,
            users: report.run.users,
            ended: report.ended,
            in_flight: mean,
            growth: backlog::growth(&in_flight),
            is_short: false,
            lacked_users: report.generator.found_no_user > 0 || report.generator.unsent > 0,
            objectives: report.verdict.map(|verdict| verdict.objectives).unwrap_or_default(),
            other_side,
            summary: Summary::of(&total, Duration::from_secs_f64(report.run.duration_s)),
            invalid: report.invalid.or_else(|| was_stalled.then(stalled)),
            shares: shares.collect(),
            tally: total,
        }
    }

    /// Whether it held. More calls in flight than `piled_up` are those of a target that does not keep up,
    /// where the load is a rate.
    pub(crate) fn judged(self, piled_up: Option<f64>, course: &Course, goals: &Goals) -> Self {
        let fewest = goals.fewest_calls() as f64;
        let (shares, load) = (&self.shares, self.load);
        let is_short = shares.iter().any(|(_, calls)| *calls < fewest);
        let has_piled_up = self.lacked_users
            && piled_up.is_some_and(|calls| calls > 0.0 && self.users as f64 >= calls);
        if self.invalid.is_some() && !has_piled_up {
            let why = self.invalid.clone().into_iter().collect();
            return Self { held: Held::Invalid, why, is_short, ..self };
        }
        let mut why = self.missed(goals);
        if has_piled_up {
            why.push(format!(
                "calls pile up: {} in flight, more than there are when all take as long as they may",
                self.users
            ));
        } else if piled_up.is_some() && backlog::piles_up((self.growth, load * self.duration_s)) {
            why.push(format!("calls pile up: {:.0} more in flight at the end", self.growth));
        }
        let keeps = course.keeps(&self.seen()) && !has_piled_up && why.is_empty();
        Self { held: if keeps { Held::Held } else { Held::Missed }, why, is_short, ..self }
    }

    /// The objectives that it missed, with what was measured.
    fn missed(&self, goals: &Goals) -> Vec<String> {
        let allowed = goals.allowed();
        let each = self.objectives.iter().zip(&self.shares).zip(allowed);
        each.filter(|((_, (missed, calls)), allowed)| *missed > allowed * calls)
            .map(|((judged, _), _)| match judged.measured {
                Some(measured) if judged.objective.quantile.is_some() => {
                    format!("{} is {}", judged.name, time(Some(measured)))
                }
                Some(measured) => format!("{} is {:.2}%", judged.name, measured * 100.0),
                None => format!("{} was measured by no call", judged.name),
            })
            .collect()
    }

    /// As the search goes by it.
    pub(crate) fn seen(&self) -> Seen {
        // Of a step that was ended early, or that had too few users, nobody knows how many more calls there
        // would have been in flight.
        let is_whole = self.ended == Ended::Complete && !self.lacked_users;
        let growth = (self.growth, self.load * self.duration_s);
        Seen {
            load: self.load,
            is_near: self.is_near,
            shares: self.shares.clone(),
            growth: is_whole.then_some(growth),
        }
    }

    /// The calls each second, how long one took on average, and the part of all that the rarest objective
    /// is about.
    pub(crate) fn pace(&self) -> (f64, Duration, f64) {
        let calls = self.tally.calls() as f64;
        let mean = self.summary.time(Metric::Duration).map_or(0.0, |duration| duration.mean);
        let rarest = self.shares.iter().map(|share| share.1 / calls.max(1.0));
        let rarest = rarest.fold(1.0, f64::min).max(0.01);
        let per_s = (calls / self.duration_s).max(f64::MIN_POSITIVE);
        (per_s, Duration::from_secs_f64(mean), rarest)
    }

    /// What became of it, on one line.
    pub(crate) fn sentence(&self, what: Load) -> String {
        let load = load_text(self.load, what);
        let word = self.held.as_str();
        let why =
            if self.why.is_empty() { String::new() } else { format!(": {}", self.why.join("; ")) };
        format!("{load} {word}, of {} calls{why}", self.tally.calls())
    }
}

fn stalled() -> String {
    "the generator was the limit: this machine was too busy to look in time; lower the load, or use a \
     larger machine"
        .to_owned()
}

/// The calls that missed an objective, and all that it is about. Calls that were cut off at the end took
/// longer than any limit; where calls were made and none came to have a time, all missed it.
fn share_of(objective: &Objective, figures: &Figures) -> (f64, f64) {
    let tally = figures.sum(|key| key.is_of(objective));
    match objective.metric {
        Metric::ErrorRatio => (tally.bad as f64, tally.accountable as f64),
        Metric::Goodput => ((tally.calls() - tally.good) as f64, tally.calls() as f64),
        metric => share_beyond(objective, metric, &tally),
    }
}

fn share_beyond(objective: &Objective, metric: Metric, tally: &Tally) -> (f64, f64) {
    let limit = objective.below.map_or(f64::INFINITY, |limit| limit.value());
    let cut = tally.outcomes.abandoned as f64;
    let Some(times) = tally.times(metric).filter(|times| times.count() > 0) else {
        return (tally.calls() as f64, tally.calls() as f64);
    };
    let calls = independent(metric, tally, times) as f64;
    let beyond = 1.0 - times.below(limit) as f64 / times.count() as f64;
    (beyond * calls + cut, calls + cut)
}
