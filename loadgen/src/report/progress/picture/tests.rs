//! The view, drawn without a terminal.

use std::collections::BTreeMap;

use tidegate_settings::Objectives;

use super::*;
use crate::budget::{Caps, Spent};
use crate::figures::{Kind, Strained};
use crate::report::Judged;

fn quantiles(p50: f64) -> Quantiles {
    let (p90, p99) = (p50 * 1.5, p50 * 2.0);
    Quantiles { count: 9, min: p50, mean: p50, p50, p90, p95: p99, p99, p999: p99, max: p99 }
}

fn row(name: &str, calls: u64) -> Row {
    let (first_token, duration) = (Some(quantiles(0.1)), Some(quantiles(0.8)));
    Row { name: name.to_owned(), calls, errors: 0, first_token, duration }
}

fn judged(metric: &str, finding: Finding) -> Judged {
    let text = format!("objectives: [{{ metric: {metric}, below: 1% }}]");
    let objective = Objectives::parse(&text).expect("an objective").objectives.remove(0);
    Judged {
        name: objective.title(),
        objective,
        finding,
        measured: Some(0.002),
        at_least: None,
        at_most: None,
        calls: 9,
        why: "error ratio 0.20%".to_owned(),
    }
}

/// All that may be shown.
fn everything() -> Glance {
    Glance {
        target: "http://127.0.0.1:4100".to_owned(),
        step: Some("step 3 of 60 at most, 32 calls/s: 16 calls/s held".to_owned()),
        phase: "running",
        stage: Some("peak".to_owned()),
        elapsed: Duration::from_secs(72),
        whole: Duration::from_secs(300),
        users_in: 50,
        users: 50,
        in_flight: 41,
        calls: 12_345,
        errors: 17,
        kinds: vec![(Kind::Quota, 12), (Kind::Cut, 5)],
        calls_per_s_now: 164.0,
        calls_per_s: 160.5,
        tokens_per_s: 3210.4,
        cost: Some(1.5),
        minute: (1..=60)
            .map(|second| Second { calls: second, first_token: Some(0.2), duration: Some(1.0) })
            .collect(),
        rows: vec![row("gpt-4o", 9000), row("gemini-2.5-flash", 3345)],
        all: row("all", 12_345),
        send_lag: Some(quantiles(0.001)),
        read_lag: Some(quantiles(0.002)),
        objectives: vec![judged("error_ratio", Finding::Pass)],
        caps: Caps { tokens: Some(2_000_000), usd: Some(5.0) },
        spent: Spent { tokens: 500_000, usd: 1.5 },
        strain: BTreeMap::from([
            (Strain::Waiting, Strained { mean: 12.0, most: 12.0 }),
            (Strain::Cache, Strained { mean: 0.73, most: 0.73 }),
        ]),
        ..Glance::default()
    }
}

fn texts(glance: &Glance, columns: usize, rows: usize) -> Vec<String> {
    lines(glance, (columns, rows), false).into_iter().map(|line| line.text).collect()
}

#[test]
fn all_that_there_is_to_know_stands_in_it() {
    let expected = "\
load on http://127.0.0.1:4100  running, stage peak
step 3 of 60 at most, 32 calls/s: 16 calls/s held
━━━━━━━━━━━━──────────────────────────────────────  1:12 of 5:00, 3:48 to go
50 users  41 in flight  12.3k calls  17 errors  3210 output tokens/s  $1.50
calls/s      ▁▁▁▂▂▂▂▃▃▃▃▄▄▄▄▅▅▅▅▆▆▆▆▇▇▇▇███  164.0 now, 160.5 in all
first token  ██████████████████████████████  p99 200ms now, 200ms in all
                                 TTFT                duration
model             calls  errors   p50    p90    p99       p50    p90    p99
gpt-4o             9000       0  100ms  150ms  200ms     800ms  1.20s  1.60s";
    let seen = texts(&everything(), 90, 40);
    let expected: Vec<_> = expected.lines().collect();
    assert_eq!(seen[0..4], expected[0..4]);
    assert!(seen[4].ends_with("  164.0 now, 160.5 in all") && seen[4].starts_with("calls/s "));
    assert!(seen[5].ends_with("█  p99 200ms now, 200ms in all"), "{}", seen[5]);
    assert_eq!(seen[6].split_whitespace().collect::<Vec<_>>(), ["TTFT", "duration"]);
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells(&seen[8]), cells(expected[8]));
    assert!(seen[9].starts_with("gemini-2.5-flash") && seen[10].starts_with("all"));
    assert_eq!(
        seen[11..],
        [
            "trouble: quota 12, cut 5",
            "sent 2.00ms after due, read 4.00ms after arrival (p99)",
            "holds   error_ratio below 1%: error ratio 0.20%",
            "spent or set aside: 500.0k of 2.0M tokens (25%), $1.50 of $5 (30%)",
            "the other side: 12 waiting, cache 73%",
        ]
    );
}

