//! What a search for the capacity came to: one report, of which table, page and files are views.

mod junit;
mod markdown;
mod table;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_settings::{Metric, Objective};

use super::{Decision, Ended, Judged, Quantiles, Summary};
use crate::figures::{Strain, Strained, Tally};
use crate::plan::Plan;
use crate::search::{Load, Search};
use crate::workload::Entry;

/// How the figures of a search are to be read.
pub(in crate::report) const SEARCH_DEFINITIONS: [&str; 6] = [
    "Capacity: the load beyond which a larger share of calls misses an objective than it allows, or calls \
     pile up, however long that load lasts. It is found from the shares of all steps near it together; \
     the interval holds it with 95%.",
    "A step counts once it was let run for a while, and the next begins when all its calls have ended. \
     Those on the way up are short: they only show where the edge is about.",
    "Calls pile up where those in flight grow by more than chance from the beginning of a step to its end.",
    "Knee: of all loads the one at which calls answered each second, by how long one takes on average, are \
     the most (Kleinrock's power). Beyond, calls wait more than they are answered faster.",
    "A step in which the generator was the limit is invalid, and its load is never said to hold.",
    "The other side, where it was watched: read every second while calls of a step counted. Waiting and \
     running are calls, of all servers together; cache and GPU are shares, the mean of all servers.",
];
/// Steps whose loads differ by no more than this share are one place of the curve.
const NEIGHBOURS: f64 = 0.02;

/// What a search came to.
#[derive(Debug, Serialize)]
pub struct SearchReport {
    tool: &'static str,
    version: &'static str,
    definitions: [&'static str; SEARCH_DEFINITIONS.len()],
    /// Where the calls went.
    pub target: String,
    /// What was searched for.
    pub what: Load,
    /// When the search began.
    pub began: Timestamp,
    /// From what requests were drawn.
    pub seed: u64,
    /// What was asked.
    pub mix: Vec<Entry>,
    /// What each load had to keep.
    pub objectives: Vec<Objective>,
    /// How it ended.
    pub found: Found,
    /// What follows of it, in words.
    pub sentence: String,
    /// The capacity, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The highest load that held on the way up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<f64>,
    /// What the capacity must be at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<f64>,
    /// Whether steps near the capacity were too short for what is asked of them.
    pub is_short: bool,
    /// Where more load begins to cost more than it brings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knee: Option<Knee>,
    /// What each load came to, rising: steps of about the same load together.
    pub curve: Vec<Place>,
    /// Each step, as they came.
    pub steps: Vec<Step>,
}

/// The capacity: calls a second, or users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// As likely lower as higher.
    pub load: f64,
    /// It is no lower than this.
    pub at_least: f64,
    /// It is no higher than this.
    pub at_most: f64,
    /// How sure both bounds together are.
    pub confidence: f64,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The capacity is known as well as was asked for.
    Found,
    /// Even the highest load that might be tried holds.
    AllHold,
    /// Not even the lowest one does.
    NoneHolds,
    /// There were as many steps as there might be.
    Spent,
    /// The generator was the limit.
    Invalid,
    /// Another call might have gone beyond a cap of tokens or money.
    Capped,
    /// Somebody asked it to stop.
    Interrupted,
}

/// Whether a load held in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// It kept all objectives.
    Held,
    /// It missed one, or calls piled up.
    Missed,
    /// The step says nothing.
    Invalid,
}

/// One step of a search.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Calls a second, or users.
    pub load: f64,
    /// Whether it lies near the edge, and counts for where that is.
    #[serde(rename = "near")]
    pub is_near: bool,
    /// Whether it held, taken by itself.
    pub held: Held,
    /// What was missed, or why it says nothing.
    pub why: Vec<String>,
    /// When it began.
    pub began: Timestamp,
    /// How long it was let run before it counted.
    pub warm_up_s: f64,
    /// How long it was to count.
    pub duration_s: f64,
    /// Users that carried the calls.
    pub users: usize,
    /// How it came to its end.
    pub ended: Ended,
    /// Calls in flight, on average.
    pub in_flight: f64,
    /// By how many they grew.
    pub growth: f64,
    /// Whether it had too few calls for what its objectives ask.
    pub is_short: bool,
    /// What each objective came to in it.
    pub objectives: Vec<Judged>,
    /// How hard the other side had it while its calls counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_side: BTreeMap<Strain, Strained>,
    /// What its calls came to.
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(skip)]
    pub(crate) lacked_users: bool,
    #[serde(skip)]
    pub(crate) invalid: Option<String>,
    #[serde(skip)]
    pub(crate) shares: Vec<(f64, f64)>,
    #[serde(skip)]
    pub(crate) tally: Tally,
}

