//! What a run came to: one summary, of which table and JSON are two views.

mod json;
mod table;

pub(crate) mod progress;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_wire::Outcome;

use crate::recorder::{Recorder, Tally};
use crate::run::{Plan, Run};

pub use crate::recorder::{Fault, Quantiles, Tokens};
pub use table::{Grid, Table, time};

/// In an open loop, the lateness of one call in a hundred above which the generator, and not what
/// it tested, was the limit.
const LATEST_P99: Duration = Duration::from_millis(100);

/// How the figures are to be read.
pub const DEFINITIONS: [&str; 4] = [
    "Times count from when a call was due; latencies are of completed calls.",
    "Duration: to the last byte. TTFT: to the first token, reasoning included; streams only.",
    "Gap: between chunks with tokens. Tokens: as the provider stated them.",
    "USD: by the table of prices; `+` where some calls have no price there.",
];

/// What a run came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub run: Setup,
    /// Why the figures must not be used, if so.
    pub invalid: Option<String>,
    /// How late the generator was.
    pub generator: Generator,
    /// All calls.
    pub total: Summary,
    /// The same calls by model.
    pub models: Vec<ModelSummary>,
    /// Calls that did not complete, most frequent first.
    pub errors: Vec<FaultCount>,
}

/// What was run, and for how long.
#[derive(Debug, Serialize)]
pub struct Setup {
    /// Where the calls went.
    pub target: String,
    /// `closed`, `constant` or `poisson`.
    pub schedule: &'static str,
    /// Users; in an open loop, the most calls at once.
    pub users: usize,
    /// Calls that were to be made each second, where time decided.
    pub rate: Option<f64>,
    /// From what requests were drawn.
    pub seed: u64,
    /// When the run began.
    pub began: Timestamp,
    /// For how long calls were to be made.
    pub duration_s: f64,
    /// From the start to the end of the last call.
    pub lasted_s: f64,
}

/// Whether the generator itself kept up.
#[derive(Debug, Serialize)]
pub struct Generator {
    /// How long after it was due a call was sent.
    pub send_lag_s: Option<Quantiles>,
    /// Calls that were due while every user was busy.
    pub found_no_user: u64,
    /// Calls that were due and never sent.
    pub unsent: u64,
}

/// The calls of one model.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    /// The name under which they are counted.
    pub model: Arc<str>,
    /// What they came to.
    #[serde(flatten)]
    pub summary: Summary,
}

/// What some calls came to.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Calls made.
    pub calls: u64,
    /// Of these, asked for as a stream.
    pub streams: u64,
    /// Of these, by how they ended.
    pub outcomes: Outcomes,
    /// Calls each second.
    pub calls_per_s: f64,
    /// Tokens as the provider stated them.
    pub tokens: Tokens,
    /// What they cost by the table of prices, in US dollars; calls without a price are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Calls that used something without a price.
    pub unpriced: u64,
    /// Output tokens each second.
    pub output_tokens_per_s: f64,
    /// Due until the last byte.
    pub duration_s: Option<Quantiles>,
    /// Due until the first token.
    pub time_to_first_token_s: Option<Quantiles>,
    /// Due until the first token that is not reasoning.
    pub time_to_first_visible_token_s: Option<Quantiles>,
    /// From the first to the last token, by output tokens less one.
    pub time_per_output_token_s: Option<Quantiles>,
    /// Between chunks with tokens.
    pub gap_s: Option<Quantiles>,
    /// Sent until the last byte.
    pub service_duration_s: Option<Quantiles>,
    /// Sent until the first token.
    pub service_time_to_first_token_s: Option<Quantiles>,
}

/// Calls by how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Whole and without error.
    pub completed: u64,
    /// With an error, or without an answer.
    pub failed: u64,
    /// Begun and broken off.
    pub truncated: u64,
    /// Answered by a sidecar in place of the model. A load generator takes those for failed.
    pub refused: u64,
    /// Cut off by us at the end of the run.
    pub abandoned: u64,
}

/// How often something went wrong.
#[derive(Debug, Serialize)]
pub struct FaultCount {
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often.
    pub calls: u64,
}

// === impl Report ===

