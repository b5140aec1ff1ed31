//! The doctor: what is good is told so, what fails fails at its hop with advice, and no key is told.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::support::*;

const MODELS: &str = r#"{"object":"list","data":[{"id":"gpt-4o"},{"id":"org/gemma"}]}"#;

/// What the doctor says of this configuration.
struct Patient {
    command: Command,
    folder: Folder,
}

/// How a doctor ended, and what it found.
struct Found {
    code: Option<i32>,
    document: Value,
    all: String,
}

impl Patient {
    fn with(config: &str) -> Self {
        let folder = Folder::new();
        let path = folder.file("tidegate.yaml");
        fs::write(&path, config).expect("a folder to write to");
        let mut command = tidegate(["doctor", "--timeout", "10s", "--json"]);
        command.arg("--config").arg(path);
        Self { command, folder }
    }

    /// An upstream of this URL, and more of it.
    fn at(url: &str, more: &str) -> Self {
        Self::with(&format!("upstreams: {{ a: {{ url: '{url}'{more} }} }}"))
    }

    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.file(name), text).expect("a folder to write to");
        self
    }

    fn trusting(self, certificate: &Certificate) -> Self {
        let path = self.folder.file("roots.pem");
        self.file("roots.pem", &certificate.pem()).env("SSL_CERT_FILE", path)
    }

    fn examine(mut self) -> Found {
        let Output { status, stdout, stderr } =
            self.command.output().expect("the program is built");
        let [stdout, stderr] =
            [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        let all = format!("{stdout}{stderr}");
        let document = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {all}"));
        assert!(!all.contains("canary"), "{all}");
        Found { code: status.code(), document, all }
    }
}

impl Found {
    /// The hops of the only upstream that have this name.
    fn hops(&self, name: &str) -> Vec<&Value> {
        let hops = self.document["upstreams"][0]["hops"].as_array().expect("hops");
        hops.iter().filter(|hop| hop["hop"] == name).collect()
    }

    #[track_caller]
    fn is(&self, name: &str, status: &str, finding: &str, advice: &str) {
        let is_it = |hop: &&Value| {
            hop["status"] == status
                && hop["finding"].as_str().is_some_and(|text| text.contains(finding))
                && hop["advice"].as_str().unwrap_or_default().contains(advice)
        };
        assert!(
            self.hops(name).iter().any(is_it),
            "{name} {status} {finding} {advice}: {}",
            self.all
        );
    }

    #[track_caller]
    fn fails(&self, name: &str, finding: &str, advice: &str) {
        assert_eq!(self.code, Some(1), "{}", self.all);
        assert_eq!(self.document["ok"], false);
        assert!(!advice.is_empty());
        self.is(name, "failed", finding, advice);
    }

    #[track_caller]
    fn is_good(&self) {
        assert_eq!(self.code, Some(0), "{}", self.all);
        assert_eq!((&self.document["ok"], &self.document["faults"]), (&true.into(), &0.into()));
    }
}