/// What steps of about the same load came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// Calls a second, or users: the mean of the steps.
    pub load: f64,
    #[serde(skip)]
    lowest: f64,
    #[serde(skip)]
    highest: f64,
    /// Steps.
    pub steps: usize,
    /// Calls.
    pub calls: u64,
    /// Whole answers each second.
    pub answered_per_s: f64,
    /// Calls in flight, on average.
    pub in_flight: f64,
    /// To the first token, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_s: Option<Quantiles>,
    /// To the last byte, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<Quantiles>,
    /// How hard the other side had it: the mean of the steps, and the most of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_side: BTreeMap<Strain, Strained>,
}

/// Where more load begins to cost more than it brings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Knee {
    /// Calls a second, or users.
    pub load: f64,
    /// How long calls took there on average, in seconds.
    pub duration_s: f64,
    /// Whole answers each second.
    pub answered_per_s: f64,
}

// === impl SearchReport ===

impl SearchReport {
    pub(crate) fn new(
        plan: &Plan,
        search: &Search,
        began: Timestamp,
        found: Found,
        capacity: Option<Capacity>,
        held: Option<f64>,
        steps: Vec<Step>,
    ) -> Self {
        let curve = curve(&steps);
        let objectives = plan.objectives.as_ref().map(|all| all.objectives.clone());
        let report = Self {
            tool: "tidegate load --search",
            version: env!("CARGO_PKG_VERSION"),
            definitions: SEARCH_DEFINITIONS,
            target: plan.target.as_str().to_owned(),
            what: search.what,
            began,
            seed: plan.seed,
            mix: plan.workload.entries().to_vec(),
            objectives: objectives.unwrap_or_default(),
            found,
            sentence: String::new(),
            capacity,
            held,
            needed: search.needed,
            is_short: steps.iter().any(|step| step.is_near && !step.is_invalid() && step.is_short),
            knee: knee(&curve),
            curve,
            steps,
        };
        Self { sentence: report.told(), ..report }
    }

    /// What it comes to, all in all.
    pub fn decision(&self) -> Decision {
        let bounds = self.bounds();
        match (self.found, self.needed) {
            (Found::Invalid, _) => Decision::Invalid,
            (Found::NoneHolds, _) => Decision::Fail,
            (_, Some(needed)) => match bounds {
                _ if self.is_short => Decision::Inconclusive,
                (Some(at_least), _) if at_least >= needed => Decision::Pass,
                (_, Some(at_most)) if at_most < needed => Decision::Fail,
                _ => Decision::Inconclusive,
            },
            (Found::Found, None) if !self.is_short => Decision::Pass,
            _ => Decision::Inconclusive,
        }
    }

    /// What is known of the other side.
    pub(in crate::report) fn strains(&self) -> Vec<Strain> {
        let is_said =
            |strain: &Strain| self.curve.iter().any(|place| place.other_side.contains_key(strain));
        Strain::ALL.into_iter().filter(is_said).collect()
    }

    /// The report as a JSON document; times in seconds.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has no key that is not text")
    }

    /// Between what the capacity surely lies.
    fn bounds(&self) -> (Option<f64>, Option<f64>) {
        match (self.capacity, self.found) {
            (Some(capacity), _) => (Some(capacity.at_least), Some(capacity.at_most)),
            (None, Found::AllHold) => (self.held, None),
            _ => (None, None),
        }
    }

    fn told(&self) -> String {
        let load = |load| load_text(load, self.what);
        let highest = || self.steps.iter().map(|step| step.load).fold(0.0, f64::max);
        let lowest = || self.steps.iter().map(|step| step.load).fold(f64::MAX, f64::min);
        let known = self.capacity.map(|capacity| {
            format!(
                "{}, between {} and {} ({:.0}% sure)",
                load(capacity.load),
                number(capacity.at_least),
                number(capacity.at_most),
                capacity.confidence * 100.0
            )
        });
        let so_far = match (&known, self.held) {
            (Some(known), _) => format!("so far it seems to be {known}"),
            (None, Some(held)) => format!("{} held", load(held)),
            (None, None) => "no load held so far".to_owned(),
        };
        let told = match (self.found, known) {
            (Found::Found, Some(known)) => format!("The capacity is {known}."),
            (Found::AllHold, _) => format!(
                "The capacity is more than {}, the highest load that might be tried (--search-to).",
                load(self.held.unwrap_or_else(highest))
            ),
            (Found::NoneHolds, _) => format!(
                "Not even {} keeps the objectives: {}.",
                load(lowest()),
                self.steps.last().map(|step| step.why.join("; ")).unwrap_or_default()
            ),
            (Found::Invalid, _) => format!(
                "The capacity is not known, as {}; {so_far}.",
                self.steps.last().map(|step| step.why.join("; ")).unwrap_or_default()
            ),
            (Found::Capped, _) => format!(
                "Ended early, as another call might have gone beyond --max-tokens or --max-cost; {so_far}."
            ),
            (Found::Interrupted, _) => format!("Interrupted; {so_far}."),
            (Found::Spent | Found::Found, _) => format!(
                "The capacity is not known as well as was asked for after {} steps; {so_far}.",
                self.steps.len()
            ),
        };
        match self.is_short {
            true => format!(
                "{told} But steps near it had too few calls for what the objectives ask: give them a longer \
                 --duration."
            ),
            false => told,
        }
    }
}

