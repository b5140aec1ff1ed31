//! Which calls become spans, as the samplers of OpenTelemetry decide it.
//!
//! It is asked once a call has ended, so a rule may look at all of the record.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::{ErrorOrigin, Outcome, Record, TraceId};

/// Which calls become spans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampler {
    /// Whether the caller's decision holds where there is one.
    follows_caller: bool,
    own: Own,
    /// Whether failures are taken in any case.
    errors: bool,
    /// And what takes longer than this, in seconds.
    slow_s: f64,
}

/// The decision that is our own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Own {
    All,
    None,
    /// Traces whose id, as a number of 63 bits, is below this: all who sample by the same ratio
    /// choose the same traces.
    Below(u64),
}

/// The samplers that OpenTelemetry names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerName {
    /// Every call.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// So many of all traces.
    #[serde(rename = "traceidratio")]
    TraceIdRatio,
    /// As the caller decided; every call without a decision.
    #[default]
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the caller decided; no call without a decision.
    #[serde(rename = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// As the caller decided; so many of all traces without a decision.
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

// === impl SamplerName ===

impl SamplerName {
    /// Reads the value of `OTEL_TRACES_SAMPLER`.
    pub(super) fn read(text: &str) -> Option<Self> {
        Some(match text {
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => Self::TraceIdRatio,
            "parentbased_always_on" => Self::ParentBasedAlwaysOn,
            "parentbased_always_off" => Self::ParentBasedAlwaysOff,
            "parentbased_traceidratio" => Self::ParentBasedTraceIdRatio,
            _ => return None,
        })
    }
}

// === impl Sampler ===

impl Sampler {
    pub(super) fn new(name: SamplerName, ratio: f64) -> Self {
        let (follows_caller, own) = match name {
            SamplerName::AlwaysOn => (false, Own::All),
            SamplerName::AlwaysOff => (false, Own::None),
            SamplerName::TraceIdRatio => (false, Own::ratio(ratio)),
            SamplerName::ParentBasedAlwaysOn => (true, Own::All),
            SamplerName::ParentBasedAlwaysOff => (true, Own::None),
            SamplerName::ParentBasedTraceIdRatio => (true, Own::ratio(ratio)),
        };
        Self { follows_caller, own, errors: false, slow_s: f64::INFINITY }
    }

    /// The same, which takes failures, and what is slower than this, in any case.
    pub(super) fn with_always(self, errors: bool, slow: Duration) -> Self {
        Self { errors, slow_s: slow.as_secs_f64(), ..self }
    }

    /// Whether this call becomes a span.
    pub(crate) fn takes(&self, record: &Record) -> bool {
        let is_chosen = match record.is_sampled {
            Some(is_sampled) if self.follows_caller => is_sampled,
            _ => self.own.takes(record.trace_id),
        };
        // Whoever wants none wants none of these.
        is_chosen
            || self.own != Own::None && (self.errors && has_failed(record) || self.is_slow(record))
    }

    fn is_slow(&self, record: &Record) -> bool {
        let waited_s = match record.stream {
            Some(true) => record.time_to_first_token_s,
            _ => record.duration_s,
        };
        waited_s.is_some_and(|waited_s| waited_s > self.slow_s)
    }
}

/// Whether it failed or broke off, and not by its caller's fault.
fn has_failed(record: &Record) -> bool {
    let is_bad = matches!(record.outcome, Some(Outcome::Failed | Outcome::Truncated));
    is_bad && record.error_origin != Some(ErrorOrigin::Client)
}

impl Own {
    fn ratio(ratio: f64) -> Self {
        match ratio {
            ratio if ratio >= 1.0 => Self::All,
            ratio => Self::Below((ratio.max(0.0) * (1_u64 << 63) as f64) as u64),
        }
    }

    fn takes(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.0;
        match self {
            Self::All => true,
            Self::None => false,
            Self::Below(bound) => u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(name: &str, ratio: f64, record: &Record) -> bool {
        Sampler::new(SamplerName::read(name).expect("a sampler"), ratio).takes(record)
    }

    #[test]
    fn the_callers_decision_holds_where_the_sampler_follows_it() {
        let call = |is_sampled| Record { is_sampled, ..Record::default() };
        for (sampler, sampled, unsampled, alone) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, false, true),
            ("parentbased_always_off", true, false, false),
        ] {
            assert_eq!(takes(sampler, 1.0, &call(Some(true))), sampled, "{sampler}");
            assert_eq!(takes(sampler, 1.0, &call(Some(false))), unsampled, "{sampler}");
            assert_eq!(takes(sampler, 1.0, &call(None)), alone, "{sampler}");
        }
    }

    #[test]
    fn failures_and_slow_calls_are_taken_unless_none_are_wanted() {
        let failed = |error_origin| Record {
            outcome: Some(Outcome::Failed),
            error_origin: Some(error_origin),
            is_sampled: Some(false),
            ..Record::default()
        };
        let slow = |stream, time_to_first_token_s| Record {
            stream: Some(stream),
            time_to_first_token_s,
            duration_s: Some(30.0),
            ..failed(ErrorOrigin::Client)
        };
        let takes = |name, record| {
            let sampler = Sampler::new(name, 0.0).with_always(true, Duration::from_secs(10));
            sampler.takes(&record)
        };
        for name in [SamplerName::ParentBasedAlwaysOn, SamplerName::TraceIdRatio] {
            assert!(takes(name, failed(ErrorOrigin::Quota)));
            assert!(!takes(name, failed(ErrorOrigin::Client)));
            assert!(takes(name, slow(false, None)));
            assert!(takes(name, slow(true, Some(10.5))));
            assert!(!takes(name, slow(true, Some(9.5))), "a long stream is not slow");
        }
        assert!(!takes(SamplerName::AlwaysOff, failed(ErrorOrigin::Upstream)));
    }

    #[test]
    fn a_ratio_chooses_traces_by_their_ids() {
        let trace = |half: u64| {
            let mut record = Record::default();
            record.trace_id.0[8..].copy_from_slice(&half.to_be_bytes());
            record
        };
        for name in ["traceidratio", "parentbased_traceidratio"] {
            assert!(takes(name, 0.25, &trace(u64::MAX / 4 - 9)), "{name}");
            assert!(!takes(name, 0.25, &trace(u64::MAX / 4 + 9)), "{name}");
            assert!(!takes(name, 0.0, &trace(0)), "{name}");
            assert!(takes(name, 1.0, &trace(u64::MAX)), "{name}");
        }
    }
}
