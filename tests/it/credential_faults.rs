//! What goes wrong around credentials: clocks, redirects, shared addresses, rotation, slow sources,
//! and upstreams that say a key back.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::support::*;

const AWS: &str = "{ aws: { region: us-east-1 } }";

/// Everything goes to this upstream, with this credential.
fn signing(url: &str, credential: &str) -> Launch {
    let launch = Launch::new().config(&format!(
        "upstreams: {{ a: {{ url: '{url}', credential: {credential} }} }}\nroutes: [{{ upstream: a }}]"
    ));
    launch.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("KEY", canary::API_KEY)
}

/// An upstream of AWS whose clock is so many seconds ahead, and which refuses what is five minutes
/// off by its clock.
fn skewed(ahead_s: Arc<AtomicI64>, kind: &'static str) -> Upstream {
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            let now = Timestamp::now() + ahead_s.load(SeqCst).seconds();
            let signed = request.header("x-amz-date").expect("it is signed");
            let signed: jiff::civil::DateTime =
                signed.trim_end_matches('Z').parse().expect("a time");
            let signed = signed.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp();
            let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT");
            let is_off = (now.as_second() - signed.as_second()).abs() > 300;
            let answer = match is_off {
                false => answer("{}"),
                true => answer_with(403, r#"{"message":"Signature expired"}"#).replacen(
                    "\r\n",
                    &format!("\r\nx-amzn-ErrorType: {kind}\r\nDate: {date}\r\n"),
                    1,
                ),
            };
            peer.wire.send(answer);
        }
    })
}

#[test]
fn a_wrong_clock_costs_one_attempt_and_is_told_once() {
    let ahead_s = Arc::new(AtomicI64::new(7200));
    let upstream = skewed(ahead_s.clone(), "InvalidSignatureException:http://internal.amazon.com/");
    let sidecar = signing(&upstream.url(), AWS).start();
    let statuses = || {
        let status = |_| sidecar.call(post("/model/a/converse", "{}")).status();
        (0..3).map(status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(), [200, 200, 200]);
    // The clock is set right.
    ahead_s.store(0, SeqCst);
    assert_eq!(statuses(), [200, 200, 200]);
    ahead_s.store(-86_400, SeqCst);
    assert_eq!(statuses(), [200, 200, 200]);
    let told = "our clock is wrong";
    wait_until("it is told", || sidecar.log().matches(told).count() == 3);
    assert_eq!(sidecar.metric("tidegate_credential_refused_total"), 0.0, "the keys are good");
    let records = sidecar.finish();
    assert_eq!(records.len(), 9);
    for (number, record) in records.iter().enumerate() {
        let (attempts, warnings) = match number % 3 {
            0 => (2, json!(["clock_corrected"])),
            _ => (1, Value::Null),
        };
        assert_eq!(record["tidegate.attempts"], attempts, "{record:#}");
        assert_eq!(record["tidegate.warnings"], warnings, "{record:#}");
    }
}

#[test]
fn calls_that_are_refused_together_for_their_time_are_all_made_once_more() {
    let upstream = skewed(Arc::new(AtomicI64::new(7200)), "RequestTimeTooSkewed");
    let sidecar = signing(&upstream.url(), AWS).start();
    let mut callers: Vec<_> = (0..20).map(|_| sidecar.connect()).collect();
    callers.iter_mut().for_each(|caller| caller.send(post("/model/a/converse", "{}")));
    assert!(callers.iter_mut().all(|caller| caller.response().status() == 200));
    assert_eq!(sidecar.metric("tidegate_credential_refused_total"), 0.0, "the keys are good");
}

#[test]
fn a_refusal_for_another_reason_changes_no_clock() {
    let upstream = skewed(Arc::new(AtomicI64::new(7200)), "AccessDeniedException");
    let sidecar = signing(&upstream.url(), AWS).start();
    for _ in 0..3 {
        assert_eq!(sidecar.call(post("/model/a/converse", "{}")).status(), 403);
    }
    assert!(!sidecar.log().contains("clock"), "{}", sidecar.log());
}

#[test]
fn a_redirect_is_the_callers_to_follow() {
    for credential in ["{ bearer: { env: KEY } }", AWS] {
        let elsewhere = Upstream::answering(answer("{}"));
        for status in [301, 302, 303, 307, 308] {
            let to = format!("{}/v1/x", elsewhere.url());
            let redirect = answer_with(status, "moved");
            let redirect = redirect.replacen("\r\n", &format!("\r\nLocation: {to}\r\n"), 1);
            let upstream = Upstream::answering(redirect);
            let sidecar = signing(&upstream.url(), credential).start();
            let reply = sidecar.call(post("/v1/chat/completions", "{}"));
            assert_eq!((reply.status(), reply.header("location")), (status, Some(&*to)));
            assert_eq!(reply.text(), "moved");
            assert!(!format!("{reply:?}").contains("tidecanary"), "{reply:?}");
            assert!(upstream.request().header("authorization").is_some());
        }
        assert_eq!(elsewhere.connections(), 0);
    }
}

/// Answers with the credential that came.
fn telling() -> Upstream {
    Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let authorization = request.header("authorization").unwrap_or("none");
            peer.wire.send(answer(authorization));
        }
    })
}

