//! Calls as they are captured: whole lines, no credential, and nothing lost to a crash.

use std::path::Path;

use tidegate_wire::Outcome;
use tidegate_wire::capture::{Entry, Mode};

use crate::support::*;

const ASKED: &str =
    r#"{"model":"gpt-4o","messages":[{"role":"user","content":"what Ada said to Grace"}]}"#;

fn upstream() -> Upstream {
    Upstream::new(|mut peer| {
        while peer.request().is_some() {
            peer.wire.send(answer(COMPLETION));
        }
    })
}

/// A sidecar that captures so to this file.
fn capturing(upstream: &Upstream, file: &Path, rest: &str) -> Sidecar {
    let config = format!("capture: {{ file: '{}', {rest} }}", file.display());
    Sidecar::with(upstream, &config)
}

fn ask() -> String {
    post(&format!("/v1/chat/completions?{}&tag=a", canary::CALLERS_QUERY), ASKED)
}

/// The calls in a file, all of them whole.
fn entries(file: &Path) -> Vec<Entry> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| Entry::read(line).expect("a whole line")).collect()
}

/// The same, for as far as they are whole: another process is at work.
fn entries_so_far(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap_or_default();
    bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| Entry::read(line).is_ok()).count()
}

#[test]
fn a_call_is_captured_with_what_was_asked_and_how_it_went() {
    let upstream = upstream();
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let sidecar = capturing(&upstream, &file, "mode: full, headers: [x-tag]");
    assert_eq!(sidecar.call(ask().replacen("\r\n", "\r\nX-Tag: seven\r\n", 1)).status(), 200);
    // Nothing that asks a model.
    assert_eq!(sidecar.call("GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    wait_until("the call is captured", || entries_so_far(&file) == 1);
    sidecar.finish();

    let entries = entries(&file);
    let [entry] = &entries[..] else { panic!("{} calls", entries.len()) };
    assert_eq!(entry.mode, Mode::Full);
    assert_eq!(entry.record.outcome, Some(Outcome::Completed));
    assert_eq!(entry.record.output_tokens, Some(1));
    assert!(entry.record.duration_s.is_some());
    assert_eq!(entry.request.bytes().as_deref(), Some(ASKED.as_bytes()));
    assert_eq!(entry.request.target, "/v1/chat/completions?tag=a");
    let fields = &entry.request.headers;
    assert!(fields.contains(&("x-tag".to_owned(), "seven".to_owned())), "{fields:?}");
    assert!(fields.contains(&("content-type".to_owned(), "application/json".to_owned())));
}

#[test]
fn by_default_nothing_of_what_was_said_is_captured() {
    let upstream = upstream();
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let sidecar = capturing(&upstream, &file, "sync: 10ms");
    for _ in 0..2 {
        assert_eq!(sidecar.call(ask()).status(), 200);
    }
    wait_until("the calls are captured", || entries_so_far(&file) == 2);
    sidecar.finish();

    let bodies: Vec<_> = entries(&file).iter().filter_map(|entry| entry.request.bytes()).collect();
    assert_eq!(bodies[0], bodies[1], "equal requests stay equal");
    let body = String::from_utf8(bodies[0].clone()).expect("text");
    assert_eq!(body.len(), ASKED.len());
    assert!(!body.contains("Ada") && !body.contains("Grace"), "{body}");
    assert!(
        body.starts_with(r#"{"model":"gpt-4o","messages":[{"role":"user","content":""#),
        "{body}"
    );
}

#[test]
fn a_request_that_is_too_large_says_so_and_goes_its_way() {
    let upstream = upstream();
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let sidecar = capturing(&upstream, &file, "mode: full, max_body: 1KiB");
    let body = format!(r#"{{"model":"gpt-4o","x":"{}"}}"#, "y".repeat(2000));
    assert_eq!(sidecar.call(post("/v1/chat/completions", &body)).status(), 200);
    wait_until("the call is captured", || entries_so_far(&file) == 1);
    let record = sidecar.finish_with_one();
    assert_eq!(record["tidegate.warnings"][0], "request_too_large_to_capture", "{record:#}");
    let request = &entries(&file)[0].request;
    assert!(request.is_left_out && request.bytes().is_none());
}

#[test]
fn a_credential_cannot_be_asked_for() {
    let folder = Folder::new();
    let path = folder.file("tidegate.yaml");
    std::fs::write(&path, "capture:\n  file: a\n  headers: [x-api-key]\n").expect("it writes");
    let output = tidegate(["check"]).arg(&path).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("capture.headers") && said.contains("credential"), "{said}");
}

#[test]
fn what_was_captured_before_a_kill_is_there_after_it() {
    let kills =
        std::env::var("TIDEGATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let upstream = upstream();
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let mut torn = 0;
    let mut known = 0;
    for kill in 0..kills {
        let sidecar = capturing(&upstream, &file, "sync: 1ms");
        let opened = entries(&file).len();
        assert!(opened >= known, "{known} calls were captured, {opened} are left");
        let mut wire = sidecar.connect();
        // Killed at another point each time, while more is on its way.
        let calls = 20 + 7 * kill % 40;
        (0..calls).for_each(|_| assert_eq!(wire.call(ask()).status(), 200));
        wait_until("something is captured", || entries_so_far(&file) > opened);
        known = entries_so_far(&file);
        sidecar.kill();
        let bytes = std::fs::read(&file).expect("it is there");
        torn += usize::from(bytes.last() != Some(&b'\n'));
    }
    println!("{kills} kills, {torn} torn ends, {known} calls kept, 0 lost");
}
