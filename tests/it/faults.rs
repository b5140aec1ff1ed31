//! The fault matrix: what an upstream, or the way to it, does wrong, and what must hold all the
//! same. After every row one helper asserts that the sidecar lives, that each call left one record
//! and metrics say the same, that nobody saw what was not sent, and that the next call is served.
//!
//! | row | | test |
//! |---|---|---|
//! | F01 | connection refused | `a_refused_connection_fails_and_the_next_is_served`; `failures`, `routing` |
//! | F02 | no answer to a connection attempt | `a_connection_that_nobody_takes_is_given_up_in_time` |
//! | F03 | no way there | `outage::a_connection_that_does_not_come_about_is_counted_by_its_reason` |
//! | F04, F05 | no head, or a slow one | `a_head_that_does_not_come_whole_in_time_is_a_gateway_timeout` |
//! | F06 | a head, and no event | `failures::an_answer_that_stands_still_is_cut` |
//! | F07 | a slow body | `a_slow_body_is_not_a_silent_one` |
//! | F08 | a stream that stands still | `a_stream_that_stands_still_is_cut_in_every_dialect` |
//! | F09, F10 | RST or FIN in a body | `an_answer_that_breaks_off_is_truncated_in_every_dialect` |
//! | F11 | no end mark, no last chunk | `an_end_without_its_mark_is_judged_by_the_finish_reason` |
//! | F12 | half-closed connections | `a_connection_that_is_half_closed_costs_no_time`; `endings` for callers |
//! | F13, F14 | no HTTP, unlawful framing | `what_is_no_lawful_answer_is_a_bad_gateway`, `unlawful_chunks_are_never_passed_on` |
//! | F15 | bytes behind the answer | `bytes_that_belong_to_no_answer_reach_nobody`; `messages` where they come at once |
//! | F16 | an answer before the body is read | `an_upstream_that_stops_reading_is_not_used_again`; `failures` where it closes |
//! | F17 | 100 Continue | `waiting_for_a_continue_has_a_limit`, `interim_answers_are_counted`; `messages` for 100 and 417 |
//! | F18 | GOAWAY | `a_server_that_goes_finishes_what_it_has_begun`; `streams` for calls that were not processed |
//! | F19 | RST_STREAM | `a_stream_that_its_server_resets_is_not_sent_again`; `streams` for REFUSED_STREAM |
//! | F20 | windows, floods | `a_window_that_never_opens_has_a_limit`, `a_flood_of_settings_costs_no_memory`, `frames_that_flood_or_mean_nothing_fail_no_more_than_their_call` |
//! | F21 | TLS | `protocols` |
//! | F22 | names that change, or fail | `upstream::tests` in `proxy`, over real sockets with a resolver of their own |
//! | F23 | 429 with a hint | `a_limit_and_its_hint_pass_as_they_came`; `breaker` for the gate, `retry` for the wait |
//! | F24 | a storm of 503 or 529 | `a_storm_of_errors_passes_and_grows_no_larger`; `outage` with all policies |
//! | F25 | an error behind a 200 | `an_error_within_a_stream_is_a_failure_in_every_dialect` |
//! | F26 | exception frames, bad checksums | `exceptions_of_bedrock_are_told_wherever_they_are_cut`, `a_wrong_checksum_blinds_only_the_observer` |
//! | F27 | caller gone before a token | `a_caller_that_leaves_before_a_token_frees_the_upstream_at_once` |
//! | F28 | caller gone in mid-stream | `a_caller_may_leave_behind_any_event`, `behind_any_event_an_answer_is_read_on_where_its_upstream_says_so`; `disconnect` |
//! | F43, F44 | reloads, bad and many | `reload` |
//! | F45, F46 | credentials and clocks | `credential_faults`, `credential_refused` |
//! | F54 | a herd at a half-open breaker | `breaker::of_a_thousand_calls_at_a_half_open_breaker_one_goes_through` |
//! | F55 | a probe that is lost | `breaker::a_probe_that_is_lost_makes_room_for_the_next` |
//! | F56, F57, F58 | flapping, retries upon retries, all down | `outage` |

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_faultd::Dialect::OpenAi;
use tidegate_faultd::{
    Cut, Dialect, Door, Faultd, Form, Frame, Hint, Manners, Request, Script, Trouble, any,
    event_stream_message, garbage, raw, silent, status, with_two_lengths,
};

use crate::support::*;

/// An upstream, a sidecar before it, and what was seen of the calls between them.
struct Row {
    upstream: Faultd,
    sidecar: Sidecar,
    seen: Vec<Message>,
    /// Calls whose callers have left.
    left: usize,
}

impl Row {
    fn new(upstream: Faultd, config: &str) -> Self {
        let launch = Launch::new().config(config);
        let sidecar = launch.arg("--upstream").arg(&upstream.url()).start();
        Self::with(upstream, sidecar)
    }