#[test]
fn upstreams_at_one_address_never_swap_credentials() {
    let upstream = telling();
    let url = upstream.url();
    let config = format!(
        "upstreams:\n  a: {{ url: '{url}', credential: {{ bearer: {{ env: KEY_A }} }} }}\n  b: {{ url: '{url}', credential: {{ bearer: {{ env: KEY_B }} }} }}\n  c: {{ url: '{url}' }}\nroutes: [{{ match: {{ path: '/a*' }}, upstream: a }}, {{ match: {{ path: '/b*' }}, upstream: b }}, {{ upstream: c }}]"
    );
    let launch = Launch::new().config(&config).env("KEY_A", "key-a").env("KEY_B", "key-b");
    let sidecar = launch.start();
    thread::scope(|scope| {
        for number in 0..200 {
            let sidecar = &sidecar;
            scope.spawn(move || {
                let callers = format!("Bearer {}", canary::OF_CALLER);
                let ways = [("/a", "Bearer key-a"), ("/b", "Bearer key-b"), ("/c", &*callers)];
                let mut caller = sidecar.connect();
                for step in 0..3 {
                    let (path, expected) = ways[(number + step) % 3];
                    assert_eq!(caller.call(post(path, "{}")).text(), expected);
                }
            });
        }
    });
    assert_eq!(upstream.requests().len(), 600);
}

#[test]
fn a_key_is_rotated_while_calls_are_under_way() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/held" {
                held.pass();
            }
            peer.wire.send(answer(request.header("authorization").expect("a key")));
        }
    });
    let launch = signing(&upstream.url(), "{ bearer: { file: key } }");
    let key = launch.file("key");
    fs::write(&key, "first").expect("a folder to write to");
    let sidecar = launch.start();
    let mut early = sidecar.connect();
    early.send(post("/held", "{}"));
    wait_until("it is under way", || upstream.requests().len() == 1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut caller = sidecar.connect();
                    let mut seen = Vec::new();
                    while !is_over.load(SeqCst) {
                        seen.push(caller.call(post("/", "{}")).text());
                        seen.dedup();
                    }
                    seen
                })
            })
            .collect();
        // As Kubernetes does it: the name is moved to another file.
        let next = key.with_extension("next");
        fs::write(&next, "second").expect("a folder to write to");
        fs::rename(next, &key).expect("a folder to write to");
        wait_until("the new key is in use", || {
            sidecar.call(post("/", "{}")).text() == "Bearer second"
        });
        is_over.store(true, SeqCst);
        for caller in callers {
            let seen = caller.join().expect("calls go well");
            let order = ["Bearer first", "Bearer second"];
            assert!(seen == order || seen == order[..1] || seen == order[1..], "{seen:?}");
        }
    });
    gate.open();
    assert_eq!(early.response().text(), "Bearer first");
}

