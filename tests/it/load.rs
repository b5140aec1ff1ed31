//! The load generator signs what it sends straight to a provider, and never shows by what.

use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Instant, SystemTime};

use crate::support::*;

const MIX: &str = "[{ call: openai/chat, model: gpt-4o }]";
const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", canary::SECRET_ACCESS_KEY),
    ("AWS_SESSION_TOKEN", canary::SESSION_TOKEN),
];

/// A load test of two users that has all that it says and writes searched.
struct Load {
    folder: Folder,
    arguments: Vec<String>,
}

impl Load {
    fn new(target: &str, credential: &str) -> Self {
        Self::lasting("1s", target, credential)
    }

    fn lasting(duration: &str, target: &str, credential: &str) -> Self {
        let folder = Folder::new();
        fs::write(folder.file("mix.yaml"), MIX).expect("a folder to write to");
        fs::write(folder.file("credential.yaml"), credential).expect("a folder to write to");
        let arguments = ["load", "--target", target, "--users", "2", "--duration", duration];
        let mut load = Self { folder, arguments: arguments.map(str::to_owned).into() };
        for (name, file) in [
            ("--mix", "mix.yaml"),
            ("--credential", "credential.yaml"),
            ("--json", "report.json"),
            ("--records", "records.jsonl"),
        ] {
            let path = load.folder.file(file).to_str().expect("a path of UTF-8").to_owned();
            load.arguments.extend([name.to_owned(), path]);
        }
        load
    }

    /// Runs it in nothing but this environment.
    fn run(&self, variables: &[(&str, &str)]) -> Output {
        let mut command = tidegate(self.arguments.iter().map(String::as_str));
        command.envs(variables.iter().copied()).env("TIDEGATE_LOG", "trace");
        let output = command.output().expect("the program is built");
        let mut search = canary::Search::default();
        search.output("standard output of the load generator", &output.stdout);
        search.output("standard error of the load generator", &output.stderr);
        for file in ["report.json", "records.jsonl"] {
            search.output(file, &fs::read(self.folder.file(file)).unwrap_or_default());
        }
        output
    }

