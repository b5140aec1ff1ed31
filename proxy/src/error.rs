//! Why a call got no reply from an upstream, and what the caller is told instead.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{Dialect, ErrorOrigin};

use crate::call::{Reply, ReplyBody};
use crate::exchange::Notes;
use crate::head::{Fields, ResponseHead};
use crate::http1::body::BodyError;
use crate::http1::parse::HeadError;
use crate::layer::quota::Spent;
use crate::upstream::Unreached;

/// The cause of something that went wrong below.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// `error.type` of an answer that stood still for too long.
pub(crate) const IDLE_TIMEOUT: &str = "upstream_idle_timeout";

/// Why a call got no reply from an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Head(#[from] HeadError),
    #[error("request head did not come within {limit_s} s")]
    HeadTimeout { limit_s: u64 },
    #[error(
        "this call brings neither the key nor the name of a caller that is known here; see `callers` \
         in the configuration"
    )]
    CallerUnknown,
    #[error("caller `{caller}` may not ask for {}", asked(model.as_deref()))]
    ModelNotAllowed { caller: Arc<str>, model: Option<String> },
    #[error("no route matches this call; see `routes` in the configuration")]
    NoRoute,
    #[error(
        "google-genai sent this call to its base URL alone, without model or method; give \
         `project` and `location`, or an API key, to the constructor of the client"
    )]
    SdkLostPath,
    #[error("location `{location}` is not among the locations of upstream `{upstream}`")]
    Location { upstream: Arc<str>, location: String },
    #[error("upstream `{upstream}` has no credential for this call: {}", source.for_caller())]
    Credential { upstream: Arc<str>, source: tidegate_credential::Error },
    #[error("request body is over {limit_bytes} bytes, and must be held to be signed")]
    SignedBodyTooLarge { limit_bytes: u64 },
    #[error("requests that wait to be signed hold {limit_bytes} bytes already")]
    SignedBodiesFull { limit_bytes: u64 },
    #[error("there is no kept answer to this call, and its caller wants no other")]
    NotCached,
    #[error("{0}")]
    QuotaSpent(Box<Spent>),
    #[error("circuit breaker {0}")]
    CircuitOpen(Box<Refusal>),
    #[error("rate gate {0}")]
    RateGateClosed(Box<Refusal>),
    #[error("the caller left")]
    CallerLeft,
    #[error("request body broke off")]
    Body(#[source] BodyError),
    #[error("request body stood still for {limit_s} s")]
    BodyTimeout { limit_s: u64 },
    #[error(
        "`{host}` is an address of this machine or serves machines alone, such as metadata: let \
         NO_PROXY name it, or set `intercept.local`"
    )]
    LocalAddress { host: Arc<str> },
    #[error("upstream `{upstream}` cannot be reached: {source}")]
    Connect { upstream: Arc<str>, why: Unreached, source: Source },
    #[error("upstream `{upstream}` did not accept a connection within {limit_s} s")]
    ConnectTimeout { upstream: Arc<str>, limit_s: u64 },
    #[error("upstream `{upstream}` had no HTTP/2 stream free within {limit_s} s")]
    Saturated { upstream: Arc<str>, limit_s: u64 },
    #[error("upstream `{upstream}` has as many calls as it may, and as many wait as may")]
    LimitQueueFull { upstream: Arc<str>, retry_after: Duration },
    #[error("upstream `{upstream}` has as many calls as it may, and none ended within {waited:?}")]
    LimitQueueTimeout { upstream: Arc<str>, waited: Duration, retry_after: Duration },
    #[error("upstream `{upstream}` has no TLS that we trust: {source}")]
    Tls { upstream: Arc<str>, source: Source },
    #[error("upstream `{upstream}` does not speak HTTP/2, which gRPC needs")]
    NoHttp2 { upstream: Arc<str> },
    #[error("upstream `{upstream}` closed the connection without an answer")]
    Closed { upstream: Arc<str>, source: Option<Source> },
    #[error("upstream `{upstream}` gave no answer within {limit_s} s")]
    ResponseTimeout { upstream: Arc<str>, limit_s: u64 },
    #[error("upstream `{upstream}` sent no token within {limit_s} s")]
    FirstTokenTimeout { upstream: Arc<str>, limit_s: u64 },
    #[error("the answer was not there within {limit_s} s, which is all that its route allows")]
    TotalTimeout { limit_s: u64 },
    #[error("upstream `{upstream}` sent something that is not HTTP: {source}")]
    Protocol { upstream: Arc<str>, source: Source },
}

