//! The demo, which is the quickest proof that nothing is lost between three processes.

use std::process::Command;

use crate::support::canary;

#[test]
fn what_was_sent_was_recorded_and_served() {
    let demo = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["demo", "--users", "30", "--duration", "2s"])
        .envs(canary::ENVIRONMENT)
        .output()
        .expect("the demo runs");
    let mut search = canary::Search::default();
    search.output("standard output of the demo", &demo.stdout);
    search.output("standard error of the demo", &demo.stderr);
    drop(search);
    let said = String::from_utf8_lossy(&demo.stdout);
    let log = String::from_utf8_lossy(&demo.stderr);
    let last = said.lines().last().unwrap_or_default();
    assert!(demo.status.success(), "{said}\n{log}");
    assert!(last.starts_with("sent=") && last.ends_with(" equal"), "{last}");
    assert!(!last.starts_with("sent=0 "), "{last}");
}
