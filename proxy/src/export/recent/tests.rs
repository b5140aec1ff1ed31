use tidegate_wire::{ErrorOrigin, Outcome};

use super::*;

/// A fixed moment, at the beginning of a minute.
fn moment(minute: i64) -> Timestamp {
    begin(29_000_000 + minute)
}

fn call(minute: i64, latency_s: f64) -> Record {
    Record {
        time: moment(minute),
        request_model: Some("gemma".into()),
        route: Some("chat".into()),
        outcome: Some(Outcome::Completed),
        status: Some(200),
        duration_s: Some(latency_s),
        ..Record::default()
    }
}

fn failed(minute: i64, origin: ErrorOrigin) -> Record {
    Record {
        outcome: Some(Outcome::Failed),
        error_origin: Some(origin),
        status: Some(503),
        ..call(minute, 0.5)
    }
}

struct Fed {
    recent: Arc<Recent>,
    feed: Box<dyn Exporter>,
}

fn fed() -> Fed {
    let recent = Recent::new(moment(-1_000));
    let registry = Arc::new(Registry::new(["gemma".into(), "flash".into()], []));
    Fed { feed: recent.exporter(registry), recent }
}

impl Fed {
    fn feed(&mut self, record: Record, times: usize) {
        self.feed.export(&vec![record; times]);
    }
}

#[test]
fn a_window_has_the_minutes_that_it_names_and_the_one_that_goes_on() {
    let mut fed = fed();
    for minute in 0..10 {
        fed.feed(call(minute, 0.2), 3);
    }
    let now = moment(9) + jiff::Span::new().seconds(30);
    let window = fed.recent.window(5, now);
    assert_eq!((window.total().calls, window.seconds()), (18, 330.0));
    let figures = Figures::of(&window.total(), window.seconds());
    let shown = serde_json::to_value(figures).expect("it can be shown");
    assert_eq!(shown["latency_s"]["p99"], 0.2);
    assert_eq!(shown["statuses"]["200"], 18);
    assert!(shown["time_to_first_token_s"].is_null() && shown["tokens"].is_null(), "{shown}");
}

#[test]
fn an_hour_later_nothing_is_left_of_it() {
    let mut fed = fed();
    fed.feed(failed(0, ErrorOrigin::Upstream), 3);
    fed.feed(call(61, 0.2), 1);
    assert_eq!(fed.recent.window(MINUTES, moment(61)).total().calls, 1);
    assert_eq!(fed.recent.notable(Notable::failed).len(), 0);
    let minutes = fed.recent.each_minute(moment(61), |rollup| total(rollup).calls);
    assert_eq!(minutes.len(), 61);
    assert_eq!(minutes.last(), Some(&(moment(61), Some(1))));
    assert_eq!(minutes[30].1, None);
}

#[test]
fn what_ended_earlier_and_comes_later_stands_where_it_belongs() {
    let mut fed = fed();
    [5, 3, 4, 3].into_iter().for_each(|minute| fed.feed(call(minute, 0.2), 1));
    let minutes = fed.recent.each_minute(moment(5), |rollup| total(rollup).calls);
    let counts: Vec<_> = minutes.iter().rev().take(3).map(|(_, calls)| *calls).collect();
    assert_eq!(counts, [Some(1), Some(1), Some(2)]);
}

#[test]
fn it_takes_no_more_than_its_bytes_and_tells_what_it_covers() {
    let mut fed = fed();
    for minute in 0..MINUTES {
        for route in 0..KEYS {
            let route = Some(route.to_string().into());
            let records = [0.01, 0.05, 0.2, 0.7, 1.9]
                .map(|time| Record { route: route.clone(), ..call(minute, time) });
            fed.feed.export(&records);
        }
    }
    let now = moment(MINUTES - 1);
    assert!(lock(&fed.recent.state).bytes() <= BYTES);
    let window = fed.recent.window(MINUTES, now);
    let minutes = window.seconds() / 60.0;
    assert!((1.0..59.0).contains(&minutes), "{minutes}");
    let expected = (minutes.round() as u64 + 1) * 5 * KEYS as u64;
    assert_eq!(window.total().calls, expected);
}

#[test]
fn the_calls_to_look_at_are_those_that_failed_last_and_the_slowest() {
    let mut fed = fed();
    for number in 0..250 {
        fed.feed(call(0, f64::from(number) / 100.0), 1);
        let path = Some(format!("/{number}"));
        fed.feed(Record { path, ..failed(0, ErrorOrigin::Upstream) }, 1);
        fed.feed(failed(0, ErrorOrigin::Client), 1);
    }
    let (failed, slow) = fed.recent.notable(|notable| (notable.failed(), notable.slow()));
    assert_eq!((failed.len(), slow.len()), (100, 100));
    assert_eq!((&failed[0]["url.path"], &failed[99]["url.path"]), (&"/249".into(), &"/150".into()));
    assert_eq!(
        (&slow[0]["tidegate.duration_s"], &slow[99]["tidegate.duration_s"]),
        (&2.49.into(), &1.5.into())
    );
}

#[test]
fn what_would_alert_is_told_once_it_lasts_and_there_are_calls_enough() {
    let mut fed = fed();
    let alerts = |fed: &Fed, minute| {
        let alerts = Alert::all(&fed.recent, moment(minute));
        alerts.iter().map(|alert| alert.alert).collect::<Vec<_>>()
    };
    fed.feed(call(0, 0.2), 10);
    fed.feed(failed(0, ErrorOrigin::Upstream), 5);
    assert_eq!(alerts(&fed, 0), [""; 0], "there are too few");
    fed.feed(failed(0, ErrorOrigin::Upstream), 10);
    assert_eq!(alerts(&fed, 0), [""; 0], "it has only begun");
    assert_eq!(alerts(&fed, 1), ["TidegateErrorRatioHigh"]);
    assert_eq!(alerts(&fed, 7), [""; 0], "it is over");
    for minute in 20..30 {
        fed.feed(call(minute, 2.5), 50);
        let expected: &[_] = if minute < 26 { &[] } else { &["TidegateP99Over2s"] };
        assert_eq!(alerts(&fed, minute), expected, "{minute}");
    }
}

#[test]
fn a_clock_that_was_set_back_takes_no_more_room_either() {
    let mut fed = fed();
    let mut fed_with = |minute, routes: usize| {
        for route in 0..routes {
            let route = Some(route.to_string().into());
            let records = [0.01, 0.05, 0.2, 0.7, 1.9]
                .map(|time| Record { route: route.clone(), ..call(minute, time) });
            fed.feed.export(&records);
        }
        let now = begin(29_000_000 + minute);
        assert_eq!(fed.recent.window(0, now).total().calls, 5 * routes as u64, "minute {minute}");
        let state = lock(&fed.recent.state);
        let bytes = |minute: &Minute| minute.rollup.bytes();
        let newest = state.minutes.iter().find(|one| one.number == number(now)).map_or(0, bytes);
        let all: usize = state.minutes.iter().map(bytes).sum();
        assert!(all <= BYTES + newest, "{all} bytes in minute {minute}");
        assert!(state.minutes.len() as i64 <= 2 * MINUTES + 1, "{}", state.minutes.len());
    };
    // Back by a minute each time, which is the worst; and then by hours at once.
    (-30..0).rev().for_each(|minute| fed_with(minute, KEYS));
    (-300..-30).rev().for_each(|minute| fed_with(minute, 1));
    fed_with(-600, 1);
}
