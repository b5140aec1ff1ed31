//! What a user says of the calls that an upstream may have at a time.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Span;

/// How many calls an upstream may have at a time, and who waits for a place among them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    /// So many at a time; 64 where neither this nor `adaptive` is given.
    pub concurrency: Option<NonZeroU32>,
    /// As many as keep the time to first token where it is at low load.
    pub adaptive: Option<AdaptiveConfig>,
    /// Whether each model has a limit and a queue of its own.
    pub per_model: bool,
    /// Calls that may wait for a place.
    pub queue: u32,
    /// How long one may wait.
    pub queue_timeout: Span,
    /// The header by which a caller says how urgent its call is: `high`, `normal` or `low`.
    pub priority_header: String,
    /// A call that has waited so long counts as one priority more urgent.
    pub priority_ageing: Span,
}

/// Between what bounds a limit is looked for, and what for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveConfig {
    /// Calls at a time that are always allowed; where it begins.
    pub min: NonZeroU32,
    /// Calls at a time that are never exceeded.
    pub max: NonZeroU32,
    /// Times to first token up to so many times that of low load are no sign of a queue.
    pub tolerance: f64,
}

/// Calls at a time where the user does not say.
const DEFAULT_CONCURRENCY: u32 = 64;
/// Calls that may wait, at most: each is a caller's connection that is held open.
const MAX_QUEUE: u32 = 65_536;
/// Bounds of what may be called tolerance.
const TOLERANCES: std::ops::RangeInclusive<f64> = 1.0..=10.0;

// === impl LimitConfig ===

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            concurrency: None,
            adaptive: None,
            per_model: true,
            queue: 256,
            queue_timeout: Span(Duration::from_secs(10)),
            priority_header: "x-tidegate-priority".to_owned(),
            priority_ageing: Span(Duration::from_secs(2)),
        }
    }
}

impl LimitConfig {
    /// What one key cannot say of itself; the error begins with the key.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.concurrency.is_some() && self.adaptive.is_some() {
            return Err("has `concurrency` and `adaptive`; give one of them".to_owned());
        }
        if self.queue > MAX_QUEUE {
            return Err(format!("queue: {} is over {MAX_QUEUE}", self.queue));
        }
        if http::HeaderName::from_bytes(self.priority_header.as_bytes()).is_err() {
            return Err(format!("priority_header: `{}` is not a header", self.priority_header));
        }
        self.adaptive.as_ref().map_or(Ok(()), AdaptiveConfig::check)
    }

    /// Calls at a time, where that is fixed.
    pub(super) fn fixed(&self) -> u32 {
        self.concurrency.map_or(DEFAULT_CONCURRENCY, NonZeroU32::get)
    }
}

// === impl AdaptiveConfig ===

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self {
            min: NonZeroU32::new(4).expect("four is not zero"),
            max: NonZeroU32::new(512).expect("nor is this"),
            tolerance: 1.5,
        }
    }
}

impl AdaptiveConfig {
    fn check(&self) -> Result<(), String> {
        if self.min > self.max {
            return Err(format!("adaptive: min {} is over max {}", self.min, self.max));
        }
        if !TOLERANCES.contains(&self.tolerance) {
            let (low, high) = (TOLERANCES.start(), TOLERANCES.end());
            return Err(format!("adaptive.tolerance: {} is not in {low}..{high}", self.tolerance));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LimitConfig, String> {
        let config: LimitConfig =
            crate::config::parse_yaml(text).map_err(|error| error.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, part) in [
            ("{ concurrency: 8, adaptive: {} }", "give one of them"),
            ("{ concurrency: 0 }", "nonzero"),
            ("{ concurency: 8 }", "did you mean `concurrency`"),
            ("{ queue: 70000 }", "queue: 70000 is over"),
            ("{ queue_timeout: 0s }", "above zero"),
            ("{ priority_header: 'a b' }", "priority_header"),
            ("{ adaptive: { min: 9, max: 8 } }", "min 9 is over max 8"),
            ("{ adaptive: { tolerance: 0.5 } }", "adaptive.tolerance"),
            ("{ adaptive: { tolerance: .nan } }", "adaptive.tolerance"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_at_all_is_a_good_limit() {
        assert_eq!(read("{ per_model: true }").expect("good").fixed(), 64);
    }
}
