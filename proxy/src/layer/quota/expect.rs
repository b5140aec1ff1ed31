//! How much a call may be expected to use, before and after it is known.
//!
//! It is learned by model, from calls whose provider stated the usage of the whole. Until some were
//! seen, a byte of a request is a quarter of a token, and an answer has 1,024.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tidegate_wire::{Outcome, Record, UsageSource};

/// What calls use, as far as it was learned.
#[derive(Debug, Default)]
pub(super) struct Expectations(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    models: FxHashMap<Box<str>, Usual>,
    /// For all other models.
    others: Usual,
}

/// What calls to one model use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usual {
    /// By a byte of the request.
    input: Mean,
    /// By a call.
    output: Mean,
    /// By a byte of the answer of a stream.
    streamed: Mean,
}

/// The tokens that one call may be expected to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) input: u64,
    pub(super) output: u64,
}

/// The mean of what was seen, the last ones before all.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    mean: f64,
    seen: u32,
}

/// Tokens of a byte of text, as a rule of thumb.
const TOKENS_PER_BYTE: f64 = 0.25;
/// Tokens of a request of which nobody knows how long it is.
const INPUT: u64 = 1_000;
/// Tokens of an answer, where nothing is known of it.
const OUTPUT: u64 = 1_024;
/// No request has more, however long it is: it holds images, then.
const MOST_INPUT: u64 = 1 << 20;
/// Models that are told apart.
const MODELS: usize = 256;
/// A mean goes by about as many calls.
const MEMORY: f64 = 32.0;

// === impl Expectations ===

impl Expectations {
    /// What is usual for a model.
    pub(super) fn of(&self, model: Option<&str>) -> Usual {
        let learned = self.lock();
        *model.and_then(|model| learned.models.get(model)).unwrap_or(&learned.others)
    }

    /// Learns from a call that is over.
    pub(super) fn see(&self, record: &Record) {
        if !is_whole(record) {
            return;
        }
        let mut learned = self.lock();
        learned.of(record.request_model.as_deref()).see(record);
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learned {
    /// Only names that a provider has answered come here, so none is made up to fill the room.
    fn of(&mut self, model: Option<&str>) -> &mut Usual {
        let Some(model) = model else { return &mut self.others };
        let has_room = self.models.len() < MODELS;
        if !self.models.contains_key(model) && has_room {
            self.models.insert(model.into(), Usual::default());
        }
        self.models.get_mut(model).unwrap_or(&mut self.others)
    }
}

/// Whether a record says all that its call used.
fn is_whole(record: &Record) -> bool {
    record.usage_source == Some(UsageSource::Reported) && record.outcome == Some(Outcome::Completed)
}

// === impl Usual ===

impl Usual {
    pub(super) fn see(&mut self, record: &Record) {
        let per_byte = |tokens: Option<u64>, bytes: Option<u64>| {
            let bytes = bytes.filter(|bytes| *bytes > 0)?;
            Some(tokens? as f64 / bytes as f64)
        };
        self.input.see(per_byte(record.input_tokens, record.request_bytes));
        self.output.see(record.output_tokens.map(|tokens| tokens as f64));
        if record.stream == Some(true) {
            self.streamed.see(per_byte(record.output_tokens, record.response_bytes));
        }
    }

    /// Tokens of a request of this length.
    pub(super) fn input(&self, bytes: Option<u64>) -> u64 {
        let each = self.input.value().unwrap_or(TOKENS_PER_BYTE);
        let input = bytes.map_or(INPUT, |bytes| (bytes as f64 * each).ceil() as u64);
        input.min(MOST_INPUT)
    }

    /// Tokens of an answer, of which the request itself allows so many.
    pub(super) fn output(&self, most: Option<u64>) -> u64 {
        let usual = self.output.value().map_or(OUTPUT, |mean| mean.ceil() as u64);
        usual.min(most.unwrap_or(u64::MAX))
    }

    /// Whether anything was learned of answers.
    pub(super) fn is_known(&self) -> bool {
        self.output.value().is_some()
    }

    /// Tokens of as much of a stream as was delivered: no fewer than came in chunks of their own.
    pub(super) fn delivered(&self, record: &Record) -> u64 {
        let chunks = record.token_chunks.unwrap_or(0);
        let each = self.streamed.value().filter(|_| chunks > 0);
        let bytes = record.response_bytes.unwrap_or(0) as f64;
        chunks.max(each.map_or(0, |each| (bytes * each).ceil() as u64))
    }
}

// === impl Mean ===

impl Mean {
    fn see(&mut self, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        self.seen = self.seen.saturating_add(1);
        self.mean += (value - self.mean) / f64::from(self.seen).min(MEMORY);
    }

    fn value(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(model: &str, request_bytes: u64, (input, output): (u64, u64)) -> Record {
        Record {
            request_model: Some(model.to_owned()),
            request_bytes: Some(request_bytes),
            input_tokens: Some(input),
            output_tokens: Some(output),
            usage_source: Some(UsageSource::Reported),
            outcome: Some(Outcome::Completed),
            ..Record::default()
        }
    }

    #[test]
    fn without_experience_a_call_is_reckoned_by_its_length_and_by_what_it_allows() {
        let usual = Usual::default();
        assert_eq!(usual.input(Some(400)), 100);
        assert_eq!(usual.input(None), INPUT);
        assert_eq!(usual.input(Some(u64::MAX)), MOST_INPUT);
        assert_eq!((usual.output(Some(20)), usual.output(Some(50_000))), (20, OUTPUT));
    }

    #[test]
    fn each_model_is_expected_to_use_what_it_used() {
        let expectations = Expectations::default();
        for _ in 0..10 {
            expectations.see(&record("a", 1_000, (100, 300)));
            expectations.see(&record("b", 1_000, (500, 30)));
        }
        let usual = expectations.of(Some("a"));
        assert_eq!((usual.input(Some(50)), usual.output(None)), (5, 300));
        assert_eq!(expectations.of(Some("b")).output(None), 30);
        assert_eq!(expectations.of(Some("c")).output(None), OUTPUT);
    }

    #[test]
    fn nothing_is_learned_from_a_call_that_did_not_say_all() {
        let expectations = Expectations::default();
        let whole = record("a", 1_000, (100, 3));
        expectations.see(&Record { outcome: Some(Outcome::Abandoned), ..whole.clone() });
        expectations.see(&Record { usage_source: Some(UsageSource::Partial), ..whole });
        assert!(!expectations.of(Some("a")).is_known());
    }

    #[test]
    fn models_without_number_are_not_told_apart_without_number() {
        let expectations = Expectations::default();
        for number in 0..10 * MODELS {
            expectations.see(&record(&number.to_string(), 1_000, (100, 7)));
        }
        assert_eq!(expectations.lock().models.len(), MODELS);
        assert_eq!(expectations.of(Some("unseen")).output(None), 7);
    }

    #[test]
    fn what_was_delivered_of_a_stream_is_no_less_than_its_chunks() {
        let expectations = Expectations::default();
        let whole = record("a", 1_000, (100, 50));
        let stream = Record { stream: Some(true), response_bytes: Some(1_000), ..whole };
        expectations.see(&stream);
        let usual = expectations.of(Some("a"));
        let cut = |token_chunks, response_bytes| Record {
            token_chunks: Some(token_chunks),
            response_bytes: Some(response_bytes),
            ..Record::default()
        };
        assert_eq!(usual.delivered(&cut(30, 100)), 30);
        assert_eq!(usual.delivered(&cut(1, 600)), 30, "a chunk holds more than a token");
        assert_eq!(usual.delivered(&cut(0, 600)), 0, "a head is no token");
    }
}
