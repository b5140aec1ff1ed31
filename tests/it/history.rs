//! History: what outlives the process, who reads it meanwhile, and what happens to a file that is none.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::*;

/// Runs `tidegate usage` on this file.
fn usage(file: &Path, arguments: &[&str]) -> Output {
    let file = file.to_str().expect("text");
    let all = ["usage", "--history", file].into_iter().chain(arguments.iter().copied());
    tidegate(all).output().expect("the program is built")
}

/// Its calls, and what it says as JSON.
fn calls(file: &Path, arguments: &[&str]) -> (u64, Value) {
    let output = usage(file, &[arguments, &["--format", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (answer["total"]["calls"].as_u64().expect("a count"), answer)
}

/// A sidecar that keeps history in this folder.
fn keeping(folder: &Folder, upstream: &Upstream) -> Sidecar {
    let path = folder.file("history.db");
    let launch = Launch::new().arg("--upstream").arg(&upstream.url());
    launch.arg("--history").arg(path.to_str().expect("text")).start()
}

#[test]
fn a_restart_loses_nothing_and_the_file_tells_who_used_what() {
    let (folder, upstream) = (Folder::new(), Upstream::answering(answer(COMPLETION)));
    for _ in 0..2 {
        let sidecar = keeping(&folder, &upstream);
        for _ in 0..5 {
            sidecar.call(call());
        }
        sidecar.wait_records(5);
        sidecar.finish();
    }
    let file = folder.file("history.db");
    let (sum, answer) = calls(&file, &["--by", "model,route", "--since", "1h"]);
    assert_eq!(sum, 10, "{answer:#}");
    let row = &answer["rows"][0];
    assert_eq!(row["route"], "default");
    assert_eq!(row["input_tokens"], 30, "{row:#}");
    assert_eq!(row["statuses"]["200"], 10);
    assert!(row["duration_p99_s"].as_f64().is_some(), "{row:#}");

    let table = usage(&file, &["--by", "day,model"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.lines().next().is_some_and(|head| head.contains("duration p99 s")), "{table}");
    let csv = usage(&file, &["--format", "csv"]);
    let csv = String::from_utf8_lossy(&csv.stdout).into_owned();
    assert_eq!(csv.lines().count(), 2, "{csv}");
}

#[test]
fn a_process_that_is_killed_loses_a_few_seconds_and_is_read_while_it_writes() {
    let (folder, upstream) = (Folder::new(), Upstream::answering(answer(COMPLETION)));
    let file = folder.file("history.db");
    let sidecar = keeping(&folder, &upstream);
    for _ in 0..7 {
        sidecar.call(call());
    }
    // It is written every five seconds; after that nothing can lose it.
    wait_until("the calls are in the file", || file.exists() && calls(&file, &[]).0 == 7);
    assert_eq!(sidecar.metric("tidegate_history_up"), 1.0);
    let asked = sidecar.ask("/usage?by=route&since=1h");
    assert_eq!(asked.status(), 200);
    let asked: Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!(asked["rows"][0]["calls"], 7, "{asked:#}");
    assert_eq!(sidecar.ask("/usage?by=service").status(), 400);
    sidecar.kill();
    assert_eq!(calls(&file, &[]).0, 7);
    let sidecar = keeping(&folder, &upstream);
    sidecar.call(call());
    sidecar.wait_records(1);
    sidecar.finish();
    assert_eq!(calls(&file, &[]).0, 8);
}

#[test]
fn two_sidecars_add_to_one_file() {
    let (folder, upstream) = (Folder::new(), Upstream::answering(answer(COMPLETION)));
    let both = [keeping(&folder, &upstream), keeping(&folder, &upstream)];
    for sidecar in &both {
        for _ in 0..3 {
            sidecar.call(call());
        }
        sidecar.wait_records(3);
    }
    for sidecar in both {
        sidecar.finish();
    }
    assert_eq!(calls(&folder.file("history.db"), &[]).0, 6);
}

#[test]
fn a_file_of_somebody_else_costs_the_history_and_no_call() {
    let (folder, upstream) = (Folder::new(), Upstream::answering(answer(COMPLETION)));
    let file = folder.file("history.db");
    fs::write(&file, "the accounts of somebody else\n").expect("a folder to write to");
    let sidecar = keeping(&folder, &upstream);
    assert_eq!(sidecar.call(call()).status(), 200);
    sidecar.wait_records(1);
    assert!(sidecar.log().contains("name another file"), "{}", sidecar.log());
    assert_eq!(sidecar.metric("tidegate_history_up"), 0.0);
    wait_until("the loss is counted", || sidecar.metric("tidegate_records_dropped_total") == 1.0);
    sidecar.finish();
    let text = fs::read_to_string(&file).expect("it is there");
    assert_eq!(text, "the accounts of somebody else\n");

    let read = usage(&file, &[]);
    assert_eq!(read.status.code(), Some(2));
    let said = String::from_utf8_lossy(&read.stderr).into_owned();
    assert!(said.contains("no history of Tidegate"), "{said}");
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let folder = Folder::new();
    let config = folder.file("tidegate.yaml");
    fs::write(&config, "listen: 127.0.0.1:0\n").expect("a folder to write to");
    let config = config.to_str().expect("text");
    let absent = folder.file("absent.db");
    for (arguments, expected) in [
        (vec!["usage"], "name the file with --history FILE"),
        (vec!["usage", "--config", config], "history.path"),
        (vec!["usage", "--history", absent.to_str().expect("text")], "there is no such file"),
        (vec!["usage", "--history", "x", "--since", "yesterday"], "such as 30d"),
        (vec!["usage", "--history", "x", "--by", "service"], "caller"),
    ] {
        let output = tidegate(arguments.iter().copied()).output().expect("the program is built");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    assert!(!absent.exists(), "reading makes no file");
}

#[test]
fn money_and_what_is_out_of_the_ordinary_are_told_at_the_admin_address() {
    let (folder, upstream) = (Folder::new(), Upstream::answering(answer(COMPLETION)));
    fs::write(
        folder.file("prices.yaml"),
        "version: mine\nprices:\n  - { models: [\"gpt-4*\"], input: 1000, output: 2000 }\n",
    )
    .expect("a folder to write to");
    let config = folder.file("tidegate.yaml");
    let file = folder.file("history.db");
    let text = format!(
        "prices: prices.yaml\nhistory: {{ path: {}, budget: {{ total: 1 }} }}\n",
        file.display()
    );
    fs::write(&config, text).expect("a folder to write to");
    let launch = Launch::new().arg("--upstream").arg(&upstream.url());
    let sidecar = launch.arg("--config").arg(config.to_str().expect("text")).start();
    for _ in 0..3 {
        sidecar.call(call());
    }
    wait_until("the calls are in the file", || file.exists() && calls(&file, &[]).0 == 3);
    let told = |path| {
        let answer = sidecar.ask(path);
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_slice::<Value>(&answer.body).expect("JSON")
    };
    let spend = told("/spend");
    assert_eq!(spend["total"]["calls"], 3, "{spend:#}");
    // 3 tokens at 1,000 dollars a million and one at 2,000, three times.
    let used = spend["total"]["used_ratio"].as_f64().expect("a share");
    assert!((used - 0.015).abs() < 1e-9, "{spend:#}");
    assert_eq!(spend["total"]["forecast_usd"], Value::Null, "there is one day");
    assert_eq!(told("/baseline")["by"], "same_time");
    let config = config.to_str().expect("text");
    let output = tidegate(["usage", "--config", config]).output().expect("the program is built");
    assert_eq!(output.status.code(), Some(0), "the configuration names the file");
    sidecar.finish();

    let without = Sidecar::to(&upstream);
    assert_eq!(without.ask("/spend").status(), 404);
    without.finish();
}
