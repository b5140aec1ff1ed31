//! What kind of call this is, as its head says.

use std::sync::Arc;

use crate::client;
use crate::dialect::{self, Asks, Call, DIALECTS, Path, Reading, recognise_reply};
use crate::grpc::{self, Method};
use crate::host::Host;
use crate::job;
use crate::request::{Asking, UNKNOWN, asking};
use crate::words::{bounded, whole, word};

/// What of a request's head decides how the call reads.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The host that the caller named, without its port.
    pub host: Option<&'a str>,
    /// The path as sent, percent-encoded, without its query.
    pub path: &'a str,
    /// The query as sent, without its `?`.
    pub query: Option<&'a str>,
    /// The other headers.
    pub headers: &'a dyn Headers,
}

/// Header fields, whoever holds them.
pub trait Headers {
    /// The first value of the field with this lower-case name.
    fn value(&self, name: &str) -> Option<&[u8]>;

    /// Shows every field, its name in whatever case.
    fn each(&self, show: &mut dyn FnMut(&[u8], &[u8]));
}

impl Headers for http::HeaderMap {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(|value| value.as_bytes())
    }

    fn each(&self, show: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| show(name.as_str().as_bytes(), value.as_bytes()));
    }
}

/// Whose interface the caller speaks: the word of `match: { dialect: ... }`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI and those that speak like it.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// The Gemini API.
    Gemini,
    /// Vertex AI, whosever model.
    Vertex,
    /// AWS Bedrock, whosever model.
    Bedrock,
    /// `/generate` of vLLM's demo server, and `/v1/generate`.
    Generate,
    /// No model call that we know.
    Other,
}

/// A call as its head shows it.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whose interface it is.
    pub dialect: Dialect,
    /// `gen_ai.operation.name`, absent where this is no model call.
    pub operation: Option<Arc<str>>,
    /// Who serves it, where host or path say so.
    pub provider: Option<Arc<str>>,
    /// The model, where the path names it (percent-decoded).
    pub model: Option<String>,
    /// Region or location, where host, path or signature name it.
    pub region: Option<Arc<str>>,
    /// The Google Cloud project, where the path names it.
    pub project: Option<String>,
    /// Whether a stream is asked for, where the path says so.
    pub stream: Option<bool>,
    /// How often the caller had tried this call before, where its SDK says so.
    pub client_retries: Option<u32>,
    /// Whether Google's SDK lost the path, so that nobody can tell what was meant.
    pub has_lost_path: bool,
    /// Whether nothing says who serves it, and the provider is whose interface it is.
    pub is_provider_assumed: bool,
    /// Whether it is a stream that comes where the request does not say.
    pub(crate) streams_unasked: bool,
    /// What the body of the request may add.
    pub(crate) asks: Asks,
    /// How the body of the request reads; absent where it says nothing.
    pub(crate) asking: Option<&'static Asking>,
    /// The guardrail that a header names.
    pub(crate) guardrail: Option<String>,
    /// The long-running job that the path names.
    pub(crate) job: Option<String>,
    /// How the reply reads; absent where nobody knows.
    pub(crate) reading: Option<&'static Reading>,
    /// How its messages read; absent where this is no gRPC.
    pub(crate) grpc: Option<Method>,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Bedrock,
        Self::Generate,
        Self::Other,
    ];
}

impl Shape {
    /// Reads the head of a request.
    pub fn read(head: &HeadView<'_>) -> Self {
        let host = Host::read(head.host.unwrap_or(""));
        let path = Path::new(before_query(head.path));
        if head.method == "POST" && grpc::is_grpc(head.headers) {
            return Self::grpc(head, &host, &path);
        }
        let Some(call) = DIALECTS.iter().find_map(|recognise| recognise(head, &path)) else {
            return Self::unknown(head, &path, &host);
        };
        Self::known(call, head, &host, &path)
    }

    /// A call by gRPC, whose path names a service and its method.
    fn grpc(head: &HeadView<'_>, host: &Host<'_>, path: &Path<'_>) -> Self {
        match dialect::grpc::recognise(head, path) {
            Some((call, method)) => Self {
                // Its messages are no JSON.
                asking: None,
                grpc: Some(method),
                ..Self::known(call, head, host, path)
            },
            None => Self {
                asks: Asks::default(),
                asking: None,
                grpc: Some(Method::default()),
                ..Self::unknown(head, path, host)
            },
        }
    }

