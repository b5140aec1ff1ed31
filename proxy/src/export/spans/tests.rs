//! Spans as a collector sees them.

use std::collections::BTreeSet;
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span};
use prost::Message;
use tidegate_wire::content::{Budget, Content, MAX_BODY};
use tidegate_wire::{Asked, ErrorOrigin, Moment, Outcome, UsageSource};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::Service;

use super::*;
use crate::export::otlp::{Compression, Protocol};

/// What the GenAI conventions, and those of HTTP, RPC, servers, clouds and errors, have a name for.
const LATEST: &[&str] = &[
    "aws.bedrock.guardrail.id",
    "cloud.region",
    "error.type",
    // Of Google's own conventions.
    "gcp.project_id",
    "gen_ai.conversation.id",
    "gen_ai.embeddings.dimension.count",
    "gen_ai.input.messages",
    "gen_ai.operation.name",
    "gen_ai.output.messages",
    "gen_ai.output.type",
    "gen_ai.provider.name",
    "gen_ai.request.choice.count",
    "gen_ai.request.encoding_formats",
    "gen_ai.request.frequency_penalty",
    "gen_ai.request.max_tokens",
    "gen_ai.request.model",
    "gen_ai.request.presence_penalty",
    "gen_ai.request.seed",
    "gen_ai.request.stop_sequences",
    "gen_ai.request.stream",
    "gen_ai.request.temperature",
    "gen_ai.request.top_k",
    "gen_ai.request.top_p",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "http.request.method",
    "http.response.status_code",
    "openai.api.type",
    "openai.request.service_tier",
    "openai.response.service_tier",
    "openai.response.system_fingerprint",
    "rpc.grpc.status_code",
    "server.address",
    "server.port",
    "url.path",
];

/// Of these, what version 1.36 lacks.
const NEWER_THAN_V1_36: &[&str] = &[
    "gen_ai.embeddings.dimension.count",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.provider.name",
    "gen_ai.request.stream",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "openai.api.type",
    "openai.request.service_tier",
    "openai.response.service_tier",
    "openai.response.system_fingerprint",
];

/// What it has instead.
const ONLY_IN_V1_36: &[&str] = &[
    "gen_ai.openai.request.service_tier",
    "gen_ai.openai.response.service_tier",
    "gen_ai.openai.response.system_fingerprint",
    "gen_ai.system",
];

fn record() -> Record {
    Record {
        time: "2026-11-21T10:00:00.123456Z".parse().expect("a time"),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id"),
        span_id: "00f067aa0ba902b7".parse().expect("an id"),
        parent_span_id: "00f067aa0ba902b8".parse().ok(),
        operation: Some("chat".into()),
        provider: Some("azure.ai.openai".into()),
        request_model: Some("gpt-\"4o\"".into()),
        stream: Some(true),
        asked: Some(Box::new(Asked {
            max_tokens: Some(64),
            temperature: Some(1.0),
            stop_sequences: vec!["a\n".into(), "ü".into()],
            seed: Some(-7),
            service_tier: Some("flex".into()),
            ..Asked::default()
        })),
        finish_reasons: vec!["stop".into()],
        input_tokens: Some(12),
        cache_read_tokens: Some(8),
        usage_source: Some(UsageSource::Reported),
        server_address: Some("api.openai.com".into()),
        server_port: Some(443),
        method: Some("POST".into()),
        path: Some("/v1/chat/completions".into()),
        status: Some(200),
        outcome: Some(Outcome::Completed),
        duration_s: Some(2.5),
        time_to_first_byte_s: Some(0.25),
        time_to_first_event_s: Some(0.5),
        time_to_first_token_s: Some(1.0),
        time_to_first_visible_token_s: Some(1.5),
        time_to_last_token_s: Some(2.0),
        sent_s: Some(0.125),
        moments: vec![Moment { name: "tls", at_s: 0.0625, lasted_s: 0.03125 }],
        ..Record::default()
    }
}

fn span(conventions: Conventions, record: &Record) -> Span {
    let encoded = Encoder::new(conventions).span(record);
    Span::decode(&*encoded).expect("it is a span")
}

