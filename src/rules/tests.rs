//! Objectives become rules.

use tidegate_settings::Objectives;

use super::*;

fn read(objectives: &str) -> Objectives {
    Objectives::parse(&format!("objectives: [{objectives}]")).expect("good objectives")
}

fn only(objective: &str) -> promql::Watched {
    promql::watched(&read(objective).objectives[0]).expect("it can be watched")
}

#[test]
fn a_limit_at_a_bound_is_exact() {
    let watched =
        only("{ metric: time_to_first_token, quantile: 0.99, below: 3s, model: 'gemini-*.5' }");
    assert!(watched.note.ends_with("The limit is exact."), "{}", watched.note);
    assert_eq!(rounded(watched.allowed), 0.01);
    let bucket = r#"rate(tidegate_time_to_first_token_seconds_bucket{outcome="completed", model=~"gemini-.*\\.5", le=~"3([.]0)?"}[5m])"#;
    assert!(watched.bad.contains(bucket), "{}", watched.bad);
}

#[test]
fn a_limit_between_bounds_is_drawn_between_them() {
    let watched = only("{ metric: duration, quantile: 0.9, below: 1.1s, stream: false }");
    assert!(watched.note.ends_with("drawn between the bounds 1 s and 1.5 s."), "{}", watched.note);
    for part in ["0.800000 * sum", "0.200000 * sum", r#"stream!="true""#, r#"le=~"1[.]5""#] {
        assert!(watched.bad.contains(part), "{part} is not in {}", watched.bad);
    }
    let tiny = only("{ metric: duration, quantile: 0.9, below: 1ms }");
    assert!(tiny.bad.contains("0.200000 * sum"), "{}", tiny.bad);
    let huge = only("{ metric: duration, quantile: 0.9, below: 1h }");
    assert!(huge.note.contains("at 900 s, the last bound"), "{}", huge.note);
}

#[test]
fn what_no_metric_tells_is_left_out_and_said() {
    let objectives = read(
        "{ metric: goodput, above: 95% }, { metric: gap, quantile: 0.5, below: 1s },
         { metric: calls_per_second, above: 100 }, { metric: error_ratio, below: 1%, stage: peak }",
    );
    let (rules, left_out) = rules(&objectives);
    assert_eq!((rules, left_out.len()), (None, 4));
    let (rules, left_out) =
        super::rules(&read("{ metric: goodput, above: 95% }, { metric: error_ratio, below: 1% }"));
    assert!(left_out[0].starts_with("`goodput above 95%`: whether"), "{left_out:?}");
    assert_eq!(rules.expect("one is left").matches("slo:tidegate_calls_bad:rate5m\n").count(), 1);
}

#[test]
fn no_pace_asks_for_more_than_all_calls() {
    let (rules, _) = rules(&read("{ metric: duration, quantile: 0.5, below: 1s }"));
    let rules = rules.expect("it can be watched");
    for part in ["pace: \"1\" }, expr: vector(0.5)", "pace: \"14.4\" }, expr: vector(0.75)"] {
        assert!(rules.contains(part), "{part} is not in {rules}");
    }
}

#[test]
fn a_title_is_quoted_and_a_pattern_means_itself() {
    let objectives =
        read(r#"{ name: "it's \"fast\": yes", metric: error_ratio, below: 1%, model: 'a|b"c\d' }"#);
    let rules = rules(&objectives).0.expect("it can be watched");
    assert!(rules.contains(r#"objective: "it's \"fast\": yes""#), "{rules}");
    assert!(rules.contains(r#"model=~"a\\|b\"c\\\\d""#), "{rules}");
}
