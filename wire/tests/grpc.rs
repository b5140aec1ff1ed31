//! What an observer makes of calls by gRPC.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use tidegate_wire::{
    Dialect, Ending, ErrorOrigin, HeadView, Observer, Outcome, Record, Shape, UsageSource,
};

#[path = "../../tests/support/grpc_messages.rs"]
mod grpc_messages;
#[path = "../../tests/support/protobuf.rs"]
mod protobuf;
#[path = "../../tests/support/protobuf_values.rs"]
mod protobuf_values;

use grpc_messages::{last, message, token};
use protobuf::{field, number};
use protobuf_values::{double, structure};

const STREAM: &str = "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent";
const PREDICT: &str = "/google.cloud.aiplatform.v1.PredictionService/Predict";
const FLASH: &str = "projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash";

/// A call: its path and what the sides say, in pieces.
struct Call<'a> {
    path: &'a str,
    head: &'a [(&'static str, &'a str)],
    request: &'a [&'a [u8]],
    answer: &'a [(&'static str, &'a str)],
    reply: &'a [&'a [u8]],
    trailers: &'a [(&'static str, &'a str)],
    ending: Ending,
}

const CALL: Call<'static> = Call {
    path: STREAM,
    head: &[],
    request: &[],
    answer: &[],
    reply: &[],
    trailers: &[("grpc-status", "0")],
    ending: Ending::Clean,
};

