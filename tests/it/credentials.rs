//! Upstreams with a credential of their own: it goes to them and nowhere else, and the caller's
//! stays here.

use std::fs;
use std::process::Output;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;

use crate::support::*;

/// What the AWS SDKs read.
const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", canary::SECRET_ACCESS_KEY),
    ("AWS_SESSION_TOKEN", canary::SESSION_TOKEN),
];
const AWS: &str = "{ aws: { region: us-east-1 } }";

/// Everything goes to this upstream, with this credential.
fn signing(url: &str, credential: &str) -> Launch {
    signing_with(url, credential, "")
}

fn signing_with(url: &str, credential: &str, rest: &str) -> Launch {
    Launch::new().config(&format!(
        "upstreams: {{ a: {{ url: '{url}', credential: {credential} }} }}\nroutes: [{{ upstream: a }}]\n{rest}"
    ))
}

fn with_keys(launch: Launch) -> Launch {
    KEYS.into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

/// A call with every credential that a caller may have.
fn call_with_credentials(path: &str) -> String {
    let fields = [
        "Authorization: Bearer callers-own",
        "X-Api-Key: callers-own",
        "api-key: callers-own",
        "x-goog-api-key: callers-own",
        "X-Amz-Date: callers-own",
        "X-Amz-Security-Token: callers-own",
        "X-Amz-Content-Sha256: callers-own",
    ];
    let first = format!("\r\n{}\r\n", fields.join("\r\n"));
    bare_post(path, r#"{"model":"gpt-4o"}"#).replacen("\r\n", &first, 1)
}

fn value<'a>(request: &'a Message, name: &str) -> &'a str {
    let named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
    let values: Vec<_> = request.headers.iter().filter(named).map(|(_, value)| value).collect();
    assert_eq!(values.len(), 1, "{name} once in {request:?}");
    values[0]
}

#[test]
fn an_upstream_gets_its_own_credential_and_none_of_its_callers() {
    for (credential, name, expected) in [
        ("{ bearer: { env: KEY } }", "authorization", "Bearer canary"),
        ("{ header: { name: X-Api-Key, env: KEY } }", "x-api-key", "canary"),
        ("{ header: { name: X-Key, prefix: 'Key ', env: KEY } }", "x-key", "Key canary"),
    ] {
        let upstream = Upstream::answering(answer(COMPLETION));
        let sidecar = signing(&upstream.url(), credential).env("KEY", "canary").start();
        let path = "/v1/chat/completions?key=callers-own&alt=sse&X-Amz-Signature=callers-own";
        let request = call_with_credentials(path).replacen("\r\n", "\r\nX-Key: callers-own\r\n", 1);
        let mut caller = sidecar.connect();
        assert_eq!(caller.call(&request).status(), 200);
        assert_eq!(caller.call(&request).status(), 200);

        let requests = upstream.requests();
        assert_eq!(requests.len(), 2);
        for request in requests {
            assert_eq!(value(&request, name), expected);
            assert_eq!(request.line, "POST /v1/chat/completions?alt=sse HTTP/1.1");
            let is_key = credential.contains("X-Key");
            let all = format!("{request:?}");
            assert!(!all.contains("callers-own") || !is_key && all.contains("X-Key"), "{all}");
            assert_eq!(all.matches("callers-own").count(), usize::from(!is_key), "{all}");
            assert_eq!(request.text(), r#"{"model":"gpt-4o"}"#);
        }
        assert_eq!(upstream.connections(), 1);
        drop(caller);
        for record in sidecar.finish() {
            assert_outcome(&record, "completed", None);
        }
    }
}

#[test]
fn a_caller_keeps_its_own_credential_where_the_upstream_has_none() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    sidecar.call(call_with_credentials("/v1/chat/completions?key=callers-own"));
    assert_eq!(format!("{:?}", upstream.request()).matches("callers-own").count(), 8);
}