async fn list(_: Request<Incoming>) -> Response<Body> {
    let body = http_body_util::Full::new(bytes::Bytes::from_static(MODELS.as_bytes()));
    Response::new(body.map_err(|never| match never {}).boxed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_upstream_is_good_at_every_hop() {
    let certificate = Certificate::new();
    for (protocols, word) in [(&["h2", "http/1.1"][..], "HTTP/2"), (&["http/1.1"], "HTTP/1.1")] {
        let port = serve(Speaks::Tls(certificate.server(protocols)), list).await.port();
        let more = ", address: 127.0.0.1, model: gemma, credential: { bearer: { file: key } }";
        let found = Patient::at(&format!("https://localhost:{port}"), more)
            .file("key", "sk-canary\n")
            .trusting(&certificate)
            .examine();
        found.is_good();
        found.is("dns", "ok", "dialled instead of localhost", "");
        found.is("connect", "ok", &format!("127.0.0.1:{port}"), "");
        found.is(
            "tls",
            "ok",
            &format!("TLS 1.3, {word}; certificate by rcgen self signed cert"),
            "",
        );
        found.is("credential", "ok", "a key of 9 characters", "");
        found.is("call", "ok", "GET /v1/models: 200, 2 models, gemma among them", "");
    }
}

#[test]
fn the_call_carries_the_credential_that_calls_would() {
    let upstream = Upstream::answering(answer(MODELS));
    let more = ", credential: { header: { name: x-api-key, prefix: 'Key ', env: KEY } }";
    let found = Patient::at(&upstream.url(), more).env("KEY", "canary").examine();
    found.is_good();
    let request = upstream.request();
    assert_eq!(request.line, "GET /v1/models HTTP/1.1");
    let key = request.headers.iter().find(|(name, _)| name == "x-api-key");
    assert_eq!(key.map(|(_, value)| value.as_str()), Some("Key canary"));
}

#[test]
fn a_connection_that_fails_is_told_at_its_hop() {
    let nobody = format!("http://{}", nowhere());
    Patient::at(&nobody, "").examine().fails("connect", "refused", "nobody listens");
    let unknown = Patient::at("http://nobody.invalid", "").examine();
    unknown.fails("dns", "nobody.invalid", "name");
    assert_eq!(unknown.hops("connect").len(), 0);
    unknown.is("call", "skipped", "no connection", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_trusted_is_told_with_its_reason() {
    let (good, expired) = (Certificate::new(), Certificate::expired());
    let [good_port, expired_port] = [
        serve(Speaks::Tls(good.server(&["h2"])), list).await.port(),
        serve(Speaks::Tls(expired.server(&["h2"])), list).await.port(),
    ];
    let other = Certificate::new();
    for (host, port, trusted, finding, advice) in [
        ("localhost", good_port, None, "not trusted here", "SSL_CERT_FILE"),
        ("localhost", good_port, Some(&other), "of another key", "SSL_CERT_FILE"),
        ("other.test", good_port, Some(&good), "is for localhost, not for other.test", "`address`"),
        ("localhost", expired_port, Some(&expired), "has expired, on 2020-01-02", "clock"),
    ] {
        let patient = Patient::at(&format!("https://{host}:{port}"), ", address: 127.0.0.1");
        let patient = match trusted {
            Some(certificate) => patient.trusting(certificate),
            None => patient,
        };
        patient.examine().fails("tls", finding, advice);
    }
    let plain = Upstream::new(|mut peer| peer.wire.send(answer_with(400, "")));
    let url = plain.url().replace("http://", "https://");
    Patient::at(&url, "").examine().fails("tls", "does not speak TLS", "http://");
}

#[test]
fn an_answer_is_read_for_what_is_at_fault() {
    let echo =
        r#"{"error":{"message":"canary is no key","code":"invalid_api_key","type":"canary"}}"#;
    let scopes = r#"{"error":{"message":"no. Missing scopes: api.model.read. canary"}}"#;
    for (answer, finding, advice) in [
        (answer_with(401, echo), "401 invalid_api_key", "not accepted"),
        (answer_with(403, scopes), "403", "grant api.model.read"),
        (answer_with(403, "{}"), "403", "may not do this"),
        (answer_with(404, "{}"), "404", "base path"),
        (answer_with(500, "{}"), "500", "server is at fault"),
        (answer_with(502, "canary"), "502", "something before the server"),
        (answer("<html>canary"), "not a list of models", "base path"),
        (
            "HTTP/1.1 302 Found\r\nLocation: https://login.test/x?canary\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "redirects to login.test",
            "where the server really is",
        ),
        ("canary\r\n\r\n".to_owned(), "not HTTP", "scheme and port"),
        (String::new(), "closed without an answer", "scheme and port"),
    ] {
        let upstream = Upstream::new(move |mut peer| {
            if peer.request().is_some() {
                peer.wire.send(&answer);
            }
        });
        let more = ", credential: { bearer: { env: KEY } }";
        let found = Patient::at(&upstream.url(), more).env("KEY", "canary").examine();
        found.fails("call", finding, advice);
    }
}

#[test]
fn an_answer_that_is_no_fault_is_none() {
    for (answer, status, finding) in [
        (answer_with(401, "{}"), "ok", "the caller's credential is needed"),
        (answer_with(403, "{}"), "ok", "the caller's credential is needed"),
        (answer_with(429, "{}"), "warning", "limited"),
    ] {
        let upstream = Upstream::answering(answer);
        let found = Patient::at(&upstream.url(), "").examine();
        found.is_good();
        found.is("credential", "absent", "none of its own", "");
        found.is("call", status, finding, "");
    }
}

#[test]
fn a_server_without_a_list_of_models_is_asked_for_its_health() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let status = if request.line.contains("/health") { 200 } else { 404 };
            peer.wire.send(answer_with(status, ""));
        }
    });
    let found = Patient::at(&upstream.url(), "").examine();
    found.is_good();
    found.is("call", "ok", "GET /health: 200", "");
}