impl Call<'_> {
    fn shape(&self) -> Shape {
        Shape::read(&HeadView {
            method: "POST",
            host: Some("localhost"),
            path: self.path,
            query: None,
            headers: &headers(&[&[("content-type", "application/grpc")], self.head].concat()),
        })
    }

    fn observer(&self) -> Observer {
        let mut observer = Observer::new(self.shape());
        self.request.iter().for_each(|piece| observer.request(piece));
        let answer = [&[("content-type", "application/grpc")], self.answer].concat();
        observer.head(200, &headers(&answer), ms(10));
        observer
    }

    /// Each piece of the reply comes 10 ms after the one before.
    fn record(&self) -> Record {
        let mut observer = self.observer();
        for (at, piece) in self.reply.iter().enumerate() {
            observer.chunk(piece, ms(20 + 10 * at as u64));
        }
        if !self.trailers.is_empty() {
            observer.trailers(&headers(self.trailers));
        }
        let mut record = Record::default();
        observer.finish(self.ending, ms(100), &mut record);
        record
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    fields.iter().map(field).collect()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn generate_request() -> Vec<u8> {
    message([field(2, field(2, field(1, "why?"))), field(5, FLASH)].concat())
}

#[test]
fn a_stream_says_what_it_used_and_when_its_tokens_came() {
    let request = generate_request();
    let thought = field(2, field(2, field(2, [field(1, "hm"), number(10, 1)].concat())));
    let messages =
        [message(thought), message(token("The")), message(token(" tide")), message(last(1, 7, 12))];
    let reply: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    let record = Call { request: &[&request], reply: &reply, ..CALL }.record();
    assert_eq!(record.outcome, Some(Outcome::Completed));
    assert_eq!((record.status, record.grpc_status), (Some(200), Some(0)));
    assert_eq!(record.operation.as_deref(), Some("generate_content"));
    assert_eq!(record.provider.as_deref(), Some("gcp.vertex_ai"));
    assert_eq!(record.request_model.as_deref(), Some("gemini-2.5-flash"));
    assert_eq!(record.region.as_deref(), Some("us-central1"));
    assert_eq!(record.project.as_deref(), Some("p"));
    assert_eq!(record.stream, Some(true));
    assert_eq!(record.response_model.as_deref(), Some("gemini-2.5-flash-001"));
    assert_eq!(record.response_id.as_deref(), Some("r1"));
    assert_eq!(record.finish_reasons, ["STOP"]);
    assert_eq!((record.input_tokens, record.output_tokens), (Some(7), Some(12)));
    assert_eq!(record.usage_source, Some(UsageSource::Reported));
    assert_eq!(record.time_to_first_token_s, Some(0.020));
    assert_eq!(record.time_to_first_visible_token_s, Some(0.030));
    assert_eq!(record.time_to_last_token_s, Some(0.040));
    assert_eq!(record.not_understood, None);
}

#[test]
fn where_a_call_is_cut_changes_nothing() {
    let request = generate_request();
    let reply = [message(token("The")), message(last(2, 7, 12))].concat();
    let record = |request: &[&[u8]], reply: &[&[u8]]| {
        let mut observer = Call { request, ..CALL }.observer();
        reply.iter().for_each(|piece| observer.chunk(piece, ms(20)));
        observer.trailers(&headers(&[("grpc-status", "0")]));
        let mut record = Record::default();
        observer.finish(Ending::Clean, ms(100), &mut record);
        record
    };
    let whole = record(&[&request], &[&reply]);
    assert_eq!(whole.finish_reasons, ["MAX_TOKENS"]);
    assert_eq!(whole.request_model.as_deref(), Some("gemini-2.5-flash"));
    for at in 0..reply.len() {
        assert_eq!(record(&[&request], &[&reply[..at], &reply[at..]]), whole, "reply at {at}");
    }
    for at in 0..request.len() {
        assert_eq!(record(&[&request[..at], &request[at..]], &[&reply]), whole, "request at {at}");
    }
    let (request, reply): (Vec<_>, Vec<_>) =
        (request.chunks(1).collect(), reply.chunks(1).collect());
    assert_eq!(record(&request, &reply), whole, "byte by byte");
}

#[test]
fn a_stream_without_a_status_is_never_completed() {
    let reply = message(last(1, 7, 12));
    let outcome = |reply: &[u8], trailers, ending| {
        Call { reply: &[reply], trailers, ending, ..CALL }.record().outcome
    };
    assert_eq!(outcome(&reply, &[], Ending::Clean), Some(Outcome::Truncated));
    assert_eq!(outcome(&reply, &[("x-other", "1")], Ending::Clean), Some(Outcome::Truncated));
    assert_eq!(outcome(&reply, &[], Ending::Broken), Some(Outcome::Truncated));
    assert_eq!(outcome(&reply, &[], Ending::CallerLeft), Some(Outcome::Abandoned));
    for length in 1..reply.len() {
        let cut = outcome(&reply[..length], &[("grpc-status", "0")], Ending::Clean);
        assert_eq!(cut, Some(Outcome::Truncated), "{length} bytes");
    }
    let unknown = Call { path: "/a.b.C/D", trailers: &[], ..CALL }.record();
    assert_eq!(unknown.outcome, Some(Outcome::Truncated));
}

#[test]
fn a_status_that_is_not_zero_is_a_failure_wherever_it_stands() {
    let reply = message(token("The"));
    let failed = Call {
        reply: &[&reply],
        trailers: &[("grpc-status", "14"), ("grpc-message", "overloaded")],
        ..CALL
    };
    let record = failed.record();
    assert_eq!(record.outcome, Some(Outcome::Failed));
    assert_eq!(record.grpc_status, Some(14));
    assert_eq!(record.error_type.as_deref(), Some("UNAVAILABLE"));
    assert_eq!(record.error_code.as_deref(), Some("14"));
    assert_eq!(record.error_origin, Some(ErrorOrigin::Upstream));
    assert_eq!(record.time_to_first_token_s, Some(0.020));

    let trailers_only = [("grpc-status", "8"), ("grpc-message", "quota")];
    let record = Call { answer: &trailers_only, trailers: &[], ..CALL }.record();
    assert_eq!(record.outcome, Some(Outcome::Failed));
    assert_eq!(record.error_type.as_deref(), Some("RESOURCE_EXHAUSTED"));
    assert_eq!(record.error_origin, Some(ErrorOrigin::Quota));
    assert_eq!((record.status, record.grpc_status), (Some(200), Some(8)));
}

#[test]
fn the_wait_that_a_quota_states_is_kept() {
    // RESOURCE_EXHAUSTED with a RetryInfo of 7.25 s.
    let wait = field(1, [number(1, 7), number(2, 250_000_000)].concat());
    let any = [field(1, "type.googleapis.com/google.rpc.RetryInfo"), field(2, wait)].concat();
    let details = [number(1, 8), field(3, any)].concat();
    let details = base64(&details);
    let trailers = [("grpc-status", "8"), ("grpc-status-details-bin", details.as_str())];
    let record = Call { trailers: &trailers, ..CALL }.record();
    assert_eq!(record.retry_after_s, Some(7.25));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

#[test]
fn the_head_may_say_all_that_routes_ask_for() {
    let parameters = format!("model={FLASH}");
    let head = [("x-goog-request-params", parameters.as_str())];
    let call = Call { head: &head, ..CALL };
    let shape = call.shape();
    assert_eq!(
        (shape.dialect, shape.model.as_deref()),
        (Dialect::Vertex, Some("gemini-2.5-flash"))
    );
    assert_eq!(shape.region.as_deref(), Some("us-central1"));
    let observer = call.observer();
    assert!(!observer.reads_request() && !observer.awaits_model());
}

#[test]
fn the_request_is_read_no_further_than_its_model() {
    let request = generate_request();
    let mut observer = CALL.observer();
    assert!(observer.reads_request() && observer.awaits_model());
    observer.request(&request[..20]);
    assert_eq!(observer.model(), None);
    observer.request(&request[20..]);
    assert_eq!(observer.model(), Some("gemini-2.5-flash"));
    assert!(!observer.reads_request() && !observer.awaits_model());

    let mut nameless = CALL.observer();
    nameless.request(&message(field(2, "")));
    assert!(!nameless.awaits_model());
    let mut broken = CALL.observer();
    broken.request(b"no gRPC at all");
    assert!(!broken.awaits_model());
}

#[test]
fn embeddings_count_the_tokens_of_every_prediction() {
    let prediction = |tokens| {
        let statistics =
            structure(&[("truncated", number(4, 0)), ("token_count", double(2, tokens))]);
        field(1, structure(&[("embeddings", structure(&[("statistics", statistics)]))]))
    };
    let reply = message([prediction(4.0), prediction(6.0)].concat());
    let endpoint = "projects/p/locations/l/publishers/google/models/text-embedding-005";
    let request = message(field(1, endpoint));
    let record = Call { path: PREDICT, request: &[&request], reply: &[&reply], ..CALL }.record();
    assert_eq!(record.operation.as_deref(), Some("embeddings"));
    assert_eq!(record.request_model.as_deref(), Some("text-embedding-005"));
    assert_eq!((record.input_tokens, record.output_tokens), (Some(10), None));
    assert_eq!(record.stream, Some(false));

    let endpoint = message(field(1, "projects/p/locations/l/endpoints/42"));
    let record = Call { path: PREDICT, request: &[&endpoint], ..CALL }.record();
    assert_eq!(record.operation.as_deref(), Some("predict"));
    assert_eq!(record.request_model.as_deref(), Some("42"));
}

#[test]
fn other_methods_read_as_their_protos_say() {
    let counted = message(number(1, 31));
    for service in ["v1.LlmUtilityService", "v1beta1.PredictionService"] {
        let path = format!("/google.cloud.aiplatform.{service}/CountTokens");
        let record = Call { path: &path, reply: &[&counted], ..CALL }.record();
        assert_eq!(record.operation.as_deref(), Some("count_tokens"));
        assert_eq!((record.counted_tokens, record.input_tokens), (Some(31), None));
    }
    let path = "/google.cloud.aiplatform.v1.PredictionService/EmbedContent";
    let embedded = message(field(2, number(1, 9)));
    let record = Call { path, reply: &[&embedded], ..CALL }.record();
    assert_eq!(record.operation.as_deref(), Some("embeddings"));
    assert_eq!(record.input_tokens, Some(9));
}

#[test]
fn a_prompt_that_was_blocked_says_why() {
    let reply = message(field(3, number(1, 4)));
    let record = Call { reply: &[&reply], ..CALL }.record();
    assert_eq!(record.block_reason.as_deref(), Some("PROHIBITED_CONTENT"));
    let unknown = message(last(99, 1, 1));
    assert_eq!(Call { reply: &[&unknown], ..CALL }.record().finish_reasons, ["99"]);
}

#[test]
fn candidates_keep_their_reasons_apart() {
    let first = field(2, number(3, 1));
    let second = field(2, [number(1, 1), number(3, 3)].concat());
    let reply = message([second, first].concat());
    assert_eq!(Call { reply: &[&reply], ..CALL }.record().finish_reasons, ["STOP", "SAFETY"]);
}

#[test]
fn a_body_within_messages_reads_as_it_does_by_http() {
    let path = "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict";
    let parameters = "endpoint=projects/p/locations/l/publishers/anthropic/models/claude-x";
    let events = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-x\",\"usage\":{\"input_tokens\":5}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ];
    let body: Vec<_> = events.iter().map(|event| field(2, event)).collect();
    let first = [field(1, "text/event-stream"), body[0].clone()].concat();
    let reply = [message(first), message(&body[1]), message(&body[2])].concat();
    let head = [("x-goog-request-params", parameters)];
    let call = Call { path, head: &head, reply: &[&reply], ..CALL };
    let whole = call.record();
    assert_eq!(whole.outcome, Some(Outcome::Completed));
    assert_eq!(whole.operation.as_deref(), Some("chat"));
    assert_eq!(whole.request_model.as_deref(), Some("claude-x"));
    assert_eq!((whole.input_tokens, whole.output_tokens), (Some(5), Some(3)));
    assert_eq!(whole.finish_reasons, ["end_turn"]);
    assert_eq!(whole.time_to_first_token_s, Some(0.020));
    for at in 0..reply.len() {
        let cut = Call { reply: &[&reply[..at], &reply[at..]], ..call }.record();
        assert_eq!((cut.input_tokens, cut.output_tokens), (Some(5), Some(3)), "cut at {at}");
        assert_eq!(cut.outcome, Some(Outcome::Completed), "cut at {at}");
    }
    let broken = Call { reply: &[&message([0xFF; 12])], ..call }.record();
    assert_eq!(broken.not_understood.as_deref(), Some("not_protobuf"));
}

#[test]
fn compressed_messages_are_read() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&last(1, 7, 12)).expect("memory takes everything");
    let mut reply = message(encoder.finish().expect("memory takes everything"));
    reply[0] = 1;
    let answer = [("grpc-encoding", "gzip")];
    let record = Call { answer: &answer, reply: &[&reply], ..CALL }.record();
    assert_eq!((record.input_tokens, record.output_tokens), (Some(7), Some(12)));
    let answer = [("grpc-encoding", "snappy")];
    let record = Call { answer: &answer, reply: &[&reply], ..CALL }.record();
    assert_eq!(record.not_understood.as_deref(), Some("encoded"));
    assert_eq!(record.outcome, Some(Outcome::Completed));
}