    /// An upstream that is spoken to by HTTP/2.
    fn http2(upstream: Faultd, config: &str) -> Self {
        let url = upstream.url();
        let sidecar = Launch::new().config(&format!(
            "upstreams: {{ a: {{ url: '{url}', http2: true }} }}\nroutes: [{{ upstream: a }}]\n{config}\n"
        ));
        Self::with(upstream, sidecar.start())
    }

    fn with(upstream: Faultd, sidecar: Sidecar) -> Self {
        Self { upstream, sidecar, seen: Vec::new(), left: 0 }
    }

    /// One call, whatever comes of it.
    fn call(&mut self, request: impl AsRef<[u8]>) -> &Message {
        let reply = self.sidecar.call(request);
        self.saw(reply)
    }

    /// A caller saw this.
    fn saw(&mut self, reply: Message) -> &Message {
        self.seen.push(reply);
        self.seen.last().expect("just pushed")
    }

    /// One call whose answer the upstream holds, until its beginning has been seen.
    fn held_call(&mut self, request: &str, seen: &[u8]) -> &Message {
        let mut caller = self.sidecar.connect();
        caller.send(request);
        let mut reply = caller.head().expect("a head");
        caller.wait_for(seen);
        self.upstream.go();
        caller.body(&mut reply);
        self.saw(reply)
    }

    /// What must hold after every row; the records of its calls.
    #[track_caller]
    fn survived(self, outcome: &str, origin: Option<&str>) -> Vec<Value> {
        let calls = self.seen.len() + self.left;
        let records = self.sidecar.wait_records(calls);
        self.assert_prefixes();
        records.iter().for_each(|record| assert_outcome(record, outcome, origin));

        // The next call is served.
        self.upstream.change(Script::default());
        self.upstream.serve();
        let next = self.sidecar.call(call());
        assert_eq!((next.status(), next.end), (200, End::Clean), "{}", next.text());
        assert!(next.text().contains(&tidegate_faultd::token(5)));
        self.sidecar.wait_records(calls + 1);

        wait_until("nothing is in flight", || {
            self.sidecar.metric("tidegate_calls_in_flight") == 0.0
        });
        assert_eq!(self.sidecar.metric("tidegate_records_dropped_total"), 0.0);
        let metrics = self.sidecar.ask("/metrics").text();
        let counted = |outcome: &str| -> f64 {
            let label = format!("outcome=\"{outcome}\"");
            let is_it =
                |line: &&str| line.starts_with("tidegate_calls_total{") && line.contains(&label);
            let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
            metrics.lines().filter(is_it).filter_map(value).sum()
        };
        let all: f64 = OUTCOMES.iter().map(|outcome| counted(outcome)).sum();
        assert_eq!(all, (calls + 1) as f64, "accepted calls are the sum of their outcomes");
        assert_eq!(self.sidecar.metric("tidegate_calls_total"), all);

        let mut recorded = self.sidecar.finish();
        assert_eq!(recorded.len(), calls + 1, "one record for each call: {recorded:#?}");
        for outcome in OUTCOMES {
            let records = recorded.iter().filter(|record| record["tidegate.outcome"] == outcome);
            assert_eq!(records.count() as f64, counted(outcome), "{outcome}");
        }
        recorded.truncate(calls);
        recorded
    }

    /// Nobody saw anything that was not sent, nor a clean end where there was none.
    #[track_caller]
    fn assert_prefixes(&self) {
        let sent = self.upstream.calls();
        let records = self.sidecar.records();
        for (number, reply) in self.seen.iter().enumerate() {
            if reply.header("x-tidegate-error").is_some() {
                continue;
            }
            let is_sent = sent.iter().any(|call| call.payload.starts_with(&reply.body));
            assert!(is_sent, "{:?} is no beginning of what was sent", reply.text());
            // One that only lacks its end mark ends as clean as it was sent.
            let record = &records[number];
            let is_cut =
                record["tidegate.outcome"] == "truncated" && record["error.type"] != "truncated";
            assert!(!is_cut || reply.end != End::Clean, "a clean end: {record:#}");
        }
    }
}

const OUTCOMES: [&str; 5] = ["completed", "failed", "truncated", "refused", "abandoned"];

/// A call in this dialect.
fn ask(dialect: Dialect, stream: bool) -> String {
    let (path, body) = asked(dialect, stream);
    post(path, &body)
}

/// The same, as an upstream reads it.
fn request(dialect: Dialect, stream: bool) -> Request {
    let (path, body) = asked(dialect, stream);
    let (method, target) = ("POST".to_owned(), path.to_owned());
    Request { method, target, body: body.into_bytes(), ..Request::default() }
}

