//! Calls that an application makes to others, through the sidecar as its proxy.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::through::{call, tls, tunnel};
use crate::support::*;

const PATH: &str = "/v1/chat/completions";

/// A sidecar that is a proxy, with this said of it, and its address as one.
fn proxy(launch: Launch, intercept: &str, rest: &str) -> (Sidecar, SocketAddr) {
    let ca = launch.file("ca");
    let config = format!(
        "intercept: {{ listen: 127.0.0.1:0, {intercept} }}\nca: {{ folder: {} }}\n{rest}",
        ca.display()
    );
    let sidecar = launch.config(&config).start();
    let said = "proxy (HTTPS_PROXY, HTTP_PROXY) on ";
    wait_until("it is a proxy", || sidecar.log().contains(said));
    let log = sidecar.log();
    let address = log.split_once(said).and_then(|(_, rest)| rest.lines().next()).expect("a line");
    let address = address.trim().parse().expect("an address");
    (sidecar, address)
}

/// Answers with what it was asked, once it has heard all of it: its host, and the caller's key.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let (request, asked) = request.into_parts();
    whole(asked).await.expect("a clean end");
    let field = |name: &str| {
        let value = request.headers.get(name);
        value.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
    };
    let host = request.uri.authority().map(ToString::to_string).unwrap_or(field("host"));
    let body = json!({
        "model": "gpt-4o", "host": host, "key": field("authorization"),
        "proxy": field("proxy-authorization"), "target": request.uri.path(),
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    });
    Response::builder()
        .header("content-type", "application/json")
        .body(full(body.to_string()))
        .expect("an answer")
}