/// A load with its unit.
pub(crate) fn load_text(load: f64, what: Load) -> String {
    match what {
        Load::Rate => format!("{} calls/s", number(load)),
        Load::Users if load == 1.0 => "1 user".to_owned(),
        Load::Users => format!("{} users", number(load.floor())),
    }
}

/// A number with as many digits as a load is worth.
fn number(load: f64) -> String {
    match load {
        load if load.fract() == 0.0 => format!("{load:.0}"),
        load if load < 10.0 => format!("{load:.2}"),
        load if load < 1000.0 => format!("{load:.1}"),
        load => format!("{load:.0}"),
    }
}

/// What each load came to: steps that lie side by side are one place.
fn curve(steps: &[Step]) -> Vec<Place> {
    let mut valid: Vec<&Step> = steps.iter().filter(|step| !step.is_invalid()).collect();
    valid.sort_by(|one, other| one.load.total_cmp(&other.load));
    let is_near = |one: &&Step, other: &&Step| other.load <= one.load * (1.0 + NEIGHBOURS);
    valid.chunk_by(is_near).map(Place::of).collect()
}

fn knee(curve: &[Place]) -> Option<Knee> {
    let knees = curve.iter().filter_map(|place| {
        let duration_s = place.duration_s.as_ref()?.mean;
        Some(Knee { load: place.load, duration_s, answered_per_s: place.answered_per_s })
    });
    knees
        .filter(|knee| knee.duration_s > 0.0)
        .max_by(|one, other| one.power().total_cmp(&other.power()))
}

// === impl Knee ===

impl Knee {
    fn power(&self) -> f64 {
        self.answered_per_s / self.duration_s
    }
}

// === impl Place ===

impl Place {
    fn of(steps: &[&Step]) -> Self {
        let mut tally = Tally::default();
        steps.iter().for_each(|step| tally.add(&step.tally));
        let count = steps.len() as f64;
        let mean = |of: fn(&Step) -> f64| steps.iter().map(|step| of(step)).sum::<f64>() / count;
        let quantiles = |metric| tally.times(metric).and_then(|times| times.quantiles());
        let lasted: f64 = steps.iter().map(|step| step.duration_s).sum();
        Self {
            load: mean(|step| step.load),
            lowest: steps.iter().map(|step| step.load).fold(f64::MAX, f64::min),
            highest: steps.iter().map(|step| step.load).fold(0.0, f64::max),
            steps: steps.len(),
            calls: tally.calls(),
            answered_per_s: tally.outcomes.completed as f64 / lasted.max(f64::MIN_POSITIVE),
            in_flight: mean(|step| step.in_flight),
            time_to_first_token_s: quantiles(Metric::TimeToFirstToken),
            duration_s: quantiles(Metric::Duration),
            other_side: strain(steps),
        }
    }
}

/// How hard the other side had it in these steps, as far as they say.
fn strain(steps: &[&Step]) -> BTreeMap<Strain, Strained> {
    let of = |strain: &Strain| {
        let said: Vec<_> = steps.iter().filter_map(|step| step.other_side.get(strain)).collect();
        let most = said.iter().map(|said| said.most).reduce(f64::max)?;
        let mean = said.iter().map(|said| said.mean).sum::<f64>() / said.len() as f64;
        Some((*strain, Strained { mean, most }))
    };
    Strain::ALL.iter().filter_map(of).collect()
}

// === impl Step ===

impl Step {
    /// Whether it held.
    pub fn held(&self) -> bool {
        self.held == Held::Held
    }

    /// Whether it says nothing.
    pub fn is_invalid(&self) -> bool {
        self.held == Held::Invalid
    }
}

// === impl Held ===

impl Held {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Missed => "missed",
            Self::Invalid => "invalid",
        }
    }

    /// The class that a page has for it.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Held => "pass",
            Self::Missed => "fail",
            Self::Invalid => "invalid",
        }
    }
}

#[cfg(test)]
mod tests;
