//! Whether a run met its objectives: what was measured, between what bounds that is sure, and what
//! follows. What was not measured is never met.

mod early;
mod good;
mod interval;
mod objective;

use serde::Serialize;
use tidegate_settings::{Objective, Objectives};
use tidegate_wire::glob;

use crate::figures::Figures;
use crate::report::Ended;
use crate::schedule::Stages;

pub(crate) use early::hopeless;
pub(crate) use good::is_good;
pub(crate) use interval::{fewest, fewest_without_fault};
pub(crate) use objective::independent;

/// What the objectives of a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Of all together: one that fails is enough to fail.
    pub finding: Finding,
    /// How sure each of them is.
    pub confidence: f64,
    /// Of each, as they stand in the file.
    pub objectives: Vec<Judged>,
}

/// What can be said of something that was to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is so.
    Pass,
    /// It is not so.
    Fail,
    /// It was not measured, or not surely enough.
    Inconclusive,
}

/// What one objective came to. Times in seconds, ratios as shares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// Its name, or what it says.
    pub name: String,
    /// The objective itself.
    pub objective: Objective,
    /// What follows.
    pub finding: Finding,
    /// What was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// It is surely no less than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// It is surely no more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Of how many calls.
    pub calls: u64,
    /// Why, in words.
    pub why: String,
}

/// A run, as far as objectives look at it.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) figures: &'a Figures,
    /// Calls that were due and never sent.
    pub(crate) unsent: u64,
    /// Calls of which nothing is known: they may have been of any kind, and have taken any time.
    pub(crate) forgotten: u64,
    pub(crate) lasted_s: f64,
    /// The stages in which the load rose and fell, where it did.
    pub(crate) stages: Option<&'a Stages>,
    pub(crate) ended: Ended,
    /// Whether it was stopped, and went on.
    pub(crate) was_stopped: bool,
    /// Whether goodput was counted by the very objectives that are judged.
    pub(crate) counted_good: bool,
}

// === impl Evidence ===

impl Evidence<'_> {
    /// How long the part of the run took that an objective is about.
    fn lasted_of(&self, objective: &Objective) -> f64 {
        let (Some(stages), Some(pattern)) = (self.stages, &objective.stage) else {
            return self.lasted_s;
        };
        let of = stages.all().iter().filter(|stage| glob(pattern, &stage.name));
        of.map(|stage| stage.duration_s).sum()
    }
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn of(objectives: &Objectives, evidence: &Evidence<'_>) -> Self {
        let confidence = objectives.confidence.share();
        let judged = objectives.objectives.iter();
        let judged: Vec<_> =
            judged.map(|one| Judged::of(one, evidence, confidence).unless_cut(evidence)).collect();
        let finding = Finding::of_all(judged.iter().map(|one| one.finding));
        Self { finding, confidence, objectives: judged }
    }
}

// === impl Finding ===

impl Finding {
    /// Of several that all were to be so.
    pub(crate) fn of_all(findings: impl IntoIterator<Item = Self>) -> Self {
        findings.into_iter().fold(Self::Pass, |all, one| match (all, one) {
            (Self::Fail, _) | (_, Self::Fail) => Self::Fail,
            (Self::Inconclusive, _) | (_, Self::Inconclusive) => Self::Inconclusive,
            (Self::Pass, Self::Pass) => Self::Pass,
        })
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

// === impl Judged ===

impl Judged {
    /// Where a run was cut short, its longest calls were cut: what it met, it may have met by that.
    fn unless_cut(self, evidence: &Evidence<'_>) -> Self {
        let was_cut = matches!(evidence.ended, Ended::Interrupted | Ended::Unfinished);
        if !was_cut || self.finding != Finding::Pass {
            return self;
        }
        let why = format!("{}; but the run did not come to its end", self.why);
        Self { finding: Finding::Inconclusive, why, ..self }
    }
}

#[cfg(test)]
mod tests;
