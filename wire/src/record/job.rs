//! A long-running operation, as its submit or one of its polls shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::line::Line;

/// A long-running operation. Its name ties the submit and all polls together, whichever sidecar
/// saw them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Its name.
    #[serde(rename = "tidegate.job.name", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it is done.
    #[serde(rename = "tidegate.job.done", skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
    /// How it came out, once it is done.
    #[serde(rename = "tidegate.job.outcome", skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JobOutcome>,
    /// When it was submitted, as the operation itself says.
    #[serde(rename = "tidegate.job.created", skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it ended, as the operation itself says.
    #[serde(rename = "tidegate.job.ended", skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Submit to done, in seconds: stated by the operation, else as this sidecar saw both.
    #[serde(rename = "tidegate.job.duration_s", skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Whether this call is the first that tells how it came out. No key: for sums.
    #[serde(skip)]
    pub ends_here: bool,
    /// Polls of it that this sidecar has seen, this one included.
    #[serde(rename = "tidegate.job.polls", skip_serializing_if = "Option::is_none")]
    pub polls: Option<u64>,
    /// The length that the submit asks for of each video, in seconds.
    #[serde(rename = "tidegate.job.video_length_s", skip_serializing_if = "Option::is_none")]
    pub video_length_s: Option<f64>,
    /// Videos that the submit asks for, where it says how many.
    #[serde(rename = "tidegate.job.video_count", skip_serializing_if = "Option::is_none")]
    pub video_count: Option<u64>,
}

/// How a long-running operation came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// It made what was asked for.
    Succeeded,
    /// It ended with an error.
    Failed,
    /// It ended without one, and all that it made was withheld.
    Filtered,
}

// === impl Job ===

impl Job {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.text("tidegate.job.name", Some(self.name.as_str()).filter(|name| !name.is_empty()));
        line.plain("tidegate.job.done", self.done);
        line.text("tidegate.job.outcome", self.outcome.map(JobOutcome::as_str));
        line.quoted("tidegate.job.created", self.created);
        line.quoted("tidegate.job.ended", self.ended);
        line.seconds("tidegate.job.duration_s", self.duration_s);
        line.plain("tidegate.job.polls", self.polls);
        line.seconds("tidegate.job.video_length_s", self.video_length_s);
        line.plain("tidegate.job.video_count", self.video_count);
    }
}

// === impl JobOutcome ===

impl JobOutcome {
    /// The word that stands in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Filtered => "filtered",
        }
    }
}
