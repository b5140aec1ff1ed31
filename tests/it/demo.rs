//! The demo, which is the quickest proof that nothing is lost between three processes.

use std::process::Command;

#[test]
fn what_was_sent_was_recorded_and_served() {
    let demo = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["demo", "--users", "30", "--duration", "2s"])
        .output()
        .expect("the demo runs");
    let said = String::from_utf8_lossy(&demo.stdout);
    let log = String::from_utf8_lossy(&demo.stderr);
    let last = said.lines().last().unwrap_or_default();
    assert!(demo.status.success(), "{said}\n{log}");
    assert!(last.starts_with("sent=") && last.ends_with(" equal"), "{last}");
    assert!(!last.starts_with("sent=0 "), "{last}");
}