#[test]
fn calls_wait_together_for_a_slow_token() {
    let gate = Gate::default();
    let held = gate.clone();
    let tokens = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            held.pass();
            let token = r#"{"access_token":"the-token","expires_in":3600,"token_type":"Bearer"}"#;
            peer.wire.send(answer(token));
        }
    });
    let upstream = telling();
    let launch = signing(&upstream.url(), "{ google: { file: user.json } }");
    let user = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"{0}","refresh_token":"{0}","token_uri":"{1}/token"}}"#,
        canary::IN_FILE,
        tokens.url()
    );
    fs::write(launch.file("user.json"), user).expect("a folder to write to");
    let sidecar = launch.start();
    let mut callers: Vec<_> = (0..20).map(|_| sidecar.connect()).collect();
    callers.iter_mut().for_each(|caller| caller.send(call()));
    wait_until("the token is asked for", || !tokens.requests().is_empty());
    assert_eq!(upstream.connections(), 0);
    gate.open();
    for caller in &mut callers {
        assert_eq!(caller.response().text(), "Bearer the-token");
    }
    assert_eq!(tokens.requests().len(), 1, "one token serves all");
}

/// Upstreams do say keys back: `Incorrect API key provided: sk-...`.
#[test]
fn a_key_that_an_upstream_says_back_goes_to_its_caller_alone() {
    let collector = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let key = canary::OF_CALLER;
    let refusal = format!(
        r#"{{"error":{{"message":"Incorrect API key provided: {key}.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}}}"#
    );
    let said = format!(r#"{{"id":"c1","choices":[{{"index":0,"delta":{{"content":"{key}"}}}}]}}"#);
    let (cut_at, bodies) =
        (Arc::new(AtomicI64::new(0)), [refusal, format!("data: {said}\n\n{DONE}")]);
    let lengths = bodies.each_ref().map(String::len);
    let shared = cut_at.clone();
    let upstream = Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            let cut = shared.load(SeqCst) as usize;
            let (body, start) = match request.target().starts_with("/v1/refused") {
                true => (&bodies[0], "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json"),
                false => (&bodies[1], "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream"),
            };
            let pieces = [&body[..cut], &body[cut..]].map(|piece| match piece {
                "" => String::new(),
                piece => chunk(piece),
            });
            peer.wire.send(format!("{start}\r\nTransfer-Encoding: chunked\r\n\r\n"));
            pieces.iter().for_each(|piece| peer.wire.send(piece));
            peer.wire.send(LAST_CHUNK);
        }
    });
    // What a model says is its caller's own content, which spans have where a user asks for it.
    for (captures, path, length, outcome) in [
        (true, "/v1/refused", lengths[0], "failed"),
        (false, "/v1/refused", lengths[0], "failed"),
        (false, "/v1/chat/completions", lengths[1], "completed"),
    ] {
        let pushed = collector.requests().len();
        let config = format!(
            "capture_content: {captures}\notlp: {{ interval: 50ms, traces: {{ delay: 50ms }}, endpoint: '{}', protocol: http/protobuf }}",
            collector.url()
        );
        let launch = Launch::new().config(&config).env("TIDEGATE_LOG", "trace");
        let sidecar = launch.arg("--upstream").arg(&upstream.url()).start();
        let mut caller = sidecar.connect();
        for cut in 0..=length {
            cut_at.store(cut as i64, SeqCst);
            let request = post(path, r#"{"model":"gpt-4o","stream":true}"#);
            assert!(caller.call(request).text().contains(key));
        }
        sidecar.wait_records(length + 1);
        wait_until("spans are pushed", || {
            collector.requests()[pushed..].iter().any(|request| request.target() == "/v1/traces")
        });
        drop(caller);
        for record in sidecar.finish() {
            assert_eq!(record["tidegate.outcome"], outcome, "{record:#}");
        }
    }
}