fn request(authority: &str, is_http2: bool) -> Request<Body> {
    let target = match is_http2 {
        true => format!("https://{authority}{PATH}"),
        false => PATH.to_owned(),
    };
    let request = Request::post(target)
        .header("content-type", "application/json")
        .header("authorization", "Bearer of-the-application");
    let request = match is_http2 {
        true => request,
        false => request.header("host", authority),
    };
    request.body(full(r#"{"model":"gpt-4o","messages":[]}"#)).expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_through_a_tunnel_goes_where_it_was_meant_with_the_key_that_it_has() {
    for upstream in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let certificate = Certificate::new();
        let port = serve(Speaks::Tls(certificate.server(upstream)), mirror).await.port();
        let launch = Launch::new().trust(&certificate);
        let (sidecar, proxy) = proxy(launch, "hosts: [localhost], local: true", "");
        let roots = sidecar.file("ca").join("ca.pem");
        let authority = format!("localhost:{port}");
        for protocols in [&["h2"][..], &["http/1.1"], &[]] {
            let (head, tcp) = tunnel(proxy, &authority).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let stream = tls(tcp, "localhost", &roots, protocols).await.expect("TLS");
            let is_http2 = protocols == ["h2"];
            let (status, body) = call(stream, request(&authority, is_http2)).await;
            assert_eq!(status, 200, "{body:?}");
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["host"], authority.as_str());
            assert_eq!(body["key"], "Bearer of-the-application");
            assert_eq!(body["target"], PATH);
        }
        assert_eq!(sidecar.metric("tidegate_intercept_connections_total{end=\"measured\"}"), 3.0);
        let records = sidecar.finish();
        assert_eq!(records.len(), 3);
        for record in records {
            assert_outcome(&record, "completed", None);
            assert_eq!(record["tidegate.upstream"], "direct");
            assert_eq!(record["server.address"], "localhost");
            assert_eq!(record["server.port"], port);
            assert_eq!(record["gen_ai.request.model"], "gpt-4o");
            assert_eq!(record["gen_ai.usage.input_tokens"], 3);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_cannot_show_who_it_is_gets_nothing() {
    let certificate = Certificate::new();
    let port = serve(Speaks::Tls(certificate.server(&["h2"])), mirror).await.port();
    // It trusts another.
    let launch = Launch::new().trust(&Certificate::new());
    let (sidecar, proxy) = proxy(launch, "hosts: [localhost], local: true", "");
    let authority = format!("localhost:{port}");
    let (_, tcp) = tunnel(proxy, &authority).await;
    let roots = sidecar.file("ca").join("ca.pem");
    let stream = tls(tcp, "localhost", &roots, &["http/1.1"]).await.expect("TLS with us");
    let (status, body) = call(stream, request(&authority, false)).await;
    assert_eq!(status, 502, "{body:?}");
    let record = sidecar.finish_with_one();
    assert_eq!(record["error.type"], "upstream_tls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_not_listed_are_passed_on_blind_and_counted() {
    let certificate = Certificate::new();
    let port = serve(Speaks::Tls(certificate.server(&["h2"])), mirror).await.port();
    let (sidecar, proxy) = proxy(Launch::new(), "local: true", "");
    let (head, tcp) = tunnel(proxy, &format!("localhost:{port}")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // Its own certificate, not one of ours.
    let roots = sidecar.file("own.pem");
    std::fs::write(&roots, certificate.pem()).expect("a folder to write to");
    let stream = tls(tcp, "localhost", &roots, &["h2"]).await.expect("TLS with the host itself");
    let (status, _) = call(stream, request(&format!("localhost:{port}"), true)).await;
    assert_eq!(status, 200);
    let passed = "tidegate_intercept_passed_by_total{host=\"localhost\"}";
    assert_eq!(sidecar.metric(passed), 1.0);
    assert_eq!(sidecar.finish().len(), 0, "nothing is seen of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_carries_whatever_is_said_in_either_direction() {
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = host.local_addr().expect("a bound socket");
    let (sidecar, proxy) = proxy(Launch::new(), "local: true", "");
    let (_, mut caller) = tunnel(proxy, &address.to_string()).await;
    let (mut host, _) = host.accept().await.expect("it connects");
    // The host speaks first.
    host.write_all(b"220 ready\r\n").await.expect("it is taken");
    let mut said = [0; 11];
    caller.read_exact(&mut said).await.expect("it is passed on");
    assert_eq!(&said, b"220 ready\r\n");
    let much = vec![7; 1 << 20];
    let (sent, came) = tokio::join!(
        async {
            caller.write_all(&much).await.expect("it is taken");
            caller.shutdown().await.expect("it closes its half");
        },
        async {
            let mut came = Vec::new();
            host.read_to_end(&mut came).await.expect("a clean end");
            came
        }
    );
    assert_eq!(((), came.len()), (sent, 1 << 20));
    host.write_all(b"bye").await.expect("the other half is open");
    drop(host);
    let mut rest = Vec::new();
    caller.read_to_end(&mut rest).await.expect("a clean end");
    assert_eq!(rest, b"bye");
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_machine_and_metadata_are_reached_by_no_proxy() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: [providers, localhost]", "");
    let port = upstream.url().rsplit_once(':').expect("a port").1.to_owned();
    for host in ["127.0.0.1", "[::1]", "169.254.169.254", "0.0.0.0"] {
        let (head, mut tcp) = tunnel(proxy, &format!("{host}:{port}")).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{host}: {head}");
        let mut why = String::new();
        tcp.read_to_string(&mut why).await.expect("text");
        assert!(why.contains("NO_PROXY"), "{why}");
    }
    // Nor by a whole URL, listed or not.
    for host in ["127.0.0.1", "localhost"] {
        let asked =
            format!("GET http://{host}:{port}/v1/models HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        let reply = tokio::task::spawn_blocking(move || Wire::to(proxy).call(asked));
        let reply = reply.await.expect("no panic");
        assert_eq!(reply.status(), 403, "{}", reply.text());
        assert_eq!(reply.header("x-tidegate-error"), Some("local_address"));
    }
    assert_eq!(upstream.connections(), 0);
    for record in sidecar.finish() {
        assert_outcome(&record, "refused", Some("client"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_reached_by_none_of_its_spellings() {
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: [providers, '*']", "");
    let config = "hosts: [providers]";
    let (blind, by_blind) = self::proxy(Launch::new(), config, "");
    for host in [
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[::169.254.169.254]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "127.1",
        "2130706433",
    ] {
        let (head, _) = tunnel(by_blind, &format!("{host}:80")).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{host}: {head}");
        // Nor where it would be taken in.
        let asked = format!("GET http://{host}/latest HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let reply = tokio::task::spawn_blocking(move || Wire::to(proxy).call(asked));
        let reply = reply.await.expect("no panic");
        // A name that ends with a dot is looked up as it stands, and there is none of this.
        let why = if host.ends_with('.') { "upstream_unreachable" } else { "local_address" };
        assert_eq!(reply.header("x-tidegate-error"), Some(why), "{host}");
    }
    assert_eq!(blind.finish().len(), 0);
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_could_be_read_in_two_ways_is_none() {
    let (sidecar, proxy) = proxy(Launch::new(), "local: true", "");
    for target in [
        "key@api.openai.com:443",
        "api.openai.com:443@169.254.169.254:80",
        "api.openai.com:443:80",
        "api.openai.com:+443",
        "api.openai.com:0",
        "api.openai.com:65536",
        "api.openai.com:",
        "api.openai.com",
        "https://api.openai.com:443",
        "api.openai.com/x:443",
        "api.openai.com#x:443",
        "api.openai.com\\x:443",
        "[::1:443",
        "::1:443",
        "[fe80::1%25lo]:443",
        ":443",
    ] {
        let (head, _) = tunnel(proxy, target).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{target}: {head}");
    }
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_for_the_host_of_its_tunnel_whatever_the_hello_names() {
    let certificate = Certificate::new();
    let port = serve(Speaks::Tls(certificate.server(&["http/1.1"])), mirror).await.port();
    let launch = Launch::new().trust(&certificate);
    let (sidecar, proxy) = proxy(launch, "hosts: [localhost, other.example], local: true", "");
    let roots = sidecar.file("ca").join("ca.pem");
    let authority = format!("localhost:{port}");
    let (_, tcp) = tunnel(proxy, &authority).await;
    let refused = tls(tcp, "other.example", &roots, &[]).await.expect_err("it is for another");
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
    let (_, tcp) = tunnel(proxy, &authority).await;
    let stream = tls(tcp, "localhost", &roots, &[]).await.expect("TLS");
    assert_eq!(call(stream, request(&authority, false)).await.0, 200);
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_at_once_is_served_within_a_tunnel_too() {
    let port = serve(Speaks::Either, mirror).await.port();
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: [localhost], local: true", "");
    let authority = format!("localhost:{port}");
    for (named, status) in [(authority.as_str(), 200), ("api.openai.com", 421)] {
        let (_, tcp) = tunnel(proxy, &authority).await;
        let io = hyper_util::rt::TokioIo::new(tcp);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut caller, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let reply = caller.send_request(request(named, true)).await.expect("an answer");
        assert_eq!(reply.status(), status, "{named}");
    }
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_silent_is_let_go() {
    let rest = "timeouts: { request_head: 200ms }";
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: [localhost], local: true", rest);
    // In a tunnel, before its first byte and within a hello; and within the head that asks for one.
    for said in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTT"] {
        let (_, mut tcp) = tunnel(proxy, "localhost:1").await;
        tcp.write_all(said).await.expect("it is taken");
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    let mut tcp = tokio::net::TcpStream::connect(proxy).await.expect("it listens");
    tcp.write_all(b"CONNECT localhost:1 HTTP/1.1\r\nHost: loc").await.expect("it is taken");
    let _ = tcp.read_to_end(&mut Vec::new()).await;
    drop(sidecar);
}

#[test]
fn a_whole_url_is_a_plain_call_to_its_host() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: [127.0.0.1], local: true", "");
    let host = upstream.url().replace("http://", "");
    let body = r#"{"model":"gemma","messages":[]}"#;
    let asked = format!(
        "POST http://{host}{PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer own\r\n\
         Proxy-Authorization: Basic abc\r\nProxy-Connection: keep-alive\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut caller = Wire::to(proxy);
    for _ in 0..2 {
        assert_eq!(caller.call(&asked).status(), 200);
    }
    for request in upstream.requests() {
        assert_eq!(request.target(), PATH);
        assert_eq!(request.header("host"), Some(host.as_str()));
        assert_eq!(request.header("authorization"), Some("Bearer own"));
        assert_eq!(request.header("proxy-authorization"), None);
        assert_eq!(request.header("proxy-connection"), None);
    }
    // A call that is made to the proxy itself is at the wrong address.
    let reply = Wire::to(proxy).call(bare_post(PATH, body));
    assert_eq!(reply.status(), 400);
    assert!(reply.text().contains("HTTP_PROXY"), "{}", reply.text());
    let records = sidecar.finish();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["gen_ai.request.model"], "gemma");
}

#[test]
fn what_is_not_listed_is_refused_where_that_is_said() {
    let (sidecar, proxy) = proxy(Launch::new(), "unlisted: refuse, local: true", "");
    let reply =
        Wire::to(proxy).call("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
    assert_eq!(reply.status(), 403);
    let reply = Wire::to(proxy).call("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
    assert_eq!(reply.status(), 403);
    assert!(reply.text().contains("intercept.hosts"), "{}", reply.text());
    for wrong in [
        "CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n",
        "CONNECT a@b:1 HTTP/1.1\r\n\r\n",
        "CONNECT :1 HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(Wire::to(proxy).call(wrong).status(), 400, "{wrong:?}");
    }
    assert_eq!(sidecar.metric("tidegate_intercept_connections_total{end=\"refused\"}"), 5.0);
}

#[test]
fn a_call_that_is_meant_for_another_takes_no_route_that_does_not_name_its_host() {
    let (ours, named) =
        (Upstream::answering(answer(COMPLETION)), Upstream::answering(answer(COMPLETION)));
    let rest = format!(
        "upstreams:\n  ours: {{ url: '{}' }}\n  named: {{ url: '{}' }}\n\
         routes:\n  - {{ match: {{ host: api.named.example }}, upstream: named }}\n  - {{ upstream: ours }}\n",
        ours.url(),
        named.url()
    );
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: ['*.example']", &rest);
    let asked = |host: &str| {
        format!(
            "POST http://{host}{PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer own\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    };
    assert_eq!(Wire::to(proxy).call(asked("api.named.example")).status(), 200);
    // Its key is for a server that does not exist: nobody else sees it.
    let reply = Wire::to(proxy).call(asked("api.other.example"));
    assert_eq!(reply.header("x-tidegate-error"), Some("upstream_unreachable"), "{}", reply.text());
    assert_eq!((ours.connections(), named.connections()), (0, 1));
    // Calls that are made to us go by the routes as ever, and never to hosts of their own choice.
    assert_eq!(sidecar.call(bare_post(PATH, "{}")).status(), 200);
    assert_eq!(ours.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_is_for_one_host() {
    let certificate = Certificate::new();
    let port = serve(Speaks::Tls(certificate.server(&["http/1.1"])), mirror).await.port();
    let launch = Launch::new().trust(&certificate);
    let (sidecar, proxy) = proxy(launch, "hosts: [localhost], local: true", "");
    let roots = sidecar.file("ca").join("bundle.pem");
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let (_, tcp) = tunnel(proxy, &format!("localhost:{port}")).await;
        let stream = tls(tcp, "localhost", &roots, protocols).await.expect("TLS");
        let other = request("api.openai.com", protocols == ["h2"]);
        assert_eq!(call(stream, other).await.0, 421);
    }
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_does_not_trust_us_is_told_how_to() {
    let (sidecar, proxy) = proxy(Launch::new(), "hosts: [localhost], local: true", "");
    let roots = sidecar.file("other.pem");
    std::fs::write(&roots, Certificate::new().pem()).expect("a folder to write to");
    let (_, tcp) = tunnel(proxy, "localhost:1").await;
    assert!(tls(tcp, "localhost", &roots, &[]).await.is_err());
    wait_until("it is told", || sidecar.log().contains("SSL_CERT_FILE"));
    assert!(sidecar.log().contains("bundle.pem"), "{}", sidecar.log());
    let untrusted = "tidegate_intercept_connections_total{end=\"untrusted\"}";
    assert_eq!(sidecar.metric(untrusted), 1.0);
}

#[test]
fn the_authority_is_made_once_and_its_key_is_nobodys() {
    let folder = Folder::new();
    let ca = folder.file("ca");
    let read = |name: &str| std::fs::read_to_string(ca.join(name)).expect("it is there");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let config =
            format!("intercept: {{ listen: 127.0.0.1:0 }}\nca: {{ folder: {} }}", ca.display());
        let sidecar = Launch::new().config(&config).start();
        seen.push((read("ca.pem"), read("ca-key.pem")));
        assert!(read("bundle.pem").ends_with(&read("ca.pem")));
        let mode = std::fs::metadata(ca.join("ca-key.pem")).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert!(!sidecar.log().contains("PRIVATE KEY"));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(!seen[0].0.contains("PRIVATE KEY") && seen[0].1.contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_taken_by_tls_beside_those_in_the_clear() {
    let upstream = Upstream::answering(answer(COMPLETION));
    for (required, clear) in [(false, 200), (true, 400)] {
        let launch = Launch::new();
        let ca = launch.file("ca");
        let config = format!(
            "tls: {{ required: {required}, names: [tidegate.default.svc] }}\nca: {{ folder: {} }}",
            ca.display()
        );
        let sidecar = launch.config(&config).arg("--upstream").arg(&upstream.url()).start();
        for name in ["localhost", "127.0.0.1", "tidegate.default.svc"] {
            for protocols in [&["h2"][..], &["http/1.1"]] {
                let tcp =
                    tokio::net::TcpStream::connect(sidecar.address).await.expect("it listens");
                let stream = tls(tcp, name, &ca.join("ca.pem"), protocols).await.expect("TLS");
                let request = request(name, protocols == ["h2"]);
                assert_eq!(call(stream, request).await.0, 200);
            }
        }
        let reply = sidecar.call(bare_post(PATH, "{}"));
        assert_eq!(reply.status(), clear);
    }
}

#[test]
fn certificates_that_cannot_be_used_are_told_with_their_file() {
    let folder = Folder::new();
    let file = folder.file("no.pem");
    std::fs::write(&file, "nonsense").expect("a folder to write to");
    for (config, part) in [
        (format!("tls: {{ certificate: {0}, key: {0} }}", file.display()), "holds no certificate"),
        (
            "tls: { certificate: /nowhere/a.pem, key: /nowhere/b.pem }".to_owned(),
            "cannot read /nowhere/a.pem",
        ),
        ("tls: { certificate: a.pem }".to_owned(), "is of no use without its `key`"),
        ("intercept: {}\nca: { folder: /proc/nothing }".to_owned(), "ca.folder"),
    ] {
        let path = folder.file("tidegate.yaml");
        std::fs::write(&path, format!("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\n{config}"))
            .expect("a folder");
        let output = tidegate(["proxy", "--upstream", "http://127.0.0.1:1", "--config"])
            .arg(&path)
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{config}: {told}");
        assert!(told.contains(part), "{config}: {told}");
    }
}

/// An authority of somebody else's: its certificate, which lasts so many days from now on, and its key.
fn authority(days: i64) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let name = format!("Theirs, {days} days, {:p}", &key);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let day = std::time::Duration::from_hours(24);
    let now = std::time::SystemTime::now();
    params.not_before = (now - 400 * day).into();
    let offset = day * days.unsigned_abs() as u32;
    params.not_after = if days < 0 { now - offset } else { now + offset }.into();
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn an_authority_that_ends_or_whose_key_is_everybodys_is_told_loudly() {
    for (days, mode, told) in [
        (365, 0o600, &[][..]),
        (365, 0o644, &["may read this key"]),
        (5, 0o640, &["expires soon"]),
        (-1, 0o604, &["has expired", "may read this key"]),
    ] {
        let launch = Launch::new();
        let (certificate, key) = authority(days);
        std::fs::write(launch.file("theirs.pem"), certificate).expect("a folder to write to");
        let file = launch.file("theirs.key");
        std::fs::write(&file, key).expect("a folder to write to");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("it is ours");
        let config = "intercept: { listen: 127.0.0.1:0 }\n\
                      ca: { folder: ca, certificate: theirs.pem, key: theirs.key }";
        let sidecar = launch.config(config).start();
        for part in ["expires soon", "has expired", "may read this key"] {
            assert_eq!(sidecar.log().contains(part), told.contains(&part), "{days} {part}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_renewed_signs_from_then_on() {
    let launch = Launch::new();
    let (certificate, key) = (launch.file("theirs.pem"), launch.file("theirs.key"));
    let write = |(new_certificate, new_key): &(String, String)| {
        std::fs::write(&certificate, new_certificate).expect("a folder to write to");
        std::fs::write(&key, new_key).expect("a folder to write to");
    };
    let (old, new) = (authority(300), authority(301));
    write(&old);
    let config = "intercept: { listen: 127.0.0.1:0, hosts: [localhost], local: true }\n\
                  ca: { folder: ca, certificate: theirs.pem, key: theirs.key }";
    let sidecar = launch.config(config).start();
    let said = "proxy (HTTPS_PROXY, HTTP_PROXY) on ";
    wait_until("it is a proxy", || sidecar.log().contains(said));
    let log = sidecar.log();
    let address = log.split_once(said).and_then(|(_, rest)| rest.lines().next()).expect("a line");
    let proxy: SocketAddr = address.trim().parse().expect("an address");
    let bundle = sidecar.file("ca").join("bundle.pem");
    let trusts = async |pem: &str| {
        let roots = sidecar.file("roots.pem");
        std::fs::write(&roots, pem).expect("a folder to write to");
        let (_, tcp) = tunnel(proxy, "localhost:1").await;
        tls(tcp, "localhost", &roots, &[]).await.is_ok()
    };
    assert!(trusts(&old.0).await && !trusts(&new.0).await);
    // Half of it is no authority: the one before it still signs.
    std::fs::write(&key, "half").expect("a folder to write to");
    wait_until("it is told", || sidecar.log().contains("cannot be read anew"));
    assert!(trusts(&old.0).await);
    write(&new);
    wait_until("applications are told", || {
        std::fs::read_to_string(&bundle).is_ok_and(|text| text.contains(new.0.trim()))
    });
    assert!(trusts(&new.0).await && !trusts(&old.0).await);
}
