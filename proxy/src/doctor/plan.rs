//! Which call costs nothing, by whose interface a server most likely speaks.

use std::collections::BTreeSet;

use tidegate_wire::{Dialect, Host};

use super::credential::Own;
use crate::config::Config;
use crate::upstream::Origin;

/// Models that tokens are counted for where none is configured.
const GEMINI: &str = "gemini-2.5-flash";
const CLAUDE: &str = "anthropic.claude-sonnet-4-20250514-v1:0";

/// Providers who offer no call that costs nothing at a path of their own interface.
const WITHOUT: [&str; 6] =
    ["perplexity", "snowflake", "ibm.watsonx.ai", "cloudflare", "azure.ai.inference", "databricks"];
/// What comes before the usual paths at providers who have something there.
const BASES: [(&str, &str); 4] = [
    ("groq", "/openai"),
    ("openrouter", "/api"),
    ("fireworks_ai", "/inference"),
    ("z_ai", "/api/paas/v4"),
];

/// What the configuration says of an upstream's interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Clues {
    /// The dialects of its routes.
    dialects: BTreeSet<&'static str>,
    pub(super) model: Option<String>,
}

/// Whose interface a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    OpenAi,
    Azure,
    Anthropic,
    Gemini,
    Vertex,
    Bedrock,
    Generate,
    /// Nothing tells.
    Unknown,
}

/// One call that costs nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) method: &'static str,
    /// With the base of the URL.
    pub(super) path: String,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) body: String,
    pub(super) expects: Expects,
}

/// What a good answer holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expects {
    /// A list of models.
    Models,
    /// A count of tokens, by this model.
    Count(String),
    /// Nothing but its status.
    Health,
}

/// What to call; several are tried in turn where a path is not known.
pub(super) struct Plan {
    pub(super) interface: Interface,
    pub(super) probes: Vec<Probe>,
}

impl Clues {
    pub(super) fn of(upstream: &str, config: &Config) -> Self {
        let routes = config
            .routes
            .iter()
            .filter(|route| route.ways().iter().any(|way| way.route.upstream() == upstream));
        let dialects = routes.filter_map(|route| {
            let of_path =
                || route.matches.path.as_deref()?.contains("/generate").then_some("generate");
            route.matches.dialect.map(word).or_else(of_path)
        });
        let model = config.upstreams.get(upstream).and_then(|upstream| upstream.model.clone());
        Self { dialects: dialects.collect(), model }
    }
}

fn word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "openai",
        Dialect::Anthropic => "anthropic",
        Dialect::Gemini => "gemini",
        Dialect::Vertex => "vertex",
        Dialect::Bedrock => "bedrock",
        Dialect::Generate => "generate",
        Dialect::Other => "other",
    }
}

/// Whose interface it is: by provider, credential, routes, in this order.
fn interface(origin: &Origin, own: &Own, clues: &Clues) -> Interface {
    match origin.provider.as_deref() {
        // Mantle speaks as OpenAI does, signed or not.
        Some("aws.bedrock") if origin.host.contains("bedrock-mantle") => return Interface::OpenAi,
        Some("aws.bedrock") => return Interface::Bedrock,
        Some("gcp.vertex_ai") => return Interface::Vertex,
        Some("gcp.gemini") => return Interface::Gemini,
        Some("anthropic") => return Interface::Anthropic,
        Some("azure.ai.openai") => return Interface::Azure,
        _ => {}
    }
    if let Own::Some { kind, header, .. } = own {
        match (*kind, header.as_deref()) {
            ("aws", _) => return Interface::Bedrock,
            ("google", _) => return Interface::Vertex,
            (_, Some("x-goog-api-key")) => return Interface::Gemini,
            _ => {}
        }
    }
    let mut said = clues.dialects.iter();
    match (said.next().copied(), said.next()) {
        (Some("openai"), None) => Interface::OpenAi,
        (Some("anthropic"), None) => Interface::Anthropic,
        (Some("gemini"), None) => Interface::Gemini,
        (Some("vertex"), None) => Interface::Vertex,
        (Some("bedrock"), None) => Interface::Bedrock,
        (Some("generate"), None) => Interface::Generate,
        _ if origin.provider.is_some() => Interface::OpenAi,
        _ => Interface::Unknown,
    }
}

