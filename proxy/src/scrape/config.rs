//! What a user says of somebody whose figures are read.

use std::collections::BTreeMap;

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_settings::{Size, Span};

use crate::export::otlp::Secret;

/// What model servers and GPUs call their own: vLLM, SGLang, Text Generation Inference, DCGM's exporter.
const KNOWN: [&str; 4] = ["vllm:*", "sglang:*", "tgi_*", "DCGM_FI_*"];

/// Whose figures are read, and which of them are passed on by OTLP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrapeConfig {
    /// Where they stand: `http://127.0.0.1:8000/metrics`.
    #[schemars(extend("pattern" = "^https?://"))]
    pub url: String,
    /// Time from one reading to the next.
    #[serde(default = "every")]
    pub every: Span,
    /// Time that one reading may take.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// The names that are passed on, of metrics or of their families; `*` stands for any characters.
    #[serde(default = "known")]
    #[schemars(length(min = 1))]
    pub allow: Vec<String>,
    /// Attributes that all of them get.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Headers of the request; credentials stand here.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Bytes of one page, unpacked; a longer one is not read.
    #[serde(default = "max_page")]
    pub max_page: Size,
    /// Samples of one page that are passed on; more are dropped and counted.
    #[serde(default = "max_samples")]
    pub max_samples: u32,
}

fn every() -> Span {
    Span(std::time::Duration::from_secs(15))
}

fn timeout() -> Span {
    Span(std::time::Duration::from_secs(5))
}

fn known() -> Vec<String> {
    KNOWN.map(str::to_owned).to_vec()
}

fn max_page() -> Size {
    Size::mib(8)
}

fn max_samples() -> u32 {
    10_000
}

impl ScrapeConfig {
    /// What is wrong with it, and at which key.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let url: Option<Uri> = self.url.parse().ok();
        let is_usable = |url: &Uri| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        if !url.is_some_and(|url| is_usable(&url)) {
            let message = "is no http or https URL; credentials go to `headers`";
            return Err(("url", message.to_owned()));
        }
        if self.allow.is_empty() {
            let message = "allows nothing: name metrics, such as `vllm:*`";
            return Err(("allow", message.to_owned()));
        }
        if self.every.0.is_zero() || self.timeout.0.is_zero() {
            return Err(("every", "takes no time: 15s, with a timeout of 5s".to_owned()));
        }
        let is_header = |name: &String| http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if let Some(name) = self.headers.keys().find(|name| !is_header(name)) {
            return Err(("headers", format!("`{name}` is no name of a header")));
        }
        Ok(())
    }

    /// What its figures are told apart by: host and port, and the path where it is not the usual one.
    pub(crate) fn target(&self) -> String {
        let url: Uri = self.url.parse().unwrap_or_default();
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let path = Some(url.path()).filter(|path| *path != "/metrics");
        format!("{authority}{}", path.unwrap_or_default())
    }

    /// The URL without its query, in which a key may stand.
    pub(super) fn shown_url(&self) -> &str {
        self.url.split_once('?').map_or(&self.url, |(url, _)| url)
    }
}
