//! Certificates on both sides: of upstreams that ask for ours, and of callers whom we ask for theirs.

use std::fs;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::support::through::{call, tls_showing};
use crate::support::*;

async fn good(request: Request<Incoming>) -> Response<Body> {
    let _ = whole(request.into_body()).await;
    Response::builder()
        .header("content-type", "application/json")
        .body(full(COMPLETION))
        .expect("an answer")
}

fn request() -> Request<Body> {
    let request = Request::post("/v1/chat/completions").header("host", "localhost");
    request.body(full("{}")).expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_is_trusted_by_roots_of_ones_own_and_shown_a_certificate() {
    let (theirs, ours) = (Certificate::new(), Certificate::new());
    let asking = theirs.server_asking(&["h2", "http/1.1"], &ours);
    let port = serve(Speaks::Tls(asking), good).await.port();
    let launch = Launch::new();
    for (name, text) in
        [("roots.pem", theirs.pem()), ("tls.crt", ours.pem()), ("tls.key", ours.key_pem())]
    {
        fs::write(launch.file(name), text).expect("a folder to write to");
    }
    let url = format!("https://localhost:{port}");
    let config = format!(
        "upstreams:\n  \
         both: {{ url: '{url}', tls: {{ roots: roots.pem, certificate: tls.crt, key: tls.key }} }}\n  \
         roots: {{ url: '{url}', tls: {{ roots: roots.pem }} }}\n  \
         none: {{ url: '{url}' }}\n\
         routes:\n  \
         - {{ match: {{ path: /both/* }}, upstream: both, strip_prefix: /both }}\n  \
         - {{ match: {{ path: /roots/* }}, upstream: roots, strip_prefix: /roots }}\n  \
         - {{ upstream: none }}\n"
    );
    let sidecar = launch.config(&config).start();
    let post = |path: &str| sidecar.call(bare_post(path, "{}"));
    for (path, status) in [("/both/v1/x", 200), ("/roots/v1/x", 502), ("/v1/x", 502)] {
        let reply = tokio::task::block_in_place(|| post(path));
        assert_eq!(reply.status(), status, "{path}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_renewed_is_shown_by_the_next_connection() {
    let (theirs, old, new) = (Certificate::new(), Certificate::new(), Certificate::new());
    // It knows the new one alone, and keeps no connection.
    let asking = theirs.server_asking(&["http/1.1"], &new);
    let port = serve(Speaks::Tls(asking), good).await.port();
    let launch = Launch::new();
    let write = |name: &str, text: String| {
        let file = launch.file(name);
        fs::write(&file, text).expect("a folder to write to");
        file
    };
    write("roots.pem", theirs.pem());
    let certificate = write("tls.crt", old.pem());
    let key = write("tls.key", old.key_pem());
    let config = format!(
        "upstreams:\n  a:\n    url: 'https://localhost:{port}'\n    \
         tls: {{ roots: roots.pem, certificate: tls.crt, key: tls.key }}\nroutes: [{{ upstream: a }}]"
    );
    let sidecar = launch.config(&config).start();
    let status = || tokio::task::block_in_place(|| sidecar.call(bare_post("/v1/x", "{}")).status());
    assert_eq!(status(), 502);
    // Half of a pair is no pair: what was read before still is used, and that is told.
    fs::write(&key, "half").expect("a folder to write to");
    assert_eq!(status(), 502);
    wait_until("it is told", || sidecar.log().contains("holds no private key"));
    fs::write(&certificate, new.pem()).expect("a folder to write to");
    fs::write(&key, new.key_pem()).expect("a folder to write to");
    wait_until("the new one is shown", || status() == 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_are_shown_and_asked_for_follows_its_files() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let certificates: [Certificate; 4] = std::array::from_fn(|_| Certificate::new());
    let [own, new_own, known, new_known] = &certificates;
    let launch = Launch::new();
    let folder = launch.file("");
    let write = |name: &str, text: String| {
        fs::write(folder.join(name), text).expect("a folder to write to");
    };
    write("tls.crt", own.pem());
    write("tls.key", own.key_pem());
    write("callers.pem", known.pem());
    write("trusted.pem", own.pem());
    write("next.pem", new_own.pem());
    let config = "tls: { certificate: tls.crt, key: tls.key, callers: callers.pem }";
    let sidecar = launch.config(config).arg("--upstream").arg(&upstream.url()).start();
    let status = async |roots: &str, shown: &Certificate| {
        let tcp = tokio::net::TcpStream::connect(sidecar.address).await.expect("it listens");
        let roots = sidecar.file(roots);
        let stream =
            tls_showing(tcp, "localhost", &roots, &["http/1.1"], Some(shown)).await.ok()?;
        // By TLS 1.3 a caller hears that it is refused only when it reads.
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut caller, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Some(caller.send_request(request()).await.ok()?.status().as_u16())
    };
    assert_eq!(status("trusted.pem", known).await, Some(200));
    assert_eq!(status("trusted.pem", new_known).await, None);
    assert_eq!(status("next.pem", known).await, None);
    write("callers.pem", new_known.pem());
    write("tls.crt", new_own.pem());
    write("tls.key", new_own.key_pem());
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while status("next.pem", new_known).await != Some(200) {
        assert!(std::time::Instant::now() < patience, "{}", sidecar.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(status("trusted.pem", new_known).await, None);
    assert_eq!(status("next.pem", known).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_certificate_are_not_heard() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let (known, other) = (Certificate::new(), Certificate::new());
    let launch = Launch::new();
    fs::write(launch.file("callers.pem"), known.pem()).expect("a folder to write to");
    let ca = launch.file("ca");
    let config = "tls: { callers: callers.pem }\nca: { folder: ca }\n\
                  callers: { others: refuse, known: { app: { certificates: [localhost] } } }";
    let sidecar = launch.config(config).arg("--upstream").arg(&upstream.url()).start();
    let connect =
        || async { tokio::net::TcpStream::connect(sidecar.address).await.expect("it listens") };
    let roots = ca.join("ca.pem");
    let shown = Some(&known);
    let stream = tls_showing(connect().await, "localhost", &roots, &["http/1.1"], shown).await;
    assert_eq!(call(stream.expect("TLS"), request()).await.0, 200);
    // Whose it is stands in the certificate.
    let records = tokio::task::block_in_place(|| sidecar.wait_records(1));
    assert_eq!(records[0]["tidegate.caller"], "app");
    for shown in [None, Some(&other)] {
        let stream = tls_showing(connect().await, "localhost", &roots, &["http/1.1"], shown).await;
        // By TLS 1.3 a caller hears of it only when it reads.
        let Ok(mut stream) = stream else { continue };
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.write_all(bare_post("/v1/x", "{}").as_bytes()).await;
        let mut said = Vec::new();
        let heard = stream.read_to_end(&mut said).await;
        assert!(heard.is_err() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
    // Nor is anybody in the clear.
    assert_eq!(
        tokio::task::block_in_place(|| sidecar.call(bare_post("/v1/x", "{}")).status()),
        400
    );
    assert_eq!(upstream.requests().len(), 1);
}
