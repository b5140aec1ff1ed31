//! What becomes of the samples: counts and histograms, per model and in all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tidegate_wire::{Outcome, Record};
use tokio::time::Instant;

use crate::client::Sample;

/// Every call of a run, counted once.
pub(crate) struct Recorder {
    /// All calls.
    pub(crate) total: Tally,
    /// The same calls by model.
    pub(crate) models: BTreeMap<Arc<str>, Tally>,
    /// Calls that did not complete, by what went wrong.
    pub(crate) errors: BTreeMap<Fault, u64>,
    /// How long after they were due calls were sent.
    pub(crate) send_lag: Times,
    /// Whether any call was answered, be it by an error.
    pub(crate) answered: bool,
    /// When the last call ended.
    pub(crate) last_end: Option<Instant>,
    /// Whether some call could not be written.
    pub(crate) records_lost: bool,
    records: Option<BufWriter<File>>,
}

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// The provider's word, or one of ours: `connect`, `timeout`, `no_answer`, `truncated`; or
    /// `credential_...`, where the call could not be signed and was not sent.
    #[serde(rename = "error.type")]
    pub kind: String,
    /// The HTTP status, where an answer came.
    #[serde(rename = "http.response.status_code")]
    pub status: Option<u16>,
    /// How the call ended.
    #[serde(rename = "tidegate.outcome")]
    pub outcome: &'static str,
}

/// The calls of one model, or all.
#[derive(Default)]
pub(crate) struct Tally {
    /// By outcome, in the order of [`Outcome::ALL`].
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
    pub(crate) streams: u64,
    pub(crate) tokens: Tokens,
    /// In US dollars, of the calls that have a price; absent where none has.
    pub(crate) cost: Option<f64>,
    pub(crate) unpriced: u64,
    pub(crate) duration: Times,
    pub(crate) first_token: Times,
    pub(crate) first_visible_token: Times,
    pub(crate) per_output_token: Times,
    pub(crate) gap: Times,
    pub(crate) service_duration: Times,
    pub(crate) service_first_token: Times,
}

/// Tokens as the provider stated them; absent where no answer did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tokens {
    /// All input, cached input included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// All output, reasoning included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Of the input, read from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Of the input, written to a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<u64>,
    /// Of the output, spent on reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Calls whose answer stated some.
    pub usage_stated: u64,
    /// Completed calls whose answer stated none.
    pub usage_absent: u64,
}

/// A distribution of times, in microseconds with three significant digits.
pub(crate) struct Times(Histogram<u64>);

/// What a report says of a distribution; all in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half are at or below.
    pub p50: f64,
    /// Nine in ten are at or below.
    pub p90: f64,
    /// 99 in a hundred are at or below.
    pub p99: f64,
    /// 999 in a thousand are at or below.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

// === impl Recorder ===

impl Recorder {
    /// An empty recorder, which also writes every call to `records` where that is given.
    pub(crate) fn new(records: Option<File>) -> Self {
        Self {
            total: Tally::default(),
            models: BTreeMap::new(),
            errors: BTreeMap::new(),
            send_lag: Times::default(),
            answered: false,
            last_end: None,
            records_lost: false,
            records: records.map(BufWriter::new),
        }
    }

    /// Takes one call in.
    pub(crate) fn record(&mut self, sample: &Sample) {
        self.total.record(sample);
        self.models.entry(sample.label.clone()).or_default().record(sample);
        self.send_lag.record(sample.send_lag);
        if let Some(fault) = Fault::of(&sample.record) {
            *self.errors.entry(fault).or_default() += 1;
        }
        self.answered |= sample.record.status.is_some();
        self.last_end = Some(Instant::now());
        self.write(|records| {
            serde_json::to_writer(&mut *records, &CallRecord::of(sample))?;
            records.write_all(b"\n")
        });
    }

    /// Puts what was written where others can read it.
    pub(crate) fn finish(&mut self) {
        self.write(BufWriter::flush);
    }