#[test]
fn a_broken_message_costs_itself_and_no_other() {
    let reply = [message([0xFF; 12]), message(last(1, 7, 12))].concat();
    let record = Call { reply: &[&reply], ..CALL }.record();
    assert_eq!(record.not_understood.as_deref(), Some("not_protobuf"));
    assert_eq!(record.input_tokens, Some(7));
}

#[test]
fn an_answer_that_is_no_grpc_is_told_by_its_status() {
    let mut observer = Observer::new(CALL.shape());
    observer.head(503, &headers(&[("content-type", "text/html")]), ms(1));
    observer.chunk(b"<html>", ms(2));
    let mut record = Record::default();
    observer.finish(Ending::Clean, ms(3), &mut record);
    assert_eq!(record.outcome, Some(Outcome::Failed));
    assert_eq!(record.error_type.as_deref(), Some("503"));
    assert_eq!(record.grpc_status, None);
}

#[test]
fn a_service_that_nobody_knows_is_measured_by_its_status() {
    let reply = message("whatever");
    let record = Call { path: "/a.b.C/D", reply: &[&reply], ..CALL }.record();
    assert_eq!(record.outcome, Some(Outcome::Completed));
    assert_eq!((record.operation, record.grpc_status), (None, Some(0)));
    let failed = [("grpc-status", "12")];
    let record = Call { path: "/a.b.C/D", trailers: &failed, ..CALL }.record();
    assert_eq!(record.error_type.as_deref(), Some("UNIMPLEMENTED"));
    for path in ["/", "/D", "/google.cloud.aiplatform.v1.JobService/Predict", "//"] {
        assert_eq!(Call { path, ..CALL }.shape().dialect, Dialect::Other, "{path}");
    }
}

