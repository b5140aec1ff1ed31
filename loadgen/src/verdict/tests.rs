//! Tests of what objectives come to.

use std::time::Duration;

use tidegate_settings::Objectives;
use tidegate_wire::{ErrorOrigin, Outcome};

use super::*;
use crate::figures::tests::call;
use crate::figures::{Call, Kind};

/// So many calls that took this long.
fn calls(count: usize, seconds: f64) -> Vec<Call> {
    vec![call(seconds, Outcome::Completed); count]
}

fn failed(count: usize) -> Vec<Call> {
    let mut failed = call(0.001, Outcome::Failed);
    failed.record.error_origin = Some(ErrorOrigin::Upstream);
    failed.kind = Some(Kind::Server);
    vec![failed; count]
}

fn objectives(list: &str) -> Objectives {
    Objectives::parse(&format!("objectives: [{list}]")).expect("good objectives")
}

fn figures(list: &Objectives, calls: &[Vec<Call>]) -> Figures {
    let mut figures = Figures::default();
    for call in calls.iter().flatten() {
        figures.record(call, is_good(call, list));
    }
    figures
}

fn judge_as(list: &str, calls: &[Vec<Call>], ended: Ended) -> Judged {
    let objectives = objectives(list);
    let figures = figures(&objectives, calls);
    let evidence = Evidence {
        figures: &figures,
        unsent: 0,
        forgotten: 0,
        lasted_s: 10.0,
        stages: None,
        ended,
        was_stopped: false,
        counted_good: true,
    };
    let mut verdict = Verdict::of(&objectives, &evidence);
    assert_eq!(verdict.finding, verdict.objectives[0].finding);
    verdict.objectives.remove(0)
}

fn judge(list: &str, calls: &[Vec<Call>]) -> Judged {
    judge_as(list, calls, Ended::Complete)
}

const P99: &str = "{ metric: duration, quantile: 0.99, below: 3s }";

#[test]
fn a_quantile_far_from_its_limit_is_told_and_near_it_is_not() {
    use Finding::{Fail, Inconclusive, Pass};
    for (fast, slow, finding, part) in [
        (1000, 0, Pass, "p99 1.00s, at most 1.00s (95% sure), of 1000 calls"),
        (990, 2, Pass, "at most 1.00s"),
        (990, 9, Inconclusive, "between 1.00s and 4.00s (95% sure), of 999 calls: too few to tell"),
        (990, 30, Fail, "p99 4.00s, at least 4.00s (95% sure), of 1020 calls"),
        // Few calls.
        (0, 1, Fail, "of 1 calls"),
        (1, 0, Inconclusive, "of 1 calls: too few to bound it from above"),
        (0, 10, Fail, "at least 4.00s"),
        (99, 0, Inconclusive, "too few to bound it from above, which takes 299"),
        (150, 0, Pass, "299 calls would bound it, but the slowest took 1.00s, less than half"),
        (150, 1, Inconclusive, "takes 299"),
    ] {
        let judged = judge(P99, &[calls(fast, 1.0), calls(slow, 4.0)]);
        assert_eq!(judged.finding, finding, "{fast} and {slow}: {}", judged.why);
        assert!(judged.why.contains(part), "{fast} and {slow}: {}", judged.why);
    }
    let near = judge(P99, &[calls(150, 2.0)]);
    assert_eq!(near.finding, Inconclusive, "not half of the limit: {}", near.why);
}

#[test]
fn what_was_not_measured_is_never_met() {
    for list in [
        "{ metric: time_to_first_token, quantile: 0.99, below: 3s }",
        "{ metric: duration, quantile: 0.99, below: 3s, model: other }",
        "{ metric: error_ratio, below: 1%, route: other }",
        "{ metric: goodput, above: 1%, model: other }",
        "{ metric: calls_per_second, above: 1, model: other }",
    ] {
        let judged = judge(list, &[calls(1000, 1.0)]);
        assert_eq!(judged.finding, Finding::Inconclusive, "{list}: {}", judged.why);
        assert!(judged.why.starts_with("not measured: "), "{list}: {}", judged.why);
        assert_eq!(judged.measured, None);
    }
    let partly = judge(P99, &[calls(1000, 1.0), failed(1)]);
    assert!(!partly.why.contains("did not have it"), "a failed call need not: {}", partly.why);
}

#[test]
fn the_gaps_of_one_call_say_no_more_than_one_call() {
    let mut one = call(1.0, Outcome::Completed);
    one.record.time_to_first_token_s = Some(0.2);
    one.gaps = vec![Duration::from_millis(20); 1000];
    let judged = judge("{ metric: gap, quantile: 0.99, below: 30ms }", &[vec![one; 20]]);
    assert_eq!((judged.finding, judged.calls), (Finding::Inconclusive, 20), "{}", judged.why);
}

