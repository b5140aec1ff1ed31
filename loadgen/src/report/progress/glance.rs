//! One look at a run that goes on: all that is shown of it, in numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::so_far::{Second, SoFar, Sum};
use crate::budget::{Caps, Spent};
use crate::figures::{Kind, Quantiles, Strain, Strained};
use crate::report::validity::generator_was_the_limit;
use crate::report::{Ended, Generator};
use crate::run::{Phase, Run};
use crate::schedule::Schedule;
use crate::verdict::{Evidence, Judged, Verdict};

/// Models and routes that have a row of their own.
const MOST_ROWS: usize = 8;
/// The seconds by which it is said how many calls end now.
const NOW: usize = 3;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Glance {
    pub(super) target: String,
    /// Of a search, which step this is.
    pub(super) step: Option<String>,
    pub(super) phase: &'static str,
    pub(super) stage: Option<String>,
    /// Since calls are made, and in all; `warm_up` of it is in no figure.
    pub(super) elapsed: Duration,
    pub(super) whole: Duration,
    pub(super) warm_up: Duration,
    pub(super) users_in: usize,
    pub(super) users: usize,
    pub(super) in_flight: u64,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) kinds: Vec<(Kind, u64)>,
    pub(super) calls_per_s_now: f64,
    pub(super) calls_per_s: f64,
    pub(super) tokens_per_s: f64,
    /// In US dollars.
    pub(super) cost: Option<f64>,
    /// The last minute.
    pub(super) minute: Vec<Second>,
    pub(super) rows: Vec<Row>,
    pub(super) all: Row,
    pub(super) send_lag: Option<Quantiles>,
    pub(super) read_lag: Option<Quantiles>,
    /// Why the run would be invalid if it ended now.
    pub(super) invalid: Option<String>,
    pub(super) objectives: Vec<Judged>,
    pub(super) caps: Caps,
    pub(super) spent: Spent,
    pub(super) strain: BTreeMap<Strain, Strained>,
}

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) first_token: Option<Quantiles>,
    pub(super) duration: Option<Quantiles>,
}

// === impl Glance ===

impl Glance {
    /// As it is now, with what the objectives came to when they were looked at last.
    pub(super) fn of(run: &Run, so_far: &SoFar, objectives: Vec<Judged>) -> Self {
        let plan = &run.plan;
        let elapsed = run.elapsed();
        let counted = elapsed.saturating_sub(plan.warm_up).as_secs_f64();
        let per_s = |count: u64| if counted > 0.0 { count as f64 / counted } else { 0.0 };
        let send_lag = so_far.send_lag.quantiles();
        let read_lag = so_far.read_lag.quantiles();
        let generator = Generator {
            send_lag_s: send_lag,
            read_lag_s: read_lag,
            found_no_user: run.found_no_user(),
            ..Generator::default()
        };
        let is_open = plan.schedule != Schedule::Closed;
        let (users, calls) = (plan.users.get(), so_far.all.calls);
        let minute: Vec<_> = so_far.minute.seconds().copied().collect();
        let stages = plan.stages.as_ref().filter(|_| !elapsed.is_zero());
        Self {
            target: plan.target.as_str().to_owned(),
            step: plan.step.clone(),
            phase: phase(run),
            stage: stages.map(|_| plan.stage_at(elapsed).to_string()),
            // While the last answers come, it goes no further.
            elapsed: run.done(),
            whole: plan.whole(),
            warm_up: plan.warm_up,
            users_in: run.users_in(),
            users,
            in_flight: run.in_flight(),
            calls,
            errors: so_far.all.errors,
            kinds: so_far.kinds.iter().map(|(kind, calls)| (*kind, *calls)).collect(),
            calls_per_s_now: now(&minute),
            calls_per_s: per_s(calls),
            tokens_per_s: per_s(so_far.output_tokens),
            cost: so_far.cost,
            minute,
            rows: rows(so_far),
            all: Row::of("all".to_owned(), &so_far.all),
            send_lag,
            read_lag,
            invalid: generator_was_the_limit(is_open, users, calls, &generator),
            objectives,
            caps: plan.caps,
            spent: run.spent(),
            strain: so_far.strain(),
        }
    }
}