/// What keeps calls from an upstream for now, why, and for how long at least.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What it is that is shut, whose it is and why, in words.
    pub(crate) what: String,
    /// Why, as one of few fixed words.
    pub(crate) reason: &'static str,
    pub(crate) wait: Duration,
}

impl Error {
    /// A request body that breaks off is a caller that leaves, unless it breaks the rules.
    pub(crate) fn of_caller(error: BodyError) -> Self {
        match error {
            BodyError::Cut | BodyError::Io(_) => Self::CallerLeft,
            error => Self::Body(error),
        }
    }

    /// The `error.type` of records: one of few fixed words, never a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Head(HeadError::TooLarge) => "head_too_large",
            Self::Head(_) => "bad_request",
            Self::HeadTimeout { .. } => "request_head_timeout",
            Self::CallerUnknown => "caller_unknown",
            Self::ModelNotAllowed { .. } => "model_not_allowed",
            Self::NoRoute => "no_route",
            Self::SdkLostPath => "sdk_lost_path",
            Self::Location { .. } => "location_not_configured",
            Self::Credential { source, .. } => source.kind(),
            Self::SignedBodyTooLarge { .. } => "signed_body_too_large",
            Self::SignedBodiesFull { .. } => "signed_bodies_full",
            Self::NotCached => "not_cached",
            Self::QuotaSpent(spent) if spent.wait().is_none() => "over_quota",
            Self::QuotaSpent(_) => "quota_spent",
            Self::CircuitOpen(_) => "circuit_open",
            Self::RateGateClosed(_) => "rate_limited_upstream",
            Self::CallerLeft => "caller_left",
            Self::Body(_) => "request_body_broken",
            Self::BodyTimeout { .. } => "request_body_timeout",
            Self::LocalAddress { .. } => "local_address",
            Self::Connect { .. } => "upstream_unreachable",
            Self::ConnectTimeout { .. } => "upstream_connect_timeout",
            Self::Saturated { .. } => "upstream_saturated",
            Self::LimitQueueFull { .. } => "limit_queue_full",
            Self::LimitQueueTimeout { .. } => "limit_queue_timeout",
            Self::Tls { .. } => "upstream_tls",
            Self::Closed { .. } => "upstream_closed",
            Self::ResponseTimeout { .. } => "upstream_response_timeout",
            Self::FirstTokenTimeout { .. } => "first_token_timeout",
            Self::TotalTimeout { .. } => "total_timeout",
            Self::NoHttp2 { .. } | Self::Protocol { .. } => "upstream_protocol",
        }
    }

    /// Why there is no connection, where there is none.
    pub(crate) fn unreached(&self) -> Option<Unreached> {
        match self {
            Self::Connect { why, .. } => Some(*why),
            Self::ConnectTimeout { .. } => Some(Unreached::Timeout),
            Self::Tls { .. } => Some(Unreached::Tls),
            Self::NoHttp2 { .. } => Some(Unreached::NoHttp2),
            _ => None,
        }
    }

    /// The status that the caller gets.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Head(HeadError::TooLarge) => 431,
            Self::Head(HeadError::Connect) => 405,
            Self::Head(HeadError::Misdirected) => 421,
            Self::Head(HeadError::Unlisted) => 403,
            Self::Head(_) | Self::SdkLostPath | Self::CallerLeft | Self::Body(_) => 400,
            Self::CallerUnknown => 401,
            Self::ModelNotAllowed { .. } | Self::LocalAddress { .. } => 403,
            Self::HeadTimeout { .. } | Self::BodyTimeout { .. } => 408,
            Self::NoRoute | Self::Location { .. } => 404,
            Self::SignedBodyTooLarge { .. } => 413,
            Self::RateGateClosed(_) | Self::QuotaSpent(_) => 429,
            Self::Saturated { .. }
            | Self::SignedBodiesFull { .. }
            | Self::CircuitOpen(_)
            | Self::LimitQueueFull { .. }
            | Self::LimitQueueTimeout { .. } => 503,
            Self::NotCached
            | Self::ConnectTimeout { .. }
            | Self::ResponseTimeout { .. }
            | Self::FirstTokenTimeout { .. }
            | Self::TotalTimeout { .. } => 504,
            Self::Credential { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::NoHttp2 { .. }
            | Self::Closed { .. }
            | Self::Protocol { .. } => 502,
        }
    }

    /// Who caused it.
    pub(crate) fn origin(&self) -> ErrorOrigin {
        match (self, self.status()) {
            (
                Self::Credential { .. }
                | Self::SignedBodiesFull { .. }
                | Self::LimitQueueFull { .. }
                | Self::LimitQueueTimeout { .. },
                _,
            ) => ErrorOrigin::Sidecar,
            (Self::RateGateClosed(_) | Self::QuotaSpent(_), _) => ErrorOrigin::Quota,
            (Self::NotCached, _) => ErrorOrigin::Client,
            (_, 400..500) => ErrorOrigin::Client,
            _ => ErrorOrigin::Upstream,
        }
    }

    /// The policy of ours that kept the call from its upstream: the `tidegate.block_reason`.
    pub(crate) fn block_reason(&self) -> Option<&'static str> {
        match self {
            Self::LimitQueueFull { .. } | Self::LimitQueueTimeout { .. } => Some(self.kind()),
            Self::QuotaSpent(spent) => Some(spent.kind.block_reason()),
            _ => self.refusal().map(|refusal| refusal.reason),
        }
    }

    /// After how long the caller may try again, where that is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LimitQueueFull { retry_after, .. }
            | Self::LimitQueueTimeout { retry_after, .. } => Some(*retry_after),
            Self::QuotaSpent(spent) => spent.wait(),
            _ => self.refusal().map(|refusal| refusal.wait),
        }
    }

    /// Whether to try the same again by itself is in vain: SDKs wait for a minute at most.
    fn is_lasting(&self) -> bool {
        match self {
            Self::QuotaSpent(spent) => spent.wait().is_none_or(|wait| wait > LONGEST_PATIENCE),
            _ => false,
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::CircuitOpen(refusal) | Self::RateGateClosed(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The answer to the caller, in the form that its SDK reads.
    pub(crate) fn reply(&self, dialect: Dialect) -> Reply {
        let (status, kind) = (self.status(), self.kind());
        // The path does not say whose call it is, but the SDK does.
        let dialect = if matches!(self, Self::SdkLostPath) { Dialect::Vertex } else { dialect };
        let body = body(dialect, status, kind, &format!("tidegate: {self}"));
        let mut map = http::HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            map.insert(name, value.parse().expect("words and numbers are header values"));
        };
        set("content-type", "application/json");
        set("content-length", &body.len().to_string());
        set("x-tidegate-error", kind);
        if let Some(wait) = self.retry_after() {
            // Whole seconds are all that it has.
            set("retry-after", &wait.as_millis().div_ceil(1000).max(1).to_string());
        }
        if self.is_lasting() {
            set("x-should-retry", "false");
        }
        if dialect == Dialect::Bedrock {
            set("x-amzn-errortype", kind);
        }
        let head =
            ResponseHead { status, reason: reason(status).into(), fields: Fields::from_map(&map) };
        Reply { head, body: ReplyBody::Full(body.into()) }
    }

    /// The answer to a caller that speaks gRPC: nothing but a head with the status, which goes into
    /// the record too.
    pub(crate) fn grpc_reply(&self, notes: &Notes) -> Reply {
        let code = match self {
            Self::QuotaSpent(_) => RESOURCE_EXHAUSTED,
            _ => grpc_status(self.status()),
        };
        notes.record(|record| {
            record.status = Some(200);
            record.grpc_status = Some(code);
        });
        let mut map = http::HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            map.insert(name, value.parse().expect("printable ASCII is a header value"));
        };
        set("content-type", "application/grpc");
        set("grpc-status", &code.to_string());
        set("grpc-message", &percent_encoded(&format!("tidegate: {self}")));
        set("x-tidegate-error", self.kind());
        if let Some(wait) = self.retry_after() {
            set("grpc-retry-pushback-ms", &wait.as_millis().to_string());
        }
        let head = ResponseHead {
            status: 200,
            reason: reason(200).into(),
            fields: Fields::from_map(&map),
        };
        Reply { head, body: ReplyBody::Full(bytes::Bytes::new()) }
    }
}