#[test]
fn each_upstream_sees_its_own_credential_and_no_other() {
    let upstreams = ["a", "b", "c"].map(|_| Upstream::answering(answer(COMPLETION)));
    let [a, b, c] = upstreams.each_ref().map(Upstream::url);
    let config = format!(
        "upstreams:\n  a: {{ url: '{a}', credential: {{ bearer: {{ env: KEY_A }} }} }}\n  b: {{ url: '{b}', credential: {AWS} }}\n  c: {{ url: '{c}' }}\nroutes: [{{ match: {{ path: '/a*' }}, upstream: a }}, {{ match: {{ path: '/b*' }}, upstream: b }}, {{ upstream: c }}]"
    );
    let launch = Launch::new().config(&config).env("KEY_A", "canary-a");
    let sidecar = with_keys(launch).start();
    let mut caller = sidecar.connect();
    for path in ["/a", "/b", "/c", "/b", "/a", "/c"] {
        assert_eq!(caller.call(post(path, "{}")).status(), 200, "{path}");
    }
    for (upstream, own) in upstreams.iter().zip(["canary-a", "AWS4-HMAC", ""]) {
        for request in upstream.requests() {
            let all = format!("{request:?}");
            for other in ["canary-a", "AWS4-HMAC"] {
                assert_eq!(all.contains(other), other == own, "{other}: {all}");
            }
        }
    }
}

#[test]
fn a_key_in_a_file_is_read_again_when_it_changes() {
    let upstream = Upstream::answering(answer(COMPLETION));
    // Beside the configuration, for it does not say where.
    let sidecar = signing(&upstream.url(), "{ bearer: { file: key } }").start();
    let refused = sidecar.call(call());
    assert_eq!(refused.status(), 502);
    assert_eq!(refused.json()["error"]["code"], "credential_unavailable");
    assert_eq!(upstream.connections(), 0);
    wait_until("the failure is counted", || {
        sidecar.metric("tidegate_credential_failures_total") >= 1.0
    });
    for key in ["first", "second"] {
        fs::write(sidecar.file("key"), format!("{key}\n")).expect("a folder to write to");
        wait_until("the key arrives", || {
            let reply = sidecar.call(call());
            let last = upstream.requests().pop();
            let is_it =
                |request: &Message| value(request, "authorization") == format!("Bearer {key}");
            reply.status() == 200 && last.as_ref().is_some_and(is_it)
        });
    }
    assert!(sidecar.metric("tidegate_credential_age_seconds") < 20.0);
    let records = sidecar.wait_records(1);
    assert_outcome(&records[0], "refused", Some("sidecar"));
    assert_eq!(records[0]["error.type"], "credential_unavailable");
    assert_eq!(records[0]["http.response.status_code"], 502);
    assert!(records[0]["tidegate.attempts"].is_null(), "{:#}", records[0]);
}

#[test]
fn a_body_is_held_whole_and_signed() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = with_keys(signing(&upstream.url(), AWS)).start();
    let big = "x".repeat(1 << 20);
    let mut caller = sidecar.connect();
    let head = "POST /model/a%3A0/converse HTTP/1.1\r\nHost: h\r\nAuthorization: AWS4-HMAC-SHA256 callers-own\r\nX-Amz-Date: callers-own\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    let requests = [
        post("/model/a%3A0/converse", "{}"),
        post("/model/a%3A0/converse", &big),
        format!("{head}{}{}{LAST_CHUNK}", chunk("{\"a\":"), chunk("1}")),
        format!("{head}{}0\r\nx-sum: 1\r\n\r\n", chunk(&big)),
        "GET /foundation-models HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        post("/model/a/converse", ""),
    ];
    for request in &requests {
        let reply = caller.call(request);
        assert_eq!(reply.status(), 200, "{}", reply.text());
    }
    let bodies = ["{}", &big, "{\"a\":1}", &big, "", ""];
    let seen = upstream.requests();
    assert_eq!(seen.len(), bodies.len());
    for (request, body) in seen.iter().zip(bodies) {
        assert!(request.text() == body, "{}", request.line);
        let authorization = value(request, "authorization");
        let scope = "/us-east-1/bedrock/aws4_request, SignedHeaders=";
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
        assert!(authorization.contains(scope), "{authorization}");
        assert_eq!(value(request, "x-amz-security-token"), KEYS[2].1);
        assert_eq!(request.header("transfer-encoding"), None);
        assert!(!format!("{request:?}").contains("callers-own"));
        if !body.is_empty() {
            assert_eq!(value(request, "content-length"), body.len().to_string());
        }
    }
    assert_eq!(seen[0].line, "POST /model/a%3A0/converse HTTP/1.1");
    drop(caller);
    let records = sidecar.finish();
    for (record, body) in records.iter().zip(bodies) {
        assert_outcome(record, "completed", None);
        assert_eq!(record["tidegate.request.bytes"], body.len());
    }
    assert_eq!(records[3]["tidegate.warnings"][0], "trailers_left_out");
}

