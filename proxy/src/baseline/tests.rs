use std::convert::Infallible;

use super::*;
use crate::export::rollup::{Times, Tokens};

/// Minutes that one entry of a made-up past holds.
const STEP: i64 = 5;
/// A Monday, at midnight, in minutes since 1970.
const MONDAY: i64 = 29_681_280;

/// A past that is made up.
#[derive(Default)]
struct MadeUp(BTreeMap<i64, Sums>);

impl Past for MadeUp {
    type Error = Infallible;

    fn between(&self, from: i64, until: i64) -> Result<Models, Infallible> {
        let mut all = Sums::default();
        self.0.range(from..until).for_each(|(_, sums)| all.merge(sums));
        let models = (all.calls > 0).then(|| ("gemma".into(), all));
        Ok(models.into_iter().collect())
    }
}

/// Something that goes wrong, from one minute to another.
struct Fault {
    from: i64,
    until: i64,
    slower: f64,
    failing: u64,
}

/// Five minutes of a model on weekdays: between nine and ten it has four times the calls, and is three
/// times as slow. At weekends few come.
fn ordinary(minute: i64, fault: Option<&Fault>) -> Sums {
    let (day, hour) = ((minute - MONDAY).div_euclid(DAY), minute.rem_euclid(DAY) / HOUR);
    // The same numbers each time, and no two days alike.
    let noise = |salt: i64| {
        let mixed = (minute / STEP * 7 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
        f64::from((mixed as u64 >> 40) as u32) / f64::from(1_u32 << 24)
    };
    let is_weekend = day.rem_euclid(7) >= 5;
    let (calls, pace) = match hour {
        _ if is_weekend => (20.0, 0.9),
        9 => (240.0, 3.0),
        8 | 10 => (140.0, 1.8),
        7..=18 => (80.0, 1.2),
        _ => (25.0, 1.0),
    };
    let fault = fault.filter(|fault| (fault.from..fault.until).contains(&minute));
    let calls = (calls * (0.85 + 0.3 * noise(1))) as u64;
    let pace = pace * (0.9 + 0.2 * noise(2)) * fault.map_or(1.0, |fault| fault.slower);
    let mut times = Times::default();
    // The slowest of a hundred takes four times as long as the middle one.
    (0..calls)
        .for_each(|at| times.add(0.4 * pace * (1.0 + 3.0 * (at as f64 / calls as f64).powi(9))));
    let failed = fault.map_or(0, |fault| calls * fault.failing / 100);
    Sums {
        calls,
        judged: calls,
        errors: failed,
        outcomes: [calls - failed, failed, 0, 0, 0],
        tokens: Tokens { input: calls * 1_000, output: calls * 200, ..Tokens::default() },
        cost_usd: calls as f64 * 0.01,
        duration_of_others: times,
        ..Sums::default()
    }
}

/// What was told: from when on which signal was out of the ordinary.
fn told(past: &MadeUp, config: BaselineConfig, from: i64, until: i64) -> Vec<(i64, Signal)> {
    let mut baseline = Baseline::new(config);
    let mut told = Vec::new();
    for now in (from..until).step_by(STEP as usize) {
        baseline.judge(now, past).unwrap_or_else(|never| match never {});
        let begun =
            baseline.findings().filter(|(_, _, finding)| finding.unusual_since == Some(now));
        told.extend(begun.map(|(_, signal, _)| (now, signal)));
    }
    told
}

/// When a static threshold of the 99th percentile would have been told, held for ten minutes likewise.
fn told_by_threshold(past: &MadeUp, limit: f64, from: i64, until: i64) -> Vec<i64> {
    let (mut since, mut is_told, mut told) = (None, false, Vec::new());
    for now in (from..until).step_by(STEP as usize) {
        let Ok(models) = past.between(now - 5, now);
        let p99 = models.values().find_map(|sums| sums.duration().quantile(0.99));
        if p99.is_none_or(|p99| p99 <= limit) {
            (since, is_told) = (None, false);
            continue;
        }
        let begun = *since.get_or_insert(now);
        if !is_told && now - begun >= 10 {
            is_told = true;
            told.push(now);
        }
    }
    told
}

#[test]
fn two_weeks_of_mornings_are_ordinary_and_a_fault_after_them_is_not() {
    let fault = Fault {
        from: MONDAY + 14 * DAY + 14 * HOUR,
        until: MONDAY + 14 * DAY + 16 * HOUR,
        slower: 2.2,
        failing: 20,
    };
    let end = MONDAY + 15 * DAY;
    let minutes = (MONDAY..end).step_by(STEP as usize);
    let past = MadeUp(minutes.map(|minute| (minute, ordinary(minute, Some(&fault)))).collect());

    let same_time = told(&past, BaselineConfig::default(), MONDAY, end);
    let threshold = told_by_threshold(&past, 3.0, MONDAY, end);
    let (false_alarms, found): (Vec<_>, Vec<_>) =
        same_time.iter().partition(|(minute, _)| *minute < fault.from);
    let by_threshold = threshold.iter().partition::<Vec<_>, _>(|minute| **minute < fault.from);
    println!(
        "two weeks with a morning peak: {} alarms by a threshold of 3 s, {} by the baseline",
        by_threshold.0.len(),
        false_alarms.len()
    );
    for (minute, signal) in &found {
        println!("a fault at 14:00: {} told after {} min", signal.as_str(), minute - fault.from);
    }
    println!(
        "by the threshold: {:?} min",
        by_threshold.1.iter().map(|minute: &&i64| **minute - fault.from).collect::<Vec<_>>()
    );

    assert!(by_threshold.0.len() >= 10, "the peak is above the threshold: {threshold:?}");
    assert_eq!(false_alarms, [], "each morning is ordinary");
    for signal in [Signal::DurationP99, Signal::ErrorRatio, Signal::SuccessRatio] {
        let first = found.iter().find(|(_, found)| *found == signal);
        let (minute, _) = first.unwrap_or_else(|| panic!("{signal:?} is found: {found:?}"));
        assert!(minute - fault.from <= 20, "{signal:?} after {} min", minute - fault.from);
    }

    let last_day = BaselineConfig { by: Ordinary::LastDay, ..BaselineConfig::default() };
    let last_day = told(&past, last_day, fault.from - HOUR, fault.until);
    println!("by the last 24 hours: {last_day:?}");
    assert!(last_day.iter().any(|(_, signal)| *signal == Signal::ErrorRatio), "{last_day:?}");
}

#[test]
fn there_is_no_limit_before_there_is_enough_history() {
    let fault = Fault { from: MONDAY + 2 * DAY, until: MONDAY + 3 * DAY, slower: 9.0, failing: 90 };
    let minutes = (MONDAY..MONDAY + 3 * DAY).step_by(STEP as usize);
    let past = MadeUp(minutes.map(|minute| (minute, ordinary(minute, Some(&fault)))).collect());
    let until = MONDAY + 3 * DAY - HOUR;
    assert_eq!(told(&past, BaselineConfig::default(), MONDAY, until), []);

    let mut baseline = Baseline::new(BaselineConfig::default());
    baseline.judge(until, &past).unwrap_or_else(|never| match never {});
    let shown = baseline.json();
    assert_eq!(shown["findings"][0]["state"], "too_little_history", "{shown:#}");
    assert_eq!(shown["findings"][0]["limit"], Value::Null);
}

#[test]
fn what_is_always_the_same_has_a_limit_with_a_distance_of_its_own() {
    let seconds = Signal::DurationP99.measure();
    assert_eq!(seconds.limit(&mut [2.0; 7]), 3.0);
    assert_eq!(seconds.limit(&mut [0.1; 7]), 0.5);
    assert_eq!(Signal::Cost.measure().limit(&mut [0.0; 7]), 1.0);
    assert_eq!(Signal::ErrorRatio.measure().limit(&mut [0.0; 7]), 0.05);
    assert_eq!(Signal::SuccessRatio.measure().limit(&mut [1.0; 7]), 0.95);
    // Q1 = 2, Q3 = 4 of 1 to 5: 4 + 3 · 2.
    assert_eq!(seconds.limit(&mut [5.0, 1.0, 4.0, 2.0, 3.0]), 10.0);
}

#[test]
fn few_calls_say_nothing() {
    let sums = Sums { calls: 19, judged: 19, errors: 19, ..Sums::default() };
    assert_eq!(Signal::ErrorRatio.value(&sums, 20), None);
    assert_eq!(Signal::JobSuccessRatio.value(&Sums { jobs: 4, ..Sums::default() }, 20), None);
    assert_eq!(Signal::Cost.value(&sums, 20), Some(0.0));
}

#[test]
fn it_begins_and_ends_after_it_has_held_for_a_while() {
    let (model, mut finding) = ("gemma".into(), Finding::default());
    let mut settle = |is_beyond, now| {
        finding.settle(is_beyond, now, 10, (&model, Signal::Cost));
        finding.unusual_since
    };
    assert_eq!(settle(true, 0), None);
    assert_eq!(settle(false, 5), None);
    assert_eq!(settle(true, 6), None);
    assert_eq!(settle(true, 16), Some(16));
    assert_eq!(settle(false, 20), Some(16));
    assert_eq!(settle(false, 30), None);
}

#[test]
fn what_is_new_has_no_history_though_others_have() {
    struct Newcomer;
    impl Past for Newcomer {
        type Error = Infallible;

        fn between(&self, from: i64, _: i64) -> Result<Models, Infallible> {
            let sums = ordinary(MONDAY + 12 * HOUR, None);
            let models = ["gemma", "new"].into_iter();
            let models = models.filter(|model| *model == "gemma" || from >= MONDAY + 14 * DAY);
            Ok(models
                .map(|model| (model.into(), Sums { cost_usd: 50.0, ..sums.clone() }))
                .collect())
        }
    }
    let mut baseline = Baseline::new(BaselineConfig::default());
    let Ok(()) = baseline.judge(MONDAY + 14 * DAY + 12 * HOUR, &Newcomer);
    let limits = |wanted: &str| {
        let found = baseline.findings().filter(|(model, ..)| &***model == wanted);
        found.filter(|(.., finding)| finding.limit.is_some()).count()
    };
    assert!(limits("gemma") > 0);
    assert_eq!(limits("new"), 0);
}
