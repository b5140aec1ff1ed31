//! Load tests whose load rises and falls in stages.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::support::*;

const MIX: &str = "[{ call: openai/chat, model: gpt-4o, stream: true, output_tokens: 4 }]";

/// A load test with these flags, and its report.
fn load(folder: &Folder, more: &[&str]) -> (Output, Value) {
    let simulator = Simulator::start(&["--ttft", "20ms", "--tpot", "1ms"]);
    let [mix, json] = ["mix.yaml", "run.json"].map(|name| path(folder, name));
    fs::write(&mix, MIX).expect("a folder to write to");
    let own = ["load", "--target", &simulator.url, "--mix", &mix, "--json", &json];
    let output = tidegate(own.into_iter().chain(more.iter().copied())).output();
    let output = output.expect("the program is built");
    let text = fs::read_to_string(&json).unwrap_or_else(|_| panic!("{}", said(&output)));
    (output, serde_json::from_str(&text).expect("in JSON"))
}

fn path(folder: &Folder, name: &str) -> String {
    folder.file(name).to_str().expect("a path of UTF-8").to_owned()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn calls_of(report: &Value) -> Vec<(&str, u64)> {
    let stages = report["stages"].as_array().expect("stages");
    let part = |stage: &Value| stage["calls"].as_u64();
    stages
        .iter()
        .map(|one| (one["name"].as_str().expect("a name"), part(one).unwrap_or(0)))
        .collect()
}

#[test]
fn a_rate_rises_is_held_and_falls_and_each_stage_has_its_figures() {
    let folder = Folder::new();
    let [stages, slo, page] =
        ["stages.yaml", "slo.yaml", "page.html"].map(|name| path(&folder, name));
    let list = "- { duration: 1s, target: 40, name: rise }\n- { duration: 2s, target: 40, name: peak }\n\
                - { duration: 1s, target: 0 }\n";
    fs::write(&stages, list).expect("a folder to write to");
    let objective = "objectives: [{ metric: error_ratio, below: 50%, stage: peak }]";
    fs::write(&slo, objective).expect("a folder to write to");
    let more = ["--rate-stages", &stages, "--slo", &slo, "--report", &page];
    let (output, report) = load(&folder, &more);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    // What is due follows from the seed, however busy the machine is.
    let calls = calls_of(&report);
    let names: Vec<_> = calls.iter().map(|one| one.0).collect();
    assert_eq!(names, ["rise", "peak", "stage 3"]);
    let [rise, peak, fall] = [0, 1, 2].map(|at: usize| calls[at].1);
    assert!((8..40).contains(&rise) && (50..110).contains(&peak) && fall < 40, "{calls:?}");
    assert_eq!(report["total"]["calls"], rise + peak + fall);
    assert_eq!(report["stages"][1]["calls_per_s"], peak as f64 / 2.0);
    assert_eq!(report["verdict"]["objectives"][0]["calls"], peak);
    assert_eq!(
        (&report["run"]["schedule"], &report["run"]["duration_s"]),
        (&"staged".into(), &4.0.into())
    );
    assert_eq!(report["run"]["stages"][0]["target"], 40.0);
    assert!(said(&output).contains("rate in stages") && said(&output).contains("\npeak "));
    assert!(fs::read_to_string(&page).expect("a page").contains("<h2>By stage</h2>"));
}

#[test]
fn users_come_and_go_in_stages() {
    let folder = Folder::new();
    let (output, report) = load(&folder, &["--stages", "500ms:4,2s:4,0s:1,1s:1"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        (&report["run"]["users"], &report["run"]["schedule"]),
        (&4.into(), &"closed".into())
    );
    let calls = calls_of(&report);
    let names: Vec<_> = calls.iter().map(|one| one.0).collect();
    assert_eq!(names, ["stage 1", "stage 2", "stage 4"], "the third takes no time");
    assert!(calls.iter().all(|one| one.1 > 0), "{calls:?}");
    // Four users for two seconds make more calls than one for one, whatever else this machine does.
    assert!(calls[1].1 > calls[2].1, "{calls:?}");
}

#[test]
fn stages_that_make_no_sense_are_told() {
    let refused = |more: &[&str]| {
        let own = ["load", "--target", "http://127.0.0.1:1"];
        let output = tidegate(own.into_iter().chain(more.iter().copied())).output();
        let output = output.expect("the program is built");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    assert!(refused(&["--stages", "1m"]).contains("`1m` is no stage"));
    assert!(refused(&["--rate-stages", "0s:5"]).contains("the stages last no time"));
    assert!(refused(&["--stages", "none.yaml"]).contains("none.yaml"));
    assert!(refused(&["--stages", "1m:5", "--users", "3"]).contains("cannot be used with"));
    assert!(
        refused(&["--rate-stages", "1m:5", "--duration", "3s"]).contains("cannot be used with")
    );
}
