use jiff::Timestamp;
use tidegate_wire::{CacheSource, Cached, Job};

use super::*;

fn keys() -> Keys {
    Keys::new(Arc::new(Registry::new(["gemma".into()], ["here".into()])))
}

fn completed() -> Record {
    Record {
        time: Timestamp::from_second(600).expect("a time"),
        request_model: Some("gemma".into()),
        region: Some("here".into()),
        route: Some("chat".into()),
        outcome: Some(Outcome::Completed),
        status: Some(200),
        stream: Some(true),
        duration_s: Some(1.5),
        time_to_first_token_s: Some(0.25),
        input_tokens: Some(10),
        output_tokens: Some(5),
        cost_usd: Some(0.5),
        ..Record::default()
    }
}

fn of(records: &[Record]) -> Vec<(Key, Sums)> {
    let mut rollup = Rollup::default();
    records.iter().for_each(|record| rollup.add(record, &keys(), 10));
    rollup.iter().map(|(key, sums)| (key.clone(), sums.clone())).collect()
}

#[test]
fn a_call_stands_in_the_minute_in_which_it_ended() {
    assert_eq!(minute(&completed()), 10);
    assert_eq!(minute(&Record { duration_s: Some(60.0), ..completed() }), 11);
    assert_eq!(minute(&Record { duration_s: None, ..completed() }), 10);
}

#[test]
fn calls_add_up_by_model_and_place() {
    let [(key, sums)] = &of(&[completed(), completed()])[..] else { panic!("one key") };
    assert_eq!(
        (&*key.model, &*key.region, &*key.route, &*key.caller),
        ("gemma", "here", "chat", "")
    );
    assert_eq!((sums.calls, sums.streams, sums.judged, sums.errors), (2, 2, 2, 0));
    assert_eq!((sums.tokens.input, sums.tokens.output, sums.cost_usd), (20, 10, 1.0));
    assert_eq!(sums.statuses, [(200, 2)]);
    assert_eq!(sums.duration().quantile(0.99), Some(1.503));
    assert_eq!(sums.latency().quantile(0.99), Some(0.25));
    let mut twice = Rollup::default();
    twice.merge(key.clone(), sums, 10);
    twice.merge(key.clone(), sums, 10);
    assert_eq!(twice.iter().next().map(|(_, sums)| sums.calls), Some(4));
}

#[test]
fn the_error_ratio_is_that_of_alerts() {
    let ended = |outcome, origin, status| Record {
        outcome: Some(outcome),
        error_origin: origin,
        status: Some(status),
        ..completed()
    };
    let records = [
        completed(),
        ended(Outcome::Failed, Some(ErrorOrigin::Upstream), 503),
        ended(Outcome::Failed, Some(ErrorOrigin::Quota), 429),
        ended(Outcome::Failed, Some(ErrorOrigin::Client), 404),
        ended(Outcome::Truncated, None, 200),
        ended(Outcome::Abandoned, None, 200),
        ended(Outcome::Refused, Some(ErrorOrigin::Client), 400),
        ended(Outcome::Refused, Some(ErrorOrigin::Quota), 429),
    ];
    let [(_, sums)] = &of(&records)[..] else { panic!("one key") };
    assert_eq!((sums.calls, sums.errors, sums.judged), (8, 3, 5));
    assert_eq!(sums.error_ratio(), Some(0.6));
    assert_eq!(sums.duration().count(), 1, "times are those of whole answers");
}

#[test]
fn what_a_cache_answered_has_no_times_of_a_model_and_our_own_calls_are_nobodys() {
    let cached = Cached { saved_output_tokens: Some(5), ..Cached::of(CacheSource::Hit) };
    let hit = Record {
        cached: Some(cached.into()),
        input_tokens: None,
        output_tokens: None,
        cost_usd: None,
        ..completed()
    };
    let own = Record { shadow: Some(true), ..completed() };
    let [(_, sums)] = &of(&[hit, own])[..] else { panic!("one key") };
    assert_eq!((sums.calls, sums.saved.calls, sums.saved.output_tokens), (1, 1, 5));
    assert_eq!((sums.duration().count(), sums.tokens), (0, Tokens::default()));
}

#[test]
fn names_that_callers_make_up_take_no_room() {
    let mut rollup = Rollup::default();
    for number in 0..1_000 {
        let model = Some(format!("made-up-{number}"));
        let failed = Record { request_model: model, status: Some(404), ..completed() };
        rollup.add(&failed, &keys(), 100);
        let route = Some(number.to_string().into());
        rollup.add(&Record { route, ..completed() }, &keys(), 100);
    }
    assert!(rollup.len() <= 101, "{}", rollup.len());
    assert_eq!(rollup.iter().map(|(_, sums)| sums.calls).sum::<u64>(), 2_000);
}

#[test]
fn a_job_is_counted_when_it_ends() {
    let poll = |outcome, ends_here| Record {
        job: Some(Box::new(Job { outcome, ends_here, ..Job::default() })),
        ..completed()
    };
    let polls = [
        poll(None, false),
        poll(Some(JobOutcome::Succeeded), true),
        poll(Some(JobOutcome::Succeeded), false),
        poll(Some(JobOutcome::Failed), true),
    ];
    let [(_, sums)] = &of(&polls)[..] else { panic!("one key") };
    assert_eq!((sums.jobs, sums.jobs_good), (2, 1));
}
