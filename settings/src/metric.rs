//! What can be measured of calls, by the names that objectives and reports have for it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is measured. Times count from when a call was due, in a load test, or from when its head had
/// been read, in a sidecar; those of `service_` from when it was sent, in a load test alone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// To the head of the answer.
    TimeToFirstByte,
    /// To the first whole event of a stream, whatever it says.
    TimeToFirstEvent,
    /// To the first token of a stream, reasoning included.
    TimeToFirstToken,
    /// To the first token of a stream that is not reasoning.
    TimeToFirstVisibleToken,
    /// From the first to the last token of a stream, by output tokens less one.
    TimePerOutputToken,
    /// Between two chunks with tokens that follow each other.
    Gap,
    /// To the last byte.
    Duration,
    /// From sending to the head of the answer.
    ServiceTimeToFirstByte,
    /// From sending to the first whole event of a stream.
    ServiceTimeToFirstEvent,
    /// From sending to the first token of a stream.
    ServiceTimeToFirstToken,
    /// From sending to the first token of a stream that is not reasoning.
    ServiceTimeToFirstVisibleToken,
    /// From sending to the last byte.
    ServiceDuration,
    /// Calls that the upstream, the sidecar or a quota failed, 429 included, and truncated ones, by
    /// all but those that were abandoned, refused for a malformed head, or failed by the caller.
    ErrorRatio,
    /// Completed calls for which every objective that applies to them was measured and met, by all
    /// calls that were due.
    Goodput,
    /// Calls that were made, each second.
    CallsPerSecond,
    /// Output tokens as providers state them, each second.
    OutputTokensPerSecond,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Time,
    /// A share of a whole.
    Ratio,
    /// So many each second.
    Rate,
}

// === impl Metric ===

impl Metric {
    /// Those that are times: each call has one, or many, or none.
    pub const TIMES: [Self; 12] = [
        Self::TimeToFirstByte,
        Self::TimeToFirstEvent,
        Self::TimeToFirstToken,
        Self::TimeToFirstVisibleToken,
        Self::TimePerOutputToken,
        Self::Gap,
        Self::Duration,
        Self::ServiceTimeToFirstByte,
        Self::ServiceTimeToFirstEvent,
        Self::ServiceTimeToFirstToken,
        Self::ServiceTimeToFirstVisibleToken,
        Self::ServiceDuration,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeToFirstByte => "time_to_first_byte",
            Self::TimeToFirstEvent => "time_to_first_event",
            Self::TimeToFirstToken => "time_to_first_token",
            Self::TimeToFirstVisibleToken => "time_to_first_visible_token",
            Self::TimePerOutputToken => "time_per_output_token",
            Self::Gap => "gap",
            Self::Duration => "duration",
            Self::ServiceTimeToFirstByte => "service_time_to_first_byte",
            Self::ServiceTimeToFirstEvent => "service_time_to_first_event",
            Self::ServiceTimeToFirstToken => "service_time_to_first_token",
            Self::ServiceTimeToFirstVisibleToken => "service_time_to_first_visible_token",
            Self::ServiceDuration => "service_duration",
            Self::ErrorRatio => "error_ratio",
            Self::Goodput => "goodput",
            Self::CallsPerSecond => "calls_per_second",
            Self::OutputTokensPerSecond => "output_tokens_per_second",
        }
    }

    /// What it is counted in.
    pub fn unit(self) -> Unit {
        match self {
            Self::ErrorRatio | Self::Goodput => Unit::Ratio,
            Self::CallsPerSecond | Self::OutputTokensPerSecond => Unit::Rate,
            _ => Unit::Time,
        }
    }

    /// The key of a limit on the side where it ought to be: less of some is better, more of others.
    pub(crate) fn side(self) -> &'static str {
        match self {
            Self::Goodput | Self::CallsPerSecond | Self::OutputTokensPerSecond => "above",
            _ => "below",
        }
    }

    /// A limit as one might write it.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Goodput => "above: 95%",
            Self::ErrorRatio => "below: 1%",
            Self::CallsPerSecond | Self::OutputTokensPerSecond => "above: 100",
            _ => "below: 3s",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Unit ===

impl Unit {
    /// What it is, as a user would say.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Time => "a time",
            Self::Ratio => "a ratio",
            Self::Rate => "a number",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_written_as_it_is_read() {
        for metric in Metric::TIMES.into_iter().chain([
            Metric::ErrorRatio,
            Metric::Goodput,
            Metric::CallsPerSecond,
            Metric::OutputTokensPerSecond,
        ]) {
            let read: Metric = serde_saphyr::from_str(metric.as_str()).expect("a metric");
            assert_eq!(read, metric);
            assert_eq!(Metric::TIMES.contains(&metric), metric.unit() == Unit::Time, "{metric}");
        }
    }
}