#[test]
fn a_ratio_far_from_its_limit_is_told_and_near_it_is_not() {
    use Finding::{Fail, Inconclusive, Pass};
    let list = "{ metric: error_ratio, below: 1% }";
    for (good, bad, finding, part) in [
        (1000, 0, Pass, "error ratio 0%, at most 0.27% (95% sure), of 1000 calls"),
        (
            100,
            0,
            Inconclusive,
            "error ratio 0%, between 0% and 2.63% (95% sure), of 100 calls: too few",
        ),
        (991, 9, Inconclusive, "too few to tell it from the limit"),
        (950, 50, Fail, "error ratio 5.00%, at least 3.98%"),
        (0, 3, Fail, "error ratio 100%"),
    ] {
        let judged = judge(list, &[calls(good, 1.0), failed(bad)]);
        assert_eq!(judged.finding, finding, "{good} and {bad}: {}", judged.why);
        assert!(judged.why.contains(part), "{good} and {bad}: {}", judged.why);
    }
}

#[test]
fn wrong_content_is_no_proof_of_no_errors() {
    let wrong = |count| {
        let wrong = Call { kind: Some(Kind::WrongContent), ..call(0.1, Outcome::Completed) };
        vec![wrong; count]
    };
    let list = "{ metric: error_ratio, below: 1% }";
    let few = judge(list, &[calls(1000, 1.0), wrong(2)]);
    assert_eq!(few.finding, Finding::Pass, "{}", few.why);
    let many = judge(list, &[calls(1000, 1.0), wrong(100)]);
    assert_eq!(many.finding, Finding::Inconclusive);
    assert!(many.why.contains("100 answers had wrong content"), "{}", many.why);
    let times = judge(P99, &[wrong(1000)]);
    assert_eq!(times.finding, Finding::Inconclusive, "{}", times.why);
}

/// So many calls that were cut off at the end of the run.
fn cut(count: usize) -> Vec<Call> {
    let mut cut = call(60.0, Outcome::Abandoned);
    cut.record.output_tokens = None;
    vec![cut; count]
}

#[test]
fn a_target_that_never_answers_some_calls_does_not_pass() {
    use Finding::{Fail, Inconclusive, Pass};
    let first = "{ metric: time_to_first_token, quantile: 0.99, below: 3s }";
    let patient = "{ metric: duration, quantile: 0.99, below: 90s }";
    let errors = "{ metric: error_ratio, below: 1% }";
    for (list, hung, finding, part) in [
        (P99, 0, Pass, "at most 1.00s"),
        (P99, 1, Pass, "of 1001 calls; 1 of them were cut off 60.0s after the last was due"),
        (P99, 10, Inconclusive, "between 1.00s and 60.0s"),
        (P99, 30, Fail, "p99 60.0s, at least 60.0s"),
        (patient, 30, Inconclusive, "but 30 calls that were cut off at the end have no times"),
        (first, 30, Inconclusive, "but 30 calls that were cut off at the end have no times"),
        (first, 1, Pass, "at most 400ms"),
        (errors, 1, Pass, "at most"),
        (errors, 30, Inconclusive, "but 30 calls were cut off at the end, and would be too many"),
    ] {
        let mut fast = calls(1000, 1.0);
        fast.iter_mut().for_each(|call| call.record.time_to_first_token_s = Some(0.4));
        let judged = judge(list, &[fast, cut(hung)]);
        assert_eq!(judged.finding, finding, "{list}, {hung}: {}", judged.why);
        assert!(judged.why.contains(part), "{list}, {hung}: {}", judged.why);
    }
    let judged = judge_as(P99, &[calls(1000, 1.0), cut(30)], Ended::Interrupted);
    assert_eq!(judged.finding, Inconclusive, "they had no time to end: {}", judged.why);
}

#[test]
fn a_rate_of_a_stage_is_by_the_time_of_that_stage() {
    let stages: Stages = Stages::parse("10s:10,20s:10,10s:0").expect("good stages");
    let list = "{ metric: calls_per_second, above: 9, stage: 'stage 2' }";
    let mut at_its_peak = calls(200, 1.0);
    at_its_peak.iter_mut().for_each(|call| call.key.stage = "stage 2".into());
    let objectives = objectives(list);
    let figures = figures(&objectives, &[at_its_peak, calls(100, 1.0)]);
    let evidence = Evidence {
        figures: &figures,
        unsent: 0,
        forgotten: 0,
        lasted_s: 40.0,
        stages: Some(&stages),
        ended: Ended::Complete,
        was_stopped: false,
        counted_good: true,
    };
    let judged = &Verdict::of(&objectives, &evidence).objectives[0];
    assert_eq!((judged.finding, judged.measured), (Finding::Pass, Some(10.0)), "{}", judged.why);
    assert!(judged.why.contains("over the 20 s of stage stage 2"), "{}", judged.why);
}