    fn report(&self) -> serde_json::Value {
        let text = fs::read(self.folder.file("report.json")).expect("a report");
        serde_json::from_slice(&text).expect("a report in JSON")
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_key_goes_with_every_call_of_a_load_test() {
    for (credential, name, expected) in [
        ("bearer: { env: OPENAI_API_KEY }", "authorization", format!("Bearer {}", canary::API_KEY)),
        ("bearer: { file: key }", "authorization", format!("Bearer {}", canary::IN_FILE)),
        ("{ header: { name: X-Api-Key, file: key } }", "x-api-key", canary::IN_FILE.to_owned()),
    ] {
        let upstream = Upstream::answering(answer(COMPLETION));
        let load = Load::new(&upstream.url(), credential);
        fs::write(load.folder.file("key"), canary::IN_FILE).expect("a folder to write to");
        let output = load.run(&[("OPENAI_API_KEY", canary::API_KEY)]);
        assert!(output.status.success(), "{}", told(&output));
        let requests = upstream.requests();
        assert!(requests.len() > 1, "{}", told(&output));
        for request in &requests {
            assert_eq!(request.header(name), Some(&*expected), "{request:?}");
        }
        assert_eq!(load.report()["total"]["outcomes"]["completed"], requests.len());
    }
}

#[test]
fn a_target_with_a_password_is_refused_and_not_shown() {
    for target in
        ["http://ada:PASSWORD@127.0.0.1:1", "http://PASSWORD@127.0.0.1:1", "ada:PASSWORD@a b"]
    {
        let output = Load::new(target, "bearer: { env: A }").run(&[]);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(!told(&output).contains("PASSWORD"), "{}", told(&output));
        assert!(told(&output).contains("--credential FILE"), "{}", told(&output));
    }
}

#[test]
fn a_load_test_signs_for_aws() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let load = Load::new(&format!("{}/prefix", upstream.url()), "aws: { region: us-east-1 }");
    let output = load.run(&KEYS);
    assert!(output.status.success(), "{}", told(&output));
    let requests = upstream.requests();
    let mut signatures: Vec<_> = requests
        .iter()
        .map(|request| {
            assert!(request.line.starts_with("POST /prefix/v1/chat/completions "));
            assert_eq!(request.header("x-amz-security-token"), Some(canary::SESSION_TOKEN));
            let authorization = request.header("authorization").expect("it is signed");
            let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/";
            let rest = "/us-east-1/bedrock/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
            assert!(authorization.starts_with(start), "{authorization}");
            authorization.split_once(rest).expect(authorization).1.to_owned()
        })
        .collect();
    // Bodies differ, and so do signatures.
    let mut bodies: Vec<_> = requests.iter().map(Message::text).collect();
    bodies.sort();
    bodies.dedup();
    signatures.sort();
    signatures.dedup();
    assert!(bodies.len() > 1 && signatures.len() >= bodies.len());
}

#[test]
fn a_load_test_without_a_credential_does_not_begin() {
    let upstream = Upstream::answering(answer(COMPLETION));
    for (credential, part) in [
        ("bearer: { env: UNSET }", "the environment variable UNSET is not set"),
        ("bearer: { file: none }", "no credential from a file: "),
        ("aws: { region: us-east-1 }", "no credential from AWS: "),
        ("google: { file: none.json }", "no credential from Google: "),
        ("aws: {}", "no region to sign for"),
        ("awss: {}", "credential.yaml"),
    ] {
        let start = Instant::now();
        let load = Load::new(&upstream.url(), credential);
        let output = load.run(&[("AWS_EC2_METADATA_DISABLED", "true")]);
        assert_eq!(output.status.code(), Some(2), "{credential}: {}", told(&output));
        assert!(told(&output).contains(part), "{credential}: {}", told(&output));
        assert!(start.elapsed() < STOP);
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_load_test_does_not_wait_for_ever_for_its_credential() {
    let silent = Upstream::new(|mut peer| {
        peer.request();
        peer.closed();
    });
    let load = Load::new("http://127.0.0.1:1", "google: { file: user.json }");
    let user = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"{}","refresh_token":"{}","token_uri":"{}"}}"#,
        canary::IN_FILE,
        canary::SESSION_TOKEN,
        silent.url()
    );
    fs::write(load.folder.file("user.json"), user).expect("a folder to write to");
    let output = load.run(&[]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("no credential from Google within 10 s"), "{}", told(&output));
}

#[test]
fn a_credential_that_is_lost_during_a_load_test_is_an_error_of_its_own() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let expires = SystemTime::now() + std::time::Duration::from_secs(2);
    let expires = jiff::Timestamp::try_from(expires).expect("a time");
    let keys = format!(
        r#"{{"AccessKeyId":"AKID","SecretAccessKey":"{}","Token":"{}","Expiration":"{expires:.0}"}}"#,
        canary::SECRET_ACCESS_KEY,
        canary::SESSION_TOKEN
    );
    let has_answered = AtomicBool::new(false);
    let source = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            match has_answered.fetch_or(true, SeqCst) {
                false => peer.wire.send(answer(&keys)),
                true => peer.wire.send(answer_with(500, "{}")),
            }
        }
    });
    let load = Load::lasting("4s", &upstream.url(), "aws: { region: us-east-1 }");
    let keys_at = format!("{}/keys", source.url());
    let output = load.run(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &keys_at),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let report = load.report();
    let error = &report["errors"][0];
    assert_eq!(error["error.type"], "credential_unavailable", "{report:#}: {}", told(&output));
    assert_eq!(error["http.response.status_code"], serde_json::Value::Null);
    let completed = report["total"]["outcomes"]["completed"].as_u64().expect("a count");
    assert_eq!(completed, upstream.requests().len() as u64, "what is unsigned is not sent");
    assert!(completed > 0 && error["calls"].as_u64() > Some(0), "{report:#}");
}
