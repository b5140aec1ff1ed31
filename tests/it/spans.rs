//! Spans by OTLP: what they carry, and what nothing carries.

use crate::support::*;

/// What a caller says, and what it is answered: they must not turn up where they do not belong.
const CANARY: &str = "canary-of-the-caller";
const CANARY_OF_MODEL: &str = "canary-of-the-model";
const KEY: &str = "canary-of-the-key";

/// A collector that takes everything.
fn collector() -> Upstream {
    Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

/// A call that says the canary, and carries the key.
fn canary_call(stream: bool) -> String {
    let body = format!(
        r#"{{"model":"gpt-4o","stream":{stream},"messages":[{{"role":"user","content":"{CANARY}"}}]}}"#
    );
    let call = post("/v1/chat/completions?key=canary-of-the-key", &body);
    call.replace("\r\nContent-Type", &format!("\r\nAuthorization: Bearer {KEY}\r\nContent-Type"))
}

/// A model server that answers with the canary, whole or as a stream.
fn model() -> Upstream {
    let event = |text: &str| TOKEN.replace("hi", text);
    let (begin, end) = CANARY_OF_MODEL.split_at(6);
    let stream: String = [&event(begin), &event(end), FINISH, DONE].map(chunk).concat();
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            match String::from_utf8_lossy(&request.body).contains(r#""stream":true"#) {
                true => peer.wire.send(format!("{STREAM_HEAD}{stream}{LAST_CHUNK}")),
                false => peer.wire.send(answer(&COMPLETION.replace("hi", CANARY_OF_MODEL))),
            }
        }
    })
}

/// Everything that a sidecar tells of two calls, one of them a stream.
struct Told {
    /// What went to the path of spans, and what to that of metrics.
    spans: String,
    metrics: String,
    records: String,
    log: String,
}

fn told(config: &str, variables: &[(&str, &str)]) -> Told {
    let model = model();
    let launch = Launch::new().config(config).arg("--upstream").arg(&model.url());
    told_by(launch, variables, |sidecar, call| drop(sidecar.call(call)))
}

fn told_by(launch: Launch, variables: &[(&str, &str)], ask: fn(&Sidecar, String)) -> Told {
    let collector = collector();
    let mut launch = launch
        .env("TIDEGATE_LOG", "trace")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    for (name, value) in variables {
        launch = launch.env(name, value);
    }
    let mut sidecar = launch.start();
    ask(&sidecar, canary_call(false));
    ask(&sidecar, canary_call(true));
    sidecar.wait_records(2);
    let page = sidecar.ask("/metrics").text();
    sidecar.signal("INT");
    assert!(sidecar.wait().success());
    let pushed = |path: &str| {
        let requests = collector.requests();
        let bodies = requests.iter().filter(|request| request.target() == path);
        bodies.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    };
    let records = sidecar.records().iter().map(ToString::to_string).collect();
    let (spans, metrics): (String, String) = (pushed("/v1/traces"), pushed("/v1/metrics"));
    assert!(spans.contains("chat gpt-4o") && metrics.contains("tidegate.calls"));
    Told { spans, metrics: metrics + &page, records, log: sidecar.log() }
}

impl Told {
    fn assert_only_spans_may_tell(&self) {
        for canary in [CANARY, CANARY_OF_MODEL, KEY] {
            for (place, text) in
                [("records", &self.records), ("metrics", &self.metrics), ("log", &self.log)]
            {
                assert!(!text.contains(canary), "{canary} stands in the {place}");
            }
        }
        assert!(!self.spans.contains(KEY), "a credential stands in a span");
    }

