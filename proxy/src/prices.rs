//! The table of prices: the file that the user names, else the one that is built in.

use std::path::Path;
use std::sync::Arc;

use tidegate_wire::{DEFAULT_PRICES, Prices};

use crate::config::{ConfigError, parse_yaml, within_file};

/// Reads a table of prices; without a file, the one that ships with Tidegate.
pub fn prices(file: Option<&Path>) -> Result<Arc<Prices>, ConfigError> {
    let prices = match file {
        Some(path) => within_file(path, parse_yaml)?,
        None => parse_yaml(DEFAULT_PRICES)?,
    };
    Ok(Arc::new(prices))
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{Record, UsageSource};

    use super::*;

    /// What a million tokens of input and as many of output cost.
    fn cost(provider: &str, model: &str, region: Option<&str>) -> Option<f64> {
        let prices = prices(None).expect("the built-in table is a good one");
        let record = Record {
            time: "2026-11-21T10:00:00Z".parse().expect("a time"),
            operation: Some("chat".into()),
            provider: Some(provider.into()),
            request_model: Some(model.to_owned()),
            region: region.map(Into::into),
            input_tokens: Some(1_000_000),
            output_tokens: Some(1_000_000),
            usage_source: Some(UsageSource::Reported),
            ..Record::default()
        };
        prices.cost(&record).usd
    }

    #[test]
    fn the_built_in_table_knows_models_by_the_names_that_calls_have() {
        for (provider, model, region, dollars) in [
            ("openai", "gpt-4o", None, Some(12.5)),
            ("openai", "gpt-4o-2024-08-06", None, Some(12.5)),
            ("openai", "gpt-4o-2024-05-13", None, Some(20.0)),
            ("openai", "gpt-4o-mini-2024-07-18", None, Some(0.75)),
            ("openai", "gpt-4o-audio-preview", None, None),
            ("openai", "o3-2025-04-16", None, Some(10.0)),
            ("openai", "meta-llama/Llama-3.1-8B-Instruct", None, None),
            ("azure.ai.openai", "gpt-4o", None, None),
            ("anthropic", "claude-sonnet-4-5-20250929", None, Some(28.5)),
            ("anthropic", "claude-opus-4-5-20251101", None, Some(30.0)),
            ("anthropic", "claude-opus-4-20250514", None, Some(90.0)),
            ("anthropic", "claude-opus-4-6", None, None),
            ("anthropic", "claude-3-haiku-20240307", None, Some(1.5)),
            ("gcp.gemini", "gemini-2.5-flash", None, Some(2.8)),
            ("gcp.vertex_ai", "gemini-2.5-pro", Some("global"), Some(17.5)),
            ("gcp.gemini", "gemini-2.5-flash-image", None, None),
            ("gcp.vertex_ai", "claude-haiku-4-5@20251001", Some("global"), Some(6.0)),
            ("gcp.vertex_ai", "claude-haiku-4-5@20251001", Some("us-east5"), Some(6.6)),
            (
                "aws.bedrock",
                "us.anthropic.claude-sonnet-4-20250514-v1:0",
                Some("us-east-1"),
                Some(28.5),
            ),
            ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0", Some("eu-west-1"), Some(1.5)),
            ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0", Some("us-gov-west-1"), None),
            (
                "aws.bedrock",
                "global.anthropic.claude-haiku-4-5-20251001-v1:0",
                Some("us-east-1"),
                Some(6.0),
            ),
            (
                "aws.bedrock",
                "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
                Some("eu-west-1"),
                Some(6.6),
            ),
            ("aws.bedrock", "us.amazon.nova-pro-v1:0", Some("us-east-1"), Some(4.0)),
            ("deepseek", "deepseek-chat", None, Some(0.7)),
            ("mistral_ai", "mistral-large-2411", None, Some(8.0)),
            ("groq", "llama-3.3-70b-versatile", None, Some(1.38)),
            ("vllm", "gpt-4o", None, None),
        ] {
            assert_eq!(cost(provider, model, region), dollars, "{provider} {model} {region:?}");
        }
    }

    #[test]
    fn the_built_in_table_says_which_one_it_is() {
        let prices = prices(None).expect("the built-in table is a good one");
        assert_eq!(&**prices.version(), "2025-12-31");
        assert!(prices.len() > 70, "{}", prices.len());
    }
}
