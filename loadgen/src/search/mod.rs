//! The search for the capacity of a target: the highest rate, or the most users, that keeps all
//! objectives.
//!
//! A search is a row of runs, its steps, each at one load. The load grows until it is too much, then steps
//! lie around the edge until that is known ([`course`], [`edge`]). Each step is let run before it counts,
//! and the next one begins when all calls of the last have ended. A step in which the generator was the
//! limit says nothing.

mod backlog;
mod course;
mod edge;
mod goals;
mod pace;
#[cfg(test)]
mod rehearsed;
mod step;

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use crate::budget::Budget;
use crate::interrupts;
use crate::plan::Plan;
use crate::report::{Capacity, Ended, Found, SearchReport, Step, load_text};
use crate::run::{Error, Outcome, carry_out};
use crate::schedule::Schedule;
use crate::screen::stderr;
use course::{Bounds, Course, Next, Place};
use pace::Pace;

use course::SURE;
pub(crate) use goals::Goals;
pub use goals::Unsearchable;

/// Steps in a row that may say nothing before the search gives up.
const MOST_INVALID: usize = 5;
/// So much longer each is waited after one: a machine that was busy may be less so in a while.
const RECOVERY: Duration = Duration::from_secs(5);

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// What is to be found.
    pub what: Load,
    /// The first load.
    pub from: f64,
    /// No load is above this one.
    pub most: f64,
    /// To what share of itself the capacity is to be known.
    pub precision: f64,
    /// Steps, at most.
    pub steps: usize,
    /// How long each counts; as long as its objectives need where absent.
    pub step: Option<Duration>,
    /// How long each is let run before; as long as calls need to fill the target where absent.
    pub warm_up: Option<Duration>,
    /// Between two steps.
    pub pause: Duration,
    /// Of a rate, the most calls at once.
    pub most_users: usize,
    /// What the capacity must be at least, if it must.
    pub needed: Option<f64>,
}

/// What a load is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Calls a second, in an open loop.
    Rate,
    /// Users, in a closed loop.
    Users,
}

/// A search on its way.
struct Walk {
    plan: Plan,
    search: Search,
    goals: Goals,
    course: Course,
    pace: Pace,
    budget: Arc<Budget>,
    /// Users that steps at a rate have at least, as fewer were too few.
    fewest_users: usize,
    invalid: usize,
    steps: Vec<Step>,
}

/// Searches for the capacity of a plan's target, under its calls and by its objectives.
pub async fn search(plan: Plan, search: Search) -> Result<SearchReport, Error> {
    let began = Timestamp::now();
    let mut walk = Walk::new(plan, search)?;
    let found = loop {
        match walk.course.next() {
            Next::Try { load, is_near } => {
                if let Some(ended) = walk.step(load, is_near).await? {
                    break ended;
                }
            }
            Next::Found => break Found::Found,
            Next::AllHold => break Found::AllHold,
            Next::NoneHolds => break Found::NoneHolds,
            Next::Spent => break Found::Spent,
        }
    };
    Ok(walk.report(found, began))
}

// === impl Walk ===

impl Walk {
    fn new(plan: Plan, search: Search) -> Result<Self, Error> {
        let objectives = plan.objectives.as_ref().ok_or(Unsearchable::NoObjectives)?;
        let goals = Goals::of(objectives)?;
        let bounds = Bounds {
            from: search.from,
            most: search.most,
            precision: search.precision,
            steps: search.steps,
            is_of_users: search.what == Load::Users,
        };
        Ok(Self {
            course: Course::new(bounds, &goals),
            pace: Pace::new(&goals, search.step, search.warm_up),
            budget: Arc::new(Budget::new(plan.caps)),
            fewest_users: 0,
            invalid: 0,
            steps: Vec::new(),
            plan: Plan { objectives: Some(goals.objectives().clone()), ..plan },
            goals,
            search,
        })
    }

    /// Makes one step; says so where the search ends by it.
    async fn step(&mut self, load: f64, is_near: bool) -> Result<Option<Found>, Error> {
        let pause = self.search.pause + RECOVERY * self.invalid as u32;
        if !self.steps.is_empty() && self.was_interrupted_in(pause).await {
            return Ok(Some(Found::Interrupted));
        }
        let plan = self.plan_of(load, is_near);
        let outcome = carry_out(plan.clone(), self.budget.clone()).await?;
        match outcome.report.ended {
            Ended::Interrupted | Ended::Unfinished => return Ok(Some(Found::Interrupted)),
            Ended::Capped => return Ok(Some(Found::Capped)),
            Ended::Complete | Ended::Hopeless => {}
        }
        let step = self.judged(load, is_near, &plan, outcome);
        // A closed standard error is no reason to end a search.
        let _ = writeln!(stderr(), "{}", step.sentence(self.search.what));
        let gives_up = self.learn(&step, plan.users.get());
        self.steps.push(step);
        Ok(gives_up)
    }

