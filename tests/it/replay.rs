//! What a sidecar captured is made again by the load generator, in the provider's own dialect.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::*;

/// Three calls of three dialects, as they are captured in full and made again.
pub(crate) const CALLS: [(&str, &str); 3] = [
    (
        "/v1/chat/completions",
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"ä one"}]}"#,
    ),
    ("/v1/messages?beta=true", r#"{"model":"claude","max_tokens":5,"messages":[]}"#),
    ("/v1beta/models/gemini-2.5-flash:generateContent", r#"{"contents":[]}"#),
];

/// Captures these calls, one after the other.
fn capture(file: &Path, mode: &str, calls: &[(&str, &str)]) {
    let upstream = Upstream::answering(answer(COMPLETION));
    let config = format!("capture: {{ file: '{}', mode: {mode} }}", file.display());
    let sidecar = Sidecar::with(&upstream, &config);
    for (target, body) in calls {
        assert_eq!(sidecar.call(post(target, body)).status(), 200);
    }
    sidecar.finish();
}

/// Makes the calls of a file again, and reads the report where there is one.
pub(crate) fn replay(folder: &Folder, target: &str, file: &Path, more: &[&str]) -> (Output, Value) {
    let report = folder.file("report.json");
    let (file, json) = (file.to_str().expect("UTF-8"), report.to_str().expect("UTF-8"));
    let arguments =
        ["load", "--target", target, "--from", file, "--users", "5", "--json", json].into_iter();
    let output = tidegate(arguments.chain(more.iter().copied())).output().expect("it is built");
    let report = fs::read(&report).unwrap_or_default();
    (output, serde_json::from_slice(&report).unwrap_or_default())
}

pub(crate) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All calls were made. A machine that is busy with others may have made one late, and the run then
/// says that it is invalid; what it sent is the same.
pub(crate) fn assert_made(output: &Output) {
    let all = told(output) + &String::from_utf8_lossy(&output.stdout);
    let was_late = output.status.code() == Some(4) && all.contains("the generator was the limit");
    assert!(output.status.success() || was_late, "{all}");
}

#[test]
fn what_was_captured_in_full_is_sent_again_as_it_was() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    capture(&file, "full", &CALLS);

    let target = Upstream::answering(answer(COMPLETION));
    let (output, report) = replay(&folder, &target.url(), &file, &[]);
    assert_made(&output);
    let mut requests: Vec<_> = target
        .requests()
        .iter()
        .map(|request| {
            assert_eq!(request.header("authorization"), None, "a credential is never captured");
            (request.line.clone(), request.text())
        })
        .collect();
    requests.sort();
    let mut expected: Vec<_> = CALLS
        .iter()
        .map(|(path, body)| (format!("POST {path} HTTP/1.1"), (*body).to_owned()))
        .collect();
    expected.sort();
    assert_eq!(requests, expected);
    let from = &report["run"]["from"];
    assert_eq!(
        (from["format"].as_str(), from["calls"].as_u64()),
        (Some("capture"), Some(3)),
        "{report:#}"
    );
    assert_eq!(report["total"]["calls"], 3);
    let models: Vec<_> =
        report["models"].as_array().expect("models").iter().map(|model| &model["name"]).collect();
    assert_eq!(models, ["claude", "gemini-2.5-flash", "gpt-4o"]);
}

#[test]
fn a_torn_end_is_cut_off_and_said_and_damage_is_told_with_its_line() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    capture(&file, "redacted", &CALLS);
    let whole = fs::read(&file).expect("a capture");
    fs::write(&file, &whole[..whole.len() - 20]).expect("it writes");
    let target = Upstream::answering(answer(COMPLETION));
    let (output, report) = replay(&folder, &target.url(), &file, &["--speed", "10"]);
    assert_made(&output);
    assert!(told(&output).contains("its end was torn"), "{}", told(&output));
    assert_eq!((report["total"]["calls"].as_u64(), target.requests().len()), (Some(2), 2));

    let mut damaged = whole;
    damaged[100] ^= 1;
    fs::write(&file, &damaged).expect("it writes");
    let (output, _) = replay(&folder, &target.url(), &file, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(
        told(&output).contains("capture.jsonl:1: the checksum does not match"),
        "{}",
        told(&output)
    );
}

#[test]
fn a_trace_asks_the_model_that_is_named_for_as_many_tokens() {
    let folder = Folder::new();
    let file = folder.file("trace.csv");
    fs::write(&file, "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,7,3\r\n2023-11-16 18:17:04.0,9,4")
        .expect("it writes");
    let target = Upstream::answering(answer(COMPLETION));
    let (output, _) = replay(&folder, &target.url(), &file, &["--model", "gemma"]);
    assert_made(&output);
    let mut asked: Vec<_> = target
        .requests()
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_str(&request.text()).expect("JSON");
            assert_eq!(
                (body["model"].as_str(), body["stream"].as_bool()),
                (Some("gemma"), Some(true))
            );
            let words = body["messages"][0]["content"].as_str().expect("a text").split(' ').count();
            (words, body["max_tokens"].as_u64().expect("a number"))
        })
        .collect();
    asked.sort_unstable();
    assert_eq!(asked, [(7, 3), (9, 4)]);
}

