//! What a user says of calls that are made again. Empty is a good configuration.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Ratio, Span};

/// When a call is made again, unseen by its caller: before the first byte of an answer went there.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts of one call, at all targets together; but each target has one, however many there are.
    pub attempts: NonZeroU32,
    /// Attempts at one target that fails (5xx, 529, no answer, an error before any content).
    pub per_target: NonZeroU32,
    /// Up to how long the second waits; twice as long each time, drawn at random.
    pub wait: Span,
    /// How long it waits at most.
    pub longest_wait: Span,
    /// Where a limit was reached (429, throttling, RESOURCE_EXHAUSTED).
    pub limited: LimitedConfig,
    /// Attempts beyond the first, as a share of first attempts at an upstream.
    pub budget: Ratio,
    /// As many a second are allowed in any case.
    pub floor: f64,
    /// How long the head of a stream is held back while nothing of meaning has come.
    pub hold: Span,
}

/// When a call is made again that met a limit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitedConfig {
    /// Attempts in all, at one target.
    pub attempts: NonZeroU32,
    /// What the second waits, where the provider names no time; twice as long each time.
    pub wait: Span,
    /// How long it waits at most, where the provider names no time.
    pub longest_wait: Span,
    /// What a provider may ask to wait; where it asks for more, the caller is told at once.
    pub longest_hint: Span,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: NonZeroU32::new(3).expect("not zero"),
            per_target: NonZeroU32::new(2).expect("not zero"),
            wait: Span(Duration::from_millis(250)),
            longest_wait: Span(Duration::from_secs(2)),
            limited: LimitedConfig::default(),
            budget: Ratio::percent(20),
            floor: 1.0,
            hold: Span(Duration::from_secs(10)),
        }
    }
}

impl Default for LimitedConfig {
    fn default() -> Self {
        Self {
            attempts: NonZeroU32::new(3).expect("not zero"),
            wait: Span(Duration::from_secs(4)),
            longest_wait: Span(Duration::from_secs(10)),
            longest_hint: Span(Duration::from_secs(60)),
        }
    }
}

impl RetryConfig {
    /// What one key cannot say of itself.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(0.0..=1000.0).contains(&self.floor) {
            let message = format!("{} is not a number from 0 to 1000 a second", self.floor);
            return Err(("floor", message));
        }
        Ok(())
    }
}