    /// A full disk must not end a run; it is said once, and the run is no longer valid.
    fn write(&mut self, how: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
        let Some(Err(error)) = self.records.as_mut().map(how) else { return };
        tracing::error!(%error, "cannot write records");
        self.records = None;
        self.records_lost = true;
    }
}

/// A line of the records file: the keys of the contract, and what only a load generator knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallRecord<'a> {
    /// The call; its times count from when it was due.
    #[serde(flatten)]
    pub record: Cow<'a, Record>,
    /// The name under which it is counted.
    #[serde(rename = "tidegate.load.label")]
    pub label: Cow<'a, str>,
    /// How long after it was due it was sent.
    #[serde(rename = "tidegate.load.send_lag_s")]
    pub send_lag_s: f64,
}

impl<'a> CallRecord<'a> {
    fn of(Sample { label, record, send_lag, .. }: &'a Sample) -> Self {
        Self {
            record: Cow::Borrowed(record),
            label: Cow::Borrowed(label),
            send_lag_s: send_lag.as_secs_f64(),
        }
    }
}

// === impl Fault ===

impl Fault {
    fn of(record: &Record) -> Option<Self> {
        let outcome = record.outcome.filter(|outcome| *outcome != Outcome::Completed)?;
        let kind = match (&record.error_type, record.status) {
            (Some(kind), _) => kind.clone(),
            (None, Some(status)) if status >= 400 => status.to_string(),
            (None, _) => outcome.as_str().to_owned(),
        };
        Some(Self { kind, status: record.status, outcome: outcome.as_str() })
    }
}

// === impl Tally ===

impl Tally {
    /// Calls in all.
    pub(crate) fn calls(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Calls that ended in this way.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[place(outcome)]
    }

    /// Calls that did not complete, but for those that we gave up ourselves.
    pub(crate) fn errors(&self) -> u64 {
        self.calls() - self.count(Outcome::Completed) - self.count(Outcome::Abandoned)
    }

    fn record(&mut self, Sample { record, send_lag, gaps, .. }: &Sample) {
        let outcome = record.outcome.unwrap_or(Outcome::Failed);
        self.outcomes[place(outcome)] += 1;
        self.streams += u64::from(record.stream == Some(true));
        self.tokens.add(record);
        if let Some(cost) = record.cost_usd {
            self.cost = Some(self.cost.unwrap_or(0.0) + cost);
        }
        self.unpriced += u64::from(record.unpriced == Some(true));
        // A refusal that takes a millisecond is no fast answer: only whole answers have a latency.
        if outcome != Outcome::Completed {
            return;
        }
        self.duration.seconds(record.duration_s);
        self.first_token.seconds(record.time_to_first_token_s);
        self.first_visible_token.seconds(record.time_to_first_visible_token_s);
        self.per_output_token.seconds(record.time_per_output_token_s);
        let lag = send_lag.as_secs_f64();
        self.service_duration.seconds(record.duration_s.map(|at| at - lag));
        self.service_first_token.seconds(record.time_to_first_token_s.map(|at| at - lag));
        for &gap in gaps {
            self.gap.record(gap);
        }
    }
}

fn place(outcome: Outcome) -> usize {
    Outcome::ALL.iter().position(|one| *one == outcome).expect("ALL lists every outcome")
}

// === impl Tokens ===

impl Tokens {
    fn add(&mut self, record: &Record) {
        sum(&mut self.input, record.input_tokens);
        sum(&mut self.output, record.output_tokens);
        sum(&mut self.cache_read, record.cache_read_tokens);
        sum(&mut self.cache_creation, record.cache_creation_tokens);
        sum(&mut self.reasoning, record.reasoning_tokens);
        self.usage_stated += u64::from(record.usage_source.is_some());
        self.usage_absent += u64::from(record.lacks_usage());
    }
}

fn sum(total: &mut Option<u64>, tokens: Option<u64>) {
    if let Some(tokens) = tokens {
        *total = Some(total.unwrap_or(0) + tokens);
    }
}

// === impl Times ===

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are within what a histogram offers"))
    }
}

impl Times {
    /// The longest time told apart from longer ones.
    const LONGEST: Duration = Duration::from_secs(3600);

