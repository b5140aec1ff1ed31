//! How many calls may be made again: a share of those that are made, with a floor.
//!
//! Counted exactly over a window that slides by whole seconds, so that an upstream that fails gets
//! at most so much more than it gets anyway, however many callers it fails.

use std::sync::PoisonError;

use tokio::time::Instant;

// The standard library's, or those by which a test tries all the ways in which threads can meet.
#[cfg(feature = "shuttle")]
use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
use std::sync::{Mutex, MutexGuard};

/// The seconds over which is counted.
const WINDOW: usize = 10;

/// What was made and made again lately, by all workers.
#[derive(Debug, Default)]
pub(crate) struct Budget(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// When the first second of all began.
    start: Option<Instant>,
    /// By second, in a ring.
    seconds: [Second; WINDOW],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Which one it is, counted from the start.
    number: u64,
    first: u64,
    again: u64,
}

impl Budget {
    /// A call is made for the first time.
    pub(crate) fn first(&self, now: Instant) {
        self.lock().second(now).first += 1;
    }

    /// Whether a call may be made again; if so, that counts as done. `ratio` is the share of first
    /// attempts, `floor` how many a second there may be in any case.
    pub(crate) fn again(&self, ratio: f64, floor: f64, now: Instant) -> bool {
        let mut counts = self.lock();
        counts.second(now);
        let (first, again) = counts.sum(now);
        let allowed = (first as f64 * ratio).max(floor * WINDOW as f64);
        let is_allowed = ((again + 1) as f64) <= allowed;
        counts.second(now).again += u64::from(is_allowed);
        is_allowed
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn number(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        now.saturating_duration_since(start).as_secs()
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let number = self.number(now);
        let second = &mut self.seconds[number as usize % WINDOW];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }

    /// First attempts and later ones in the window.
    fn sum(&mut self, now: Instant) -> (u64, u64) {
        let oldest = (self.number(now) + 1).saturating_sub(WINDOW as u64);
        let recent = self.seconds.iter().filter(|second| second.number >= oldest);
        recent.fold((0, 0), |(first, again), second| (first + second.first, again + second.again))
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings {
    use std::sync::Arc;

    use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use shuttle::thread;

    use super::*;

    const ORDERS: usize = 5_000;
    const CALLS: u64 = 4;

    #[test]
    fn calls_that_fail_at_once_share_the_budget_and_none_of_it_is_lost() {
        let meeting = || {
            let (budget, now) = (Arc::new(Budget::default()), Instant::now());
            let granted = Arc::new(AtomicU64::new(0));
            let calls = [(); CALLS as usize].map(|()| {
                let (budget, granted) = (budget.clone(), granted.clone());
                thread::spawn(move || {
                    budget.first(now);
                    while budget.again(0.5, 0.0, now) {
                        granted.fetch_add(1, SeqCst);
                    }
                })
            });
            calls.into_iter().for_each(|call| call.join().expect("no thread panics"));
            // Who comes last has seen all first attempts, and has left nothing of it.
            assert_eq!(granted.load(SeqCst), CALLS / 2);
        };
        shuttle::check_random(meeting, ORDERS);
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_of_the_calls_is_made_again_and_no_more() {
        let (budget, start) = (Budget::default(), Instant::now());
        let mut again = 0;
        for call in 0..10_000u64 {
            let now = start + Duration::from_millis(call * 10);
            budget.first(now);
            again += u64::from(budget.again(0.2, 0.0, now));
        }
        assert!((1_900..=2_000).contains(&again), "{again}");
    }

    #[test]
    fn few_calls_may_be_made_again_up_to_the_floor() {
        let (budget, start) = (Budget::default(), Instant::now());
        budget.first(start);
        let granted = (0..100).filter(|_| budget.again(0.2, 1.0, start)).count();
        assert_eq!(granted, 10);
        assert!(!budget.again(0.2, 1.0, start + Duration::from_secs(5)));
        assert!(budget.again(0.2, 1.0, start + Duration::from_secs(10)));
    }
}
