//! What breakers and gates do, rule by rule, in virtual time.

use std::num::NonZeroU32;

use super::*;
use crate::config::Span;

const SECOND: Duration = Duration::from_secs(1);
const GOOD: Signal = Signal::Good { first_token: None };
const TOKEN: Signal = Signal::Good { first_token: Some(SECOND) };

/// One upstream's breakers, and a clock that moves when told.
struct World {
    breakers: Arc<Breakers>,
    now: Instant,
}

impl World {
    fn new(config: BreakerConfig) -> Self {
        let now = Instant::now();
        let known = [Key { model: Some("m"), ..Key::default() }];
        Self { breakers: Breakers::new("up".into(), config, &known, now), now }
    }

    fn admit(&self) -> Result<Lease, Stop> {
        self.admit_for(&Key { model: Some("m"), ..Key::default() })
    }

    fn admit_for(&self, key: &Key<'_>) -> Result<Lease, Stop> {
        self.breakers
            .admit(key, self.now)
            .inspect_err(Refused::count)
            .map_err(|refused| refused.stop)
    }

    /// A call that ends like this at once.
    fn call(&self, signal: Signal) {
        self.admit().expect("it is let through").judged(signal, self.now);
    }

    /// Calls that end like this, or are kept out.
    fn calls(&self, signal: Signal, count: usize) {
        for _ in 0..count {
            if let Ok(mut lease) = self.admit() {
                lease.judged(signal, self.now);
            }
        }
    }