#[test]
fn a_server_that_is_silent_hangs_nobody() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        _ = peer.request();
        held.pass();
    });
    for scheme in ["http", "https"] {
        let url = upstream.url().replace("http", scheme);
        let hop = if scheme == "http" { "call" } else { "tls" };
        let mut patient = Patient::at(&url, "");
        patient.command = tidegate(["doctor", "--json", "--upstream", &url]);
        let found = patient.env("TIDEGATE_DOCTOR_TIMEOUT", "200ms").examine();
        found.fails(hop, "no answer in time", "see");
    }
    gate.open();
}

#[test]
fn a_key_that_cannot_be_had_is_told_and_nothing_is_called_without_it() {
    for (place, text, finding, advice) in [
        ("env: KEY", None, "KEY is not set", "secretKeyRef"),
        ("file: none", None, "cannot be read", "mount it"),
        ("file: key", Some(" \n"), "is empty", "put the key there"),
        ("file: key", Some("canary-1\ncanary-2\n"), "2 lines", "one line"),
    ] {
        let upstream = Upstream::answering(answer(MODELS));
        let more = format!(", credential: {{ bearer: {{ {place} }} }}");
        let patient = Patient::at(&upstream.url(), &more).file("key", text.unwrap_or_default());
        let found = patient.examine();
        found.fails("credential", finding, advice);
        found.is("call", "skipped", "no credential", "");
        assert_eq!(upstream.requests().len(), 0);
    }
}

#[test]
fn every_address_is_examined_and_named() {
    let upstream = Upstream::answering(answer(MODELS));
    let (good, bad) = (upstream.url(), format!("http://{}", nowhere()));
    let config = format!("upstreams: {{ a: {{ addresses: ['{good}', '{bad}'] }} }}");
    let found = Patient::with(&config).examine();
    found.fails("connect", "refused", "nobody listens");
    let of: Vec<_> = found.hops("connect").iter().map(|hop| hop["of"].clone()).collect();
    assert_eq!(of, [upstream.address.to_string(), nowhere().to_string()]);
    found.is("call", "ok", "200, 2 models", "");
}

#[test]
fn a_location_is_filled_in_and_told() {
    let upstream = Upstream::answering(answer(MODELS));
    let url = format!("http://{{location}}.test:{}", upstream.address.port());
    let assumed = Patient::at(&url, ", address: 127.0.0.1").examine();
    assumed.is_good();
    assumed.is("dns", "ok", "us-central1 was taken", "");
    let listed = Patient::at(&url, ", address: 127.0.0.1, locations: [eu-west1, global]").examine();
    listed.is_good();
    let of: Vec<_> = listed.hops("call").iter().map(|hop| hop["of"].clone()).collect();
    let port = upstream.address.port();
    assert_eq!(of, [format!("eu-west1.test:{port}"), format!("global.test:{port}")]);
}

#[test]
fn a_variable_that_leads_back_is_told() {
    let upstream = Upstream::answering(answer(MODELS));
    let found =
        Patient::at(&upstream.url(), "").env("HTTPS_PROXY", "http://localhost:4100").examine();
    assert_eq!(found.code, Some(1), "{}", found.all);
    let hop = &found.document["environment"][0];
    assert_eq!(hop["finding"], "HTTPS_PROXY points at the sidecar itself");
    assert!(hop["advice"].as_str().is_some_and(|text| text.contains("unset it")), "{}", found.all);
}

#[test]
fn people_get_a_block_for_each_upstream_and_a_line_for_each_hop() {
    let upstream = Upstream::answering(answer(MODELS));
    let output = tidegate(["doctor", "--upstream", &upstream.url()]).output().expect("it is built");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in
        [&format!("default  {}\n", upstream.url()), "  ✓ connect ", "  ✓ call ", "nothing failed"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(output.stderr.is_empty(), "nobody watches");
}

#[test]
fn what_cannot_be_examined_is_a_fault_of_usage() {
    let missing = tidegate(["doctor", "--config", "/nowhere.yaml"]);
    let nothing = tidegate(["doctor"]);
    let no_url = tidegate(["doctor", "--upstream", "nonsense"]);
    let no_time = tidegate(["doctor", "--upstream", "http://a", "--timeout", "0s"]);
    for mut command in [missing, nothing, no_url, no_time] {
        let output = command.output().expect("it is built");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!output.stderr.is_empty());
    }
}

