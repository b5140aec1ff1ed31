//! Calls that go elsewhere, because their upstream will not do.

use crate::support::*;

const FLASH: &str =
    "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-flash:generateContent";
const PRO: &str =
    "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-pro:generateContent?x=1";

fn start(upstreams: &[(&str, String)], route: &str) -> Sidecar {
    let upstreams: String =
        upstreams.iter().map(|(name, rest)| format!("  {name}: {{ {rest} }}\n")).collect();
    Launch::new().config(&format!("upstreams:\n{upstreams}routes: [{{ {route} }}]")).start()
}

fn url(upstream: &Upstream) -> String {
    format!("url: '{}'", upstream.url())
}

#[test]
fn a_failing_model_is_replaced_by_another_in_path_or_body_and_nowhere_else() {
    for (sent, model, path, body) in [
        (post(PRO, r#"{"contents":[]}"#), "gemini-flash", FLASH, r#"{"contents":[]}"#),
        (
            post("/v1/chat/completions", r#"{ "x":{"model":"a"}, "model": "big","n":1}"#),
            "small",
            "/v1/chat/completions",
            r#"{ "x":{"model":"a"}, "model": "small","n":1}"#,
        ),
        (
            post("/model/big/converse", "{}"),
            "eu.small-v1:0",
            "/model/eu.small-v1%3A0/converse",
            "{}",
        ),
    ] {
        let upstream = Upstream::new(move |mut peer| {
            while let Some(request) = peer.request() {
                let is_big = request.text().contains("big")
                    || request.line.contains("pro:")
                    || request.line.contains("/big/");
                let status = if is_big { 503 } else { 200 };
                peer.wire.send(answer_with(status, COMPLETION));
            }
        });
        let route = format!("upstream: a, fallback: [{{ model: '{model}' }}]");
        let sidecar = start(&[("a", url(&upstream))], &route);
        let reply = sidecar.call(&sent);
        assert_eq!(reply.status(), 200, "{sent}");
        assert_eq!(reply.header("x-tidegate-fallback"), Some(format!("a; model={model}").as_str()));
        let moved = &upstream.requests()[1];
        assert!(moved.line.contains(path), "{}", moved.line);
        assert_eq!(moved.text(), body);
        let record = &sidecar.finish()[0];
        assert_outcome(record, "completed", None);
        assert_eq!(
            (&record["tidegate.fallback"], &record["tidegate.attempts"]),
            (&1.into(), &2.into())
        );
    }
}

#[test]
fn the_targets_are_tried_in_order_until_one_answers() {
    let failing = Upstream::answering(answer_with(503, "{}"));
    let limited = Upstream::answering(answer_with(429, "{}"));
    let good = Upstream::answering(answer(COMPLETION));
    let sidecar = start(
        &[
            ("a", format!("url: 'http://{}'", nowhere())),
            ("b", url(&failing)),
            ("c", url(&limited)),
            ("d", url(&good)),
        ],
        "upstream: a, retry: { per_target: 1, limited: { attempts: 1 } }, fallback: [{ upstream: b }, { upstream: c }, { upstream: d }]",
    );
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), reply.header("x-tidegate-fallback")), (200, Some("d")));
    let metrics = sidecar.ask("/metrics").text();
    for name in ["b", "c", "d"] {
        assert!(metrics.contains(&format!(r#"tidegate_fallbacks_total{{upstream="{name}"}} 1"#)));
    }
    let record = &sidecar.finish()[0];
    assert_eq!(
        (&record["tidegate.upstream"], &record["tidegate.fallback"]),
        (&"d".into(), &3.into())
    );
}

#[test]
fn nobody_waits_for_a_limit_where_another_target_has_none() {
    let limited = Upstream::answering(answer_with(429, "{}"));
    let good = Upstream::answering(answer(COMPLETION));
    let route = "upstream: a, retry: {}, fallback: [{ upstream: b }]";
    let sidecar = start(&[("a", url(&limited)), ("b", url(&good))], route);
    assert_eq!(sidecar.call(bare_post("/v1/chat/completions", "{}")).status(), 200);
    assert_eq!(limited.requests().len(), 1);
    assert_eq!(sidecar.finish()[0].get("tidegate.wait.retry_s"), None);
}

#[test]
fn a_callers_mistake_leads_nowhere_else() {
    let upstream = Upstream::answering(answer_with(400, "{}"));
    let other = Upstream::answering(answer(COMPLETION));
    let sidecar = start(
        &[("a", url(&upstream)), ("b", url(&other))],
        "upstream: a, fallback: [{ upstream: b }]",
    );
    assert_eq!(sidecar.call(call()).status(), 400);
    assert_eq!(other.connections(), 0);
}

#[test]
fn nobody_else_sees_a_callers_credential() {
    let upstream = Upstream::answering(answer_with(503, "{}"));
    let other = Upstream::answering(answer(COMPLETION));
    let (a, b) = (url(&upstream), url(&other).replace("127.0.0.1", "localhost"));
    let route = "upstream: a, fallback: [{ upstream: b }]";
    let bare = bare_post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#);
    let with_key = bare.replacen("\r\n", "\r\nAuthorization: Bearer callers\r\n", 1);

    let sidecar = start(&[("a", a.clone()), ("b", b.clone())], route);
    assert_eq!(sidecar.call(&with_key).status(), 503);
    assert_eq!(other.connections(), 0);
    assert_eq!(sidecar.call(&bare).status(), 200);

    let own = format!("{b}, credential: {{ bearer: {{ file: key }} }}");
    let launch = Launch::new();
    std::fs::write(launch.file("key"), "ours").expect("a folder to write to");
    let config = format!("upstreams: {{ a: {{ {a} }}, b: {{ {own} }} }}\nroutes: [{{ {route} }}]");
    let sidecar = launch.config(&config).start();
    assert_eq!(sidecar.call(&with_key).status(), 200);
    let request = other.requests().pop().expect("a request");
    assert_eq!(request.header("authorization"), Some("Bearer ours"));
}

#[test]
fn a_target_below_another_path_gets_the_path_that_it_knows() {
    let upstream = Upstream::answering(answer_with(503, "{}"));
    let other = Upstream::answering(answer(COMPLETION));
    let sidecar = start(
        &[("a", url(&upstream)), ("b", format!("url: '{}/openapi'", other.url()))],
        "upstream: a, fallback: [{ upstream: b, strip_prefix: /v1, model: google/gemini-flash }]",
    );
    assert_eq!(sidecar.call(call()).status(), 200);
    let request = other.requests().pop().expect("a request");
    assert!(request.line.starts_with("POST /openapi/chat/completions"), "{}", request.line);
    assert_eq!(request.text(), r#"{"model":"google/gemini-flash"}"#);
}

#[test]
fn a_stream_falls_back_before_it_means_anything() {
    let failing = Upstream::answering(format!(
        "{STREAM_HEAD}{}{LAST_CHUNK}",
        chunk("data: {\"error\":{\"type\":\"server_error\",\"message\":\"x\"}}\n\n")
    ));
    let events = format!("{TOKEN}{FINISH}{DONE}");
    let good = Upstream::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&events)));
    let sidecar = start(
        &[("a", url(&failing)), ("b", url(&good))],
        "upstream: a, fallback: [{ upstream: b }]",
    );
    assert_eq!(sidecar.call(stream_call()).text(), events);
    assert_outcome(&sidecar.finish()[0], "completed", None);
}

#[test]
fn a_body_that_cannot_be_held_still_falls_back_where_nothing_was_sent() {
    let good = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{}' }}, b: {{ {} }} }}\nroutes: [{{ upstream: a, fallback: [{{ upstream: b }}] }}]\nlimits: {{ held_body: 1KiB }}",
        nowhere(),
        url(&good)
    );
    let sidecar = Launch::new().config(&config).start();
    let body = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(200_000));
    assert_eq!(sidecar.call(post("/v1/chat/completions", &body)).status(), 200);
    assert_eq!(good.requests()[0].text(), body);
}

