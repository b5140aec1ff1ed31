//! What a user says of the answers that are kept.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alike::{AlikeConfig, EmbeddingsConfig};
use crate::config::{Size, Span};

/// Which answers of a route are kept, and for how long.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// How long an answer is given again.
    pub ttl: Span,
    /// For how long after that it is given where the upstream fails; not at all where absent.
    pub stale_if_error: Option<Span>,
    /// Which calls may be answered so.
    pub allow: Allow,
    /// Bytes of one answer.
    pub entry: Size,
    /// Whether answers that call a tool are kept.
    pub tool_calls: bool,
    /// Whether answers are kept that ended because they may be no longer.
    pub cut_off: bool,
    /// Whether a call waits for the answer to an equal one that is on its way, and gets that as it
    /// comes.
    pub single_flight: bool,
    /// How long it takes from one event of a kept stream to the next; all come at once where absent.
    pub pace: Option<Span>,
    /// Which calls get the answer to another that is not equal, but asks the same; none where absent.
    pub alike: Option<AlikeConfig>,
    /// Headers that make no difference to the answer, beside those that are known to make none; `*`
    /// stands for any characters.
    pub ignore_headers: Vec<String>,
}

/// Which calls may have an answer that was given before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// Those that ask for the same answer each time: temperature 0, a seed, embeddings.
    #[default]
    Deterministic,
    /// All that ask a model.
    All,
}

/// What all caches of this process share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SharedCacheConfig {
    /// Bytes of all answers that are kept.
    pub memory: Size,
    /// Bytes of all questions by which calls are known that ask the same.
    pub alike_memory: Size,
    /// Whether other sidecars have what is kept too, by way of the `store`.
    pub shared: bool,
}

/// No stream is slower: its caller would take it for dead.
const SLOWEST: Duration = Duration::from_secs(10);

// === impl CacheConfig ===

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            ttl: Span(Duration::from_secs(3600)),
            stale_if_error: None,
            allow: Allow::default(),
            entry: Size::mib(1),
            tool_calls: false,
            cut_off: false,
            single_flight: true,
            pace: None,
            alike: None,
            ignore_headers: Vec::new(),
        }
    }
}

impl CacheConfig {
    /// What one key cannot say of itself: the key, and what is wrong with it.
    pub(crate) fn check(
        &self,
        shared: &SharedCacheConfig,
    ) -> Result<(), (Vec<&'static str>, String)> {
        let (entry, memory) = (self.entry.as_u64(), shared.memory.as_u64());
        if entry > memory {
            let message = format!("{entry} bytes are over `cache.memory`, which is {memory} bytes");
            return Err((vec!["entry"], message));
        }
        if self.pace.is_some_and(|pace| pace.0 > SLOWEST) {
            let message = format!("is over {} s", SLOWEST.as_secs());
            return Err((vec!["pace"], message));
        }
        if let Some(embeddings) = self.embeddings() {
            let wrong = |(key, message)| (vec!["alike", "embeddings", key], message);
            embeddings.check().map_err(wrong)?;
        }
        let is_header = |pattern: &str| {
            let letters = pattern.replace('*', "");
            http::HeaderName::from_bytes(letters.as_bytes()).is_ok()
        };
        match self.ignore_headers.iter().find(|pattern| !is_header(pattern)) {
            Some(pattern) => Err((vec!["ignore_headers"], format!("`{pattern}` is not a header"))),
            None => Ok(()),
        }
    }

    /// What questions are compared by, beside their text.
    pub(crate) fn embeddings(&self) -> Option<&EmbeddingsConfig> {
        self.alike.as_ref()?.embeddings.as_ref()
    }

    /// How long an answer is kept, stale or not.
    pub(super) fn keep(&self) -> Duration {
        let stale = self.stale_if_error.map_or(Duration::ZERO, |span| span.0);
        self.ttl.0.saturating_add(stale)
    }
}

// === impl SharedCacheConfig ===

impl Default for SharedCacheConfig {
    fn default() -> Self {
        Self { memory: Size::mib(16), alike_memory: Size::mib(4), shared: false }
    }
}