    /// What a step came to.
    fn judged(&self, load: f64, is_near: bool, plan: &Plan, outcome: Outcome) -> Step {
        let step = Step::of(load, is_near, plan.warm_up, outcome, &self.goals);
        let piled_up = self.pace.piled_up(load);
        let is_rate = self.search.what == Load::Rate;
        step.judged(is_rate.then_some(piled_up), &self.course, &self.goals)
    }

    /// Takes in what a step came to; says so where nothing more can be learnt.
    fn learn(&mut self, step: &Step, users: usize) -> Option<Found> {
        if step.is_invalid() {
            self.course.waste();
            if step.lacked_users && users < self.search.most_users {
                self.fewest_users = users * 2;
                return None;
            }
            self.invalid += 1;
            let is_over = step.lacked_users || self.invalid >= MOST_INVALID;
            return is_over.then_some(Found::Invalid);
        }
        self.invalid = 0;
        self.course.learn(step.seen());
        if step.held() {
            let (calls_per_s, duration, rarest) = step.pace();
            self.pace.learn(step.load, calls_per_s, duration, rarest);
        }
        None
    }

    /// The run that a step is.
    fn plan_of(&self, load: f64, is_near: bool) -> Plan {
        let (warm_up, duration) = self.pace.of(load, is_near);
        let (schedule, users) = match self.search.what {
            Load::Rate => {
                let users = self.pace.users(load, self.search.most_users).max(self.fewest_users);
                (Schedule::Poisson { rate: load }, users.min(self.search.most_users))
            }
            Load::Users => (Schedule::Closed, load as usize),
        };
        // Near the edge chance alone makes a step look lost; it is ended where it is lost by far.
        let lost_by = if is_near { self.goals.by_far() } else { self.goals.objectives().clone() };
        Plan {
            users: NonZeroUsize::new(users).unwrap_or(NonZeroUsize::MIN),
            warm_up,
            duration,
            schedule,
            // Other prompts each time: what was asked before may be answered from a cache.
            seed: self.plan.seed.wrapping_add(self.steps.len() as u64),
            lost_by: Some(lost_by),
            step: Some(self.step_text(load)),
            ..self.plan.clone()
        }
    }

    /// Which step it is that is to come, and what is known before it.
    fn step_text(&self, load: f64) -> String {
        let (number, most) = (self.steps.len() + 1, self.search.steps);
        let text = |load| load_text(load, self.search.what);
        let known = match (self.course.place(), self.course.held(), self.course.missed()) {
            (Some(place), ..) => format!(
                "the capacity seems to be {}, between {} and {}",
                text(place.load),
                text(place.at_least),
                text(place.at_most)
            ),
            (None, Some(held), Some(missed)) => {
                format!("{} held, {} did not", text(held), text(missed))
            }
            (None, Some(held), None) => format!("{} held", text(held)),
            (None, None, Some(missed)) => format!("{} did not hold", text(missed)),
            (None, None, None) => "nothing is known yet".to_owned(),
        };
        format!("step {number} of {most} at most, {}: {known}", text(load))
    }

    /// Waits, and says whether somebody asked to stop meanwhile.
    async fn was_interrupted_in(&self, pause: Duration) -> bool {
        let mut asked_to_stop = interrupts();
        asked_to_stop.mark_unchanged();
        tokio::select! {
            () = sleep(pause) => false,
            _ = asked_to_stop.changed() => true,
        }
    }

    fn report(self, found: Found, began: Timestamp) -> SearchReport {
        let held = self.course.held();
        let capacity = self.course.place().map(|place| {
            let Place { at_least, load, at_most } = place;
            // Of users the most that hold are a whole number.
            let load = if self.search.what == Load::Users { load.floor() } else { load };
            Capacity { load, at_least, at_most, confidence: SURE }
        });
        SearchReport::new(&self.plan, &self.search, began, found, capacity, held, self.steps)
    }
}