#[test]
fn a_caller_that_waits_for_it_is_told_to_send_its_body() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = with_keys(signing(&upstream.url(), AWS)).start();
    let mut caller = sidecar.connect();
    caller.send("POST /model/a/invoke HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(caller.response().status(), 100);
    assert_eq!(caller.call("{}").status(), 200);
    assert_eq!(upstream.request().header("expect"), None);
}

#[test]
fn a_body_that_is_too_large_to_be_signed_is_refused() {
    let upstream = Upstream::answering(answer("{}"));
    let limits = "limits: { signed_body: 1KiB }";
    let sidecar = with_keys(signing_with(&upstream.url(), AWS, limits)).start();
    let big = "x".repeat(1025);
    let chunked = "POST /model/a/invoke HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for request in [post("/model/a/invoke", &big), format!("{chunked}{}{LAST_CHUNK}", chunk(&big))]
    {
        let reply = sidecar.call(request);
        assert_eq!(reply.status(), 413);
        assert_eq!(reply.header("x-tidegate-error"), Some("signed_body_too_large"));
    }
    assert_eq!(sidecar.call(post("/model/a/invoke", &big[1..])).status(), 200);
    assert_eq!(upstream.connections(), 1);
    let records = sidecar.finish();
    for record in &records[..2] {
        assert_outcome(record, "refused", Some("client"));
        assert_eq!(record["error.type"], "signed_body_too_large");
    }
}

#[test]
fn bodies_that_wait_to_be_signed_have_a_bound_together() {
    let upstream = Upstream::answering(answer("{}"));
    let limits = "limits: { signed_bodies: 1KiB }";
    let sidecar = with_keys(signing_with(&upstream.url(), AWS, limits)).start();
    let most = "x".repeat(1000);
    wait_until("one that is first has room, and another has none", || {
        let mut slow = sidecar.connect();
        slow.send(format!(
            "POST /model/a/invoke HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n{most}"
        ));
        let reply = sidecar.call(post("/model/a/invoke", &most));
        let is_full = reply.header("x-tidegate-error") == Some("signed_bodies_full");
        assert_eq!(reply.status(), if is_full { 503 } else { 200 });
        // Where both came at once, both are refused.
        let _ = slow.try_send("x");
        is_full && slow.head().is_some_and(|head| head.status() == 200)
    });
    assert_eq!(sidecar.call(post("/model/a/invoke", &most)).status(), 200, "there is room again");
}

#[test]
fn a_call_without_keys_is_refused_and_never_hangs() {
    let upstream = Upstream::answering(answer("{}"));
    let launch = signing(&upstream.url(), AWS).env("AWS_EC2_METADATA_DISABLED", "true");
    let sidecar = launch.start();
    let reply = sidecar.call(post("/model/amazon.nova-pro-v1:0/converse", "{}"));
    assert_eq!(reply.status(), 502);
    assert_eq!(reply.header("x-amzn-errortype"), Some("credential_unavailable"));
    assert_eq!(upstream.connections(), 0);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "refused", Some("sidecar"));
    assert_eq!(record["error.type"], "credential_unavailable");
}

#[test]
fn a_source_that_is_silent_hangs_nobody() {
    let upstream = Upstream::answering(answer("{}"));
    let silent = Upstream::new(|mut peer| {
        peer.request();
        peer.closed();
    });
    let launch = signing(&upstream.url(), "{ google: { file: user.json } }");
    let user = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r","token_uri":"{}"}}"#,
        silent.url()
    );
    fs::write(launch.file("user.json"), user).expect("a folder to write to");
    let sidecar = launch.start();
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), upstream.connections()), (502, 0));
    assert_eq!(reply.header("x-tidegate-error"), Some("credential_timeout"));
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "refused", Some("sidecar"));
    assert_eq!(record["error.type"], "credential_timeout");
}