#[test]
fn a_mixed_list_is_refused() {
    for (fallback, part) in [
        ("[{ upstream: b }]", "`b` speaks Bedrock, but the calls of this route Vertex"),
        ("[{ upstream: c }]", "fallback[0].upstream: there is no upstream `c`"),
        ("[{}]", "fallback[0]: says nothing"),
    ] {
        let folder = Folder::new();
        let path = folder.file("tidegate.yaml");
        let config = format!(
            "upstreams: {{ a: {{ url: 'https://us-central1-aiplatform.googleapis.com' }}, b: {{ url: 'https://bedrock-runtime.us-east-1.amazonaws.com' }} }}\nroutes: [{{ upstream: a, fallback: {fallback} }}]"
        );
        std::fs::write(&path, config).expect("a folder to write to");
        let output = tidegate(["check", path.to_str().expect("text")]).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains(part), "{told}");
    }
}

#[test]
fn a_model_that_nobody_has_asked_yet_is_not_shut_with_the_one_that_fails() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let status = if request.text().contains("small") { 200 } else { 429 };
            peer.wire.send(answer_with(status, COMPLETION));
        }
    });
    let own = format!("{}, breaker: {{ consecutive: 1 }}", url(&upstream));
    let sidecar = start(&[("a", own)], "upstream: a, fallback: [{ model: small }]");
    for _ in 0..3 {
        let call = bare_post("/v1/chat/completions", r#"{"model":"big"}"#);
        let reply = sidecar.call(call);
        assert_eq!(
            (reply.status(), reply.header("x-tidegate-fallback")),
            (200, Some("a; model=small"))
        );
    }
}

#[test]
fn every_target_is_reached_whatever_the_ones_before_it_have_used_up() {
    for attempts in [1, 2, 3, 9] {
        let failing = Upstream::answering(answer_with(503, "{}"));
        let good = Upstream::answering(answer(COMPLETION));
        let sidecar = start(
            &[("a", url(&failing)), ("b", url(&failing)), ("c", url(&failing)), ("d", url(&good))],
            &format!(
                "upstream: a, retry: {{ attempts: {attempts}, per_target: 3, wait: 1ms }}, fallback: [{{ upstream: b }}, {{ upstream: c }}, {{ upstream: d }}]"
            ),
        );
        let reply = sidecar.call(call());
        assert_eq!((reply.status(), reply.header("x-tidegate-fallback")), (200, Some("d")));
        // One each, and as many more as are allowed.
        let failed = failing.requests().len();
        assert_eq!(failed, (attempts - 1).max(3), "{attempts}");
        assert_eq!(good.requests().len(), 1);
    }
}

#[test]
fn what_an_upstream_will_not_have_again_goes_to_another() {
    let answer_of =
        |status| answer_with(status, "{}").replacen("\r\n", "\r\nx-should-retry: false\r\n", 1);
    for status in [503, 429] {
        let failing = Upstream::answering(answer_of(status));
        let good = Upstream::answering(answer(COMPLETION));
        let route = "upstream: a, retry: {}, fallback: [{ upstream: b }]";
        let sidecar = start(&[("a", url(&failing)), ("b", url(&good))], route);
        assert_eq!(sidecar.call(call()).header("x-tidegate-fallback"), Some("b"), "{status}");
        assert_eq!(failing.requests().len(), 1, "{status}");
    }
}
