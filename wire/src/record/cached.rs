//! What a cache did for a call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::Line;
use crate::words::word;

/// Where the answer came from, on a route with a cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cached {
    /// What became of the call at the cache.
    #[serde(rename = "tidegate.cache", skip_serializing_if = "Option::is_none")]
    pub source: Option<CacheSource>,
    /// Why the cache was passed by: one of few fixed words.
    #[serde(rename = "tidegate.cache.reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// How long ago the answer had been given for the first time.
    #[serde(rename = "tidegate.cache.age_s", skip_serializing_if = "Option::is_none")]
    pub age_s: Option<f64>,
    /// The cosine of what the call asks and what was asked when the answer was given, where that is not the
    /// same text.
    #[serde(rename = "tidegate.cache.similarity", skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
    /// The cosine that would have been enough.
    #[serde(rename = "tidegate.cache.threshold", skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Input tokens that the call would have used at its provider.
    #[serde(rename = "tidegate.saved.input_tokens", skip_serializing_if = "Option::is_none")]
    pub saved_input_tokens: Option<u64>,
    /// Output tokens that it would have used.
    #[serde(rename = "tidegate.saved.output_tokens", skip_serializing_if = "Option::is_none")]
    pub saved_output_tokens: Option<u64>,
    /// What it would have cost, in US dollars.
    #[serde(rename = "tidegate.saved.cost_usd", skip_serializing_if = "Option::is_none")]
    pub saved_cost_usd: Option<f64>,
}

/// What became of a call at a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSource {
    /// The cache had the answer.
    Hit,
    /// The cache had an answer that was too old, but the upstream failed.
    Stale,
    /// The answer was that of an equal call which was on its way already.
    Shared,
    /// The cache had the answer to the same text, written down in another way.
    Normalised,
    /// The cache had the answer to a text that means nearly the same.
    Similar,
    /// The cache had no answer; the upstream gave it.
    Miss,
    /// The cache was not asked.
    Bypass,
}

impl Cached {
    /// What became of the call, of which nothing else is known as yet.
    pub fn of(source: CacheSource) -> Self {
        Self { source: Some(source), ..Self::default() }
    }

    /// The cache was passed by for this reason: one of few fixed words.
    pub fn bypass(reason: &str) -> Self {
        Self { reason: Some(word(reason)), ..Self::of(CacheSource::Bypass) }
    }

    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.text("tidegate.cache", self.source.map(CacheSource::as_str));
        line.text("tidegate.cache.reason", self.reason.as_deref());
        line.seconds("tidegate.cache.age_s", self.age_s);
        line.seconds("tidegate.cache.similarity", self.similarity);
        line.seconds("tidegate.cache.threshold", self.threshold);
        line.plain("tidegate.saved.input_tokens", self.saved_input_tokens);
        line.plain("tidegate.saved.output_tokens", self.saved_output_tokens);
        line.seconds("tidegate.saved.cost_usd", self.saved_cost_usd);
    }
}

impl CacheSource {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Stale,
        Self::Shared,
        Self::Normalised,
        Self::Similar,
        Self::Miss,
        Self::Bypass,
    ];

    /// The word that stands in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Shared => "shared",
            Self::Normalised => "normalised",
            Self::Similar => "similar",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }

    /// Whether the call has an answer that its upstream did not give for it.
    pub fn is_answer(self) -> bool {
        !matches!(self, Self::Miss | Self::Bypass)
    }
}