#[test]
fn the_next_address_gets_a_signature_of_its_own() {
    let upstream = Upstream::answering(answer("{}"));
    let (lost, url) = (nowhere(), upstream.url());
    let config = format!(
        "upstreams: {{ a: {{ addresses: ['http://{lost}', '{url}'], credential: {AWS} }} }}\nroutes: [{{ upstream: a }}]"
    );
    let sidecar = with_keys(Launch::new().config(&config)).start();
    let chunked = "POST /model/a/invoke HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for _ in 0..4 {
        let reply = sidecar.call(format!("{chunked}{}{LAST_CHUNK}", chunk("{}")));
        assert_eq!(reply.status(), 200, "{}", reply.text());
    }
    for request in upstream.requests() {
        assert_eq!(value(&request, "host"), upstream.address.to_string());
        assert!(value(&request, "authorization").starts_with("AWS4"));
        assert_eq!(value(&request, "content-length"), "2");
        assert_eq!(request.text(), "{}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_upstreams_get_their_credential_too() {
    let seen: Arc<Mutex<Vec<(http::request::Parts, usize)>>> = Arc::default();
    let noted = seen.clone();
    let address = serve(Speaks::Http2, move |request| {
        let noted = noted.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("it comes whole").to_bytes();
            noted.lock().expect("nobody panics with it").push((parts, body.len()));
            http::Response::new(full("{}"))
        }
    })
    .await;
    for (credential, start) in
        [(AWS, "AWS4-HMAC-SHA256 "), ("{ bearer: { env: KEY } }", "Bearer canary")]
    {
        let credential = format!("{credential}, http2: true");
        let launch = signing(&format!("http://{address}"), &credential).env("KEY", "canary");
        let sidecar = with_keys(launch).start();
        let mut caller = http2_caller(sidecar.address).await;
        let (mut pieces, body) = piecewise();
        let mut request = http2_post("/model/a%3A0/invoke", body);
        request.headers_mut().insert("authorization", "callers-own".parse().expect("a value"));
        let sending = async {
            for _ in 0..3 {
                pieces.send_data("x".repeat(1000).into()).await.expect("it is read");
            }
            drop(pieces);
        };
        let (reply, ()) = tokio::join!(caller.send_request(request), sending);
        assert_eq!(reply.expect("a reply").status(), 200);
        let (parts, length) = seen.lock().expect("nobody panics with it").pop().expect("a request");
        let authorization = parts.headers["authorization"].to_str().expect("text");
        assert!(authorization.starts_with(start), "{authorization}");
        assert_eq!(length, 3000);
        assert_eq!(parts.uri.path(), "/model/a%3A0/invoke");
        assert_eq!(parts.headers.get("content-length").is_some(), credential.contains("aws"));
    }
}

fn run(launch: Vec<&str>, variables: &[(&str, &str)]) -> Output {
    let mut command = tidegate(launch);
    command.envs(variables.iter().copied());
    command.output().expect("the program is built")
}

#[test]
fn a_sidecar_that_would_call_itself_does_not_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket").to_string();
    drop(listener);
    let own = format!("http://{address}/");
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "HTTPS_PROXY", "https_proxy"] {
        let arguments = ["proxy", "--upstream", "http://127.0.0.1:1", "--listen", &address];
        let arguments = [&arguments[..], &["--admin", "127.0.0.1:0"]].concat();
        let output = run(arguments, &[(variable, &own)]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("environment variable {variable} points at")), "{told}");
        assert!(told.contains("unset it for the sidecar"), "{told}");
    }
}

