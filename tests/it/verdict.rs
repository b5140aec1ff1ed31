//! A load test that decides: objectives, exit codes, and reports that are joined.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::support::*;

const MIX: &str = "[{ call: openai/chat, model: gemini-a, stream: true, output_tokens: 4 }]";

/// A simulator to be put under load, and a folder for what is read and written.
struct Place {
    folder: Folder,
    simulator: Simulator,
}

impl Place {
    fn new(options: &[&str]) -> Self {
        let place = Self { folder: Folder::new(), simulator: Simulator::start(options) };
        place.write("mix.yaml", MIX);
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.file(name), text).expect("a folder to write to");
    }

    fn path(&self, name: &str) -> String {
        self.folder.file(name).to_str().expect("a path of UTF-8").to_owned()
    }

    /// A load test by this list of objectives, which writes `name`.
    fn load(&self, name: &str, objectives: &str, more: &[&str]) -> Output {
        self.write("slo.yaml", &format!("objectives: [{objectives}]"));
        let (mix, slo, json) = (self.path("mix.yaml"), self.path("slo.yaml"), self.path(name));
        let mut own = vec!["load", "--target", &self.simulator.url, "--json", &json];
        own.extend(["--mix", &mix, "--slo", &slo]);
        tidegate(own.into_iter().chain(more.iter().copied()))
            .output()
            .expect("the program is built")
    }

    fn report(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.folder.file(name)).expect("a report");
        serde_json::from_str(&text).expect("in JSON")
    }
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

const SHORT: [&str; 4] = ["--users", "20", "--duration", "2s"];

#[test]
fn the_exit_code_says_what_the_objectives_came_to() {
    let place = Place::new(&["--ttft", "20ms", "--tpot", "1ms"]);
    for (objectives, code, parts) in [
        (
            "{ metric: time_to_first_token, quantile: 0.9, below: 30s, model: 'gemini-*' }, \
             { metric: error_ratio, below: 20% }, { metric: goodput, above: 50% }",
            0,
            &["pass: time_to_first_token p90 below 30s, model gemini-*: p90 ", "VERDICT: pass"][..],
        ),
        (
            "{ metric: time_to_first_token, quantile: 0.9, below: 1ms }",
            1,
            &["fail: time_to_first_token p90 below 1ms: p90 ", "VERDICT: fail"],
        ),
        (
            "{ metric: duration, quantile: 0.9, below: 30s, model: gemni }",
            3,
            &[
                "warning: `duration p90 below 30s, model gemni` applies to no call",
                "not measured",
                "VERDICT: inconclusive",
            ],
        ),
    ] {
        let output = place.load("run.json", objectives, &SHORT);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        for part in parts {
            assert!(said(&output).contains(part), "{part}: {}", said(&output));
        }
    }
    let report = place.report("run.json");
    assert_eq!(report["verdict"]["finding"], "inconclusive");
    assert_eq!(report["verdict"]["objectives"][0]["objective"]["model"], "gemni");
}

#[test]
fn a_run_whose_generator_was_the_limit_is_invalid_whatever_it_measured() {
    let place = Place::new(&["--ttft", "500ms", "--tpot", "1ms"]);
    let easy = "{ metric: error_ratio, below: 90% }";
    let few = ["--rate", "100", "--users", "1", "--duration", "2s"];
    let output = place.load("run.json", easy, &few);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let why = "INVALID RUN: the generator was the limit";
    assert!(said(&output).contains(why) && said(&output).contains("--users"), "{}", said(&output));
    assert_eq!(place.report("run.json")["verdict"]["finding"], "pass", "{}", said(&output));
}

#[test]
fn a_hopeless_run_ends_early() {
    let place = Place::new(&["--ttft", "20ms", "--tpot", "1ms"]);
    let objectives = "objectives: [{ metric: duration, quantile: 0.99, below: 1ms }]";
    place.write("early.yaml", &format!("{objectives}\nabort: early\n"));
    let early = place.path("early.yaml");
    let begun = std::time::Instant::now();
    let more = ["--users", "20", "--duration", "5m", "--slo", &early];
    let (mix, json) = (place.path("mix.yaml"), place.path("early.json"));
    let own = ["load", "--target", &place.simulator.url, "--mix", &mix, "--json", &json];
    let output = tidegate(own.into_iter().chain(more)).output().expect("the program is built");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(begun.elapsed() < std::time::Duration::from_secs(200), "{}", said(&output));
    assert!(said(&output).contains("ending early: `duration p99 below 1ms`"), "{}", said(&output));
    assert_eq!(place.report("early.json")["ended"], "hopeless");
}

#[test]
fn a_mistake_in_the_objectives_is_told_before_any_call() {
    let place = Place::new(&[]);
    let output = place.load("run.json", "{ metric: error_ratio, belwo: 1% }", &SHORT);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let expected = "slo.yaml: line 1 column 37: objectives[0].belwo: unknown field `belwo`";
    assert!(said(&output).contains(expected), "{}", said(&output));
    assert!(said(&output).contains("did you mean `below`?"), "{}", said(&output));
    assert_eq!(place.simulator.served()["calls"], 0);
}

#[test]
fn shards_are_joined_exactly() {
    let place = Place::new(&["--ttft", "20ms", "--tpot", "1ms"]);
    let objectives = "{ metric: duration, quantile: 0.9, below: 30s }";
    for (name, seed) in [("a.json", "1"), ("b.json", "2")] {
        let output = place.load(name, objectives, &[&SHORT[..], &["--seed", seed]].concat());
        assert!(output.status.success(), "{}", said(&output));
    }
    let (a, b, sum) = (place.path("a.json"), place.path("b.json"), place.path("sum.json"));
    let merge = |files: &[&str]| {
        let arguments =
            ["report", "merge", "--json", &sum].into_iter().chain(files.iter().copied());
        tidegate(arguments).output().expect("the program is built")
    };
    let output = merge(&[&a, &b]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("VERDICT: pass"), "{}", said(&output));
    let (one, other, whole) =
        (place.report("a.json"), place.report("b.json"), place.report("sum.json"));
    for key in ["/total/calls", "/total/duration_s/count", "/total/gap_s/count", "/run/users"] {
        let at = |report: &Value| report.pointer(key).and_then(Value::as_u64).expect(key);
        assert_eq!(at(&whole), at(&one) + at(&other), "{key}");
        assert!(at(&whole) > 0, "{key}");
    }
    let longest = |report: &Value| report["total"]["duration_s"]["max"].as_f64().expect("a time");
    assert_eq!(longest(&whole), longest(&one).max(longest(&other)));

    let twice = merge(&[&a, &a]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(said(&twice).contains("it would count twice"), "{}", said(&twice));
    let shown = merge(&[&a]);
    assert!(shown.status.success(), "{}", said(&shown));
    assert_eq!(place.report("sum.json")["total"], one["total"], "one alone is as it was");
    place.write("none.json", "{}");
    let none = merge(&[&place.path("none.json")]);
    assert_eq!(none.status.code(), Some(2));
    assert!(said(&none).contains("this is no report"), "{}", said(&none));
}

#[test]
fn the_schema_of_objectives_needs_no_target() {
    let output = tidegate(["load", "--slo-schema"]).output().expect("the program is built");
    assert!(output.status.success(), "{}", said(&output));
    let schema: Value = serde_json::from_slice(&output.stdout).expect("a schema");
    assert!(schema["properties"]["objectives"].is_object(), "{schema:#}");
    assert_eq!(schema["additionalProperties"], false);
}