    pub(crate) fn record(&mut self, time: Duration) {
        let microseconds = time.min(Self::LONGEST).as_micros() as u64;
        self.0.record(microseconds).expect("the histogram grows up to an hour");
    }

    pub(crate) fn seconds(&mut self, seconds: Option<f64>) {
        if let Some(seconds) = seconds {
            // A time is never negative but for what rounding takes from it.
            self.record(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Self::LONGEST));
        }
    }

    /// The distribution in a few numbers; absent where nothing was measured.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let times = &self.0;
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        (!times.is_empty()).then(|| Quantiles {
            count: times.len(),
            min: times.min() as f64 / 1e6,
            mean: times.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 / 1e6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(duration_s: f64, outcome: Outcome) -> Sample {
        Sample {
            label: "m".into(),
            record: Record {
                outcome: Some(outcome),
                duration_s: Some(duration_s),
                output_tokens: Some(10),
                stream: Some(true),
                ..Record::default()
            },
            send_lag: Duration::from_millis(100),
            gaps: vec![Duration::from_millis(20); 3],
        }
    }

    fn recorder(samples: impl IntoIterator<Item = Sample>) -> Recorder {
        let mut recorder = Recorder::new(None);
        for sample in samples {
            recorder.record(&sample);
        }
        recorder
    }

    fn near(measured: f64, expected: f64) -> bool {
        (measured / expected - 1.0).abs() < 0.001
    }

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let calls = (1..=1000).map(|i| sample(f64::from(i) / 1000.0 + 0.1, Outcome::Completed));
        let total = recorder(calls).total;
        let duration = total.duration.quantiles().expect("there were calls");
        assert_eq!(duration.count, 1000);
        assert!(near(duration.p50, 0.6) && near(duration.p90, 1.0), "{duration:?}");
        assert!(near(duration.p99, 1.09) && near(duration.p999, 1.099), "{duration:?}");
        assert!(near(duration.max, 1.1), "{duration:?}");
    }

    #[test]
    fn service_times_leave_the_lag_out() {
        let total = recorder([sample(1.1, Outcome::Completed)]).total;
        let service = total.service_duration.quantiles().expect("there was a call");
        assert!(near(service.p50, 1.0), "{service:?}");
    }

    #[test]
    fn a_failed_call_is_counted_and_has_no_latency() {
        let failed = Sample {
            record: Record {
                status: Some(429),
                error_type: Some("rate_limit_exceeded".to_owned()),
                ..sample(0.001, Outcome::Failed).record
            },
            ..sample(0.001, Outcome::Failed)
        };
        let recorder = recorder([sample(1.0, Outcome::Completed), failed.clone(), failed]);
        assert_eq!((recorder.total.calls(), recorder.total.errors()), (3, 2));
        assert_eq!(recorder.total.duration.quantiles().expect("one completed").count, 1);
        let (fault, count) = recorder.errors.first_key_value().expect("there were errors");
        assert_eq!((&*fault.kind, fault.status, *count), ("rate_limit_exceeded", Some(429), 2));
    }

    #[test]
    fn what_we_gave_up_ourselves_is_no_error() {
        let total = recorder([sample(1.0, Outcome::Abandoned)]).total;
        assert_eq!((total.calls(), total.errors()), (1, 0));
    }

    #[test]
    fn models_add_up_to_the_total() {
        let other = Sample { label: "n".into(), ..sample(2.0, Outcome::Completed) };
        let recorder = recorder([sample(1.0, Outcome::Completed), other]);
        let calls: u64 = recorder.models.values().map(Tally::calls).sum();
        let gaps: u64 =
            recorder.models.values().filter_map(|m| m.gap.quantiles()).map(|g| g.count).sum();
        assert_eq!((calls, gaps), (recorder.total.calls(), 6));
    }

    #[test]
    fn a_time_over_an_hour_is_kept_as_an_hour() {
        let mut times = Times::default();
        times.seconds(Some(1e9));
        assert!(near(times.quantiles().expect("one").max, 3600.0));
    }
}