#[test]
fn endless_messages_cost_next_to_nothing() {
    let piece = vec![b'x'; 1 << 20];
    let endless = [0, 0xFF, 0xFF, 0xFF, 0xFF];
    let in_text = [&endless[..], &[2 << 3 | 2], &[0xF0, 0xFF, 0xFF, 0x0F]].concat();
    let in_name = [&endless[..], &[13 << 3 | 2], &[0xF0, 0xFF, 0xFF, 0x0F]].concat();
    for start in [&endless[..], &in_text, &in_name] {
        let mut observer = CALL.observer();
        observer.chunk(start, ms(1));
        for _ in 0..4 {
            observer.chunk(&piece, ms(2));
        }
        let mut record = Record::default();
        observer.finish(Ending::Clean, ms(3), &mut record);
        assert_ne!(record.outcome, Some(Outcome::Completed));
    }
}

const PATHS: [&str; 6] = [
    STREAM,
    PREDICT,
    "/google.cloud.aiplatform.v1.LlmUtilityService/CountTokens",
    "/google.cloud.aiplatform.v1beta1.PredictionService/EmbedContent",
    "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict",
    "/a.b.C/D",
];

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        path in prop::sample::select(&PATHS[..]),
        request in prop::collection::vec(any::<u8>(), 0..200),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        is_gzip in any::<bool>(),
    ) {
        let answer = [("grpc-encoding", if is_gzip { "gzip" } else { "identity" })];
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        let request = message(request);
        let call =
            Call { path, request: &[&request], answer: &answer, reply: &pieces, ..CALL };
        prop_assert!(call.record().outcome.is_some());
    }

    #[test]
    fn what_is_broken_reads_the_same_wherever_it_is_cut(
        path in prop::sample::select(&PATHS[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let count = structure(&[("embeddings", structure(&[("statistics",
            structure(&[("token_count", double(2, 4.0))]))]))]);
        let mut reply =
            [message(token("The")), message(last(1, 7, 12)), message(field(1, count))].concat();
        for (at, byte) in &changes {
            let at = at.index(reply.len());
            reply[at] = *byte;
        }
        let mut places: Vec<_> = cuts.iter().map(|at| at.index(reply.len())).collect();
        places.extend([0, reply.len()]);
        places.sort_unstable();
        let record = |places: &[usize]| {
            let mut observer = Call { path, ..CALL }.observer();
            places.windows(2).for_each(|cut| observer.chunk(&reply[cut[0]..cut[1]], ms(20)));
            observer.trailers(&headers(&[("grpc-status", "0")]));
            let mut record = Record::default();
            observer.finish(Ending::Clean, ms(100), &mut record);
            record
        };
        prop_assert_eq!(record(&places), record(&[0, reply.len()]));
    }
}