/// What to call, or why nothing is.
pub(super) fn plan(
    origin: &Origin,
    location: Option<&str>,
    own: &Own,
    project: Option<&str>,
    clues: &Clues,
) -> Result<Plan, String> {
    if let Some(provider) = origin.provider.as_deref().filter(|name| WITHOUT.contains(name)) {
        return Err(format!("{provider} offers no call that costs nothing"));
    }
    let interface = interface(origin, own, clues);
    let base = std::str::from_utf8(&origin.base).unwrap_or_default();
    let get = |path: &str, expects| Probe {
        method: "GET",
        path: join(base, path),
        headers: &[],
        body: String::new(),
        expects,
    };
    let first = match interface {
        Interface::OpenAi | Interface::Unknown => get("/v1/models", Expects::Models),
        Interface::Azure => get("/openai/v1/models", Expects::Models),
        Interface::Anthropic => Probe {
            headers: &[("anthropic-version", "2023-06-01")],
            ..get("/v1/models", Expects::Models)
        },
        Interface::Gemini => get("/v1beta/models", Expects::Models),
        Interface::Generate => get("/health", Expects::Health),
        Interface::Bedrock => bedrock(base, clues),
        Interface::Vertex => match vertex(origin, base, location, own, project, clues)? {
            Some(count) => count,
            None => get("/v1beta1/publishers/google/models?pageSize=1", Expects::Models),
        },
    };
    let is_known = Host::read(&origin.host).provider.is_some();
    let mut probes = vec![first];
    if !is_known && interface != Interface::Generate {
        let root = base.trim_end_matches("/v1");
        for path in ["/health", "/v2/health/ready"] {
            probes.push(Probe { path: format!("{root}{path}"), ..get(path, Expects::Health) });
        }
    }
    Ok(Plan { interface, probes })
}

/// `CountTokens` costs nothing, and is served by the host that serves the calls
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html>).
fn bedrock(base: &str, clues: &Clues) -> Probe {
    let model = clues.model.as_deref().unwrap_or(CLAUDE);
    Probe {
        method: "POST",
        path: join(base, &format!("/model/{}/count-tokens", segment(model))),
        headers: &[("content-type", "application/json")],
        body:
            r#"{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"tide"}]}]}}}"#
                .to_owned(),
        expects: Expects::Count(model.to_owned()),
    }
}

/// `countTokens` costs nothing, and needs the right that calls need; nothing where nobody signs
/// (<https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/projects.locations.publishers.models/countTokens>).
fn vertex(
    origin: &Origin,
    base: &str,
    location: Option<&str>,
    own: &Own,
    project: Option<&str>,
    clues: &Clues,
) -> Result<Option<Probe>, String> {
    let Own::Some { header, .. } = own else { return Ok(None) };
    let model = clues.model.as_deref().filter(|model| model.starts_with("gemini"));
    let model = model.unwrap_or(GEMINI);
    let publisher = format!("publishers/google/models/{}:countTokens", segment(model));
    let path = match (header.as_deref(), project) {
        // Express mode: the key names the project.
        (Some("x-goog-api-key"), _) => format!("/v1/{publisher}"),
        (_, Some(project)) => {
            let location = location.or(origin.region.as_deref()).unwrap_or("global");
            format!("/v1/projects/{}/locations/{location}/{publisher}", segment(project))
        }
        (_, None) => {
            return Err(
                "no project is known to count tokens in; set GOOGLE_CLOUD_PROJECT to have this examined"
                    .to_owned(),
            );
        }
    };
    Ok(Some(Probe {
        method: "POST",
        path: join(base, &path),
        headers: &[("content-type", "application/json")],
        body: r#"{"contents":[{"role":"user","parts":[{"text":"tide"}]}]}"#.to_owned(),
        expects: Expects::Count(model.to_owned()),
    }))
}