#[test]
fn a_credential_that_cannot_be_meant_is_told_with_file_and_line() {
    let folder = Folder::new();
    let file = folder.file("tidegate.yaml");
    for (credential, line, part) in [
        ("bearer: { env: UNSET_KEY }", 4, "environment variable UNSET_KEY is not set"),
        ("bearer: { env: A, file: b }", 4, "has `file` and `env`"),
        ("header: { name: 'a b', env: A }", 4, "`a b` is not the name of a header"),
        ("awss: { region: a }", 4, "did you mean `aws`?"),
        ("aws: { reigon: a }", 4, "did you mean `region`?"),
        ("bearer: tidecanary", 4, "needs `file` or `env`"),
        ("bearer: { env: sk-tidecanary }", 4, "not the name of an environment variable"),
        ("header: tidecanary", 4, "needs `name`"),
        ("{}", 4, "is one of `bearer`, `header`, `aws` and `google`"),
    ] {
        let text = format!(
            "upstreams:\n  a:\n    credential:\n      {credential}\n    url: 'http://a'\notlp: {{ headers: {{ x-key: '{}' }} }}\n",
            canary::OF_COLLECTOR
        );
        fs::write(&file, text).expect("a folder to write to");
        let path = file.to_str().expect("a path of UTF-8");
        let output = run(vec!["check", path], &[("A", "x")]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert_eq!(canary::found(&output.stderr), None, "{told}");
        assert!(told.contains(part), "{told}");
        assert!(told.contains(path), "{told}");
        assert!(told.contains(&format!("line {line}")), "{credential}: {told}");
    }
}

#[test]
fn no_output_shows_a_secret() {
    let upstreams = ["a", "b", "c"].map(|_| Upstream::answering(answer(COMPLETION)));
    let [a, b, c] = upstreams.each_ref().map(Upstream::url);
    let pushed: Arc<Mutex<Vec<u8>>> = Arc::default();
    let noted = pushed.clone();
    let collector = Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            let mut noted = noted.lock().expect("nobody panics with it");
            noted.extend_from_slice(&request.body);
            drop(noted);
            peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let config = format!(
        "upstreams:\n  a: {{ url: '{a}', credential: {{ bearer: {{ env: KEY }} }} }}\n  b: {{ url: '{b}', credential: {AWS} }}\n  c: {{ url: '{c}', credential: {{ header: {{ name: x-key, file: key }} }} }}\n  d: {{ url: '{lost}', credential: {{ header: {{ name: x-key, file: key }} }} }}\nroutes: [{{ match: {{ path: '/a*' }}, upstream: a }}, {{ match: {{ path: '/b*' }}, upstream: b }}, {{ match: {{ path: '/c*' }}, upstream: c }}, {{ upstream: d }}]\notlp: {{ interval: 50ms, traces: {{ delay: 50ms }}, endpoint: '{otlp}', protocol: http/protobuf }}",
        lost = format_args!("http://{}", nowhere()),
        otlp = collector.url(),
    );
    let launch =
        Launch::new().config(&config).env("KEY", canary::API_KEY).env("TIDEGATE_LOG", "trace");
    fs::write(launch.file("key"), canary::IN_FILE).expect("a folder to write to");
    let sidecar = with_keys(launch).start();
    let mut search = canary::Search::default();
    for path in ["/a", "/b", "/c", "/d", "/a%00", &format!("/c?{}", canary::CALLERS_QUERY)] {
        search.output("an answer", format!("{:?}", sidecar.call(post(path, "{}"))).as_bytes());
    }
    for path in ["/metrics", "/", "/readyz", "/config"] {
        sidecar.ask(path);
    }
    sidecar.wait_records(5);
    wait_until("metrics and spans are pushed", || {
        let is_pushed = |part: &[u8]| {
            let pushed = pushed.lock().expect("nobody panics with it");
            pushed.windows(part.len()).any(|window| window == part)
        };
        is_pushed(b"tidegate.credential.failures") && is_pushed(b"server.address")
    });
    assert!(sidecar.log().contains("listening on"));
    sidecar.finish_log();
    search.output("what a collector was told", &pushed.lock().expect("nobody panics with it"));
    drop(search);
    let [a, b, c] = upstreams.map(|upstream| format!("{:?}", upstream.requests()));
    assert!(a.contains(canary::API_KEY) && c.contains(canary::IN_FILE));
    assert!(b.contains(canary::SESSION_TOKEN));
}

#[test]
fn what_a_source_says_of_its_failure_shows_no_secret() {
    let google = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let said = request.text().replace('"', "'");
            peer.wire
                .send(answer_with(400, &format!(r#"{{"e":"{said}","error":"invalid_grant"}}"#)));
        }
    });
    let aws = Upstream::answering(answer(
        r#"{"AccessKeyId":"AKID","SecretAccessKey":"canary","Token":"canary","Expiration":"canary"}"#,
    ));
    let user = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"canary","refresh_token":"canary","token_uri":"{}/token"}}"#,
        google.url()
    );
    for (credential, part) in [("{ google: { file: user.json } }", "invalid_grant"), (AWS, "AWS")] {
        let launch = signing(&format!("http://{}", nowhere()), credential)
            .env("TIDEGATE_LOG", "trace")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/keys", aws.url()));
        fs::write(launch.file("user.json"), &user).expect("a folder to write to");
        let sidecar = launch.start();
        let reply = sidecar.call(call());
        assert_eq!(reply.status(), 502);
        assert_eq!(reply.header("x-tidegate-error"), Some("credential_unavailable"));
        wait_until("it is told", || sidecar.log().contains("could not be fetched"));
        let all = format!("{}{}{:?}", sidecar.log(), reply.text(), sidecar.wait_records(1));
        assert!(!all.contains("canary") && sidecar.log().contains(part), "{all}");
    }
    assert!(google.requests()[0].text().contains("canary") && aws.connections() > 0);
}