/// What a caller may not have, in words.
fn asked(model: Option<&str>) -> String {
    /// Characters of a name that are shown: it is the caller's own.
    const SHOWN: usize = 80;
    match model {
        Some(model) => format!("model `{}`", model.chars().take(SHOWN).collect::<String>()),
        None => "what names no model, or none that can be told for certain".to_owned(),
    }
}

impl Refusal {
    /// In whole seconds, as the header has it: rather too late than too early.
    fn retry_after_s(&self) -> u64 {
        self.wait.as_millis().div_ceil(1000).clamp(1, u128::from(u32::MAX)) as u64
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; try again in {} s", self.what, self.retry_after_s())
    }
}

/// gRPC's status for a quota that is spent.
const RESOURCE_EXHAUSTED: u32 = 8;
/// What the SDKs of OpenAI and Anthropic wait at most where they are told to.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);

/// What gRPC's clients make of a status of HTTP (github.com/grpc/grpc,
/// `doc/http-grpc-status-mapping.md`).
fn grpc_status(status: u16) -> u32 {
    match status {
        400 => 13,                   // INTERNAL
        401 => 16,                   // UNAUTHENTICATED
        403 => 7,                    // PERMISSION_DENIED
        404 => 12,                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => 14, // UNAVAILABLE
        _ => 2,                      // UNKNOWN
    }
}