    fn assert_spans_tell_all(&self) {
        self.assert_only_spans_may_tell();
        let asked =
            format!(r#"[{{"parts":[{{"content":"{CANARY}","type":"text"}}],"role":"user"}}]"#);
        let answered = format!(
            r#"[{{"finish_reason":"stop","parts":[{{"content":"{CANARY_OF_MODEL}","type":"text"}}],"role":"assistant"}}]"#
        );
        for expected in ["gen_ai.input.messages", &asked, "gen_ai.output.messages", &answered] {
            assert_eq!(self.spans.matches(expected).count(), 2, "{expected}");
        }
        assert!(!self.spans.contains("gen_ai.choice"));
        assert!(!self.spans.contains("tidegate.content.truncated"));
    }
}

#[test]
fn what_is_said_in_a_call_stands_nowhere_unless_that_is_switched_on() {
    let off = ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "false");
    for (config, variables) in [("{}", &[][..]), ("capture_content: true", &[off])] {
        let told = told(config, variables);
        told.assert_only_spans_may_tell();
        for canary in [CANARY, CANARY_OF_MODEL, "gen_ai.input.messages"] {
            assert!(!told.spans.contains(canary), "{canary} stands in a span");
        }
    }
}

#[test]
fn what_is_said_in_a_call_stands_in_its_span_alone_where_that_is_switched_on() {
    let on = ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true");
    for (config, variables) in [("capture_content: true", &[][..]), ("{}", &[on])] {
        told(config, variables).assert_spans_tell_all();
    }
}

#[test]
fn what_is_said_is_what_the_caller_said_where_the_upstream_is_asked_for_more() {
    let model = model();
    let config = format!(
        "{{ capture_content: true, upstreams: {{ a: {{ url: '{}' }} }}, routes: [{{ upstream: a, include_usage: add }}] }}",
        model.url()
    );
    // A body that comes only when it is asked for is read by nobody but who adds the question.
    let ask = |sidecar: &Sidecar, call: String| {
        let call = call.replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
        let (head, body) = call.split_at(call.find("\r\n\r\n").expect("an end of the head") + 4);
        let mut caller = sidecar.connect();
        caller.send(head);
        assert_eq!(caller.head().expect("an interim head").status(), 100);
        caller.send(body);
        assert_eq!(caller.response().status(), 200);
    };
    told_by(Launch::new().config(&config), &[], ask).assert_spans_tell_all();
}

#[test]
fn by_version_1_36_what_is_said_stands_in_events() {
    let told = told("{ capture_content: true, semantic_conventions: v1.36 }", &[]);
    told.assert_only_spans_may_tell();
    let answered = format!(
        r#"{{"finish_reason":"stop","index":0,"message":{{"content":"{CANARY_OF_MODEL}","role":"assistant"}}}}"#
    );
    let asked = format!(r#"{{"content":"{CANARY}","role":"user"}}"#);
    for expected in ["gen_ai.user.message", &asked, "gen_ai.choice", &answered] {
        assert_eq!(told.spans.matches(expected).count(), 2, "{expected}");
    }
    assert!(!told.spans.contains("gen_ai.input.messages"));
    assert!(!told.spans.contains("gen_ai.provider.name"));
    assert!(told.metrics.contains("gen_ai_system=\"openai\""), "{}", told.metrics);
}

#[test]
fn without_an_endpoint_nothing_is_pushed_and_no_content_is_kept() {
    let upstream = model();
    let sidecar = Sidecar::with(&upstream, "capture_content: true");
    sidecar.call(canary_call(true));
    sidecar.wait_records(1);
    assert!(!sidecar.ask("/metrics").text().contains("otlp_spans"));
    assert!(!sidecar.log().contains("pushed"));
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    const CALLS: usize = 50;
    let upstream = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "otlp: {{ endpoint: 'http://{}', protocol: http/protobuf, timeout: 100ms, traces: {{ batch: 1, queue: 1 }} }}",
        nowhere()
    );
    let sidecar = Sidecar::with(&upstream, &config);
    let mut caller = sidecar.connect();
    for _ in 0..CALLS {
        assert_eq!(caller.call(call()).status(), 200);
    }
    assert_eq!(sidecar.wait_records(CALLS).len(), CALLS);
    wait_until("all spans are lost", || {
        sidecar.metric("tidegate_records_dropped_total") == CALLS as f64
    });
    assert_eq!(sidecar.finish().len(), CALLS);
}