#[test]
fn goodput_is_of_all_calls_that_were_due() {
    let list = "{ metric: goodput, above: 95% }, { metric: duration, quantile: 0.5, below: 2s }";
    let objectives = objectives(list);
    let figures = figures(&objectives, &[calls(960, 1.0), calls(20, 3.0)]);
    let judged = |unsent, counted_good| {
        let ended = Ended::Complete;
        let (lasted_s, stages, was_stopped) = (10.0, None, false);
        let evidence = Evidence {
            figures: &figures,
            unsent,
            forgotten: 0,
            lasted_s,
            stages,
            ended,
            was_stopped,
            counted_good,
        };
        Verdict::of(&objectives, &evidence).objectives.remove(0)
    };
    let all = judged(0, true);
    assert_eq!((all.finding, all.measured), (Finding::Pass, Some(960.0 / 980.0)), "{}", all.why);
    let unsent = judged(100, true);
    assert_eq!((unsent.finding, unsent.calls), (Finding::Fail, 1080), "{}", unsent.why);
    let others = judged(0, false);
    assert_eq!((others.finding, others.measured), (Finding::Inconclusive, None), "{}", others.why);
}

#[test]
fn a_rate_is_of_the_whole_run_and_fails_only_by_what_was_stated() {
    let fast = judge("{ metric: calls_per_second, above: 99 }", &[calls(1000, 1.0)]);
    assert_eq!((fast.finding, fast.measured), (Finding::Pass, Some(100.0)), "{}", fast.why);
    let list = "{ metric: output_tokens_per_second, above: 2000 }";
    let slow = judge(list, &[calls(1000, 1.0)]);
    assert_eq!((slow.finding, slow.measured), (Finding::Fail, Some(1000.0)), "{}", slow.why);
    let mut silent = call(1.0, Outcome::Completed);
    silent.record.operation = Some("chat".into());
    silent.record.output_tokens = None;
    let unstated = judge(list, &[calls(1000, 1.0), vec![silent]]);
    assert_eq!(unstated.finding, Finding::Inconclusive, "{}", unstated.why);
}

#[test]
fn a_run_that_was_cut_short_can_fail_but_not_pass() {
    let (fast, slow) = ([calls(1000, 1.0)], [calls(1000, 4.0)]);
    assert_eq!(judge_as(P99, &fast, Ended::Interrupted).finding, Finding::Inconclusive);
    assert_eq!(judge_as(P99, &slow, Ended::Interrupted).finding, Finding::Fail);
    assert_eq!(judge_as(P99, &fast, Ended::Hopeless).finding, Finding::Pass);
}

#[test]
fn there_is_hope_while_the_rest_could_make_up_for_it() {
    let lost = |list: &str, calls: &[Vec<Call>], elapsed_s, left_s| {
        let objectives = objectives(list);
        hopeless(&objectives, &figures(&objectives, calls), elapsed_s, left_s).is_some()
    };
    let slow = [calls(900, 1.0), calls(100, 4.0)];
    assert!(lost(P99, &slow, 10.0, 10.0), "a hundred of three thousand");
    assert!(!lost(P99, &slow, 1.0, 60.0), "a hundred of 120,000");
    assert!(!lost(P99, &[calls(1000, 1.0)], 10.0, 0.0));
    let errors = "{ metric: error_ratio, below: 1% }";
    assert!(lost(errors, &[calls(900, 1.0), failed(100)], 10.0, 10.0));
    assert!(!lost(errors, &[calls(900, 1.0), failed(100)], 1.0, 60.0));
    let good = "{ metric: goodput, above: 95% }";
    assert!(lost(good, &[calls(500, 1.0), failed(500)], 10.0, 10.0));
    assert!(!lost(good, &[calls(500, 1.0), failed(500)], 1.0, 60.0));
    assert!(!lost(good, &[], 0.0, 60.0));
}

#[test]
fn one_that_fails_fails_all_and_one_that_cannot_be_told_tells_nothing() {
    use Finding::{Fail, Inconclusive, Pass};
    assert_eq!(Finding::of_all([Pass, Inconclusive, Fail]), Fail);
    assert_eq!(Finding::of_all([Pass, Inconclusive]), Inconclusive);
    assert_eq!(Finding::of_all([Pass, Pass]), Pass);
}