    /// So many calls that are under way at once, or as many as are let through.
    fn herd(&self, count: usize) -> Vec<Lease> {
        (0..count).filter_map(|_| self.admit().ok()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot_of(None, Some("m")).expect("it is known from the start")
    }

    fn snapshot_of(&self, region: Option<&str>, model: Option<&str>) -> Option<Snapshot> {
        let mut all = self.breakers.snapshot(self.now).into_iter();
        all.find(|one| one.region.as_deref() == region && one.model.as_deref() == model)
    }

    fn state(&self) -> Position {
        self.snapshot().state
    }

    /// Opens it, and waits until the time of its opening is over.
    fn half_open(&mut self) {
        self.calls(Signal::Bad, 5);
        let stop = self.admit().expect_err("it is open");
        assert_eq!(stop.what, What::Breaker);
        self.now = stop.until;
        assert_eq!(self.state(), Position::HalfOpen);
    }
}

fn defaults() -> World {
    World::new(BreakerConfig::default())
}

fn with(change: impl FnOnce(&mut BreakerConfig)) -> World {
    let mut config = BreakerConfig::default();
    change(&mut config);
    World::new(config)
}

fn limited(seconds: u64) -> Signal {
    Signal::Limited { wait: Some(Duration::from_secs(seconds)) }
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

// === The rules ===

#[test]
fn each_rule_opens_at_its_bound_and_not_before() {
    use Signal::{Bad, Neutral};
    type Change = fn(&mut BreakerConfig);
    let nothing: Change = |_| {};
    let slow: Change = |config| config.slow = Some(SlowConfig::default());
    let few: Change = |config| config.min_calls = number(4);
    let late = Signal::Good { first_token: Some(11 * SECOND) };
    let in_time = Signal::Good { first_token: Some(SECOND) };
    let in_a_row = Why::Consecutive { calls: 5 };
    let half = Why::Failed { bad: 5, of: 10 };
    // What is configured, which calls come again and again, how many of them open it, and why.
    let cases: [(&str, Change, &[Signal], usize, Why); 7] = [
        ("5 failures in a row", nothing, &[Bad], 5, in_a_row),
        ("neutral calls do not break a row", nothing, &[Bad, Neutral], 9, in_a_row),
        ("half of at least 10", nothing, &[GOOD, Bad], 10, half),
        ("neutral calls are not counted", nothing, &[GOOD, Neutral, Bad], 15, half),
        ("limits are not counted", nothing, &[GOOD, Bad, limited(9)], 14, half),
        ("slow answers count", slow, &[in_time, late], 10, Why::Slow { slow: 5, of: 10 }),
        ("a lower minimum", few, &[GOOD, Bad], 4, Why::Failed { bad: 2, of: 4 }),
    ];
    for (name, change, signals, opens_after, why) in cases {
        let world = with(change);
        for call in 0..opens_after {
            assert_eq!(world.state(), Position::Closed, "{name}: before call {call}");
            // Another account for each, so that rate gates stay out of it.
            let key = Key { model: Some("m"), account: call as u64, ..Key::default() };
            let mut lease = world.admit_for(&key).expect("it is closed");
            lease.judged(signals[call % signals.len()], world.now);
        }
        assert_eq!(world.state(), Position::Open, "{name}");
        assert_eq!(world.snapshot().why, Some(why.to_string()), "{name}");
    }
}

#[test]
fn a_third_of_all_calls_may_fail_for_hours() {
    let mut world = defaults();
    for call in 0..10_000 {
        world.call(if call % 3 == 0 { Signal::Bad } else { GOOD });
        world.pass(Duration::from_millis(700));
    }
    assert_eq!(world.snapshot().tally.opened, 0);
}

#[test]
fn failures_that_are_long_past_do_not_count() {
    let mut world = defaults();
    for _ in 0..1000 {
        world.calls(GOOD, 1);
        world.calls(Signal::Bad, 4);
        world.pass(33 * SECOND);
    }
    assert_eq!(world.snapshot().tally.opened, 0);
}

#[test]
fn slow_answers_are_no_reason_unless_configured() {
    let world = defaults();
    world.calls(Signal::Good { first_token: Some(900 * SECOND) }, 100);
    assert_eq!(world.state(), Position::Closed);
}

#[test]
fn streams_that_break_off_open_it_by_a_ratio_of_their_own() {
    let world = defaults();
    let start = || {
        let mut lease = world.admit().expect("it is closed");
        lease.judged(TOKEN, world.now);
        lease
    };
    // An answer that is no stream has no part in it.
    (0..100).for_each(|_| world.admit().expect("it is closed").ended_well(world.now));
    for _ in 0..5 {
        start().ended_well(world.now);
        let (mut broken, abandoned) = (start(), start());
        drop(abandoned);
        assert_eq!(world.state(), Position::Closed);
        broken.broke(world.now);
    }
    assert_eq!(world.snapshot().reason, Some("broken_ratio"));
    assert_eq!(world.snapshot().why.as_deref(), Some("5 of 10 answers broke off"));
}

#[test]
fn a_call_that_breaks_off_before_its_first_token_has_failed() {
    let world = defaults();
    for _ in 0..5 {
        world.admit().expect("it is closed").broke(world.now);
    }
    assert_eq!(world.snapshot().reason, Some("consecutive_failures"));
}

#[test]
fn a_call_is_judged_once() {
    let world = defaults();
    let mut lease = world.admit().expect("it is closed");
    for _ in 0..100 {
        lease.judged(GOOD, world.now);
        lease.judged(Signal::Bad, world.now);
        lease.ended_well(world.now);
        lease.broke(world.now);
    }
    drop(lease);
    let Snapshot { good, bad, broken, .. } = world.snapshot();
    assert_eq!((good, bad, broken), (1, 0, 0));
}

#[test]
fn callers_who_cancel_nine_of_ten_calls_change_nothing() {
    let mut world = defaults();
    for call in 0..10_000 {
        let mut lease = world.admit().unwrap_or_else(|stop| panic!("call {call}: {stop:?}"));
        // Every tenth is the victim's; all others are let go of, or end by their callers' clocks.
        match call % 10 {
            0 => lease.judged(GOOD, world.now),
            1..5 => lease.judged(Signal::Neutral, world.now),
            _ => drop(lease),
        }
        world.pass(Duration::from_millis(1));
    }
    assert_eq!(world.snapshot().tally, circuit::Tally::default());
}

#[test]
fn callers_who_cancel_probes_keep_nobody_out() {
    let mut world = defaults();
    world.half_open();
    for call in 0..150 {
        let mut lease = world.admit().unwrap_or_else(|stop| panic!("call {call}: {stop:?}"));
        if call % 10 == 9 {
            lease.judged(GOOD, world.now);
        }
    }
    assert_eq!(world.state(), Position::Closed);
}

// === Open ===

#[test]
fn an_open_breaker_says_until_when_and_why() {
    let world = defaults();
    world.calls(Signal::Bad, 5);
    let stop = world.admit().expect_err("it is open");
    assert_eq!(stop.what, What::Breaker);
    assert_eq!(stop.why, Why::Consecutive { calls: 5 });
    let wait = stop.until - world.now;
    assert!((5 * SECOND..=SECOND * 25 / 4).contains(&wait), "{wait:?}");
    assert_eq!(world.snapshot().tally.refused_by_breaker, 1);
}

#[test]
fn each_failed_probe_keeps_it_open_for_longer_up_to_a_minute() {
    let mut world = defaults();
    world.half_open();
    let mut times = Vec::new();
    for _ in 0..40 {
        world.call(Signal::Bad);
        let stop = world.admit().expect_err("its probe has failed");
        assert_eq!(stop.why, Why::Probe);
        times.push(stop.until - world.now);
        world.now = stop.until;
    }
    for (time, least) in times.iter().zip([10, 20, 40]) {
        assert!(*time >= least * SECOND && *time <= least * SECOND * 5 / 4, "{times:?}");
    }
    let mut later = times.split_off(3);
    assert!(later.iter().all(|time| (48 * SECOND..=60 * SECOND).contains(time)), "{later:?}");
    later.sort();
    later.dedup();
    assert!(later.len() > 30, "times at the cap differ too: {later:?}");
}

#[test]
fn a_breaker_that_was_well_for_a_window_forgets_its_relapses() {
    let mut world = defaults();
    world.half_open();
    world.call(Signal::Bad);
    world.now = world.admit().expect_err("it is open").until;
    world.calls(GOOD, 15);
    assert_eq!(world.state(), Position::Closed);
    world.pass(31 * SECOND);
    world.calls(Signal::Bad, 5);
    let wait = world.admit().expect_err("it is open").until - world.now;
    assert!(wait <= SECOND * 25 / 4, "{wait:?}");
}

#[test]
fn an_upstream_that_comes_and_goes_is_not_followed_faster_than_the_time_of_opening() {
    let mut world = defaults();
    let start = world.now;
    let (mut last, mut opened, mut reached) = (Position::Closed, Vec::new(), 0);
    for _ in 0..60_000 {
        world.pass(Duration::from_millis(10));
        let is_up = (world.now - start).as_secs() / 10 % 2 == 1;
        if let Ok(mut lease) = world.admit() {
            lease.judged(if is_up { GOOD } else { Signal::Bad }, world.now);
            reached += usize::from(!is_up);
        }
        let state = world.state();
        if state == Position::Open && last != state {
            opened.push(world.now);
        }
        last = state;
    }
    assert!(opened.windows(2).all(|pair| pair[1] - pair[0] >= 5 * SECOND), "{opened:?}");
    // Ten minutes, of which it was down for five: 30,000 calls.
    let times = opened.len();
    assert!(times <= 30 && reached <= 200, "opened {times} times, and {reached} calls failed");
}

#[test]
fn a_trickle_goes_through_an_open_breaker_and_closes_it_early() {
    let mut world = with(|config| config.when_all_open = WhenAllOpen::Trickle);
    world.calls(Signal::Bad, 5);
    let mut reached = 0;
    for _ in 0..350 {
        world.pass(SECOND / 100);
        reached += usize::from(world.admit().is_ok());
    }
    assert_eq!(reached, 3, "one a second");
    world.pass(SECOND);
    let mut lease = world.admit().expect("it trickles");
    assert_eq!(world.state(), Position::Open);
    lease.judged(GOOD, world.now);
    assert_eq!(world.state(), Position::HalfOpen);
    world.calls(GOOD, 14);
    assert_eq!(world.state(), Position::Closed);
}

#[test]
fn a_trickle_that_fails_does_not_keep_it_open_for_longer() {
    let mut world = with(|config| config.when_all_open = WhenAllOpen::Trickle);
    world.calls(Signal::Bad, 5);
    let until = world.admit().expect_err("it is open").until;
    world.pass(2 * SECOND);
    world.call(Signal::Bad);
    assert_eq!(world.admit().expect_err("it is open").until, until);
}

// === Half-open ===

#[test]
fn of_a_herd_at_a_half_open_breaker_no_more_than_the_ramp_is_let_through() {
    let mut world = defaults();
    world.half_open();
    for step in [1, 2, 4, 8] {
        let probes = world.herd(1000);
        assert_eq!(probes.len(), step);
        let refused = world.admit().expect_err("all probes are under way");
        assert_eq!(refused.what, What::Probing);
        assert!(refused.until <= world.now + SECOND && refused.until > world.now);
        world.pass(SECOND);
        for mut probe in probes {
            probe.judged(GOOD, world.now);
        }
    }
    assert_eq!(world.state(), Position::Closed);
    assert_eq!(world.herd(1000).len(), 1000);
}

#[test]
fn every_end_of_a_probe_makes_room_for_the_next() {
    type End = fn(Lease, &mut World);
    let ends: [(&str, End); 5] = [
        ("its caller left", |lease, _| drop(lease)),
        ("it was a bad request", |mut lease, world| lease.judged(Signal::Neutral, world.now)),
        ("it met a limit", |mut lease, world| lease.judged(limited(0), world.now)),
        ("it hangs", |lease, world| {
            world.pass(10 * SECOND);
            std::mem::forget(lease);
        }),
        ("its task was dropped while it unwound", |lease, _| {
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _lease = lease;
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(unwound.is_err());
        }),
    ];
    for (name, end) in ends {
        let mut world = defaults();
        world.half_open();
        for probe in 0..100 {
            let lease = world.admit().unwrap_or_else(|stop| panic!("{name}, {probe}: {stop:?}"));
            assert!(world.admit().is_err(), "{name}: one at a time");
            end(lease, &mut world);
        }
        world.calls(GOOD, 15);
        assert_eq!(world.state(), Position::Closed, "{name}");
    }
}

#[test]
fn a_probe_that_answers_after_its_time_still_counts() {
    let mut world = with(|config| config.ramp = serde_saphyr::from_str("[1]").expect("good"));
    world.half_open();
    let mut late = world.admit().expect("the first probe");
    world.pass(60 * SECOND);
    let _another = world.admit().expect("the first one's time is over");
    late.judged(GOOD, world.now);
    assert_eq!(world.state(), Position::Closed);
}

#[test]
fn calls_from_before_it_opened_decide_nothing() {
    let mut world = defaults();
    let mut old = world.herd(200);
    world.half_open();
    let mut probe = world.admit().expect("the first probe");
    for mut lease in old.drain(..100) {
        lease.judged(GOOD, world.now);
    }
    assert!(world.admit().is_err(), "no old call has given back the probe's seat");
    for mut lease in old.drain(..50) {
        lease.broke(world.now);
    }
    assert_eq!(world.state(), Position::HalfOpen);
    probe.judged(GOOD, world.now);
    world.calls(GOOD, 14);
    assert_eq!(world.state(), Position::Closed);
    for lease in &mut old {
        lease.judged(Signal::Bad, world.now);
    }
    assert_eq!(world.state(), Position::Closed);
}

#[test]
fn one_failure_late_on_the_ramp_does_not_undo_it() {
    let mut world = defaults();
    world.half_open();
    world.calls(GOOD, 7);
    world.call(Signal::Bad);
    assert_eq!(world.state(), Position::HalfOpen);
    world.calls(GOOD, 8);
    assert_eq!(world.state(), Position::Closed);
}

#[test]
fn a_slow_probe_is_no_good_one() {
    let mut world = with(|config| config.slow = Some(SlowConfig::default()));
    world.half_open();
    world.call(Signal::Good { first_token: Some(20 * SECOND) });
    assert_eq!(world.state(), Position::Open);
}

#[test]
fn ten_thousand_random_endings_never_leave_a_breaker_stuck() {
    for seed in 0..20 {
        let mut world = defaults();
        let mut random = Random(seed);
        let mut open: Vec<Lease> = Vec::new();
        let mut ended = 0;
        while ended < 10_000 {
            match random.below(10) {
                0..6 => open.extend(world.admit()),
                6 if random.below(50) == 0 => world.pass(Duration::from_secs(random.below(90))),
                6 => world.pass(Duration::from_millis(random.below(3000))),
                _ if open.is_empty() => {}
                _ => {
                    let at = random.below(open.len() as u64) as usize;
                    let lease = open.swap_remove(at);
                    open.extend(end_at_random(lease, &mut random, world.now));
                    ended += 1;
                }
            }
        }
        let tally = world.snapshot().tally;
        assert!(tally.opened > 10 && tally.closed > 0, "seed {seed}: {tally:?}");
        // Whatever is under way still: once the upstream is well, so is the breaker, after no more
        // than the longest opening, the time of two lost probes and the longest limit named.
        let heals_by = world.now + 60 * SECOND + 20 * SECOND + 30 * SECOND;
        while world.now < heals_by {
            world.calls(GOOD, 1);
            world.pass(SECOND / 10);
        }
        assert_eq!(world.state(), Position::Closed, "seed {seed}");
        assert_eq!(world.herd(1000).len(), 1000, "seed {seed}");
    }
}

/// Ends a call somehow; it comes back where it may end once more.
fn end_at_random(mut lease: Lease, random: &mut Random, now: Instant) -> Option<Lease> {
    match random.below(10) {
        0 => drop(lease),
        1 => std::mem::forget(lease),
        2 => lease.judged(Signal::Neutral, now),
        3 if random.below(4) == 0 => lease.judged(limited(random.below(20)), now),
        3 => lease.judged(Signal::Limited { wait: None }, now),
        4 => lease.broke(now),
        5 => lease.judged(Signal::Bad, now),
        6 => {
            lease.judged(TOKEN, now);
            return Some(lease);
        }
        _ => lease.ended_well(now),
    }
    None
}

// === The rate gate ===

#[test]
fn a_limit_closes_the_gate_until_the_time_that_was_named() {
    let mut world = defaults();
    world.call(limited(7));
    let stop = world.admit().expect_err("the gate is closed");
    assert_eq!((stop.what, stop.why), (What::Gate, Why::Limited));
    assert_eq!(stop.until, world.now + 7 * SECOND);
    assert_eq!(world.state(), Position::Closed, "a limit is no sign of ill health");
    assert_eq!(world.snapshot().rate_gates_closed, 1);
    world.pass(7 * SECOND - Duration::from_millis(1));
    assert!(world.admit().is_err());
    world.pass(Duration::from_millis(1));
    assert!(world.admit().is_ok());
    assert_eq!(world.snapshot().rate_gates_closed, 0);
}

#[test]
fn a_gate_that_opens_lets_calls_through_step_by_step() {
    let mut world = defaults();
    world.call(limited(7));
    world.pass(7 * SECOND);
    for step in [1, 2, 4, 8] {
        let through = world.herd(1000);
        assert_eq!(through.len(), step);
        for mut lease in through {
            lease.judged(GOOD, world.now);
        }
    }
    assert_eq!(world.herd(1000).len(), 1000);
}

#[test]
fn no_number_of_a_provider_does_harm() {
    for wait in [Duration::MAX, Duration::from_secs(10_u64.pow(18)), 301 * SECOND] {
        let world = defaults();
        world.call(Signal::Limited { wait: Some(wait) });
        let stop = world.admit().expect_err("the gate is closed");
        assert_eq!(stop.until, world.now + 300 * SECOND);
    }
    let world = defaults();
    world.call(limited(0));
    assert!(world.admit().is_ok());
}

#[test]
fn no_number_of_a_user_does_harm() {
    for span in [Duration::MAX, Duration::from_nanos(1)].map(Span) {
        let mut world = with(|config| {
            (config.window, config.open, config.open_max) = (span, span, span);
            config.probe_limit = span;
        });
        for _ in 0..100 {
            world.calls(GOOD, 1);
            world.calls(Signal::Bad, 5);
            world.pass(SECOND);
        }
    }
}

#[test]
fn limits_without_a_time_close_the_gate_for_longer_and_longer() {
    let mut world = defaults();
    let mut waits = Vec::new();
    for _ in 0..40 {
        world.call(Signal::Limited { wait: None });
        let until = world.admit().expect_err("the gate is closed").until;
        waits.push((until - world.now).as_secs());
        world.now = until;
    }
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 30]);
    assert!(waits[6..].iter().all(|wait| *wait == 30));
    world.calls(GOOD, 15);
    world.call(Signal::Limited { wait: None });
    assert_eq!(world.admit().expect_err("it is closed").until, world.now + SECOND);
}