fn attributes(span: &Span) -> Vec<String> {
    let mut shown: Vec<_> = span.attributes.iter().map(show).collect();
    shown.sort();
    shown
}

fn show(attribute: &KeyValue) -> String {
    let value = attribute.value.as_ref().expect("an attribute has a value");
    format!("{}={}", attribute.key, show_value(value))
}

fn show_value(value: &AnyValue) -> String {
    match value.value.as_ref().expect("a value is one of several") {
        any_value::Value::StringValue(text) => format!("{text:?}"),
        any_value::Value::BoolValue(value) => value.to_string(),
        any_value::Value::IntValue(value) => value.to_string(),
        any_value::Value::DoubleValue(value) => format!("{value:?}"),
        any_value::Value::ArrayValue(list) => {
            format!("[{}]", list.values.iter().map(show_value).collect::<Vec<_>>().join(", "))
        }
        other => panic!("{other:?} is no value of ours"),
    }
}

#[test]
fn a_span_says_what_the_conventions_ask_for() {
    let span = span(Conventions::Latest, &record());
    assert_eq!(span.name, "chat gpt-\"4o\"");
    assert_eq!(span.kind(), span::SpanKind::Client);
    assert_eq!(span.trace_id, record().trace_id.0);
    assert_eq!(span.span_id, record().span_id.0);
    assert_eq!(span.parent_span_id, record().parent_span_id.expect("a parent").0);
    assert_eq!(span.start_time_unix_nano, 1_795_255_200_123_456_000);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 2_500_000_000);
    assert_eq!((&span.status, span.flags), (&None, 0x301));
    assert_eq!(
        attributes(&span),
        [
            r#"gen_ai.operation.name="chat""#,
            r#"gen_ai.provider.name="azure.ai.openai""#,
            "gen_ai.request.max_tokens=64",
            r#"gen_ai.request.model="gpt-\"4o\"""#,
            "gen_ai.request.seed=-7",
            r#"gen_ai.request.stop_sequences=["a\n", "ü"]"#,
            "gen_ai.request.stream=true",
            "gen_ai.request.temperature=1.0",
            r#"gen_ai.response.finish_reasons=["stop"]"#,
            "gen_ai.response.time_to_first_chunk=0.5",
            "gen_ai.usage.cache_read.input_tokens=8",
            "gen_ai.usage.input_tokens=12",
            r#"http.request.method="POST""#,
            "http.response.status_code=200",
            r#"openai.api.type="chat_completions""#,
            r#"openai.request.service_tier="flex""#,
            r#"server.address="api.openai.com""#,
            "server.port=443",
            r#"tidegate.outcome="completed""#,
            "tidegate.time_to_first_byte_s=0.25",
            "tidegate.time_to_first_token_s=1.0",
            "tidegate.time_to_first_visible_token_s=1.5",
            "tidegate.time_to_last_token_s=2.0",
            r#"tidegate.usage.source="reported""#,
            r#"url.path="/v1/chat/completions""#,
        ]
    );
}

#[test]
fn what_happened_during_a_call_stands_at_its_time() {
    let span = span(Conventions::Latest, &record());
    let event = |event: &span::Event| {
        let attributes = event.attributes.iter().map(show).collect::<Vec<_>>().join(" ");
        let at = event.time_unix_nano - span.start_time_unix_nano;
        format!("{} {} {attributes}", at as f64 / 1e9, event.name)
    };
    assert_eq!(
        span.events.iter().map(event).collect::<Vec<_>>(),
        [
            "0.0625 tidegate.wait.tls tidegate.wait_s=0.03125",
            "0.125 tidegate.request.sent ",
            "0.25 tidegate.response.head ",
            "1 tidegate.first_token ",
            "1.5 tidegate.first_visible_token ",
            "2 tidegate.last_token ",
        ]
    );
}