impl Report {
    pub(crate) fn of(run: &Run, began: Timestamp) -> Self {
        let lasted = run.lasted();
        let unsent = run.unsent();
        let recorder = run.recorder();
        let generator = Generator {
            send_lag_s: recorder.send_lag.quantiles(),
            found_no_user: run.found_no_user(),
            unsent,
        };
        Self {
            run: Setup::of(&run.plan, began, lasted),
            invalid: fault_of_ours(run, &recorder, &generator),
            generator,
            total: Summary::of(&recorder.total, lasted),
            models: recorder
                .models
                .iter()
                .map(|(model, tally)| ModelSummary {
                    model: model.clone(),
                    summary: Summary::of(tally, lasted),
                })
                .collect(),
            errors: most_frequent_first(&recorder),
        }
    }
}

/// Why this run says nothing about what it tested.
fn fault_of_ours(run: &Run, recorder: &Recorder, generator: &Generator) -> Option<String> {
    let users = run.plan.users;
    let panicked = run.panicked_users();
    if panicked > 0 {
        return Some(format!("{panicked} of {users} users were lost to a fault of the generator"));
    }
    if recorder.records_lost {
        return Some("the file of records is not whole".to_owned());
    }
    if recorder.total.calls() == 0 {
        return Some("no call was made".to_owned());
    }
    let is_unsigned = |fault: &Fault| fault.kind.starts_with("credential_");
    if !recorder.answered && recorder.errors.keys().all(is_unsigned) {
        return Some("no call could be signed".to_owned());
    }
    if !recorder.answered {
        return Some(format!("{} never answered", run.plan.target.as_str()));
    }
    // In a closed loop a late call is only a slower user.
    run.plan.schedule.rate()?;
    if generator.unsent == 0 && !generator.is_late() {
        return None;
    }
    let late = generator.p99_lag();
    let what = format!(
        "the generator was the limit: one call in a hundred was sent {late:.3} s late or more, \
         and {} were due and never sent",
        generator.unsent
    );
    Some(if generator.found_no_user > 0 {
        format!("{what}; all {users} users were busy: give it more with --users")
    } else {
        format!("{what}; this machine could not keep up: lower --rate or use a larger one")
    })
}

fn most_frequent_first(recorder: &Recorder) -> Vec<FaultCount> {
    let mut errors: Vec<_> = recorder
        .errors
        .iter()
        .map(|(fault, calls)| FaultCount { fault: fault.clone(), calls: *calls })
        .collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.calls));
    errors
}

// === impl Generator ===

impl Generator {
    /// Whether calls were sent so late that it shows in their times.
    fn is_late(&self) -> bool {
        self.p99_lag() > LATEST_P99.as_secs_f64()
    }

    fn p99_lag(&self) -> f64 {
        self.send_lag_s.map_or(0.0, |lag| lag.p99)
    }
}

// === impl Setup ===

impl Setup {
    fn of(plan: &Plan, began: Timestamp, lasted: Duration) -> Self {
        Self {
            target: plan.target.as_str().to_owned(),
            schedule: plan.schedule.as_str(),
            users: plan.users.get(),
            rate: plan.schedule.rate(),
            seed: plan.seed,
            began,
            duration_s: plan.duration.as_secs_f64(),
            lasted_s: lasted.as_secs_f64(),
        }
    }
}

// === impl Summary ===

impl Summary {
    fn of(tally: &Tally, lasted: Duration) -> Self {
        let per_s = |count: u64| match lasted.as_secs_f64() {
            0.0 => 0.0,
            seconds => count as f64 / seconds,
        };
        Self {
            calls: tally.calls(),
            streams: tally.streams,
            outcomes: Outcomes::of(tally),
            calls_per_s: per_s(tally.calls()),
            tokens: tally.tokens,
            cost_usd: tally.cost,
            unpriced: tally.unpriced,
            output_tokens_per_s: per_s(tally.tokens.output.unwrap_or(0)),
            duration_s: tally.duration.quantiles(),
            time_to_first_token_s: tally.first_token.quantiles(),
            time_to_first_visible_token_s: tally.first_visible_token.quantiles(),
            time_per_output_token_s: tally.per_output_token.quantiles(),
            gap_s: tally.gap.quantiles(),
            service_duration_s: tally.service_duration.quantiles(),
            service_time_to_first_token_s: tally.service_first_token.quantiles(),
        }
    }

    /// Calls that did not complete, but for those that we cut off ourselves.
    pub fn errors(&self) -> u64 {
        self.calls - self.outcomes.completed - self.outcomes.abandoned
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn of(tally: &Tally) -> Self {
        Self {
            completed: tally.count(Outcome::Completed),
            failed: tally.count(Outcome::Failed),
            truncated: tally.count(Outcome::Truncated),
            refused: tally.count(Outcome::Refused),
            abandoned: tally.count(Outcome::Abandoned),
        }
    }
}