fn asked(dialect: Dialect, stream: bool) -> (&'static str, String) {
    let path = match (dialect, stream) {
        (Dialect::OpenAi, _) => "/v1/chat/completions",
        (Dialect::Anthropic, _) => "/v1/messages",
        (Dialect::Vertex, true) => {
            "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
        }
        (Dialect::Vertex, false) => {
            "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro:generateContent"
        }
        (Dialect::Bedrock, true) => "/model/amazon.nova-pro-v1:0/converse-stream",
        (Dialect::Bedrock, false) => "/model/amazon.nova-pro-v1:0/converse",
        (Dialect::Generate, _) => "/generate",
    };
    (path, format!(r#"{{"model":"gpt-4o","stream":{stream}}}"#))
}

#[test]
fn good_answers_complete_in_every_dialect() {
    for stream in [true, false] {
        for dialect in Dialect::ALL {
            for http2 in [false, true] {
                let upstream = Faultd::start(any());
                let make = if http2 { Row::http2 } else { Row::new };
                let mut row = make(upstream, "");
                let reply = row.call(ask(dialect, stream));
                assert_eq!((reply.status(), reply.end), (200, End::Clean));
                assert_eq!(reply.body, any().pieces(&request(dialect, stream)).concat());
                let record = &row.survived("completed", None)[0];
                let is_counted = dialect != Dialect::Generate;
                let tokens: Value = is_counted.then_some(5).into();
                assert_eq!(record["gen_ai.usage.output_tokens"], tokens, "{record:#}");
                let chunks: Value = stream.then_some(5).into();
                assert_eq!(record["tidegate.token_chunks"], chunks, "{record:#}");
            }
        }
    }
}

#[test]
fn a_caller_that_has_the_whole_answer_need_not_wait_for_the_end_of_a_stream() {
    // All of the length that was said, but not the end of the stream.
    let mut row = Row::http2(Faultd::start(any().cut_at_the_end(Cut::Silence)), "");
    let reply = row.call(call());
    assert_eq!((reply.status(), reply.end), (200, End::Clean));
    row.upstream.wait_for_cancelled(1);
    row.survived("completed", None);
}

#[test]
fn a_refused_connection_fails_and_the_next_is_served() {
    let mut row = Row::new(Faultd::refusing(any()), "");
    for dialect in Dialect::ALL {
        let reply = row.call(ask(dialect, true));
        assert_eq!(reply.status(), 502);
        assert_eq!(reply.header("x-tidegate-error"), Some("upstream_unreachable"));
    }
    let upstream = row.survived("failed", Some("upstream"));
    assert!(upstream.iter().all(|record| record["error.type"] == "upstream_unreachable"));
}

#[test]
fn a_connection_that_nobody_takes_is_given_up_in_time() {
    let mut row = Row::new(Faultd::black_hole(any()), "timeouts: { connect: 200ms }");
    let start = Instant::now();
    let reply = row.call(call());
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(reply.status(), 504);
    assert_eq!(reply.header("x-tidegate-error"), Some("upstream_connect_timeout"));
    let record = &row.survived("failed", Some("upstream"))[0];
    assert_eq!(record["tidegate.attempts"], 1);

    // Nothing was sent, so another address may have the call.
    let (hole, other) = (Faultd::black_hole(any()), Faultd::start(any()));
    let config = format!(
        "upstreams: {{ a: {{ addresses: ['{}', '{}'] }} }}\nroutes: [{{ upstream: a }}]\ntimeouts: {{ connect: 200ms }}\n",
        hole.url(),
        other.url()
    );
    let mut row = Row::with(other, Launch::new().config(&config).start());
    // Which address a call is tried at first is drawn at random.
    for _ in 0..12 {
        assert_eq!(row.call(call()).status(), 200);
    }
    let records = row.survived("completed", None);
    assert!(records.iter().any(|record| record["tidegate.attempts"] == 2), "{records:#?}");
}

#[test]
fn a_head_that_does_not_come_whole_in_time_is_a_gateway_timeout() {
    let slow = any().head_every(Duration::from_millis(50));
    for script in [
        Script::always(silent()),
        Script::default().behind([Door::Silent, Door::Open]),
        Script::always(slow),
    ] {
        let mut row = Row::new(Faultd::start(script), "timeouts: { response_head: 300ms }");
        let reply = row.call(call());
        assert_eq!(reply.status(), 504);
        assert_eq!(reply.header("x-tidegate-error"), Some("upstream_response_timeout"));
        row.upstream.wait_for_closed(1);
        row.survived("failed", Some("upstream"));
    }
}

#[test]
fn a_slow_body_is_not_a_silent_one() {
    let slow = any().every(Duration::from_millis(150)).comments();
    let mut row = Row::new(Faultd::start(slow), "timeouts: { idle: 1s }");
    let reply = row.call(stream_call());
    assert_eq!(reply.end, End::Clean);
    let record = &row.survived("completed", None)[0];
    assert!(record["tidegate.duration_s"].as_f64() > Some(1.0), "{record:#}");
    assert_eq!(record["tidegate.token_chunks"], 5, "a comment is no token");
}

#[test]
fn a_stream_that_stands_still_is_cut_in_every_dialect() {
    for make in [Row::new, Row::http2] {
        let stalls = any().cut_after_tokens(2, Cut::Silence);
        let mut row = make(Faultd::start(stalls), "timeouts: { idle: 150ms }");
        for (number, dialect) in Dialect::ALL.into_iter().enumerate() {
            let reply = row.call(ask(dialect, true));
            assert_ne!(reply.end, End::Clean);
            assert!(reply.text().contains("tide-2 "), "{}", reply.text());
            row.upstream.wait_for_cancelled(number + 1);
        }
        let attempts = row.upstream.attempts();
        assert_eq!(attempts, Dialect::ALL.len(), "what has begun is not tried again");
        for record in row.survived("truncated", Some("upstream")) {
            assert_eq!(record["error.type"], "upstream_idle_timeout");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_is_truncated_in_every_dialect() {
    for cut in [Cut::Reset, Cut::Close, Cut::HalfClose, Cut::MidChunk] {
        for make in [Row::new, Row::http2] {
            let breaks = any().cut_after_tokens(2, cut.clone()).held();
            let mut row = make(Faultd::start(breaks), "");
            for dialect in Dialect::ALL {
                let pieces = any().pieces(&request(dialect, true));
                let reply = row.held_call(&ask(dialect, true), b"tide-2 ");
                assert_ne!(reply.end, End::Clean, "{cut:?} {dialect:?}");
                assert!(!reply.body.is_empty() && reply.body.len() < pieces.concat().len());
            }
            for record in row.survived("truncated", Some("upstream")) {
                assert_eq!(record["error.type"], "upstream_closed", "{cut:?}");
                assert_eq!(record["tidegate.token_chunks"], 2, "{cut:?}");
            }
        }
    }
}

#[test]
fn a_whole_answer_that_stays_short_of_its_length_is_truncated() {
    for cut in [Cut::Reset, Cut::Close] {
        let mut row = Row::new(Faultd::start(any().cut_after_pieces(2, cut).held()), "");
        for dialect in Dialect::ALL {
            let pieces = any().pieces(&request(dialect, false));
            let reply = row.held_call(&ask(dialect, false), &pieces[1]);
            assert_eq!(reply.body, pieces[..2].concat());
            assert_ne!(reply.end, End::Clean);
        }
        row.survived("truncated", Some("upstream"));
    }
}

#[test]
fn an_end_without_its_mark_is_judged_by_the_finish_reason() {
    // All but the end mark has come, a finish reason with it.
    for dialect in Dialect::ALL {
        let mut row = Row::new(Faultd::start(any().cut_before_end_mark(Cut::CleanEnd)), "");
        assert_eq!(row.call(ask(dialect, true)).end, End::Clean);
        row.survived("completed", None);
    }
    // Neither has.
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Bedrock] {
        let mut row = Row::new(Faultd::start(any().cut_after_tokens(4, Cut::CleanEnd)), "");
        row.call(ask(dialect, true));
        row.survived("truncated", Some("upstream"));
    }
    // Everything was said but the end of the body itself.
    let mut row = Row::new(Faultd::start(any().cut_at_the_end(Cut::Close)), "");
    let reply = row.call(stream_call());
    assert!(reply.text().ends_with(DONE));
    assert_ne!(reply.end, End::Clean);
    row.survived("truncated", Some("upstream"));
}

#[test]
fn a_connection_that_is_half_closed_costs_no_time() {
    // The upstream has answered and will say no more; the caller's body is still open.
    let upstream = Faultd::start(any().form(Form::Whole).early().cut_at_the_end(Cut::HalfClose));
    let mut row = Row::new(upstream, "");
    let mut caller = row.sidecar.connect();
    caller.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf");
    let reply = caller.response();
    assert_eq!((reply.status(), reply.end), (200, End::Clean));
    row.saw(reply);
    let (before, watched) = (row.sidecar.processor_time(), Duration::from_millis(500));
    // Not for anything to happen: for nothing to.
    std::thread::sleep(watched);
    let used = row.sidecar.processor_time() - before;
    assert!(used < watched / 5, "{used:?} in {watched:?} of silence");
    drop(caller);
    row.survived("completed", None);

    // A connection that is kept, but half closed, is not used again.
    let mut row = Row::new(Faultd::start(any().cut_at_the_end(Cut::HalfClose)), "");
    let mut caller = row.sidecar.connect();
    for number in 1..=3 {
        let reply = caller.call(call());
        assert_eq!((reply.status(), reply.end), (200, End::Clean));
        row.saw(reply);
        assert_eq!(row.upstream.connections(), number);
        wait_until("the sidecar's kernel knows", || is_seen_closed(row.upstream.address()));
    }
    drop(caller);
    row.survived("completed", None);
}

#[test]
fn what_is_no_lawful_answer_is_a_bad_gateway() {
    for answer in [
        garbage(),
        raw("<html>HTTP/0.9</html>"),
        raw([0, 1, 2, 3, 255]),
        raw("HTTP/1.1 20 OK\r\n\r\n"),
        raw("HTTP/1.1 2000 OK\r\n\r\n"),
        raw("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nContent Length: 2\r\n\r\n{}"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}"),
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        with_two_lengths("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        with_two_lengths("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n"),
        with_two_lengths("Content-Length: 2\r\nContent-Length: 3\r\n"),
        with_two_lengths("Content-Length: 2, 3\r\n"),
    ] {
        let said = format!("{answer:?}");
        let mut row = Row::new(Faultd::start(answer), "timeouts: { response_head: 2s }");
        let reply = row.call(call());
        assert_eq!(reply.header("x-tidegate-error"), Some("upstream_protocol"), "{said}");
        assert_eq!(reply.status(), 502, "{said}");
        row.upstream.wait_for_closed(1);
        row.survived("failed", Some("upstream"));
    }
}

#[test]
fn unlawful_chunks_are_never_passed_on() {
    for framing in [
        "zz\r\n",
        "-1\r\n",
        "+5\r\nabcde\r\n",
        "0x5\r\nabcde\r\n",
        " 5\r\nabcde\r\n",
        "5\nabcde\n",
        "5;a\nabcde\r\n",
        "5;a\0b\r\nabcde\r\n",
        "fffffffffffffffff\r\n",
        "\r\n",
        "5\r\nabcdefg\r\n",
    ] {
        let cut = Cut::BadFraming(framing.as_bytes().to_vec());
        let mut row = Row::new(Faultd::start(any().cut_after_tokens(1, cut).held()), "");
        let mut caller = row.sidecar.connect();
        caller.send(stream_call());
        caller.through(b"tide-1 ").expect("a token");
        row.upstream.go();
        let (rest, _) = caller.rest();
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.contains(framing) || framing == "\r\n", "{framing:?} in {rest:?}");
        assert!(!rest.ends_with(LAST_CHUNK), "{framing:?}: {rest:?}");
        row.left += 1;
        let record = &row.survived("truncated", Some("upstream"))[0];
        assert_eq!(record["error.type"], "upstream_protocol", "{framing:?}");
    }
}

#[test]
fn bytes_that_belong_to_no_answer_reach_nobody() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let mut row = Row::new(Faultd::start(any().followed_by(evil).held()), "");
    let mut caller = row.sidecar.connect();
    let reply = caller.call(call());
    assert_eq!(reply.end, End::Clean);
    row.saw(reply);
    // They come while nobody waits for an answer.
    row.upstream.go();
    row.upstream.wait_for_ended(1);
    row.upstream.change(any());
    let reply = caller.call(call());
    assert!(!reply.text().contains("evil"), "{}", reply.text());
    row.saw(reply);
    drop(caller);
    row.survived("completed", None);
}

#[test]
fn an_upstream_that_stops_reading_is_not_used_again() {
    const SIZE: usize = 32 << 20;
    let mut row = Row::new(Faultd::start(status(413).early()), "");
    let mut caller = row.sidecar.connect();
    let mut upload = caller.same();
    let uploading = std::thread::spawn(move || {
        upload.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
        ));
        // It may be broken off.
        let _ = upload.try_send(vec![b'x'; SIZE]);
    });
    let reply = caller.response();
    assert_eq!((reply.status(), reply.end), (413, End::Clean));
    row.saw(reply);
    drop(caller);
    row.upstream.wait_for_closed(1);
    uploading.join().expect("no panic");
    let record = &row.survived("failed", Some("client"))[0];
    assert!(
        record["tidegate.request.bytes"].as_u64() < Some(SIZE as u64),
        "the upload has stopped"
    );
}

#[test]
fn waiting_for_a_continue_has_a_limit() {
    let upstream = Faultd::start(any().without_continue());
    let mut row = Row::new(upstream, "timeouts: { request_body_idle: 200ms }");
    let body = r#"{"model":"gpt-4o"}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // A caller that waits for ever.
    assert_eq!(row.call(&head).status(), 408);
    row.upstream.wait_for_closed(1);
    row.survived("failed", Some("client"));

    // One that does not wait.
    let mut row = Row::new(Faultd::start(any().without_continue()), "");
    assert_eq!(row.call(format!("{head}{body}")).status(), 200);
    row.survived("completed", None);
}

#[test]
fn interim_answers_are_counted() {
    for (interim, count, status) in
        [(103, 16, 200), (102, 16, 200), (103, 17, 502), (100, 1000, 502)]
    {
        let mut row = Row::new(Faultd::start(any().interims(interim, count)), "");
        let mut caller = row.sidecar.connect();
        caller.send(call());
        let mut reply = caller.response();
        while reply.status() == interim {
            reply = caller.response();
        }
        assert_eq!(reply.status(), status, "{count} of {interim}");
        row.saw(reply);
        drop(caller);
        match status {
            200 => row.survived("completed", None),
            _ => row.survived("failed", Some("upstream")),
        };
    }
}

#[test]
fn a_stream_that_its_server_resets_is_not_sent_again() {
    let (no_error, internal, refused, cancel, calm) = (0, 2, 7, 8, 11);
    for cut in [
        Cut::ResetStream(no_error),
        Cut::ResetStream(internal),
        // The body has gone, and is not here any more.
        Cut::ResetStream(refused),
        Cut::ResetStream(cancel),
        Cut::ResetStream(calm),
    ] {
        let mut row = Row::http2(Faultd::start(any().cut_before_head(cut.clone())), "");
        assert_eq!(row.call(stream_call()).status(), 502, "{cut:?}");
        assert_eq!(row.upstream.attempts(), 1, "{cut:?}");
        let record = &row.survived("failed", Some("upstream"))[0];
        assert_eq!(record["tidegate.attempts"], 1);

        let begun = any().cut_after_tokens(2, cut.clone()).held();
        let mut row = Row::http2(Faultd::start(begun), "");
        let reply = row.held_call(&stream_call(), b"tide-2 ");
        assert_ne!(reply.end, End::Clean, "{cut:?}");
        assert_eq!(row.upstream.attempts(), 1, "{cut:?}");
        row.survived("truncated", Some("upstream"));
    }
}

#[test]
fn a_server_that_goes_finishes_what_it_has_begun() {
    let goes = any().cut_after_tokens(2, Cut::GoAway(None, 0)).held();
    let mut row = Row::http2(Faultd::start(goes), "");
    let reply = row.held_call(&stream_call(), b"tide-2 ");
    assert_eq!(reply.end, End::Clean);
    assert!(reply.text().ends_with(DONE));
    row.survived("completed", None);
}

#[test]
fn a_window_that_never_opens_has_a_limit() {
    for window in [0, 3] {
        let manners = Manners { window: Some(window), ..Manners::default() };
        let upstream = Faultd::start(Script::default().manners(manners));
        let mut row =
            Row::http2(upstream, "timeouts: { response_head: 300ms, request_body_idle: 300ms }");
        // More than the first window, which stands before the server has said anything.
        let body = format!(r#"{{"model":"gpt-4o","user":"{}"}}"#, "x".repeat(200_000));
        let reply = row.call(post("/v1/chat/completions", &body));
        assert_eq!(reply.status(), 504, "{}", reply.text());
        row.upstream.wait_for_cancelled(1);
        row.survived("failed", Some("upstream"));
    }
}

#[test]
fn a_flood_of_settings_costs_no_memory() {
    let manners = Manners { more_settings: 50_000, ..Manners::default() };
    let mut row = Row::http2(Faultd::start(Script::default().manners(manners)), "");
    let before = row.sidecar.memory_kib();
    let reply = row.call(call());
    assert_eq!((reply.status(), reply.end), (200, End::Clean));
    let after = row.sidecar.memory_kib();
    assert!(after < before + 8 * 1024, "{before} KiB before, {after} KiB after");
    row.survived("completed", None);
}

#[test]
fn frames_that_flood_or_mean_nothing_fail_no_more_than_their_call() {
    let (data, headers, window_update, continuation, unknown) = (0, 1, 8, 9, 0xFA);
    let flood = |frame: Frame| vec![frame; 10_000];
    for (frames, is_answered) in [
        (flood(Frame::ping()), true),
        (flood(Frame::on_connection(unknown, 0xFF, *b"what?")), true),
        // Data in front of a head, and data that is none.
        (vec![Frame::new(data, 0, *b"early")], false),
        (flood(Frame::new(data, 0, [])), false),
        (vec![Frame::new(headers, 4, [0xFF; 9])], false),
        (vec![Frame::new(continuation, 4, [])], false),
        (vec![Frame::on_connection(window_update, 0, [0; 4])], false),
        (vec![Frame::on_connection(window_update, 0, [0x7F, 0xFF, 0xFF, 0xFF])], false),
        (vec![Frame::on_connection(unknown, 0, vec![0; 1 << 20])], false),
    ] {
        let said = format!("{:?}", frames[0]);
        let mut row = Row::http2(Faultd::start(any().frames(frames)), "");
        let before = row.sidecar.memory_kib();
        let reply = row.call(call());
        assert_eq!(reply.status(), if is_answered { 200 } else { 502 }, "{said}");
        let after = row.sidecar.memory_kib();
        assert!(after < before + 8 * 1024, "{said}: {before} KiB before, {after} KiB after");
        match is_answered {
            true => row.survived("completed", None),
            false => row.survived("failed", Some("upstream")),
        };
    }
}

#[test]
fn a_storm_of_errors_passes_and_grows_no_larger() {
    for code in [503, 529] {
        let mut row = Row::new(Faultd::start(status(code)), "");
        for dialect in Dialect::ALL.into_iter().cycle().take(50) {
            assert_eq!(row.call(ask(dialect, true)).status(), code);
        }
        assert_eq!(row.upstream.attempts(), 50);
        row.survived("failed", Some("upstream"));
    }
}

#[test]
fn a_limit_and_its_hint_pass_as_they_came() {
    let minute = Duration::from_secs(60);
    for (hint, field, seconds) in [
        (Hint::Seconds(2), "retry-after", Some(2.0)),
        (Hint::Date(minute), "retry-after", None),
        (Hint::Milliseconds(1500), "retry-after-ms", Some(1.5)),
        (Hint::Reset("requests".to_owned(), "1s".to_owned()), "x-ratelimit-reset-requests", None),
    ] {
        let answer = status(429).hint(hint);
        let mut row = Row::new(Faultd::start(answer.clone()), "");
        let reply = row.call(call());
        assert_eq!(reply.status(), 429);
        assert!(reply.header(field).is_some(), "{reply:?}");
        assert_eq!(reply.body, answer.pieces(&request(OpenAi, false)).concat());
        let record = &row.survived("failed", Some("quota"))[0];
        if seconds.is_some() {
            assert_eq!(record["tidegate.retry_after_s"].as_f64(), seconds, "{record:#}");
        }
    }
    let info = status(429).hint(Hint::RetryInfo(minute));
    let mut row = Row::new(Faultd::start(info), "");
    let reply = row.call(ask(Dialect::Vertex, false));
    assert_eq!(reply.json()["error"]["details"][0]["retryDelay"], "60s");
    row.survived("failed", Some("quota"));
}

#[test]
fn an_error_within_a_stream_is_a_failure_in_every_dialect() {
    for (trouble, origin) in [
        (Trouble::Overloaded, "upstream"),
        (Trouble::RateLimited, "quota"),
        (Trouble::Internal, "upstream"),
    ] {
        for tokens in [0, 2] {
            let mut row =
                Row::new(Faultd::start(any().cut_after_tokens(tokens, Cut::Error(trouble))), "");
            for dialect in Dialect::ALL {
                let reply = row.call(ask(dialect, true));
                assert_eq!((reply.status(), reply.end), (200, End::Clean), "{dialect:?}");
                assert!(reply.text().contains("told to fail"), "the caller is told");
            }
            for record in row.survived("failed", Some(origin)) {
                assert!(record["error.type"].is_string(), "{record:#}");
                assert_eq!(record["http.response.status_code"], 200);
                assert_eq!(record["tidegate.time_to_first_token_s"].is_f64(), tokens > 0);
            }
        }
    }
}

#[test]
fn exceptions_of_bedrock_are_told_wherever_they_are_cut() {
    let exception = |name: &str, kind: &str| {
        let headers =
            [(kind, name), (":content-type", "application/json"), (":message-type", "exception")];
        event_stream_message(&headers, br#"{"message":"told to fail"}"#)
    };
    for (name, kind, expected, origin) in [
        ("throttlingException", ":exception-type", "ThrottlingException", "quota"),
        ("ThrottlingException", ":exception-type", "ThrottlingException", "quota"),
        ("modelStreamErrorException", ":event-type", "ModelStreamErrorException", "upstream"),
        (
            "serviceUnavailableException",
            ":exception-type",
            "ServiceUnavailableException",
            "upstream",
        ),
    ] {
        let message = exception(name, kind);
        // Whole; and byte by byte, each in a chunk of its own.
        let whole = any().cut_after_tokens(2, Cut::Saying(message.clone()));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut bytes = head.as_bytes().to_vec();
        for byte in &message {
            bytes.extend_from_slice(&[b"1\r\n", [*byte].as_slice(), b"\r\n"].concat());
        }
        bytes.extend_from_slice(LAST_CHUNK.as_bytes());
        let mut row = Row::new(Faultd::start(Script::sequence([whole, raw(bytes)])), "");
        row.call(ask(Dialect::Bedrock, true));
        let mut caller = row.sidecar.connect();
        caller.send(ask(Dialect::Bedrock, true));
        let reply = caller.response();
        assert_eq!((reply.body, reply.end), (message, End::Clean));
        row.left += 1;
        drop(caller);
        for record in row.survived("failed", Some(origin)) {
            assert_eq!(record["error.type"], expected, "{record:#}");
        }
    }
}

#[test]
fn a_wrong_checksum_blinds_only_the_observer() {
    let mut row = Row::new(Faultd::start(any().cut_after_tokens(2, Cut::Corrupt)), "");
    let reply = row.call(ask(Dialect::Bedrock, true));
    assert_eq!((reply.status(), reply.end), (200, End::Clean));
    let whole = any().pieces(&request(Dialect::Bedrock, true)).concat();
    assert_eq!(reply.body.len(), whole.len(), "all bytes have passed");
    let record = &row.survived("completed", None)[0];
    assert!(record["tidegate.not_understood"].is_string(), "{record:#}");
    assert!(record["gen_ai.usage.output_tokens"].is_null(), "nothing is made up: {record:#}");
}

#[test]
fn a_caller_that_leaves_before_a_token_frees_the_upstream_at_once() {
    for make in [Row::new, Row::http2] {
        for answer in [silent(), any().cut_after_head(Cut::Silence)] {
            let has_head = !format!("{answer:?}").contains("BeforeHead");
            let mut row = make(Faultd::start(answer), "");
            for (number, leave) in [drop as fn(Wire), Wire::reset].into_iter().enumerate() {
                let mut caller = row.sidecar.connect();
                caller.send(stream_call());
                match has_head {
                    true => drop(caller.head().expect("a head")),
                    false => row.upstream.wait_for_attempts(number + 1),
                }
                let start = Instant::now();
                leave(caller);
                row.upstream.wait_for_cancelled(number + 1);
                // 100 ms where the machine has nothing else to do.
                let took = start.elapsed();
                assert!(took < Duration::from_secs(1), "{took:?}");
                row.left += 1;
            }
            for record in row.survived("abandoned", None) {
                assert!(record["tidegate.time_to_first_token_s"].is_null(), "{record:#}");
            }
        }
    }
}

#[test]
fn a_caller_may_leave_behind_any_event() {
    for make in [Row::new, Row::http2] {
        for dialect in Dialect::ALL {
            let pieces = any().pieces(&request(dialect, true));
            let stops = |count| any().cut_after_pieces(count, Cut::Silence);
            let script = Script::sequence((0..=pieces.len()).map(stops));
            let mut row = make(Faultd::start(script), "");
            for count in 0..=pieces.len() {
                let mut caller = row.sidecar.connect();
                caller.send(ask(dialect, true));
                caller.head().expect("a head");
                if let Some(last) = count.checked_sub(1) {
                    caller.through(&pieces[last]).expect("the last event that was sent");
                }
                let leave = if count % 2 == 0 { drop } else { Wire::reset };
                leave(caller);
                row.left += 1;
                row.upstream.wait_for_cancelled(row.left);
            }
            row.survived("abandoned", None);
        }
    }
}

#[test]
fn behind_any_event_an_answer_is_read_on_where_its_upstream_says_so() {
    for more in ["", ", http2: true"] {
        for dialect in Dialect::ALL {
            let pieces = any().pieces(&request(dialect, true));
            let holds = |count| any().cut_after_pieces(count, Cut::No).held();
            let script = Script::sequence((0..=pieces.len()).map(holds));
            let upstream = Faultd::start(script);
            let config = format!(
                "upstreams: {{ a: {{ url: '{}', on_disconnect: {{ drain: {{}} }}{more} }} }}\nroutes: [{{ upstream: a }}]",
                upstream.url()
            );
            let mut row = Row::with(upstream, Launch::new().config(&config).start());
            for count in 0..=pieces.len() {
                let mut caller = row.sidecar.connect();
                caller.send(ask(dialect, true));
                caller.head().expect("a head");
                if let Some(last) = count.checked_sub(1) {
                    caller.through(&pieces[last]).expect("the last event that was sent");
                }
                let leave = if count % 2 == 0 { drop } else { Wire::reset };
                leave(caller);
                wait_until("the answer is read on", || {
                    row.sidecar.metric("tidegate_drains_open") == 1.0
                });
                row.upstream.go();
                row.left += 1;
                row.sidecar.wait_records(row.left);
            }
            assert_eq!(row.upstream.cancelled(), 0);
            let usage = |record: &Value| record["gen_ai.usage.output_tokens"].clone();
            let records = row.survived("abandoned", None);
            let whole = usage(&records[0]);
            assert_eq!(whole.is_null(), dialect == Dialect::Generate);
            for (count, record) in records.iter().enumerate() {
                assert_eq!(record["tidegate.drain.end"], "whole", "{count}: {record:#}");
                assert_eq!(usage(record), whole, "{count}: {record:#}");
                // What the caller got of it is wasted no more.
                let stated = record["tidegate.wasted.output_tokens"].as_u64();
                let share = record["tidegate.estimated.wasted_output_tokens"].as_u64();
                let expected = match count {
                    0 => whole.as_u64(),
                    _ if count == pieces.len() => whole.as_u64().map(|_| 0),
                    _ => continue,
                };
                assert_eq!(stated.or(share), expected, "{count}: {record:#}");
            }
        }
    }
}