#[test]
fn the_names_of_version_1_36_come_with_their_values() {
    let old = attributes(&span(Conventions::V1_36, &record()));
    for expected in [
        r#"gen_ai.system="az.ai.openai""#,
        r#"gen_ai.openai.request.service_tier="flex""#,
        "tidegate.usage.cache_read.input_tokens=8",
        "tidegate.request.stream=true",
        "tidegate.time_to_first_event_s=0.5",
    ] {
        assert!(old.iter().any(|attribute| attribute == expected), "{expected}: {old:#?}");
    }
    let both = attributes(&span(Conventions::Both, &record()));
    for expected in [
        r#"gen_ai.provider.name="azure.ai.openai""#,
        r#"gen_ai.system="az.ai.openai""#,
        r#"openai.request.service_tier="flex""#,
        r#"gen_ai.openai.request.service_tier="flex""#,
    ] {
        assert!(both.iter().any(|attribute| attribute == expected), "{expected}: {both:#?}");
    }
}

#[test]
fn only_calls_that_failed_or_were_truncated_are_errors() {
    for (outcome, is_error) in [
        (Outcome::Completed, false),
        (Outcome::Failed, true),
        (Outcome::Truncated, true),
        (Outcome::Refused, false),
        (Outcome::Abandoned, false),
    ] {
        let record = Record {
            outcome: Some(outcome),
            error_type: Some("overloaded_error".into()),
            error_origin: Some(ErrorOrigin::Upstream),
            ..record()
        };
        let span = span(Conventions::Latest, &record);
        let status = span.status.clone().map(|status| (status.code, status.message));
        assert_eq!(status, is_error.then(|| (2, "overloaded_error".to_owned())), "{outcome:?}");
        assert!(attributes(&span).contains(&r#"error.type="overloaded_error""#.to_owned()));
    }
}

#[test]
fn the_name_of_a_span_is_of_few_words() {
    let call = |operation: Option<&str>, model: Option<&str>, method: Option<&str>| {
        let record = Record {
            operation: operation.map(Into::into),
            request_model: model.map(Into::into),
            method: method.map(Into::into),
            ..Record::default()
        };
        span(Conventions::Latest, &record).name
    };
    assert_eq!(call(Some("embeddings"), Some("gemma"), Some("POST")), "embeddings gemma");
    assert_eq!(call(Some("chat"), None, Some("POST")), "chat");
    assert_eq!(call(None, Some("whatever"), Some("GET")), "GET");
    assert_eq!(call(None, None, Some("FROBNICATE")), "HTTP");
    assert_eq!(call(None, None, None), "HTTP");
}

#[test]
fn every_key_of_a_record_has_a_name_of_the_conventions_or_of_our_own() {
    let keys = keys();
    assert!(keys.len() > 90, "{} keys", keys.len());
    let old: Vec<_> = LATEST
        .iter()
        .filter(|name| !NEWER_THAN_V1_36.contains(name))
        .chain(ONLY_IN_V1_36)
        .copied()
        .collect();
    let both = [LATEST, ONLY_IN_V1_36].concat();
    for (conventions, allowed) in
        [(Conventions::Latest, LATEST), (Conventions::V1_36, &old), (Conventions::Both, &both)]
    {
        for key in &keys {
            let (name, other) = conventions.names(key);
            for name in std::iter::once(name).chain(other) {
                let is_known = name.starts_with("tidegate.") || allowed.contains(&name);
                assert!(is_known, "{name} ({conventions:?})");
            }
        }
        for attribute in span(conventions, &talk()).attributes {
            let name = attribute.key;
            let is_known = name.starts_with("tidegate.") || allowed.contains(&&*name);
            assert!(is_known, "{name} ({conventions:?})");
        }
    }
}

/// A record with what was said.
fn talk() -> Record {
    let nothing: &dyn tidegate_wire::Headers = &http::HeaderMap::new();
    let budget = Budget::new(1 << 20);
    let mut content = Content::of("/v1/messages", nothing, &budget).expect("it has content");
    content.request(
        br#"{"system": "Be brief.", "tools": [{"name": "look"}], "messages": [
            {"role": "user", "content": "What?"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "1", "name": "look", "input": {"at": 1}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "a cat"}]}"#,
    );
    content.response(&[b' '; MAX_BODY]);
    content.response(b"more");
    Record { content: Some(Arc::new(content)), ..record() }
}

