//! Single calls, as many as one can look at: those with the lowest trace ids.
//!
//! Trace ids are drawn by chance, so these are a fair sample; and the lowest of two samples together
//! are the very sample that one run of both would have kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_settings::Metric;
use tidegate_wire::TraceId;

use super::{Call, Key, Kind};

/// Of a run with no more calls than this, all are kept.
pub(crate) const MOST: usize = 10_000;

/// A sample of calls by their number, which is drawn from the trace id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Columns", try_from = "Columns")]
pub(crate) struct Points(BTreeMap<u64, Point>);

/// One call. Times are in seconds, as of its tally: a call that was not whole has none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) key: Key,
    /// From the start of the run.
    pub(crate) due: f64,
    pub(crate) send_lag: f64,
    /// Whether it counts on the lower side of the error ratio, and on the upper.
    pub(crate) errors: (bool, bool),
    pub(crate) kind: Option<Kind>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) first_token: Option<f64>,
    pub(crate) per_output_token: Option<f64>,
    /// The longest gap.
    pub(crate) gap: Option<f64>,
    pub(crate) duration: Option<f64>,
}

/// How it is written: a thousand calls are a thousand numbers in each of few lists.
#[derive(Default, Serialize, Deserialize)]
struct Columns {
    keys: Vec<Key>,
    key: Vec<usize>,
    number: Vec<u64>,
    due_s: Vec<f64>,
    send_lag_s: Vec<f64>,
    accountable: Vec<u8>,
    bad: Vec<u8>,
    kind: Vec<Option<Kind>>,
    input_tokens: Vec<Option<u64>>,
    output_tokens: Vec<Option<u64>>,
    time_to_first_token_s: Vec<Option<f64>>,
    time_per_output_token_s: Vec<Option<f64>>,
    gap_max_s: Vec<Option<f64>>,
    duration_s: Vec<Option<f64>>,
}

// === impl Points ===

impl Points {
    pub(crate) fn record(&mut self, call: &Call) {
        let number = number(&call.record.trace_id);
        let is_full = self.0.len() >= MOST;
        if !is_full || self.0.last_key_value().is_some_and(|(highest, _)| number < *highest) {
            self.0.insert(number, Point::of(call));
            self.keep_the_lowest();
        }
    }

    /// Takes in another run's.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
        self.keep_the_lowest();
    }

    /// Each of them, in an order that says nothing: the first few are a fair sample as well.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Point> {
        self.0.values()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    fn keep_the_lowest(&mut self) {
        while self.0.len() > MOST {
            self.0.pop_last();
        }
    }
}

/// As many bits as a number of JSON has in every language.
fn number(id: &TraceId) -> u64 {
    let first = id.0.first_chunk::<8>().expect("a trace id has 16 bytes");
    u64::from_be_bytes(*first) >> 11
}

// === impl Point ===

impl Point {
    fn of(call: &Call) -> Self {
        let record = &call.record;
        let is_whole = call.is_whole();
        let seconds = |metric| call.seconds(metric).filter(|_| is_whole).map(to_microseconds);
        let longest = call.gaps.iter().max().filter(|_| is_whole);
        Self {
            key: call.key.clone(),
            due: to_microseconds(call.due.as_secs_f64()),
            send_lag: to_microseconds(call.send_lag.as_secs_f64()),
            errors: (call.is_accountable(), call.is_bad()),
            kind: call.kind,
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            first_token: seconds(Metric::TimeToFirstToken),
            per_output_token: seconds(Metric::TimePerOutputToken),
            gap: longest.map(|gap| to_microseconds(gap.as_secs_f64())),
            duration: seconds(Metric::Duration),
        }
    }
}

/// More digits would be noise, and twice the file.
fn to_microseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

// === impl Columns ===

impl From<Points> for Columns {
    fn from(points: Points) -> Self {
        let mut columns = Self::default();
        let mut places = BTreeMap::new();
        for (number, point) in points.0 {
            let next = places.len();
            let place = *places.entry(point.key.clone()).or_insert(next);
            if place == next {
                columns.keys.push(point.key);
            }
            columns.key.push(place);
            columns.number.push(number);
            columns.due_s.push(point.due);
            columns.send_lag_s.push(point.send_lag);
            columns.accountable.push(u8::from(point.errors.0));
            columns.bad.push(u8::from(point.errors.1));
            columns.kind.push(point.kind);
            columns.input_tokens.push(point.input_tokens);
            columns.output_tokens.push(point.output_tokens);
            columns.time_to_first_token_s.push(point.first_token);
            columns.time_per_output_token_s.push(point.per_output_token);
            columns.gap_max_s.push(point.gap);
            columns.duration_s.push(point.duration);
        }
        columns
    }
}

impl TryFrom<Columns> for Points {
    type Error = &'static str;

    fn try_from(columns: Columns) -> Result<Self, Self::Error> {
        let points: Option<_> = (0..columns.number.len()).map(|row| columns.row(row)).collect();
        points.map(Self).ok_or("the columns of the calls are not of one length")
    }
}

impl Columns {
    fn row(&self, row: usize) -> Option<(u64, Point)> {
        let point = Point {
            key: self.keys.get(*self.key.get(row)?)?.clone(),
            due: *self.due_s.get(row)?,
            send_lag: *self.send_lag_s.get(row)?,
            errors: (*self.accountable.get(row)? > 0, *self.bad.get(row)? > 0),
            kind: *self.kind.get(row)?,
            input_tokens: *self.input_tokens.get(row)?,
            output_tokens: *self.output_tokens.get(row)?,
            first_token: *self.time_to_first_token_s.get(row)?,
            per_output_token: *self.time_per_output_token_s.get(row)?,
            gap: *self.gap_max_s.get(row)?,
            duration: *self.duration_s.get(row)?,
        };
        Some((*self.number.get(row)?, point))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{Id, Outcome};

    use super::*;
    use crate::figures::tests::call;

    fn points(numbers: impl IntoIterator<Item = u64>) -> Points {
        let mut points = Points::default();
        for number in numbers {
            let mut call = call(1.0, Outcome::Completed);
            // Scattered, as by chance, and never twice the same.
            let scattered = u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64;
            call.record.trace_id = Id(scattered.to_be_bytes());
            points.record(&call);
        }
        points
    }

    #[test]
    fn few_calls_are_all_kept_and_of_many_the_same_whichever_run_they_were_in() {
        assert_eq!(points(0..100).count(), 100);
        let all = points(0..25_000);
        assert_eq!(all.count(), MOST);
        let mut sum = points(0..9_000);
        sum.add(points(9_000..25_000));
        assert_eq!(sum, all);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let points = points(0..100);
        let text = serde_json::to_string(&points).expect("it is written");
        assert_eq!(serde_json::from_str::<Points>(&text).expect("it is read"), points);
        let cut = text.replace("\"due_s\":[0.5,", "\"due_s\":[");
        assert_ne!(cut, text);
        assert!(serde_json::from_str::<Points>(&cut).is_err());
    }
}
