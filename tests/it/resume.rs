//! Load tests that are stopped, and go on where they were.

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::support::*;

const MIX: &str = "[{ call: openai/chat, model: gpt-4o, stream: true, output_tokens: 4 }]";

struct Stand {
    simulator: Simulator,
    folder: Folder,
}

impl Stand {
    fn start() -> Self {
        let folder = Folder::new();
        fs::write(folder.file("mix.yaml"), MIX).expect("a folder to write to");
        Self { simulator: Simulator::start(&["--ttft", "50ms", "--tpot", "5ms"]), folder }
    }

    fn command(&self, more: &[&str]) -> Command {
        let [mix, json, records] =
            ["mix.yaml", "run.json", "records.jsonl"].map(|name| self.folder.file(name));
        let mut command = tidegate(["load", "--users", "20", "--target", &self.simulator.url]);
        command.args(more).arg("--mix").arg(mix).arg("--json").arg(json);
        command.arg("--records").arg(records);
        command
    }

    /// A run that has begun to make calls.
    fn begin(&self, more: &[&str]) -> Child {
        let mut command = self.command(more);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("the program is built");
        wait_until("calls are made", || self.simulator.served()["calls"].as_u64() > Some(5));
        child
    }

    fn finish(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("the program is built")
    }

    fn report(&self) -> Value {
        let text = fs::read_to_string(self.folder.file("run.json")).expect("a report");
        serde_json::from_str(&text).expect("in JSON")
    }

    fn records(&self) -> Vec<Value> {
        read_records(&self.folder.file("records.jsonl"))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Whether it came to a report: on a busy machine the generator may have been the limit.
fn has_run(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 4))
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(sent.expect("there is kill").success());
}

/// What the whole load has, by its own account.
fn planned(stand: &Stand, flags: &[&str]) -> u64 {
    let output = stand.finish(&[flags, &["--dry-run"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row =
        text.lines().find(|line| line.starts_with("all ")).unwrap_or_else(|| panic!("{text}"));
    let calls = row.split_whitespace().nth(1).expect("a count");
    calls.parse().expect("a number")
}

fn due(report: &Value) -> u64 {
    let count = |value: &Value| value.as_u64().expect("a count");
    let forgotten = report["generator"]["forgotten"].as_u64().unwrap_or(0);
    count(&report["total"]["calls"]) + count(&report["generator"]["unsent"]) + forgotten
}

#[test]
fn a_run_that_was_interrupted_goes_on_and_no_call_is_made_twice() {
    let stand = Stand::start();
    let flags = ["--rate", "40", "--duration", "4s"];
    let planned = planned(&stand, &flags);
    let mut child = stand.begin(&flags);
    signal(&child, "-INT");
    child.wait().expect("it ends");
    let first = stand.report();
    assert_eq!(first["ended"], "interrupted");
    let made = due(&first);
    assert!(made > 0 && made < planned, "{made} of {planned}");

    let output = stand.finish(&[&flags[..], &["--resume"]].concat());
    assert!(has_run(&output), "{}", said(&output));
    let whole = stand.report();
    assert_eq!((&whole["ended"], &whole["run"]["resumed"]), (&"complete".into(), &1.into()));
    assert!(said(&output).contains("The run was stopped and went on, 1 times"));
    assert_eq!(due(&whole), planned, "each call that was due is accounted for, once");
    assert_eq!(whole["run"]["began"], first["run"]["began"]);
    assert_eq!(whole["run"]["ids"].as_array().map(Vec::len), Some(2));
    let calls = whole["total"]["calls"].as_u64();
    assert_eq!(
        (stand.simulator.served()["calls"].as_u64(), stand.records().len() as u64),
        (calls, calls.expect("calls"))
    );
    let done = first["run"]["done_s"].as_f64().expect("a time");
    let lag = whole["generator"]["send_lag_s"]["p50"].as_f64().expect("a lag");
    assert!(lag < done, "what is over is no lateness: {lag} and {done}");

    // What is complete is reported, and not made again.
    let output = stand.finish(&[&flags[..], &["--resume"]].concat());
    assert!(has_run(&output) && said(&output).contains("that run is complete"));
    assert_eq!(stand.simulator.served()["calls"].as_u64(), calls);
}

#[test]
fn a_run_that_was_killed_goes_on_from_what_it_had_saved() {
    let stand = Stand::start();
    let flags = ["--rate", "20", "--duration", "13s"];
    let planned = planned(&stand, &flags);
    let mut child = stand.begin(&flags);
    wait_until("it has saved", || stand.folder.file("run.json").exists());
    signal(&child, "-KILL");
    child.wait().expect("it ends");
    let saved = stand.report();
    assert_eq!(saved["ended"], "unfinished");
    assert!((9.0..13.0).contains(&saved["run"]["done_s"].as_f64().expect("a time")));

    let output = stand.finish(&[&flags[..], &["--resume"]].concat());
    assert!(has_run(&output), "{}", said(&output));
    let whole = stand.report();
    assert_eq!((&whole["ended"], due(&whole)), (&"complete".into(), planned));
}

#[test]
fn users_go_on_with_something_else_than_what_they_asked() {
    let stand = Stand::start();
    let flags = ["--duration", "8s"];
    let mut child = stand.begin(&flags);
    wait_until("more calls are made", || stand.simulator.served()["calls"].as_u64() > Some(60));
    signal(&child, "-INT");
    child.wait().expect("it ends");
    let first = stand.report()["total"]["calls"].as_u64().expect("calls");
    let output = stand.finish(&[&flags[..], &["--resume"]].concat());
    assert!(has_run(&output), "{}", said(&output));
    let whole = stand.report();
    assert!(whole["total"]["calls"].as_u64() > Some(first));
    let sizes = |records: &[Value]| -> Vec<Value> {
        records.iter().map(|record| record["tidegate.request.bytes"].clone()).collect()
    };
    let records = stand.records();
    let (one, other) = records.split_at(first as usize);
    let as_many = other.len().min(20);
    assert_ne!(sizes(&one[..as_many]), sizes(&other[..as_many]), "not the same again");
}

#[test]
fn another_load_does_not_go_on() {
    let stand = Stand::start();
    let flags = ["--rate", "40", "--duration", "3s"];
    // Where nothing was begun, it begins.
    let mut child = stand.begin(&[&flags[..], &["--resume"]].concat());
    signal(&child, "-INT");
    child.wait().expect("it ends");
    for (other, what) in [
        (["--rate", "41", "--duration", "3s"], "rate"),
        (["--rate", "40", "--duration", "4s"], "duration"),
        (["--users", "20", "--duration", "3s"], "schedule"),
    ] {
        let mut command = tidegate(["load", "--target", &stand.simulator.url, "--resume"]);
        if other[0] != "--users" {
            command.args(["--users", "20"]);
        }
        let output = command
            .args(other)
            .arg("--mix")
            .arg(stand.folder.file("mix.yaml"))
            .arg("--json")
            .arg(stand.folder.file("run.json"))
            .output()
            .expect("the program is built");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let advice = format!("that run was of another load: its {what} differs");
        assert!(said(&output).contains(&advice), "{}", said(&output));
    }
    assert_eq!(stand.report()["ended"], "interrupted", "nothing is lost");
}