/// What the objectives have come to so far, as if the run had lasted no longer.
pub(super) fn objectives(run: &Run) -> Vec<Judged> {
    let Some(objectives) = &run.plan.objectives else { return Vec::new() };
    let lasted_s = run.elapsed().saturating_sub(run.plan.warm_up).as_secs_f64();
    let recorder = run.recorder();
    let evidence = Evidence {
        figures: &recorder.figures,
        unsent: 0,
        forgotten: run.forgotten(),
        lasted_s,
        stages: run.plan.stages.as_deref(),
        ended: Ended::Complete,
        was_stopped: run.plan.resume.is_some(),
        counted_good: true,
    };
    Verdict::of(objectives, &evidence).objectives
}

fn phase(run: &Run) -> &'static str {
    let is_early = run.plan.start.is_some_and(|start| start > Timestamp::now());
    let are_all_in = run.users_in() >= run.plan.users.get();
    let phase = *run.phase().borrow();
    match phase {
        Phase::Hatching if are_all_in && is_early => "waits for its start",
        Phase::Hatching => "users come in",
        Phase::Running(_) if !run.counts() => "warm-up",
        Phase::Running(_) => "running",
        Phase::Draining(_) => "last answers",
        Phase::Over => "over",
    }
}

/// Calls that end each second now.
fn now(minute: &[Second]) -> f64 {
    let last = &minute[minute.len().saturating_sub(NOW)..];
    last.iter().map(|second| second.calls).sum::<u64>() as f64 / last.len().max(1) as f64
}

/// The models that were asked most, in their order, and the others in one row.
fn rows(so_far: &SoFar) -> Vec<Row> {
    let parts = &so_far.parts;
    let has_routes = |model: &str| parts.keys().filter(|(other, _)| **other == *model).count() > 1;
    let name = |(model, route): &(Arc<str>, Arc<str>)| match has_routes(model) {
        true => format!("{model} {route}"),
        false => format!("{model}"),
    };
    let mut all: Vec<_> = parts.iter().map(|(key, sum)| (name(key), sum)).collect();
    all.sort_by(|(one, first), (other, second)| {
        second.calls.cmp(&first.calls).then_with(|| one.cmp(other))
    });
    let own = if all.len() > MOST_ROWS { MOST_ROWS - 1 } else { all.len() };
    let others = all.split_off(own);
    let mut rows: Vec<_> = all.into_iter().map(|(name, sum)| Row::of(name, sum)).collect();
    if !others.is_empty() {
        let mut sum = Sum::default();
        others.iter().for_each(|(_, other)| sum.add(other));
        rows.push(Row::of(format!("{} others", others.len()), &sum));
    }
    rows
}

// === impl Row ===

impl Row {
    fn of(name: String, sum: &Sum) -> Self {
        Self {
            name,
            calls: sum.calls,
            errors: sum.errors,
            first_token: sum.first_token.quantiles(),
            duration: sum.duration.quantiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::news::News;
    use crate::report::progress::so_far::tests::ended;

    fn so_far(calls: impl IntoIterator<Item = crate::news::Ended>) -> SoFar {
        let mut so_far = SoFar::default();
        so_far.add(Duration::ZERO, News { calls: calls.into_iter().collect(), ..News::default() });
        so_far
    }

    #[test]
    fn many_models_are_the_most_asked_and_the_others() {
        let calls = (0..12_u64)
            .flat_map(|model| (0..model + 1).map(move |_| ended(&format!("model-{model}"), 1.0)));
        let rows = rows(&so_far(calls));
        let seen: Vec<_> = rows.iter().map(|row| (&*row.name, row.calls)).collect();
        assert_eq!(seen.len(), MOST_ROWS);
        assert_eq!((seen[0], seen[6]), (("model-11", 12), ("model-5", 6)));
        assert_eq!(seen[7], ("5 others", 1 + 2 + 3 + 4 + 5));
    }

    #[test]
    fn a_model_that_is_asked_in_two_ways_has_a_row_for_each() {
        let other = crate::news::Ended { route: "openai/responses".into(), ..ended("m", 1.0) };
        let rows = rows(&so_far([ended("m", 1.0), other, ended("n", 1.0)]));
        let mut names: Vec<_> = rows.iter().map(|row| &*row.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["m openai/chat", "m openai/responses", "n"]);
    }
}