#[test]
fn a_hundred_calls_that_meet_one_limit_close_the_gate_once() {
    let mut world = defaults();
    for mut lease in world.herd(100) {
        lease.judged(Signal::Limited { wait: None }, world.now);
    }
    assert_eq!(world.admit().expect_err("it is closed").until, world.now + SECOND);
    world.pass(SECOND);
    assert!(world.admit().is_ok());
}

#[test]
fn a_call_from_before_the_gate_closed_does_not_open_it_but_may_know_of_a_longer_wait() {
    let mut world = defaults();
    let mut old = world.herd(20);
    world.call(limited(10));
    for lease in &mut old[..17] {
        lease.judged(GOOD, world.now);
    }
    assert!(world.admit().is_err());
    old[17].judged(limited(3), world.now);
    assert_eq!(world.admit().expect_err("it is closed").until, world.now + 10 * SECOND);
    old[18].judged(limited(30), world.now);
    assert_eq!(world.admit().expect_err("it is closed").until, world.now + 30 * SECOND);
    world.pass(30 * SECOND);
    let _probe = world.admit().expect("it opens");
    drop(old);
    assert!(world.admit().is_err(), "one at a time at first");
}

#[test]
fn a_limit_of_one_account_is_not_another_s() {
    let world = defaults();
    let of = |account| Key { model: Some("m"), account, ..Key::default() };
    world.admit_for(&of(1)).expect("it is open").judged(limited(10), world.now);
    assert!(world.admit_for(&of(1)).is_err());
    assert!(world.admit_for(&of(2)).is_ok());
    // More accounts than gates: the longest limits stay.
    for account in 20..250 {
        world.admit_for(&of(account)).expect("it is open").judged(limited(account), world.now);
    }
    assert!(world.admit_for(&of(249)).is_err() && world.admit_for(&of(20)).is_ok());
    assert_eq!(world.snapshot().rate_gates_closed, 16);
}

