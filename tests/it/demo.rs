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

#[test]
fn the_policies_keep_an_outage_from_most_users() {
    let demo = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["demo", "--chapter", "outage", "--users", "6", "--duration", "1s"])
        .output()
        .expect("the demo runs");
    let said = String::from_utf8_lossy(&demo.stdout);
    let log = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{said}\n{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("phase ")).count(), 7, "{log}");

    let refused = said.lines().find(|line| line.starts_with("connections are refused"));
    let cells: Vec<_> = refused.expect("a row for each phase").split_whitespace().collect();
    let [.., calls, _, plain, policies, first_token, _, attempts, few] = cells[..] else {
        panic!("eight figures: {cells:?}")
    };
    assert_ne!(calls, "0");
    assert_eq!((plain, policies), ("100.0%", "0.0%"), "{said}");
    assert_eq!((first_token, attempts), ("-", "1.00"), "nobody has an answer: {said}");
    assert!(few.parse::<f64>().expect("a number") < 1.0, "the breaker spares the upstream: {said}");
    let well = said.lines().find(|line| line.starts_with("all is well")).expect("a row");
    assert_eq!(well.matches("0.0%").count(), 2, "{well}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("In ") && last.contains(" of 7 phases"), "{last}");
}

/// The last line of this chapter, and all that it said.
fn chapter(name: &str) -> (String, String) {
    let demo = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["demo", "--chapter", name, "--users", "12", "--duration", "2s"])
        .output()
        .expect("the demo runs");
    let said = String::from_utf8_lossy(&demo.stdout).into_owned();
    let log = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{said}\n{log}");
    (said.lines().last().unwrap_or_default().to_owned(), said)
}

#[test]
fn a_canary_that_is_worse_is_told_from_the_version_before_and_taken_back() {
    let (last, said) = chapter("canary");
    assert!(last.starts_with("The canary got "), "{said}");
    assert!(last.contains("With its weight at 0 it got 0 of "), "{said}");
    let is_of = |line: &str, name: &str| line.split_whitespace().nth(1) == Some(name);
    let rows = said.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let arms: Vec<_> = rows.map(|row| ["stable", "canary"].map(|name| is_of(row, name))).collect();
    assert_eq!(arms, [[true, false], [false, true]].repeat(2), "{said}");
}

#[test]
fn a_cache_saves_calls_tokens_money_and_time() {
    let (last, said) = chapter("cache");
    assert!(last.starts_with("Saved: "), "{said}");
    assert!(!last.contains(" 0 input") && !last.contains("$0.0000"), "{said}");
}
