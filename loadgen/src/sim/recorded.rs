//! Answers as they were recorded: what a call that a sidecar captured took, the same call takes again.
//!
//! A call is known by its path and its body, and else by its model; of several that are alike each has
//! its turn, and the first comes again after the last. One of which nothing is known is answered as the
//! options say.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use tidegate_seal::Identities;
use tidegate_wire::{Outcome, Record, capture};

use super::overrides::{Break, Fault, Overrides};
use crate::workload::{Recording, RecordingError};

/// Calls that are kept: about 100 MB.
const MOST: usize = 1 << 20;

/// What calls of a capture took.
pub struct Recorded {
    /// By path and body, by their digest.
    calls: HashMap<u64, Turns>,
    models: HashMap<String, Turns>,
    digests: RandomState,
}

/// Calls that are alike, in the order in which they ended.
#[derive(Default)]
struct Turns {
    answers: Vec<Answer>,
    next: AtomicUsize,
}

/// What one call took.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    ttft: Duration,
    tpot: Duration,
    output_tokens: Option<u64>,
    fault: Option<Fault>,
}

// === impl Recorded ===

impl Recorded {
    /// Reads a capture, encrypted for one of these or not; of a very large one its beginning.
    pub fn read(path: &Path, identities: Identities) -> Result<Self, RecordingError> {
        let mut recorded =
            Self { calls: HashMap::new(), models: HashMap::new(), digests: RandomState::new() };
        let recording = Recording::open(path, None, identities)?;
        for entry in recording.entries()?.take(MOST) {
            recorded.take(&entry?);
        }
        Ok(recorded)
    }

    /// How many calls are known.
    pub fn calls(&self) -> usize {
        self.models.values().map(|turns| turns.answers.len()).sum()
    }

    fn take(&mut self, entry: &capture::Entry) {
        let answer = Answer::of(&entry.record);
        if let Some(body) = entry.request.bytes() {
            let digest = self.digest(&entry.request.target, &body);
            self.calls.entry(digest).or_default().answers.push(answer);
        }
        let model = entry.record.request_model.clone().unwrap_or_default();
        self.models.entry(model).or_default().answers.push(answer);
    }

    /// Has this call go as it went then, but for what the request itself asks of us.
    pub(super) fn apply(&self, overrides: &mut Overrides, target: &str, body: &[u8]) {
        let known = self.calls.get(&self.digest(target, body));
        let known = known.or_else(|| self.models.get(&model(target, body)));
        let Some(answer) = known.and_then(Turns::next) else { return };
        overrides.ttft.get_or_insert(answer.ttft);
        overrides.tpot.get_or_insert(answer.tpot);
        overrides.output_tokens = overrides.output_tokens.or(answer.output_tokens);
        overrides.fault = overrides.fault.or(answer.fault);
    }

    fn digest(&self, target: &str, body: &[u8]) -> u64 {
        self.digests.hash_one((target, body))
    }
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

/// The model that a call asks for, as a record would name it.
fn model(target: &str, body: &[u8]) -> String {
    let request = crate::workload::Request::bare(target, body.to_vec().into());
    let mut observer = tidegate_wire::Observer::new(crate::client::shape(&request, None));
    observer.request(body);
    let mut record = Record::default();
    observer.finish(tidegate_wire::Ending::NoAnswer, Duration::ZERO, &mut record);
    record.request_model.unwrap_or_default()
}

// === impl Turns ===

impl Turns {
    fn next(&self) -> Option<Answer> {
        let turn = self.next.fetch_add(1, Relaxed) % self.answers.len().max(1);
        self.answers.get(turn).copied()
    }
}

// === impl Answer ===

impl Answer {
    fn of(record: &Record) -> Self {
        let seconds = |seconds: Option<f64>| {
            seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        };
        let first = seconds(record.time_to_first_token_s);
        let whole = seconds(record.duration_s).unwrap_or_default();
        // What came in one piece had no first token that anybody saw.
        let (ttft, tpot) = match first {
            Some(first) => (first, seconds(record.time_per_output_token_s).unwrap_or_default()),
            None => (whole, Duration::ZERO),
        };
        let status = record.status.and_then(|status| StatusCode::from_u16(status).ok());
        let fault = match status {
            Some(status) if status.as_u16() >= 400 => Some(Fault::Status(status)),
            _ if record.outcome == Some(Outcome::Truncated) => Some(Fault::Midway(Break::Cut)),
            _ if record.outcome == Some(Outcome::Failed) => Some(Fault::Midway(Break::ErrorEvent)),
            _ => None,
        };
        Self { ttft, tpot, output_tokens: record.output_tokens.filter(|tokens| *tokens > 0), fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(first: Option<f64>, duration: f64, status: u16) -> Record {
        Record {
            time_to_first_token_s: first,
            time_per_output_token_s: first.map(|_| 0.01),
            duration_s: Some(duration),
            output_tokens: Some(7),
            status: Some(status),
            ..Record::default()
        }
    }

    #[test]
    fn an_answer_takes_what_it_took() {
        let streamed = Answer::of(&record(Some(0.2), 0.9, 200));
        assert_eq!(
            (streamed.ttft, streamed.tpot),
            (Duration::from_millis(200), Duration::from_millis(10))
        );
        assert_eq!((streamed.output_tokens, streamed.fault), (Some(7), None));
        let whole = Answer::of(&record(None, 0.9, 200));
        assert_eq!((whole.ttft, whole.tpot), (Duration::from_millis(900), Duration::ZERO));
        let failed = Answer::of(&record(None, 0.1, 503));
        assert_eq!(failed.fault, Some(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)));
        let cut = Record { outcome: Some(Outcome::Truncated), ..record(Some(0.1), 0.2, 200) };
        assert_eq!(Answer::of(&cut).fault, Some(Fault::Midway(Break::Cut)));
    }

    #[test]
    fn calls_that_are_alike_have_their_turns() {
        let answers = [0.1, 0.2].map(|first| Answer::of(&record(Some(first), 1.0, 200)));
        let turns = Turns { answers: answers.into(), next: AtomicUsize::new(0) };
        let firsts: Vec<_> = (0..3).filter_map(|_| turns.next()).map(|one| one.ttft).collect();
        assert_eq!(firsts, [100, 200, 100].map(Duration::from_millis));
        assert_eq!(Turns::default().next(), None);
    }

    #[test]
    fn a_model_is_found_in_path_or_body() {
        assert_eq!(model("/v1/chat/completions", br#"{"model":"gpt-4o","messages":[]}"#), "gpt-4o");
        let gemini = "/v1beta/models/gemini-2.5-flash:generateContent";
        assert_eq!(model(gemini, b"{}"), "gemini-2.5-flash");
    }
}