#[test]
fn shards_make_each_call_once() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    capture(&file, "full", &CALLS);
    let target = Upstream::answering(answer(COMPLETION));
    let calls = ["1/2", "2/2"].map(|shard| {
        let (output, report) = replay(&folder, &target.url(), &file, &["--shard", shard]);
        assert_made(&output);
        report["total"]["calls"].as_u64().expect("a count")
    });
    assert_eq!(calls, [2, 1]);
    let mut bodies: Vec<_> = target.requests().iter().map(Message::text).collect();
    bodies.sort();
    let mut expected: Vec<_> = CALLS.iter().map(|(_, body)| (*body).to_owned()).collect();
    expected.sort();
    assert_eq!(bodies, expected);
}

#[test]
fn what_does_not_go_together_is_refused_before_any_call() {
    let folder = Folder::new();
    let (captured, prompts) = (folder.file("capture.jsonl"), folder.file("prompts.txt"));
    capture(&captured, "full", &CALLS);
    fs::write(&prompts, "one\ntwo\n").expect("it writes");
    let target = Upstream::answering(answer(COMPLETION));
    for (file, more, part) in [
        (&captured, &["--model", "m"][..], "the calls of a capture say themselves what they ask"),
        (&prompts, &["--speed", "2"], "give a --rate"),
        (&captured, &["--from-format", "azure"], "no column `TIMESTAMP`"),
        (&prompts, &["--from-format", "azures"], "is none of capture, azure"),
        (&prompts, &["--shard", "6/6"], "fewer --users than shards"),
    ] {
        let (output, _) = replay(&folder, &target.url(), file, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{more:?}: {}", told(&output));
    }
    assert_eq!(target.connections(), 0);
}

#[test]
fn a_dry_run_says_what_it_would_come_to_and_sends_nothing() {
    let folder = Folder::new();
    let file = folder.file("trace.csv");
    fs::write(&file, "Timestamp,Model,Request tokens,Response tokens\n1,a,700,30\n2,a,900,40\n")
        .expect("it writes");
    let target = Upstream::answering(answer(COMPLETION));
    let (output, report) =
        replay(&folder, &target.url(), &file, &["--model", "gemma", "--dry-run"]);
    assert_made(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = said.lines().map(words).find(|row| row.first().is_some_and(|name| name == "gemma"));
    // Nobody has a price for a server of one's own.
    assert_eq!(row.expect(&said), ["gemma", "2", "1600", "70", "-"]);
    assert!(said.contains("Nothing was sent"), "{said}");
    assert_eq!((target.connections(), report), (0, Value::Null));
}

#[test]
fn a_cap_of_money_makes_no_call_that_has_no_price() {
    let folder = Folder::new();
    let file = folder.file("prompts.txt");
    fs::write(&file, "one\ntwo\n").expect("it writes");
    let target = Upstream::answering(answer(COMPLETION));
    let caps = ["--model", "gemma", "--max-cost", "5", "--duration", "20s"];
    let (output, report) = replay(&folder, &target.url(), &file, &caps);
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    assert!(told(&output).contains("no price for this model"), "{}", told(&output));
    assert_eq!((report["ended"].as_str(), target.connections()), (Some("capped"), 0));

    let prices = folder.file("prices.yaml");
    fs::write(
        &prices,
        "version: a\nprices: [{ models: [gemma], input: 1000000, output: 1000000 }]",
    )
    .expect("it writes");
    let prices = prices.to_str().expect("UTF-8").to_owned();
    let caps = ["--max-cost", "1000", "--prices", &prices, "--model", "gemma"];
    let (output, report) = replay(&folder, &target.url(), &file, &caps);
    assert_eq!(report["ended"], "capped", "{}: {report:#}", told(&output));
    let cost = report["total"]["cost_usd"].as_f64().expect("it has a price");
    assert!(cost > 0.0 && cost <= 1000.0, "{cost}");
}

#[test]
fn the_simulator_answers_as_it_was_recorded() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let failing = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let reply = match request.text().contains("one") {
                true => answer_with(503, "{}"),
                false => answer(COMPLETION),
            };
            peer.wire.send(reply);
        }
    });
    let config = format!("capture: {{ file: '{}', mode: full }}", file.display());
    let sidecar = Sidecar::with(&failing, &config);
    let calls = [("one", 503), ("two", 200)];
    let body = |text: &str| {
        format!(r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"{text}"}}]}}"#)
    };
    for (text, status) in calls {
        assert_eq!(sidecar.call(post("/v1/chat/completions", &body(text))).status(), status);
    }
    sidecar.finish();

    let file_name = file.to_str().expect("UTF-8");
    let mut simulator = tidegate(["sim", "--listen", "127.0.0.1:0", "--from", file_name])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it is built");
    let mut lines = BufReader::new(simulator.stderr.take().expect("it is piped")).lines();
    let address = lines.find_map(|line| {
        line.expect("it says where").strip_prefix("listening on ").map(str::to_owned)
    });
    let address = format!("http://{}", address.expect("it listens"));
    let (output, report) = replay(&folder, &address, &file, &[]);
    simulator.kill().expect("it is ours");
    simulator.wait().expect("it was ours");
    assert_made(&output);
    assert_eq!(report["errors"][0]["http.response.status_code"], 503, "{report:#}");
    assert_eq!(report["total"]["outcomes"]["completed"], 1);
    // COMPLETION has one token, and the options would have had 128.
    assert_eq!(report["total"]["tokens"]["output"], 1);
}