#[test]
fn a_probe_that_meets_a_limit_moves_the_matter_to_the_gate() {
    let mut world = defaults();
    world.half_open();
    world.call(limited(20));
    let stop = world.admit().expect_err("the gate is closed");
    assert_eq!(stop.what, What::Gate);
    assert_eq!(world.state(), Position::HalfOpen);
    world.now = stop.until;
    world.calls(GOOD, 15);
    assert_eq!(world.state(), Position::Closed);
    assert_eq!(world.snapshot().tally.opened, 1);
}

// === Keys ===

#[test]
fn models_have_breakers_of_their_own_once_they_were_answered() {
    let world = defaults();
    let key = |model| Key { model: Some(model), ..Key::default() };
    let call = |model: &str, signal| {
        let mut lease = world.admit_for(&Key { model: Some(model), ..Key::default() });
        lease.as_mut().expect("it is let through").judged(signal, world.now);
    };
    call("a", GOOD);
    call("b", GOOD);
    (0..5).for_each(|_| call("a", Signal::Bad));
    assert!(world.admit_for(&key("a")).is_err());
    assert!(world.admit_for(&key("b")).is_ok() && world.admit_for(&key("new")).is_ok());
    (0..5).for_each(|junk| call(&format!("junk-{junk}"), Signal::Bad));
    assert!(world.admit_for(&key("junk-9")).is_err(), "what is not known shares one");
    assert!(world.admit_for(&key("b")).is_ok());
    assert_eq!(world.breakers.snapshot(world.now).len(), 4, "m, a, b, and that of all others");
}

