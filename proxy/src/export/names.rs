//! What things are called: the one place that knows how the GenAI conventions of OpenTelemetry
//! have renamed them.
//!
//! Records keep their keys whatever the switch says; it governs what others read by name, which is
//! metrics and spans.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The variable with which a platform says which conventions its programs are to follow.
const OPT_IN: &str = "OTEL_SEMCONV_STABILITY_OPT_IN";
/// The word in it that asks for the newest GenAI conventions.
const OPT_IN_LATEST: &str = "gen_ai_latest_experimental";

/// Which edition of the GenAI conventions names are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Conventions {
    /// The newest: `gen_ai.provider.name`.
    #[default]
    #[serde(rename = "latest")]
    Latest,
    /// Version 1.36, to which older instrumentations keep: `gen_ai.system`.
    #[serde(rename = "v1.36")]
    V1_36,
    /// The names of both, side by side, while boards and alerts move from one to the other.
    #[serde(rename = "both")]
    Both,
}

/// The newest name of a key of the record, and that in version 1.36 (a word of our own where that
/// version has none); absent where both call it as the record does.
fn renamed(key: &str) -> Option<(&'static str, &'static str)> {
    Some(match key {
        PROVIDER => (PROVIDER, SYSTEM),
        "openai.request.service_tier" => {
            ("openai.request.service_tier", "gen_ai.openai.request.service_tier")
        }
        "openai.response.service_tier" => {
            ("openai.response.service_tier", "gen_ai.openai.response.service_tier")
        }
        "openai.response.system_fingerprint" => {
            ("openai.response.system_fingerprint", "gen_ai.openai.response.system_fingerprint")
        }
        "gen_ai.request.stream" => ("gen_ai.request.stream", "tidegate.request.stream"),
        "tidegate.time_to_first_event_s" => {
            ("gen_ai.response.time_to_first_chunk", "tidegate.time_to_first_event_s")
        }
        "gen_ai.usage.cache_read.input_tokens" => {
            ("gen_ai.usage.cache_read.input_tokens", "tidegate.usage.cache_read.input_tokens")
        }
        "gen_ai.usage.cache_creation.input_tokens" => (
            "gen_ai.usage.cache_creation.input_tokens",
            "tidegate.usage.cache_creation.input_tokens",
        ),
        "gen_ai.usage.reasoning.output_tokens" => {
            ("gen_ai.usage.reasoning.output_tokens", "tidegate.usage.reasoning.output_tokens")
        }
        "gen_ai.embeddings.dimension.count" => {
            ("gen_ai.embeddings.dimension.count", "tidegate.request.dimensions")
        }
        _ => return None,
    })
}

/// Who serves a model, as the newest conventions call it.
pub(super) const PROVIDER: &str = "gen_ai.provider.name";
/// The same in version 1.36.
pub(super) const SYSTEM: &str = "gen_ai.system";

/// Values of [`PROVIDER`] that were others of [`SYSTEM`].
static SYSTEMS: [(&str, &str); 5] = [
    ("gcp.vertex_ai", "vertex_ai"),
    ("gcp.gemini", "gemini"),
    ("azure.ai.inference", "az.ai.inference"),
    ("azure.ai.openai", "az.ai.openai"),
    ("x_ai", "xai"),
];

/// The value of [`SYSTEM`] for a provider.
pub(super) fn system(provider: &str) -> &str {
    SYSTEMS.iter().find(|(new, _)| *new == provider).map_or(provider, |(_, old)| old)
}

// === impl Conventions ===

impl Conventions {
    /// The configured edition, unless the variable of the platform asks for the newest. A variable
    /// that says nothing of GenAI (`http`, `database/dup`) is about other conventions, and decides
    /// nothing here.
    pub fn settle(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let words = variable(OPT_IN).unwrap_or_default();
        let mut words = words.split(',').map(str::trim).filter(|word| word.starts_with("gen_ai"));
        match words.next() {
            None => self,
            Some(OPT_IN_LATEST) => Self::Latest,
            Some(_) => {
                warn!(variable = OPT_IN, "variable is not understood and left out");
                self
            }
        }
    }

    /// Whether the newest names are shown.
    pub(super) fn shows_latest(self) -> bool {
        self != Self::V1_36
    }

    /// Whether the names of version 1.36 are shown.
    pub(super) fn shows_v1_36(self) -> bool {
        self != Self::Latest
    }

    /// Whether an attribute of metrics is shown.
    pub(super) fn shows(self, attribute: &str) -> bool {
        match attribute {
            PROVIDER => self.shows_latest(),
            SYSTEM => self.shows_v1_36(),
            _ => true,
        }
    }

    /// What a key of the record is called in a span: once, or by both names.
    pub(super) fn names(self, key: &str) -> (&str, Option<&str>) {
        let Some((latest, v1_36)) = renamed(key) else { return (key, None) };
        match self {
            Self::Latest => (latest, None),
            Self::V1_36 => (v1_36, None),
            // Words of our own only stand in for what has no other name.
            Self::Both if v1_36.starts_with("tidegate.") => (latest, None),
            Self::Both => (latest, Some(v1_36)),
        }
    }

    /// Where the edition is described; two at once have no one place.
    pub(super) fn schema_url(self) -> &'static str {
        match self {
            Self::Latest => "https://opentelemetry.io/schemas/gen-ai/1.42.0",
            Self::V1_36 => "https://opentelemetry.io/schemas/1.36.0",
            Self::Both => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(configured: Conventions, value: &str) -> Conventions {
        configured.settle(|name| (name == OPT_IN).then(|| value.to_owned()))
    }

    #[test]
    fn a_variable_that_names_the_newest_genai_conventions_wins_over_the_file() {
        for value in ["gen_ai_latest_experimental", "http/dup, gen_ai_latest_experimental"] {
            assert_eq!(settle(Conventions::V1_36, value), Conventions::Latest, "{value}");
        }
    }

    #[test]
    fn a_variable_that_says_nothing_of_genai_decides_nothing() {
        for value in ["", "http", "database/dup,http", "gen_ai_something_else"] {
            assert_eq!(settle(Conventions::V1_36, value), Conventions::V1_36, "{value}");
            assert_eq!(settle(Conventions::Latest, value), Conventions::Latest, "{value}");
        }
    }

    #[test]
    fn a_provider_has_its_old_value_under_the_old_name_alone() {
        assert_eq!(system("gcp.vertex_ai"), "vertex_ai");
        assert_eq!(system("azure.ai.openai"), "az.ai.openai");
        assert_eq!(system("anthropic"), "anthropic");
        assert_eq!(Conventions::Both.names(PROVIDER), (PROVIDER, Some(SYSTEM)));
        assert_eq!(Conventions::V1_36.names(PROVIDER), (SYSTEM, None));
        assert_eq!(Conventions::Latest.names(PROVIDER), (PROVIDER, None));
    }
}