#[test]
fn no_terminal_is_too_small() {
    let whole = texts(&everything(), 90, 40).len();
    for columns in [0, 1, 2, 20, 79, 80, 81, 300] {
        for rows in [0, 1, 2, 5, 12, 24, 100] {
            let drawn = lines(&everything(), (columns, rows), true);
            assert!(drawn.len() < rows.max(1), "{columns} x {rows}");
            // A narrow one has no room for charts.
            let fits = whole.min(rows.saturating_sub(1));
            assert!(drawn.len() == fits || columns < 79 && drawn.len() + 2 >= fits);
            assert!(drawn.iter().all(|line| line.columns < columns.max(1)), "{columns} x {rows}");
        }
    }
    let few = texts(&everything(), 80, 7);
    assert!(few[0].starts_with("load on") && few[2].contains("to go"), "{few:?}");
    assert!(few[3].contains("in flight") && few[5].starts_with("sent"), "{few:?}");
}

#[test]
fn what_is_missed_stands_first_and_a_run_that_would_be_invalid_says_so() {
    let findings = [Finding::Pass, Finding::Pass, Finding::Inconclusive, Finding::Fail];
    let objectives = findings.into_iter().cycle().take(7);
    let glance = Glance {
        objectives: objectives.map(|finding| judged("error_ratio", finding)).collect(),
        invalid: Some("give it more --users".to_owned()),
        ..everything()
    };
    let seen = texts(&glance, 90, 40);
    let words = seen.iter().filter(|line| line.contains("below 1%"));
    let words: Vec<_> = words.map(|line| &line[..6]).collect();
    assert_eq!(words, ["missed", "open  ", "open  ", "holds ", "holds "]);
    assert!(seen.contains(&"2 more objectives".to_owned()));
    assert!(seen.contains(&"INVALID so far: give it more --users".to_owned()));
}

#[test]
fn what_has_not_begun_is_told_as_well() {
    let glance = Glance {
        phase: "users come in",
        users_in: 3,
        users: 9,
        warm_up: Duration::from_secs(20),
        whole: Duration::from_secs(4000),
        ..Glance::default()
    };
    let seen = texts(&glance, 80, 40);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[1].ends_with("0:00 of 1:06:40, 1:06:40 to go, counts in 0:20"), "{seen:?}");
    assert!(seen[2].starts_with("3 of 9 users  0 in flight"), "{seen:?}");
}

#[test]
fn names_neither_move_the_cursor_nor_stand_over_the_edge() {
    let glance = Glance { target: "a\x1b[2J\r\n模型模型".to_owned(), ..Glance::default() };
    let shown = lines(&glance, (19, 40), false).remove(0);
    assert_eq!(shown.text, "load on a\u{fffd}[2J\u{fffd}\u{fffd}模");
    assert_eq!(shown.columns, 17, "half a letter is none");
}

#[test]
fn colours_are_only_where_they_may_be() {
    let coloured = lines(&everything(), (90, 40), true);
    let plain = lines(&everything(), (90, 40), false);
    assert!(coloured[0].text.starts_with("\x1b[1mload on"));
    assert!(plain.iter().all(|line| !line.text.contains('\x1b')));
    for (coloured, plain) in coloured.iter().zip(&plain) {
        assert_eq!(coloured.columns, plain.columns);
    }
}
