//! What a run came to: one report, of which table, page and files are views.

mod document;
mod hlog;
mod html;
mod junit;
mod k6;
mod markdown;
mod merge;
mod other_side;
mod search;
mod source;
mod summary;
mod table;
mod validity;
mod vllm;

pub(crate) mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_settings::Objectives;

use crate::budget::Spent;
use crate::figures::{Figures, Tally};
use crate::plan::Plan;
use crate::run::Run;
use crate::schedule::Stages;
use crate::verdict::Evidence;
use crate::workload::Entry;

pub use crate::compare::{Change, Compared, Comparison};
pub use crate::figures::{Fault, FaultCount, Kind, Outcomes, Quantiles, Strain, Strained, Tokens};
pub use crate::verdict::{Finding, Judged, Verdict};
pub use document::Unreadable;
pub use merge::Unmergeable;
pub use other_side::{Places, Watching};
pub use search::{Capacity, Found, Held, Knee, SearchReport, Step};
pub use source::Source;
pub use summary::{Part, Summary};

pub(crate) use search::load_text;
pub(crate) use summary::ratio;
pub use table::{Grid, Table, time};

/// How the figures are to be read.
pub const DEFINITIONS: [&str; 7] = [
    "Times count from when a call was due, those of `service_` from when it was sent; send lag is what \
     lies between. They end as bytes arrive at this machine; read lag is the longest that any of an \
     answer then lay unread. They are of whole answers: a refusal is no fast answer.",
    "Duration: to the last byte. TTFT: to the first token, reasoning included; visible leaves it out; \
     streams only. A token is a chunk with text, reasoning or arguments of a tool.",
    "Gap: between chunks with tokens. Time per output token: from the first to the last, by output \
     tokens less one. Tokens: as the provider stated them.",
    "Error ratio: failed by the upstream, a sidecar or a quota (429 too), and truncated, by all calls \
     but those abandoned or failed by the request itself.",
    "Goodput: completed calls for which every objective that applies was measured and met, by calls due.",
    "Quantiles are to three digits. USD: by the table of prices; `+` where some calls have no price there.",
    "A run is invalid where the generator was the limit: at a rate, p99 of its send or read lag over \
     100 ms, or more than one call in a hundred due while all users were busy; in a closed loop, over 1 s.",
];

/// What a run came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub run: Setup,
    /// How it came to its end.
    pub ended: Ended,
    /// Why the figures must not be used, if so.
    pub invalid: Option<String>,
    /// How late the generator was.
    pub generator: Generator,
    /// What the objectives came to, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How it compares with other runs of the same load, where it was to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// All calls.
    pub total: Summary,
    /// The same calls by model.
    pub models: Vec<Part>,
    /// The same calls by route.
    pub routes: Vec<Part>,
    /// The same calls by stage.
    pub stages: Vec<Part>,
    /// Calls in trouble, most frequent first.
    pub errors: Vec<FaultCount>,
    /// Where the time of calls went, where a sidecar was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub places: Option<Places>,
    /// What metrics of the other side said, where they were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_side: Vec<Watching>,
    /// The objectives by which goodput was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    slo: Option<Objectives>,
    /// What all of the above follows from, in a form that adds up.
    #[serde(serialize_with = "document::on_one_line")]
    pub(crate) figures: Figures,
}

/// What a team may go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All that was to be so is so, if anything was.
    Pass,
    /// Something is not so.
    Fail,
    /// Something was not measured, or not surely enough.
    Inconclusive,
    /// The run itself was at fault.
    Invalid,
}

/// What was run, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Drawn by chance, one for each run that is joined here: no two runs have the same.
    pub ids: Vec<String>,
    /// Where the calls went.
    pub target: String,
    /// `closed`, `constant`, `poisson` or `recorded`.
    pub schedule: String,
    /// The file that the calls came from, where they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Source>,
    /// Users; in an open loop, the most calls at once.
    pub users: usize,
    /// Calls that were to be made each second, where time decided.
    pub rate: Option<f64>,
    /// The stages in which the load rose and fell, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<Stages>,
    /// From what requests were drawn.
    pub seed: u64,
    /// What was asked.
    pub mix: Vec<Entry>,
    /// When the run began.
    pub began: Timestamp,
    /// For how long calls were to be made that count.
    pub duration_s: f64,
    /// For how long others were made before, which are in no figure.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warm_up_s: f64,
    /// From the start to the end of the last call.
    pub lasted_s: f64,
    /// How often it went on after it had been stopped.
    #[serde(default, skip_serializing_if = "is_never")]
    pub resumed: u32,
    /// How much of its time is over, what does not count included: from there it can go on.
    #[serde(default)]
    pub done_s: f64,
}

