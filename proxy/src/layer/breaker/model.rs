//! Breakers and gates among threads, in orders that `shuttle` draws: what must hold in all of them.
//!
//! `cargo test -p tidegate-proxy --features shuttle --lib breaker::model`

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::*;

/// Orders that are tried of each model.
const ORDERS: usize = 5_000;
const GOOD: Signal = Signal::Good { first_token: None };
const KEY: Key<'_> = Key { region: None, model: Some("m"), account: 0 };

fn breakers(now: Instant) -> Arc<Breakers> {
    Breakers::new("up".into(), BreakerConfig::default(), &[KEY], now)
}

/// Breakers that are half-open, and the time of it.
fn half_open() -> (Arc<Breakers>, Instant) {
    let now = Instant::now();
    let breakers = breakers(now);
    for _ in 0..5 {
        breakers.admit(&KEY, now).expect("it is closed").judged(Signal::Bad, now);
    }
    let until = breakers.admit(&KEY, now).expect_err("it is open").stop.until;
    (breakers, until)
}

fn state(breakers: &Breakers, now: Instant) -> Snapshot {
    let mut all = breakers.snapshot(now).into_iter();
    all.find(|one| one.model.as_deref() == Some("m")).expect("it is known")
}

/// Closes it again, which shows that no seat was lost.
fn heal(breakers: &Arc<Breakers>, now: Instant) {
    for _ in 0..15 {
        breakers.admit(&KEY, now).expect("no seat was lost").judged(GOOD, now);
    }
    assert_eq!(state(breakers, now).state, Position::Closed);
}

#[test]
fn one_probe_at_a_time_whoever_asks() {
    let model = || {
        let (breakers, now) = half_open();
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (breakers, under_way, most) =
                    (breakers.clone(), under_way.clone(), most.clone());
                thread::spawn(move || {
                    let Ok(lease) = breakers.admit(&KEY, now) else { return };
                    let count = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(count, Ordering::SeqCst);
                    thread::yield_now();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    // Let go of without a word.
                    drop(lease);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        assert_eq!(most.load(Ordering::SeqCst), 1);
        heal(&breakers, now);
    };
    shuttle::check_random(model, ORDERS);
}

#[test]
fn however_calls_end_among_threads_no_seat_is_lost() {
    let model = || {
        let (breakers, now) = half_open();
        let threads: Vec<_> = [Some(GOOD), Some(Signal::Neutral), Some(Signal::Bad), None]
            .into_iter()
            .map(|signal| {
                let breakers = breakers.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        let Ok(mut lease) = breakers.admit(&KEY, now) else { continue };
                        if let Some(signal) = signal {
                            lease.judged(signal, now);
                        }
                        lease.ended_well(now);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        // It may have opened again, or closed.
        let now = now + Duration::from_secs(60);
        heal(&breakers, now);
    };
    shuttle::check_random(model, ORDERS);
}

#[test]
fn calls_from_before_it_opened_never_end_a_probe() {
    let model = || {
        let now = Instant::now();
        let breakers = breakers(now);
        let old: Vec<_> = (0..2).map(|_| breakers.admit(&KEY, now).expect("closed")).collect();
        for _ in 0..5 {
            breakers.admit(&KEY, now).expect("it is closed").judged(Signal::Bad, now);
        }
        let until = breakers.admit(&KEY, now).expect_err("it is open").stop.until;
        let probe = breakers.admit(&KEY, until).expect("it is half-open");
        let threads: Vec<_> = old
            .into_iter()
            .zip([GOOD, Signal::Bad])
            .map(|(mut lease, signal)| {
                let breakers = breakers.clone();
                thread::spawn(move || {
                    lease.judged(signal, until);
                    assert!(breakers.admit(&KEY, until).is_err(), "the probe has the only seat");
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        assert_eq!(state(&breakers, until).state, Position::HalfOpen);
        drop(probe);
        heal(&breakers, until);
    };
    shuttle::check_random(model, ORDERS);
}

#[test]
fn a_gate_that_threads_close_and_pass_is_not_lost_and_opens_again() {
    let model = || {
        let now = Instant::now();
        let breakers = breakers(now);
        let waits = [Some(Duration::from_secs(3)), Some(Duration::from_secs(9)), None];
        let leases = waits.map(|_| breakers.admit(&KEY, now).expect("the gate is open"));
        let threads: Vec<_> = leases
            .into_iter()
            .zip(waits)
            .map(|(mut lease, wait)| {
                thread::spawn(move || lease.judged(Signal::Limited { wait }, now))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        let stop = breakers.admit(&KEY, now).expect_err("the gate is closed").stop;
        assert_eq!(stop.until, now + Duration::from_secs(9), "the longest wait holds");
        heal(&breakers, stop.until);
    };
    shuttle::check_random(model, ORDERS);
}

#[test]
fn a_model_that_threads_learn_at_once_has_one_breaker() {
    let model = || {
        let now = Instant::now();
        let breakers = breakers(now);
        let key = Key { region: Some("r"), model: Some("new"), account: 0 };
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let breakers = breakers.clone();
                thread::spawn(move || {
                    breakers.admit(&key, now).expect("it is closed").judged(GOOD, now);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        assert_eq!(breakers.snapshot(now).len(), 4, "all, m, r, and the new one in r");
    };
    shuttle::check_random(model, ORDERS);
}
