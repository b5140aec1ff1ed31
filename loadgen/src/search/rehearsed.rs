//! Searches in virtual time against the model of the simulator, whose capacity is known.

use std::time::Duration;

use tidegate_settings::Objectives;

use super::backlog;
use super::course::{Bounds, Course, Next, Place, Seen};
use super::goals::Goals;
use super::pace::Pace;
use crate::sim::{Options, Rehearsal, Truth};
use crate::workload::Mix;

/// A server and what it must keep.
struct Case {
    options: Options,
    objectives: Objectives,
}

/// What a rehearsed search came to.
struct Rehearsed {
    place: Place,
    is_found: bool,
    /// How long it would have taken.
    took: Duration,
    steps: u64,
}

impl Case {
    fn new(capacity: usize, ttft_ms: u64, tpot_ms: u64, output_tokens: u64, list: &str) -> Self {
        let options = Options {
            ttft: Duration::from_millis(ttft_ms),
            tpot: Duration::from_millis(tpot_ms),
            output_tokens,
            capacity,
            ..Options::default()
        };
        let objectives = Objectives::parse(&format!("objectives: [{list}]"));
        Self { options, objectives: objectives.expect("good objectives") }
    }

    fn truth(&self) -> f64 {
        let mix = Mix::of_model("gpt-4o");
        let truth = Truth::of(&self.options, &mix, &self.objectives, 300_000);
        truth.expect("they can be searched by").rate
    }

    fn search(&self, seed: u64) -> Rehearsed {
        let mix = Mix::of_model("gpt-4o");
        let goals = Goals::of(&self.objectives).expect("goals");
        let rehearsal = Rehearsal::new(&self.options, &mix, &goals).expect("it is modelled");
        let bounds =
            Bounds { from: 1.0, most: 1e4, precision: 0.05, steps: 60, is_of_users: false };
        let mut course = Course::new(bounds, &goals);
        let service =
            self.options.ttft + self.options.tpot * (self.options.output_tokens as u32 - 1);
        let (mut pace, mut took, mut steps) = (Pace::new(&goals, None, None), Duration::ZERO, 0);
        while let Next::Try { load, is_near } = course.next() {
            let (warm_up, length) = pace.of(load, is_near);
            steps += 1;
            let outcomes = rehearsal.step(load, (warm_up, length), seed * 1000 + steps);
            let shares = outcomes.scores.iter().map(|(did, all)| ((all - did) as f64, *all as f64));
            let looks = outcomes.in_flight(warm_up, warm_up + length);
            let growth = Some((backlog::growth(&looks), load * length.as_secs_f64()));
            course.learn(Seen { load, is_near, shares: shares.collect(), growth });
            pace.learn(load, load, service, 1.0);
            took += warm_up + length + service;
        }
        let place = course.place().expect("there was an edge");
        Rehearsed { place, is_found: course.next() == Next::Found, took, steps }
    }
}

/// How many of ten searches came within 5 % of the truth, and how many intervals held it.
fn ten(case: &Case) -> (usize, usize) {
    let truth = case.truth();
    let searches: Vec<_> = (0..10).map(|seed| case.search(seed)).collect();
    let told: Vec<_> = searches.iter().map(|one| (one.place, one.steps, one.took)).collect();
    println!("{truth:.2}: {told:?}");
    let is_near = |one: &&Rehearsed| (one.place.load / truth - 1.0).abs() < 0.05;
    let holds = |one: &&Rehearsed| (one.place.at_least..=one.place.at_most).contains(&truth);
    assert!(searches.iter().all(|one| one.is_found || one.steps == 60));
    (searches.iter().filter(is_near).count(), searches.iter().filter(holds).count())
}

#[test]
fn nine_of_ten_come_within_five_percent_of_a_rate_that_times_bound() {
    let case =
        Case::new(16, 100, 10, 16, "{ metric: time_to_first_token, quantile: 0.95, below: 300ms }");
    let (near, held) = ten(&case);
    assert!(near >= 9 && held >= 8, "{near} of 10 near, {held} within their bounds");
}

#[test]
fn so_they_do_where_only_calls_that_pile_up_tell_that_a_rate_is_too_high() {
    // Ten seconds are never reached within a step: what comes beyond the sequences only waits longer.
    let case = Case::new(16, 100, 10, 16, "{ metric: duration, quantile: 0.9, below: 10s }");
    let (near, held) = ten(&case);
    assert!(near >= 9 && held >= 8, "{near} of 10 near, {held} within their bounds");
}

#[test]
fn so_they_do_where_the_share_of_good_calls_bounds_it() {
    let list = "{ metric: goodput, above: 95% }, { metric: duration, quantile: 0.5, below: 400ms }";
    let (near, held) = ten(&Case::new(16, 100, 10, 16, list));
    assert!(near >= 9 && held >= 8, "{near} of 10 near, {held} within their bounds");
}