/// How a run came to its end; further down, the more is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// When its time was over.
    Complete,
    /// An objective could no longer be met.
    Hopeless,
    /// Another call might have gone beyond a cap of tokens or money.
    Capped,
    /// Somebody asked it to stop.
    Interrupted,
    /// It has not: this is how far it has come.
    Unfinished,
}

/// Whether the generator itself kept up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// How long after it was due a call was sent.
    #[serde(skip_deserializing)]
    pub send_lag_s: Option<Quantiles>,
    /// Of each whole answer, the longest that anything of it lay here unread. The times of calls leave
    /// it out, but what follows an answer is later by it.
    #[serde(skip_deserializing)]
    pub read_lag_s: Option<Quantiles>,
    /// Calls that were due while every user was busy.
    pub found_no_user: u64,
    /// Calls that were due and never sent.
    pub unsent: u64,
    /// Users that were lost to a fault of ours.
    pub lost_users: u64,
    /// Whether some record could not be written.
    pub records_lost: bool,
    /// Calls that were under way when this was written: nothing is known of them yet.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub under_way: u64,
    /// Calls that were under way when a run was killed, which went on then: nothing is known of them.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub forgotten: u64,
    /// What was spent, where the run had caps.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub spent: Spent,
    /// Whether calls are missing because their file could not be read on.
    #[serde(default)]
    pub source_lost: bool,
}

// === impl Report ===

impl Report {
    /// The report of a run, as far as it has come.
    pub(crate) fn of(run: &Run, id: &str, began: Timestamp) -> Self {
        let (lasted, done) = (run.lasted(), run.done());
        let recorder = run.recorder();
        let generator = Generator {
            send_lag_s: None,
            read_lag_s: None,
            found_no_user: run.found_no_user(),
            unsent: run.unsent(),
            lost_users: run.lost_users(),
            records_lost: recorder.records_lost,
            under_way: run.in_flight(),
            forgotten: run.forgotten(),
            spent: run.spent(),
            source_lost: run.lost_its_file(),
        };
        let setup = Setup::of(&run.plan, id, began, lasted, done);
        let slo = run.plan.objectives.clone();
        Self::new(setup, run.ended(), generator, slo, recorder.figures.clone())
    }

    fn new(
        run: Setup,
        ended: Ended,
        generator: Generator,
        slo: Option<Objectives>,
        figures: Figures,
    ) -> Self {
        let lasted = Duration::from_secs_f64(run.lasted_s.max(0.0));
        let total = figures.total();
        let good = |tally: &Tally, unsent| {
            slo.as_ref().and_then(|_| summary::ratio(tally.good, tally.calls() + unsent))
        };
        let part = |(name, tally): (Arc<str>, Tally)| {
            let summary = Summary { goodput: good(&tally, 0), ..Summary::of(&tally, lasted) };
            Part { name, summary }
        };
        let parts =
            |parts: BTreeMap<Arc<str>, Tally>| parts.into_iter().map(part).collect::<Vec<_>>();
        let generator = Generator {
            send_lag_s: figures.send_lag().quantiles(),
            read_lag_s: figures.read_lag.quantiles(),
            ..generator
        };
        let mut report = Self {
            ended,
            invalid: validity::fault_of_ours(&run, &figures, &generator),
            total: Summary {
                goodput: good(&total, generator.unsent + generator.forgotten),
                ..Summary::of(&total, lasted)
            },
            generator,
            verdict: None,
            comparison: None,
            models: parts(figures.by(|key| key.model.clone())),
            routes: parts(figures.by(|key| key.route.clone())),
            stages: stages(&run, figures.by(|key| key.stage.clone()), &good),
            errors: figures.faults.counts(),
            places: Places::of(&figures.joined),
            other_side: Watching::of(&figures.watched),
            run,
            slo,
            figures,
        };
        if let Some(own) = report.slo.clone() {
            report.judge(&own);
        }
        report
    }

    /// Holds the run against these objectives.
    pub fn judge(&mut self, objectives: &Objectives) {
        let evidence = Evidence {
            figures: &self.figures,
            unsent: self.generator.unsent,
            forgotten: self.generator.forgotten,
            lasted_s: self.run.lasted_s,
            stages: self.run.stages.as_ref(),
            ended: self.ended,
            was_stopped: self.run.resumed > 0,
            counted_good: self
                .slo
                .as_ref()
                .is_some_and(|own| own.objectives == objectives.objectives),
        };
        self.verdict = Some(Verdict::of(objectives, &evidence));
    }

