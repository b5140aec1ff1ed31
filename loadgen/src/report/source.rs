//! The file that the calls of a run came from, as far as who reads the figures must know of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use tidegate_wire::capture::Mode;

use super::time;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::workload::{Format, Recording};

/// A file of calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name, without the folder.
    pub file: String,
    /// What wrote it.
    pub format: Format,
    /// How many files it consists of: a capture is rotated.
    pub pieces: usize,
    /// Calls that can be made.
    pub calls: u64,
    /// Calls that cannot, by the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// From the first call to the last, as they had come; absent where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_s: Option<f64>,
    /// How much faster they were made than they had come, where it was by that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Of a capture, how much of the requests was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<Mode>,
    /// Of a capture, the shares of all calls that were captured, where it was not all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<f64>,
    /// Bytes at the ends of its pieces that a crash had torn and that were left out.
    #[serde(default)]
    pub torn_bytes: u64,
}

// === impl Source ===

impl Source {
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let speed = match plan.schedule {
            Schedule::Recorded { speed } => Some(speed),
            _ => None,
        };
        Some(Self { speed, ..Self::of_recording(plan.workload.recording()?) })
    }

    fn of_recording(recording: &Recording) -> Self {
        let survey = recording.survey();
        let name = recording.path().file_name().unwrap_or_default();
        let left_out = survey.left_out.iter();
        Self {
            file: name.to_string_lossy().into_owned(),
            format: recording.format(),
            pieces: recording.pieces(),
            calls: survey.calls,
            left_out: left_out.map(|(why, calls)| ((*why).to_owned(), *calls)).collect(),
            span_s: survey.span().map(|span| span.as_secs_f64()),
            speed: None,
            modes: survey.modes.iter().copied().collect(),
            samples: survey.samples(),
            torn_bytes: survey.torn_bytes,
        }
    }

    /// All of it in words.
    pub fn sentence(&self) -> String {
        let Self { file, format, pieces, calls, torn_bytes, .. } = self;
        let mut said = format!("Calls of {file} ({format}");
        for mode in &self.modes {
            _ = write!(said, ", {}", mode.as_str());
        }
        if *pieces > 1 {
            _ = write!(said, ", {pieces} pieces");
        }
        _ = write!(said, "): {calls} calls");
        if let Some(span) = self.span_s {
            _ = write!(said, " within {}", time(Some(span)));
        }
        if !self.samples.is_empty() {
            let shares: Vec<_> =
                self.samples.iter().map(|share| format!("{}%", share * 100.0)).collect();
            _ = write!(said, ", a sample of {} of all that came", shares.join(" and "));
        }
        for (why, calls) in &self.left_out {
            _ = write!(said, "; {calls} left out: {why}");
        }
        if *torn_bytes > 0 {
            _ = write!(said, "; its end was torn, {torn_bytes} bytes were cut off");
        }
        said + "."
    }
}

impl Recording {
    /// What it is, in words.
    pub fn sentence(&self) -> String {
        Source::of_recording(self).sentence()
    }
}