#[test]
fn what_was_said_stands_in_attributes_or_in_events() {
    let latest = attributes(&span(Conventions::Latest, &talk()));
    for expected in [
        r#"gen_ai.system_instructions="[{\"content\":\"Be brief.\",\"type\":\"text\"}]""#,
        r#"gen_ai.tool.definitions="[{\"name\":\"look\",\"type\":\"function\"}]""#,
        "tidegate.content.truncated=true",
    ] {
        assert!(latest.iter().any(|attribute| attribute == expected), "{expected}: {latest:#?}");
    }
    let old = span(Conventions::V1_36, &talk());
    assert!(!attributes(&old).iter().any(|attribute| attribute.contains("Be brief.")));
    let events: Vec<_> =
        old.events.iter().filter(|event| event.name.starts_with("gen_ai.")).collect();
    let shown: Vec<_> = events
        .iter()
        .map(|event| (&*event.name, event.attributes.iter().map(show).collect::<Vec<_>>()))
        .collect();
    let system = r#"gen_ai.system="az.ai.openai""#.to_owned();
    let event = |name: &'static str, body: &str| {
        (name, vec![system.clone(), format!("gen_ai.event.content={body:?}")])
    };
    assert_eq!(
        shown,
        [
            event("gen_ai.system.message", r#"{"content":"Be brief."}"#),
            event("gen_ai.user.message", r#"{"content":"What?","role":"user"}"#),
            event(
                "gen_ai.assistant.message",
                r#"{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"at\":1}","name":"look"},"id":"1","type":"function"}]}"#
            ),
            event("gen_ai.tool.message", r#"{"content":"a cat","id":"1"}"#),
        ]
    );
}

/// The keys that a record may have, off the source that defines them.
fn keys() -> BTreeSet<String> {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/src");
    let folder = std::fs::read_dir(wire.join("record")).expect("the record has parts");
    let parts = folder.map(|entry| entry.expect("a part").path());
    let mut keys = BTreeSet::new();
    for file in parts.chain([wire.join("record.rs")]) {
        let text = std::fs::read_to_string(file).expect("it is source");
        let named = text.split("rename = \"").skip(1).filter_map(|rest| rest.split('"').next());
        keys.extend(named.map(str::to_owned));
    }
    keys
}

fn settle(variables: &[(&str, &str)], config: &OtlpConfig) -> Option<Traces> {
    let variable = |name: &str| {
        let variable = variables.iter().find(|(variable, _)| *variable == name);
        variable.map(|(_, value)| (*value).to_owned())
    };
    Traces::settle(config, Conventions::Latest, variable).expect("it is valid")
}

fn configured(endpoint: &str) -> OtlpConfig {
    OtlpConfig { endpoint: Some(endpoint.into()), ..OtlpConfig::default() }
}

#[test]
fn no_span_is_pushed_without_an_endpoint_or_where_someone_says_so() {
    let config = configured("http://collector:4317");
    assert!(settle(&[], &OtlpConfig::default()).is_none());
    assert!(settle(&[], &config).is_some());
    assert!(settle(&[("OTEL_SDK_DISABLED", "true")], &config).is_none());
    assert!(settle(&[("OTEL_TRACES_EXPORTER", "none")], &config).is_none());
    assert!(settle(&[("OTEL_METRICS_EXPORTER", "none")], &config).is_some());

    let mut off = config;
    off.traces.enabled = false;
    assert!(settle(&[], &off).is_none());
    assert!(settle(&[("OTEL_TRACES_EXPORTER", "otlp")], &off).is_some());
}

#[test]
fn the_variables_of_traces_are_heard() {
    let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:4318/x");
    let traces = settle(
        &[
            endpoint,
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "200"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ],
        &OtlpConfig::default(),
    );
    let traces = traces.expect("it is on");
    assert_eq!(traces.transport.endpoint, "http://own:4318/x");
    assert_eq!(traces.limit, Duration::from_millis(1500));
    let always = |sampler: Sampler| sampler.with_always(true, Duration::from_secs(10));
    assert_eq!(traces.sampler, always(Sampler::new(SamplerName::TraceIdRatio, 0.25)));
    assert_eq!((traces.queue, traces.batch), (100, 100));
    assert_eq!(traces.delay, Duration::from_millis(50));

    let all = settle(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318")], &OtlpConfig::default());
    assert_eq!(all.expect("it is on").transport.endpoint, "http://all:4318/v1/traces");

    let odd = [endpoint, ("OTEL_TRACES_SAMPLER", "xray"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    let odd = settle(&odd, &OtlpConfig::default()).expect("it is on");
    assert_eq!(odd.sampler, always(Sampler::new(SamplerName::ParentBasedAlwaysOn, 1.0)));
}

/// An exporter and its pusher, at work.
struct Pushing {
    exporter: SpanExporter,
    lost: Arc<AtomicU64>,
    stop: oneshot::Sender<Instant>,
    pushing: tokio::task::JoinHandle<()>,
}

impl Pushing {
    fn start(config: &OtlpConfig) -> Self {
        let lost = Arc::default();
        let traces = settle(&[], config).expect("it is on");
        let (exporter, pusher) = traces.start(Arc::clone(&lost));
        let (stop, stopping) = oneshot::channel();
        Self { exporter, lost, stop, pushing: tokio::spawn(pusher.run(stopping)) }
    }

    async fn stop(self, limit: Duration) -> u64 {
        self.stop.send(Instant::now() + limit).expect("it still runs");
        self.pushing.await.expect("it ends well");
        self.lost.load(Ordering::Relaxed)
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn spans_arrive_by_grpc_and_by_http() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        for compression in [Compression::None, Compression::Gzip] {
            let (listener, endpoint) = listener().await;
            let (got, mut pushes) = mpsc::channel(8);
            match protocol {
                Protocol::Grpc => tokio::spawn(serve_grpc(listener, got)),
                Protocol::HttpProtobuf => tokio::spawn(serve_http(listener, got, 0)),
            };
            let config =
                OtlpConfig { protocol: Some(protocol), compression, ..configured(&endpoint) };
            let mut pushing = Pushing::start(&config);
            assert_eq!(pushing.exporter.export(&[record(), record()]), 0);
            assert_eq!(pushing.stop(PATIENCE).await, 0);

            let push = pushes.recv().await.expect("the spans arrive");
            let resource = &push.resource_spans[0];
            let about = resource.resource.as_ref().expect("it says who it is");
            assert!(about.attributes.iter().any(|each| show(each) == r#"service.name="tidegate""#));
            let scope = &resource.scope_spans[0];
            assert_eq!(scope.scope.as_ref().map(|scope| &*scope.name), Some("tidegate"));
            assert!(scope.schema_url.ends_with("/gen-ai/1.42.0"), "{}", scope.schema_url);
            assert_eq!(scope.spans, [(); 2].map(|()| span(Conventions::Latest, &record())));
        }
    }
}

#[tokio::test]
async fn a_full_batch_is_pushed_at_once() {
    let (listener, endpoint) = listener().await;
    let (got, mut pushes) = mpsc::channel(8);
    tokio::spawn(serve_http(listener, got, 0));
    let mut config = OtlpConfig { protocol: Some(Protocol::HttpProtobuf), ..configured(&endpoint) };
    config.traces.batch = NonZeroU32::new(3).expect("not zero");
    config.traces.delay = Duration::from_secs(3600);
    let mut pushing = Pushing::start(&config);
    pushing.exporter.export(&[(); 3].map(|()| record()));
    let push = tokio::time::timeout(PATIENCE, pushes.recv()).await.expect("in time");
    assert_eq!(push.expect("a push").resource_spans[0].scope_spans[0].spans.len(), 3);
    assert_eq!(pushing.stop(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_collector_that_recovers_gets_what_it_first_refused() {
    let (listener, endpoint) = listener().await;
    let (got, mut pushes) = mpsc::channel(8);
    tokio::spawn(serve_http(listener, got, 1));
    let config = OtlpConfig { protocol: Some(Protocol::HttpProtobuf), ..configured(&endpoint) };
    let mut pushing = Pushing::start(&config);
    pushing.exporter.export(&[record()]);
    assert_eq!(pushing.stop(PATIENCE).await, 0);
    assert!(pushes.recv().await.is_some());
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up_and_what_it_costs_is_counted() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        // It takes the connection and never answers.
        let (listener, endpoint) = listener().await;
        let mut config = OtlpConfig { protocol: Some(protocol), ..configured(&endpoint) };
        config.traces.queue = NonZeroU32::new(10).expect("not zero");
        config.traces.delay = Duration::from_secs(3600);
        let mut pushing = Pushing::start(&config);
        let records = vec![record(); 25];
        assert_eq!(pushing.exporter.export(&records), 15, "what finds no room is lost");
        let begin = Instant::now();
        let lost = pushing.stop(Duration::from_millis(50)).await;
        assert_eq!(lost, 10, "and so is what was not pushed in time");
        assert!(begin.elapsed() < Duration::from_secs(5));
        drop(listener);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_takes_is_given_up_in_time() {
    // Nobody listens at port 1.
    let mut config =
        OtlpConfig { protocol: Some(Protocol::HttpProtobuf), ..configured("http://127.0.0.1:1") };
    config.traces.batch = NonZeroU32::new(1).expect("not zero");
    let mut pushing = Pushing::start(&config);
    pushing.exporter.export(&[record()]);
    let begin = Instant::now();
    while pushing.lost.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(pushing.stop(PATIENCE).await, 1);
}

#[test]
fn a_call_that_is_not_sampled_is_no_span_and_no_loss() {
    let traces = settle(&[], &configured("http://c:4317")).expect("it is on");
    let (mut exporter, _pusher) = traces.start(Arc::default());
    let unsampled = Record { is_sampled: Some(false), ..record() };
    assert_eq!(exporter.export(&[unsampled, record()]), 0);
    assert_eq!(exporter.queue.len(), 1);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let traces = settle(&[], &configured("http://c:4317")).expect("it is on");
    let (exporter, _pusher) = traces.start(Arc::default());
    let mut offered = 0;
    while exporter.queue.offer(vec![0; 1 << 20]) {
        offered += 1;
    }
    assert_eq!(offered, QUEUE_BYTES >> 20);
    assert_eq!(exporter.queue.take().len(), BATCH_BYTES >> 20);
    assert!(exporter.queue.offer(vec![0; 1 << 20]), "room that was made is used");
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, format!("http://{address}"))
}

async fn serve_grpc(listener: TcpListener, got: mpsc::Sender<ExportTraceServiceRequest>) {
    struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: tonic::Request<ExportTraceServiceRequest>,
        ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
            _ = self.0.send(request.into_inner()).await;
            Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
        }
    }

    let collector = TraceServiceServer::new(Collector(got));
    let collector = collector.accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    let (stream, _) = listener.accept().await.expect("it accepts");
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut collector = collector.clone();
        async move { collector.call(request).await }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Refuses so many pushes before it takes one.
async fn serve_http(
    listener: TcpListener,
    got: mpsc::Sender<ExportTraceServiceRequest>,
    refusals: u64,
) {
    let seen = Arc::new(AtomicU64::new(0));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (got, seen) = (got.clone(), seen.clone());
        async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            let gzip = request.headers().contains_key("content-encoding");
            let body = request.into_body().collect().await.expect("it ends").to_bytes();
            let mut response = http::Response::new(Full::<Bytes>::default());
            if seen.fetch_add(1, Ordering::Relaxed) < refusals {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                return Ok::<_, std::convert::Infallible>(response);
            }
            let mut plain = body.to_vec();
            if gzip {
                plain.clear();
                let mut decoder = flate2::read::GzDecoder::new(&body[..]);
                std::io::Read::read_to_end(&mut decoder, &mut plain).expect("it is gzip");
            }
            let push = ExportTraceServiceRequest::decode(&*plain).expect("it decodes");
            _ = got.send(push).await;
            Ok(response)
        }
    });
    let (stream, _) = listener.accept().await.expect("it accepts");
    let http = hyper::server::conn::http1::Builder::new();
    _ = http.serve_connection(TokioIo::new(stream), service).await;
}