    /// Holds the run against others of the same load, if there are any.
    pub fn compare(&mut self, baseline: &[Self]) {
        if baseline.is_empty() {
            return;
        }
        let ids = baseline.iter().flat_map(|report| report.run.ids.clone()).collect();
        let differs = baseline.iter().find_map(|report| merge::difference_of_load(report, self));
        self.comparison = Some(match differs {
            Some(what) => Comparison::none(ids, &format!("its {what} was another one")),
            None if self.invalid.is_some() => Comparison::none(ids, "this run is invalid"),
            None if baseline.iter().any(|report| report.invalid.is_some()) => {
                Comparison::none(ids, "it was an invalid run")
            }
            None => {
                let figures: Vec<_> = baseline.iter().map(|report| &report.figures).collect();
                Comparison::of(ids, &figures, &self.figures)
            }
        });
    }

    /// What a reader must know of a run that was stopped and went on.
    pub(crate) fn pauses(&self) -> Option<String> {
        let (times, forgotten) = (self.run.resumed, self.generator.forgotten);
        (times > 0).then(|| {
            format!(
                "The run was stopped and went on, {times} times; of {forgotten} calls that were under way \
                 then nothing is known."
            )
        })
    }

    /// What it comes to, all in all.
    pub fn decision(&self) -> Decision {
        if self.invalid.is_some() {
            return Decision::Invalid;
        }
        let verdict = self.verdict.as_ref().map(|verdict| verdict.finding);
        let change = self.comparison.as_ref().map(|comparison| comparison.finding);
        match (verdict, change) {
            (Some(Finding::Fail), _) | (_, Some(Change::Worse)) => Decision::Fail,
            (Some(Finding::Inconclusive), _) | (_, Some(Change::Unknown)) => Decision::Inconclusive,
            _ => Decision::Pass,
        }
    }
}

// === impl Setup ===

impl Setup {
    fn of(plan: &Plan, id: &str, began: Timestamp, lasted: Duration, done: Duration) -> Self {
        let before = plan.resume.as_ref().map_or_else(Vec::new, |resume| resume.ids.clone());
        Self {
            ids: before.into_iter().chain([id.to_owned()]).collect(),
            target: plan.target.as_str().to_owned(),
            schedule: plan.schedule.as_str().to_owned(),
            from: Source::of(plan),
            users: plan.users.get(),
            stages: plan.stages.as_deref().cloned(),
            rate: plan.schedule.rate().map(|rate| rate / plan.shard.count() as f64),
            seed: plan.seed,
            mix: plan.workload.entries().to_vec(),
            began,
            duration_s: plan.duration.as_secs_f64(),
            warm_up_s: plan.warm_up.as_secs_f64(),
            lasted_s: lasted.as_secs_f64(),
            resumed: plan.resume.as_ref().map_or(0, |resume| resume.resumed + 1),
            done_s: done.as_secs_f64(),
        }
    }
}

/// The calls of each stage, in the order of time; each by the time that its stage took.
fn stages(
    run: &Setup,
    mut tallies: BTreeMap<Arc<str>, Tally>,
    good: &dyn Fn(&Tally, u64) -> Option<f64>,
) -> Vec<Part> {
    let part = |name, tally: &Tally, seconds: f64| {
        let summary = Summary::of(tally, Duration::from_secs_f64(seconds.max(0.0)));
        Part { name, summary: Summary { goodput: good(tally, 0), ..summary } }
    };
    let planned = run.stages.iter().flat_map(|stages| stages.all());
    let mut parts: Vec<_> = planned
        .filter_map(|stage| {
            let tally = tallies.remove(&stage.name)?;
            Some(part(stage.name.clone(), &tally, stage.duration_s))
        })
        .collect();
    parts.extend(tallies.into_iter().map(|(name, tally)| part(name, &tally, run.lasted_s)));
    parts
}

fn is_nothing(spent: &Spent) -> bool {
    *spent == Spent::default()
}

fn is_never(times: &u32) -> bool {
    *times == 0
}

fn is_none_left(calls: &u64) -> bool {
    *calls == 0
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

// === impl Ended ===

impl Ended {
    /// What a reader of the figures must know of it.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Complete => "The run took its whole time.",
            Self::Interrupted => {
                "INTERRUPTED: the calls that took longest were cut, so the times are those of the \
                 shorter ones."
            }
            Self::Capped => {
                "ENDED EARLY: another call might have gone beyond --max-tokens or --max-cost."
            }
            Self::Hopeless => "ENDED EARLY: an objective could no longer be met.",
            Self::Unfinished => "UNFINISHED: this was written while the run went on.",
        }
    }
}

// === impl Decision ===

impl Decision {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Invalid => "invalid",
        }
    }
}

#[cfg(test)]
mod tests;
