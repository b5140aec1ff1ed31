//! What a user says of an upstream's circuit breakers. Empty is a good configuration.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{Ratio, Span};

/// When calls to an upstream are stopped, and how they are let through again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// How far back calls count, in ten steps.
    pub window: Span,
    /// Calls that must have been judged in the window before a ratio says anything.
    pub min_calls: NonZeroU32,
    /// Failures among the calls judged that open it.
    pub error_ratio: Ratio,
    /// Failures in a row that open it, however few calls there were.
    pub consecutive: NonZeroU32,
    /// Answers that are too slow; they are no reason to open where absent.
    pub slow: Option<SlowConfig>,
    /// Answers that broke off later, among those that ended, that open it.
    pub broken_ratio: Ratio,
    /// How long it stays open at first; twice as long each time that the upstream has not healed.
    pub open: Span,
    /// How long it stays open at most.
    pub open_max: Span,
    /// Probes at a time while it closes again, step by step; as many must be good for the next step.
    pub ramp: Steps,
    /// After so long without a verdict a probe makes room for another.
    pub probe_limit: Span,
    /// What happens to calls while it is open and nothing else is there to take them.
    pub when_all_open: WhenAllOpen,
    /// Regions and models with breakers of their own; all others share their upstream's.
    pub keys: NonZeroU32,
}

/// When an answer is slow.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlowConfig {
    /// A first token later than this is slow.
    pub first_token: Span,
    /// Slow answers, among those whose first token was timed, that open the breaker.
    pub ratio: Ratio,
}

/// What happens to calls while the breaker is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenAllOpen {
    /// All are refused at once until it is time for a probe.
    #[default]
    FailFast,
    /// One a second goes through, and closes the breaker early where it is answered.
    Trickle,
}

/// How many at a time, step by step: a few small numbers, none of them zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Steps(Vec<NonZeroU8>);

/// Steps of a ramp, and how many a step lets through at a time, at most.
const MAX_STEPS: usize = 8;
const MAX_STEP: u8 = 64;

// === impl BreakerConfig ===

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Span(Duration::from_secs(30)),
            min_calls: NonZeroU32::new(10).expect("not zero"),
            error_ratio: Ratio::percent(50),
            consecutive: NonZeroU32::new(5).expect("not zero"),
            slow: None,
            broken_ratio: Ratio::percent(50),
            open: Span(Duration::from_secs(5)),
            open_max: Span(Duration::from_secs(60)),
            ramp: Steps::default(),
            probe_limit: Span(Duration::from_secs(10)),
            when_all_open: WhenAllOpen::default(),
            keys: NonZeroU32::new(200).expect("not zero"),
        }
    }
}

impl Default for SlowConfig {
    fn default() -> Self {
        Self { first_token: Span(Duration::from_secs(10)), ratio: Ratio::percent(50) }
    }
}

// === impl Steps ===

impl Steps {
    /// How many at a time at this step; none behind the last.
    pub(super) fn at(&self, step: usize) -> Option<u8> {
        self.0.get(step).map(|step| step.get())
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self([1, 2, 4, 8].map(|step| NonZeroU8::new(step).expect("not zero")).into())
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let steps = Vec::<NonZeroU8>::deserialize(deserializer)?;
        let is_good = (1..=MAX_STEPS).contains(&steps.len());
        if is_good && steps.iter().all(|step| step.get() <= MAX_STEP) {
            return Ok(Self(steps));
        }
        Err(serde::de::Error::custom(format!(
            "a ramp has 1 to {MAX_STEPS} steps of 1 to {MAX_STEP}, such as [1, 2, 4, 8]"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BreakerConfig, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_breaker_has_the_defaults() {
        let read = read("{}").expect("empty is good");
        assert_eq!(format!("{read:?}"), format!("{:?}", BreakerConfig::default()));
        assert_eq!(read.ramp.at(3), Some(8));
        assert_eq!(read.ramp.at(4), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, part) in [
            ("error_ratio: 101%", "is not a ratio"),
            ("error_ratio: 0.5", "is not a ratio"),
            ("ramp: []", "a ramp has"),
            ("ramp: [1, 65]", "a ramp has"),
            ("ramp: [1, 1, 1, 1, 1, 1, 1, 1, 1]", "a ramp has"),
            ("ramp: [0]", "zero"),
            ("min_calls: 0", "zero"),
            ("slow: { total: 1s }", "unknown field"),
            ("when_all_open: panic", "panic"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