    /// Whether this is a call by gRPC.
    pub fn is_grpc(&self) -> bool {
        self.grpc.is_some()
    }

    fn known(call: Call, head: &HeadView<'_>, host: &Host<'_>, path: &Path<'_>) -> Self {
        let signed = signed_region(head);
        let region = match host.region {
            Some(region) => Some(word(region)),
            None => call.region.as_deref().or(signed).map(word),
        };
        // Whoever speaks, a signature for Bedrock is only good there.
        let stated = host.provider.or(signed.and(Some("aws.bedrock")));
        let provider = stated.or(call.provider);
        let is_json = may_be_json(head);
        Self {
            dialect: call.dialect,
            asking: asking(&call, head).filter(|_| is_json),
            guardrail: guardrail(head, &call),
            job: job::named(path).and_then(whole),
            operation: Some(word(call.operation)),
            provider: provider.map(word),
            is_provider_assumed: stated.is_none(),
            model: call.model.map(bounded),
            region,
            project: call.project.map(bounded),
            stream: call.stream,
            client_retries: client::retries(head.headers),
            has_lost_path: false,
            streams_unasked: call.streams_unasked,
            asks: if is_json { call.asks } else { Asks::default() },
            reading: Some(call.reading),
            grpc: None,
        }
    }

    /// A call that only its reply makes known.
    pub(crate) fn recognise_reply(&mut self, headers: &dyn Headers) {
        if let Some(reading) = recognise_reply(headers) {
            self.dialect = Dialect::Generate;
            self.operation = Some(word("text_completion"));
            self.reading = Some(reading);
        }
    }

    /// A call that no dialect knows: it may still name a model.
    fn unknown(head: &HeadView<'_>, path: &Path<'_>, host: &Host<'_>) -> Self {
        let asks = Asks { model: head.method == "POST" && may_be_json(head), stream: false };
        Self {
            dialect: Dialect::Other,
            operation: None,
            provider: host.provider.map(word),
            is_provider_assumed: false,
            model: None,
            region: host.region.map(word),
            project: None,
            stream: None,
            streams_unasked: false,
            client_retries: client::retries(head.headers),
            has_lost_path: client::has_lost_path(head, path),
            asks,
            asking: asks.model.then_some(&UNKNOWN),
            guardrail: None,
            job: None,
            reading: None,
            grpc: None,
        }
    }
}

/// The path, whose query a client may have escaped by mistake: keys travel there.
fn before_query(path: &str) -> &str {
    if !path.contains('%') {
        return path;
    }
    let query = path.find("%3F").or_else(|| path.find("%3f"));
    &path[..query.unwrap_or(path.len())]
}

/// The guardrail that a call to Bedrock is to apply, where its head says so.
fn guardrail(head: &HeadView<'_>, call: &Call) -> Option<String> {
    if call.dialect != Dialect::Bedrock {
        return None;
    }
    let guardrail = head.headers.value("x-amzn-bedrock-guardrailidentifier")?;
    let name = String::from_utf8_lossy(guardrail).into_owned();
    Some(bounded(name)).filter(|name| !name.is_empty())
}

/// The region of Bedrock that the caller signed for (SigV4).
fn signed_region<'a>(head: &HeadView<'a>) -> Option<&'a str> {
    let signature = std::str::from_utf8(head.headers.value("authorization")?).ok()?;
    let (_, scope) = signature.strip_prefix("AWS4-HMAC-SHA256")?.split_once("Credential=")?;
    let mut parts = scope.split(['/', ',']).skip(2);
    let region = parts.next()?;
    parts.next()?.starts_with("bedrock").then_some(region)
}

/// Whether the body may be JSON: some clients do not say, or say what is not so. What turns out
/// to be none is given up at its first byte; only forms are told apart here.
fn may_be_json(head: &HeadView<'_>) -> bool {
    const FORM: &[u8] = b"multipart/";
    head.headers.value("content-type").is_none_or(|kind| {
        kind.get(..FORM.len()).is_none_or(|start| !start.eq_ignore_ascii_case(FORM))
    })
}

#[cfg(test)]
mod tests;
