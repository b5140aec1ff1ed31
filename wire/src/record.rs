//! What is kept of one call: the only thing that exporters, pages and reports ever see.
//!
//! Keys follow the GenAI conventions of OpenTelemetry where those have a name. An absent value is
//! an absent key: nothing is made up.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::capture::Captured;
use crate::content::Content;
use crate::{ErrorOrigin, Outcome};

mod asked;
mod attempt;
mod cached;
mod drain;
mod id;
mod job;
mod limits;
mod line;
mod media;
mod moment;
mod quota;

pub use asked::Asked;
pub use attempt::Attempt;
pub use cached::{CacheSource, Cached};
pub use drain::{Drain, DrainEnd};
pub use id::{Id, SpanId, TraceId};
pub use job::{Job, JobOutcome};
pub use limits::{RateLimit, RateLimits};
pub use media::Media;
pub use moment::Moment;
pub use quota::Quota;

/// One call, from the moment its head was read to its last byte.
///
/// Serialises to one flat JSON object. All `*_s` values are seconds from the start of the call,
/// unless their name says that they are a wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When the request head had been read: wall clock, UTC, microseconds.
    #[serde(serialize_with = "microseconds")]
    pub time: Timestamp,
    /// W3C trace id: the caller's, or drawn by us.
    pub trace_id: TraceId,
    /// The id of this call's span.
    pub span_id: SpanId,
    /// The caller's span, where it sent a `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<SpanId>,

    /// `chat`, `generate_content`, `text_completion`, `embeddings`, or a word of our own.
    #[serde(rename = "gen_ai.operation.name", skip_serializing_if = "Option::is_none")]
    pub operation: Option<Arc<str>>,
    /// Who serves the model: `openai`, `gcp.vertex_ai`, `aws.bedrock`, ...
    #[serde(rename = "gen_ai.provider.name", skip_serializing_if = "Option::is_none")]
    pub provider: Option<Arc<str>>,
    /// The model as requested.
    #[serde(rename = "gen_ai.request.model", skip_serializing_if = "Option::is_none")]
    pub request_model: Option<String>,
    /// Whether the answer was asked for as a stream.
    #[serde(rename = "gen_ai.request.stream", skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What else the request asked for.
    #[serde(flatten, deserialize_with = "unless_empty")]
    pub asked: Option<Box<Asked>>,
    /// Media that went in and came out.
    #[serde(flatten, deserialize_with = "unless_empty")]
    pub media: Option<Box<Media>>,
    /// The model as the answer states it.
    #[serde(rename = "gen_ai.response.model", skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// The id of the answer.
    #[serde(rename = "gen_ai.response.id", skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The provider's own words, by choice or candidate.
    #[serde(rename = "gen_ai.response.finish_reasons", skip_serializing_if = "Vec::is_empty")]
    pub finish_reasons: Vec<String>,
    /// The service tier that served the call.
    #[serde(rename = "openai.response.service_tier", skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The fingerprint of the system that served the call.
    #[serde(
        rename = "openai.response.system_fingerprint",
        skip_serializing_if = "Option::is_none"
    )]
    pub system_fingerprint: Option<String>,

    /// All input tokens, cached ones included.
    #[serde(rename = "gen_ai.usage.input_tokens", skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// All output tokens, reasoning included.
    #[serde(rename = "gen_ai.usage.output_tokens", skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Of the input tokens, those read from a cache.
    #[serde(
        rename = "gen_ai.usage.cache_read.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    pub cache_read_tokens: Option<u64>,
    /// Of the input tokens, those written to a cache.
    #[serde(
        rename = "gen_ai.usage.cache_creation.input_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    pub cache_creation_tokens: Option<u64>,
    /// Of the output tokens, those spent on reasoning.
    #[serde(
        rename = "gen_ai.usage.reasoning.output_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    pub reasoning_tokens: Option<u64>,
    /// Where the token numbers come from; absent where there are none.
    #[serde(rename = "tidegate.usage.source", skip_serializing_if = "Option::is_none")]
    pub usage_source: Option<UsageSource>,
    /// The size class of the input: one of few fixed words.
    #[serde(rename = "tidegate.input.size_class", skip_serializing_if = "Option::is_none")]
    pub size_class: Option<Arc<str>>,
    /// What the call costs by the price table, in US dollars.
    #[serde(rename = "tidegate.cost_usd", skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The version of the price table by which it was reckoned.
    #[serde(rename = "tidegate.cost.prices", skip_serializing_if = "Option::is_none")]
    pub price_version: Option<Arc<str>>,
    /// True where the call used something that the price table has no price for.
    #[serde(rename = "tidegate.cost.unpriced", skip_serializing_if = "Option::is_none")]
    pub unpriced: Option<bool>,

    /// The provider's region or location.
    #[serde(rename = "cloud.region", skip_serializing_if = "Option::is_none")]
    pub region: Option<Arc<str>>,
    /// The Google Cloud project.
    #[serde(rename = "gcp.project_id", skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The host behind us, never our own address.
    #[serde(rename = "server.address", skip_serializing_if = "Option::is_none")]
    pub server_address: Option<Arc<str>>,
    /// The port behind us.
    #[serde(rename = "server.port", skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
    /// `GET`, `POST`, ...
    #[serde(rename = "http.request.method", skip_serializing_if = "Option::is_none")]
    pub method: Option<Arc<str>>,
    /// The path without its query: keys travel there.
    #[serde(rename = "url.path", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status that the caller got.
    #[serde(rename = "http.response.status_code", skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The status of a gRPC call, as its trailers say.
    #[serde(rename = "rpc.grpc.status_code", skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// What the connection was changed to (`websocket`): its bytes were passed on, not read.
    #[serde(rename = "tidegate.upgrade", skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Arc<str>>,

    /// How the call ended; absent only while it is open.
    #[serde(rename = "tidegate.outcome", skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The route that took the call.
    #[serde(rename = "tidegate.route", skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// The arm of its route's split that it went to; absent where the route has none.
    #[serde(rename = "tidegate.split", skip_serializing_if = "Option::is_none")]
    pub split: Option<Arc<str>>,
    /// True where it is a copy that Tidegate made of a call, to measure another upstream: in no figure of
    /// what callers asked.
    #[serde(rename = "tidegate.shadow", skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
    /// True where Tidegate made it itself, to keep its upstream warm: likewise.
    #[serde(rename = "tidegate.warm_up", skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<bool>,
    /// True where Tidegate made it itself, to know what a question means: likewise.
    #[serde(rename = "tidegate.embedding", skip_serializing_if = "Option::is_none")]
    pub embedding: Option<bool>,
    /// True where it is a call of Tidegate's load generator, as its `tracestate` says.
    #[serde(rename = "tidegate.load_test", skip_serializing_if = "Option::is_none")]
    pub load_test: Option<bool>,
    /// The upstream that served it.
    #[serde(rename = "tidegate.upstream", skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Arc<str>>,
    /// The caller's name, where callers are told apart.
    #[serde(rename = "tidegate.caller", skip_serializing_if = "Option::is_none")]
    pub caller: Option<Arc<str>>,
    /// The place in the route's list of the target that it fell back to, counted from 1; absent where
    /// it went where its route leads.
    #[serde(rename = "tidegate.fallback", skip_serializing_if = "Option::is_none")]
    pub fallback: Option<u64>,
    /// The model that the upstream was asked for, where that is not the one that the caller asked for.
    #[serde(rename = "tidegate.called_model", skip_serializing_if = "Option::is_none")]
    pub called_model: Option<Arc<str>>,
    /// What a cache did for the call.
    #[serde(flatten, deserialize_with = "unless_empty")]
    pub cached: Option<Box<Cached>>,
    /// How often an upstream was tried.
    #[serde(rename = "tidegate.attempts", skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How often the caller had tried this call before, where its SDK says so.
    #[serde(rename = "tidegate.client_retries", skip_serializing_if = "Option::is_none")]
    pub client_retries: Option<u32>,

    /// The provider's type, else its code, else the HTTP status; for refusals a word of our list.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The provider's code, as text.
    #[serde(rename = "tidegate.error.code", skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Who caused the error.
    #[serde(rename = "tidegate.error.origin", skip_serializing_if = "Option::is_none")]
    pub error_origin: Option<ErrorOrigin>,
    /// Why the provider blocked the prompt.
    #[serde(rename = "tidegate.block_reason", skip_serializing_if = "Option::is_none")]
    pub block_reason: Option<String>,
    /// What will go wrong in silence: one of few fixed words each.
    #[serde(rename = "tidegate.warnings", skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Arc<str>>,

    /// Last byte of the body − start.
    #[serde(rename = "tidegate.duration_s", skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// First byte of the response (its head) − start.
    #[serde(rename = "tidegate.time_to_first_byte_s", skip_serializing_if = "Option::is_none")]
    pub time_to_first_byte_s: Option<f64>,
    /// First byte of the body − start; streams only.
    #[serde(
        rename = "tidegate.time_to_first_body_byte_s",
        skip_serializing_if = "Option::is_none"
    )]
    pub time_to_first_body_byte_s: Option<f64>,
    /// First whole event (or JSON text) of the body − start; streams only.
    #[serde(rename = "tidegate.time_to_first_event_s", skip_serializing_if = "Option::is_none")]
    pub time_to_first_event_s: Option<f64>,
    /// First token − start; streams only.
    #[serde(rename = "tidegate.time_to_first_token_s", skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_s: Option<f64>,
    /// First token that is not reasoning − start; streams only.
    #[serde(
        rename = "tidegate.time_to_first_visible_token_s",
        skip_serializing_if = "Option::is_none"
    )]
    pub time_to_first_visible_token_s: Option<f64>,
    /// Last token − start; streams only.
    #[serde(rename = "tidegate.time_to_last_token_s", skip_serializing_if = "Option::is_none")]
    pub time_to_last_token_s: Option<f64>,
    /// (Last token − first token) / (output tokens − 1); streams with at least two tokens only.
    #[serde(rename = "tidegate.time_per_output_token_s", skip_serializing_if = "Option::is_none")]
    pub time_per_output_token_s: Option<f64>,
    /// Chunks that bore tokens; streams only.
    #[serde(rename = "tidegate.token_chunks", skip_serializing_if = "Option::is_none")]
    pub token_chunks: Option<u64>,
    /// The median of the gaps between two such chunks, to within 5 %; streams only.
    #[serde(rename = "tidegate.gap.p50_s", skip_serializing_if = "Option::is_none")]
    pub gap_p50_s: Option<f64>,
    /// Their 99th percentile, to within 5 %.
    #[serde(rename = "tidegate.gap.p99_s", skip_serializing_if = "Option::is_none")]
    pub gap_p99_s: Option<f64>,
    /// The longest, exactly.
    #[serde(rename = "tidegate.gap.max_s", skip_serializing_if = "Option::is_none")]
    pub gap_max_s: Option<f64>,
    /// Gaps over 1 s.
    #[serde(rename = "tidegate.stalls", skip_serializing_if = "Option::is_none")]
    pub stalls: Option<u64>,
    /// What Tidegate itself added.
    #[serde(rename = "tidegate.overhead_s", skip_serializing_if = "Option::is_none")]
    pub overhead_s: Option<f64>,
    /// Waited between two attempts.
    #[serde(rename = "tidegate.wait.retry_s", skip_serializing_if = "Option::is_none")]
    pub wait_retry_s: Option<f64>,
    /// Waited for a free upstream connection.
    #[serde(rename = "tidegate.wait.pool_s", skip_serializing_if = "Option::is_none")]
    pub wait_pool_s: Option<f64>,
    /// Waited for the name to resolve.
    #[serde(rename = "tidegate.wait.dns_s", skip_serializing_if = "Option::is_none")]
    pub wait_dns_s: Option<f64>,
    /// Waited for TCP to connect.
    #[serde(rename = "tidegate.wait.connect_s", skip_serializing_if = "Option::is_none")]
    pub wait_connect_s: Option<f64>,
    /// Waited for the TLS handshake.
    #[serde(rename = "tidegate.wait.tls_s", skip_serializing_if = "Option::is_none")]
    pub wait_tls_s: Option<f64>,
    /// Waited for a place among the calls that the upstream may have at a time.
    #[serde(rename = "tidegate.wait.queue_s", skip_serializing_if = "Option::is_none")]
    pub wait_queue_s: Option<f64>,

    /// Bytes of the request body.
    #[serde(rename = "tidegate.request.bytes", skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Bytes of the response body.
    #[serde(rename = "tidegate.response.bytes", skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// How long the provider asks to wait, on an error.
    #[serde(rename = "tidegate.retry_after_s", skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<f64>,
    /// The answer of a call that counts tokens: not usage.
    #[serde(rename = "tidegate.counted_tokens", skip_serializing_if = "Option::is_none")]
    pub counted_tokens: Option<u64>,
    /// What the answer says of the provider's rate limits.
    #[serde(flatten)]
    pub limits: RateLimits,
    /// The long-running operation that the call submits or polls.
    #[serde(flatten, deserialize_with = "unless_empty")]
    pub job: Option<Box<Job>>,
    /// How its answer was read on though its caller had left.
    #[serde(flatten, deserialize_with = "unless_empty")]
    pub drain: Option<Box<Drain>>,
    /// What quotas made of the call.
    #[serde(flatten, deserialize_with = "unless_empty")]
    pub quota: Option<Box<Quota>>,
    /// Why reading this call's body was given up, if it was: one of few fixed words.
    #[serde(rename = "tidegate.not_understood", skip_serializing_if = "Option::is_none")]
    pub not_understood: Option<Arc<str>>,

    /// Whether the provider is only the one whose interface the call speaks: anybody may serve that.
    /// No key: for prices.
    #[serde(skip)]
    pub is_provider_assumed: bool,
    /// Whether something was written to a cache that keeps it for longer than usual. No key: for
    /// prices.
    #[serde(skip)]
    pub has_long_cache_write: bool,
    /// Whether the answer calls a tool. No key: for caches.
    #[serde(skip)]
    pub calls_tool: bool,
    /// Whether the caller's trace is sampled, where it sent a `traceparent`. No key: for spans.
    #[serde(skip)]
    pub is_sampled: Option<bool>,
    /// When the first byte went to the upstream. No key: for spans.
    #[serde(skip)]
    pub sent_s: Option<f64>,
    /// Waits on the way, in their order. No key: for spans.
    #[serde(skip)]
    pub moments: Vec<Moment>,
    /// All attempts, where there was more than one. No key: for spans.
    #[serde(skip)]
    pub attempts_made: Vec<Attempt>,
    /// What was said, where the user has switched that on. No key: for spans alone.
    #[serde(skip)]
    pub content: Option<Arc<Content>>,
    /// What was asked, where it is captured. No key: for the capture alone.
    #[serde(skip)]
    pub captured: Option<Arc<Captured>>,
}