#[test]
fn regions_have_breakers_of_their_own() {
    let world = defaults();
    let key = |region, model| Key { region, model, account: 0 };
    let call = |key: Key<'_>, signal| {
        world.admit_for(&key).expect("it is closed").judged(signal, world.now);
    };
    call(key(Some("r1"), Some("a")), GOOD);
    call(key(Some("r2"), Some("a")), GOOD);
    (0..5).for_each(|_| call(key(Some("r1"), Some("a")), Signal::Bad));
    assert!(world.admit_for(&key(Some("r1"), Some("a"))).is_err());
    assert!(world.admit_for(&key(Some("r2"), Some("a"))).is_ok());
    (0..5).for_each(|_| call(key(Some("r1"), Some("junk")), Signal::Bad));
    assert!(world.admit_for(&key(Some("r1"), None)).is_err());
    assert!(world.admit_for(&key(Some("r2"), None)).is_ok());
    assert!(world.admit_for(&key(Some("r3"), Some("junk"))).is_ok());
}

#[test]
fn ten_thousand_names_take_no_more_breakers_than_configured_and_no_count_is_lost() {
    let mut world = with(|config| config.keys = number(20));
    for name in 0..10_000 {
        let name = format!("name-{name}");
        let key = Key { region: Some(&name[..6]), model: Some(&name), account: 0 };
        world.admit_for(&key).expect("all is well").judged(GOOD, world.now);
    }
    let long = "x".repeat(1000);
    let key = Key { model: Some(&long), ..Key::default() };
    world.admit_for(&key).expect("all is well").judged(GOOD, world.now);
    assert!(world.breakers.snapshot(world.now).len() <= 21);

    // Once they have been left alone there is room for others.
    world.calls(Signal::Bad, 5);
    world.pass(31 * SECOND);
    for name in ["fresh", "fresher"] {
        let key = Key { model: Some(name), ..Key::default() };
        world.admit_for(&key).expect("all is well").judged(GOOD, world.now);
        assert!(world.snapshot_of(None, Some(name)).is_some());
    }
    assert!(world.snapshot_of(None, Some("m")).is_some(), "one that is open is not forgotten");
    let all = world.breakers.snapshot(world.now);
    assert_eq!(all.iter().map(|one| one.tally.opened).sum::<u64>(), 1);
    assert!(all.len() <= 21);
}

// === What it costs ===

/// Prints what letting a call through and judging it costs, which is to be read in a release build.
#[test]
fn to_admit_and_to_judge_costs_next_to_nothing() {
    let world = defaults();
    let calls = 200_000_u32;
    let start = std::time::Instant::now();
    for _ in 0..calls {
        let mut lease = world.admit().expect("it is closed");
        lease.judged(Signal::Good { first_token: Some(SECOND) }, world.now);
        lease.ended_well(world.now);
    }
    let each = start.elapsed() / calls;
    println!("admit, judge and end: {each:?} for each call");
    assert!(each < Duration::from_micros(50), "{each:?}");
}

/// Numbers, the same on every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