/// What the doctor says of SDKs, in a folder where two are installed.
fn clients(variables: &[(&str, &str)], more: &[&str]) -> (Option<i32>, Value) {
    let folder = Folder::new();
    let site = folder.file("venv/lib/python3.11/site-packages");
    for name in
        ["openai-3.54.0.dist-info", "google_cloud_aiplatform-2.7.0.dist-info", "x-1.dist-info"]
    {
        fs::create_dir_all(site.join(name)).expect("a folder to write to");
    }
    let package = folder.file("node_modules/@aws-sdk/client-bedrock-runtime");
    fs::create_dir_all(&package).expect("a folder to write to");
    let text = r#"{"version": "3.967.0"}"#;
    fs::write(package.join("package.json"), text).expect("a folder to write to");
    let mut command = tidegate(["doctor", "--json", "--clients", "--timeout", "10s", "--look"]);
    command.arg(folder.file("")).current_dir(folder.file("")).args(more).env_clear();
    command.env("PATH", "/nowhere").env("HOME", folder.file("")).envs(variables.iter().copied());
    let output = command.output().expect("it is built");
    let text = String::from_utf8(output.stdout).expect("text");
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), document)
}

#[test]
fn each_sdk_is_told_its_way() {
    let (code, document) = clients(&[], &[]);
    assert_eq!(code, Some(0), "{document:#}");
    let names: Vec<_> = document["clients"].as_array().expect("a list").iter().collect();
    let of =
        |name: &str| names.iter().find(|client| client["client"] == name).expect("it is found");
    assert_eq!(names.len(), 3, "{document:#}");
    assert!(of("openai")["found"].as_str().expect("text").starts_with("Python, openai 3.54.0 in "));
    assert_eq!(of("openai")["hops"][0]["status"], "warning");
    assert!(of("bedrock-js")["found"].as_str().expect("text").contains("3.967.0"));
    assert_eq!(document["past"][0]["status"], "skipped", "no sidecar runs");

    let variables =
        [("OPENAI_BASE_URL", "http://127.0.0.1:4100/v1"), ("HTTPS_PROXY", "http://127.0.0.1:4104")];
    let (code, document) = clients(&variables, &[]);
    assert_eq!(code, Some(1), "gRPC reads no variable in upper case: {document:#}");
    let told = document.to_string();
    assert!(told.contains("OPENAI_BASE_URL points at the sidecar"), "{told}");
    assert!(told.contains("lower case alone"), "{told}");
    assert_eq!(document["faults"], 1);
}

#[test]
fn a_running_sidecar_tells_what_went_past_it() {
    let config = "intercept: { listen: 127.0.0.1:0, local: true }\nca: { folder: ca }";
    let sidecar = Launch::new().config(config).start();
    let said = "proxy (HTTPS_PROXY, HTTP_PROXY) on ";
    wait_until("it is a proxy", || sidecar.log().contains(said));
    let log = sidecar.log();
    let proxy = log.split_once(said).and_then(|(_, rest)| rest.lines().next()).expect("a line");
    let proxy: std::net::SocketAddr = proxy.trim().parse().expect("an address");
    let host = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = host.local_addr().expect("a bound socket").port();
    let asked = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let mut caller = std::net::TcpStream::connect(proxy).expect("it listens");
    caller.write_all(asked.as_bytes()).expect("it is taken");
    let mut said = [0; 13];
    caller.read_exact(&mut said).expect("an answer");
    assert_eq!(&said, b"HTTP/1.1 200 ");
    let (_, document) = clients(&[], &["--admin", &sidecar.admin.to_string()]);
    let past = document["past"].as_array().expect("a list");
    let passed = past.iter().find(|hop| hop["hop"] == "passed by").expect("it is counted");
    assert_eq!(
        (passed["of"].as_str(), passed["status"].as_str()),
        (Some("127.0.0.1"), Some("warning"))
    );
    assert!(passed["finding"].as_str().expect("text").starts_with("1 connections"), "{passed}");
}