impl Record {
    /// Whether a completed call lacks the token numbers that its operation should have had.
    pub fn lacks_usage(&self) -> bool {
        let generates = self.operation.as_deref().is_some_and(|operation| {
            matches!(operation, "chat" | "generate_content" | "text_completion" | "embeddings")
        });
        // Who makes images by an interface for text is not asked for tokens.
        let makes_images = self.media.as_ref().is_some_and(|media| media.images_made.is_some());
        let is_silent = self.usage_source.is_none() && self.counted_tokens.is_none();
        let is_due = generates && !makes_images && !self.is_from_cache();
        is_due && is_silent && self.outcome == Some(Outcome::Completed)
    }

    /// Why Tidegate made the call itself; absent where a caller did.
    pub fn own(&self) -> Option<&'static str> {
        let is = |mark: Option<bool>| mark == Some(true);
        match () {
            () if is(self.shadow) => Some("shadow"),
            () if is(self.warm_up) => Some("warm_up"),
            () if is(self.embedding) => Some("embedding"),
            () => None,
        }
    }

    /// Whether the answer came from a cache, so that no provider was asked for it.
    pub fn is_from_cache(&self) -> bool {
        let source = self.cached.as_ref().and_then(|cached| cached.source);
        source.is_some_and(CacheSource::is_answer)
    }
}