/// A base and a path whose beginning the base may hold already: `/openai/v1` and `/v1/models`.
fn join(base: &str, path: &str) -> String {
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    let held = ends.filter(|at| base.ends_with(&path[..*at])).max().unwrap_or(0);
    format!("{base}{}", &path[held..])
}

/// A name as a segment of a path.
fn segment(name: &str) -> String {
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut text = String::new();
    for byte in name.bytes() {
        match keeps(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What is most likely missing in a URL whose path is not known.
pub(super) fn missing_base(origin: &Origin) -> Option<&'static str> {
    let provider = origin.provider.as_deref()?;
    let (_, base) = BASES.iter().find(|(name, _)| *name == provider)?;
    let has = origin.base.windows(base.len()).any(|part| part == base.as_bytes());
    (!has).then_some(*base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamConfig;
    use crate::upstream::Spec;

    #[track_caller]
    fn first(url: &str, more: UpstreamConfig, dialect: Option<&'static str>) -> String {
        let upstream = UpstreamConfig { url: Some(url.to_owned()), ..more };
        let origin = Spec::new("a", &upstream).expect("good").origin(0, Some("eu"));
        let clues = Clues { dialects: dialect.into_iter().collect(), model: upstream.model };
        match plan(&origin, None, &Own::None, None, &clues) {
            Ok(plan) => format!("{} {}", plan.probes[0].method, plan.probes[0].path),
            Err(reason) => reason,
        }
    }

    #[test]
    fn the_call_is_one_that_costs_nothing() {
        let plain = UpstreamConfig::default;
        let provider = |name: &str| UpstreamConfig { provider: Some(name.to_owned()), ..plain() };
        for (url, more, dialect, expected) in [
            ("https://api.openai.com", plain(), None, "GET /v1/models"),
            ("https://api.groq.com/openai/v1", plain(), None, "GET /openai/v1/models"),
            ("https://api.anthropic.com", plain(), None, "GET /v1/models"),
            ("https://x.openai.azure.com", plain(), None, "GET /openai/v1/models"),
            (
                "https://generativelanguage.googleapis.com/v1beta",
                plain(),
                None,
                "GET /v1beta/models",
            ),
            ("https://bedrock-mantle.eu-west-1.api.aws", plain(), None, "GET /v1/models"),
            (
                "https://{location}-aiplatform.googleapis.com",
                plain(),
                None,
                "GET /v1beta1/publishers/google/models?pageSize=1",
            ),
            ("http://localhost:8000", plain(), None, "GET /v1/models"),
            ("http://localhost:8000", plain(), Some("generate"), "GET /health"),
            ("http://localhost:8000", provider("gcp.gemini"), None, "GET /v1beta/models"),
            (
                "https://bedrock-runtime.us-east-1.amazonaws.com",
                UpstreamConfig { model: Some("a:b".to_owned()), ..plain() },
                None,
                "POST /model/a%3Ab/count-tokens",
            ),
            (
                "https://api.perplexity.ai",
                plain(),
                None,
                "perplexity offers no call that costs nothing",
            ),
        ] {
            assert_eq!(first(url, more, dialect), expected, "{url}");
        }
    }

    #[test]
    fn a_base_that_begins_a_path_is_not_written_twice() {
        assert_eq!(join("", "/v1/models"), "/v1/models");
        assert_eq!(join("/v1", "/v1/models"), "/v1/models");
        assert_eq!(join("/api", "/v1/models"), "/api/v1/models");
        assert_eq!(join("/x/openai/v1", "/openai/v1/models"), "/x/openai/v1/models");
    }
}