/// A message as gRPC's trailers hold it: printable ASCII, all else percent-encoded.
fn percent_encoded(message: &str) -> String {
    let encoded = |byte| match byte {
        b'%' | 0..=0x1F | 0x7F.. => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    };
    message.bytes().map(encoded).collect()
}

/// An error body as the dialect's own provider would write it.
fn body(dialect: Dialect, status: u16, kind: &str, message: &str) -> String {
    let json = match dialect {
        Dialect::Anthropic => serde_json::json!({
            "type": "error", "error": { "type": kind, "message": message },
        }),
        Dialect::Gemini | Dialect::Vertex => serde_json::json!({
            "error": { "code": status, "message": message, "status": google_status(status) },
        }),
        Dialect::Bedrock => serde_json::json!({ "message": message }),
        Dialect::OpenAi | Dialect::Generate | Dialect::Other => serde_json::json!({
            "error": { "message": message, "type": "tidegate_error", "param": null, "code": kind },
        }),
    };
    json.to_string()
}

/// Google's word for a status (AIP-193).
fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        400..500 => "INVALID_ARGUMENT",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNAVAILABLE",
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_for_grpc_is_printable_and_reads_back() {
        assert_eq!(percent_encoded("no route: 100% \u{fc}\n"), "no route: 100%25 %C3%BC%0A");
    }
}