/// Where token numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider stated them for the whole call.
    Reported,
    /// The provider stated them, but the call ended before it had said its last word.
    Partial,
}

impl UsageSource {
    /// The word that stands in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Partial => "partial",
        }
    }
}

/// A group of keys, absent where none of them is there.
fn unless_empty<'de, T, D>(deserializer: D) -> Result<Option<Box<T>>, D::Error>
where
    T: Deserialize<'de> + Default + PartialEq,
    D: Deserializer<'de>,
{
    let group = T::deserialize(deserializer)?;
    Ok((group != T::default()).then(|| Box::new(group)))
}

fn microseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_record_has_no_key_but_its_time_and_ids() {
        let json = serde_json::to_value(Record::default()).expect("a record serialises");
        let keys: Vec<_> = json.as_object().expect("to an object").keys().collect();
        assert_eq!(keys, ["span_id", "time", "trace_id"]);
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = Record {
            time: "2026-11-21T10:00:00.123456Z".parse().expect("a time"),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id"),
            input_tokens: Some(0),
            outcome: Some(Outcome::Truncated),
            duration_s: Some(0.25),
            ..Record::default()
        };
        let text = serde_json::to_string(&record).expect("a record serialises");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("and reads back"), record);
        assert!(text.contains(r#""time":"2026-11-21T10:00:00.123456Z""#), "{text}");
    }

    #[test]
    fn usage_is_missed_only_where_a_completed_call_should_have_stated_it() {
        let silent = |operation: &str, outcome| Record {
            operation: (!operation.is_empty()).then(|| operation.into()),
            outcome: Some(outcome),
            ..Record::default()
        };
        for operation in ["chat", "generate_content", "text_completion", "embeddings"] {
            let completed = || silent(operation, Outcome::Completed);
            for stream in [None, Some(false), Some(true)] {
                assert!(Record { stream, ..completed() }.lacks_usage(), "{operation} {stream:?}");
            }
            for outcome in Outcome::ALL.into_iter().filter(|one| *one != Outcome::Completed) {
                assert!(!silent(operation, outcome).lacks_usage(), "{operation} {outcome:?}");
            }
            for source in [UsageSource::Reported, UsageSource::Partial] {
                let stated = Record { usage_source: Some(source), ..completed() };
                assert!(!stated.lacks_usage(), "{operation} {source:?}");
            }
            let media = Media { images_made: Some(1), ..Media::default() };
            let image = Record { media: Some(media.into()), ..completed() };
            assert!(!image.lacks_usage(), "{operation}");
            for source in CacheSource::ALL {
                let cached = Cached { source: Some(source), ..Cached::default() };
                let served = Record { cached: Some(cached.into()), ..completed() };
                assert_eq!(served.lacks_usage(), !source.is_answer(), "{operation} {source:?}");
            }
        }
        for operation in ["", "count_tokens", "predict", "predict_long_running", "rerank"] {
            assert!(!silent(operation, Outcome::Completed).lacks_usage(), "{operation}");
        }
    }
}
