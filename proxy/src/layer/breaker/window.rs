//! What happened lately: exact counts in a ring of time buckets.
//!
//! A sum of all buckets is kept beside them, so that to count and to ask costs the same whatever
//! the length of the window.

use std::time::Duration;

use tokio::time::Instant;

use super::later;

/// Buckets of a window.
pub(super) const BUCKETS: u32 = 10;

/// Counts of one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Calls judged good, and judged bad.
    pub(super) good: u32,
    pub(super) bad: u32,
    /// Good ones whose first token was timed, and was too slow.
    pub(super) timed: u32,
    pub(super) slow: u32,
    /// Good ones that ended well, and that broke off.
    pub(super) ended: u32,
    pub(super) broke: u32,
}

/// The counts of the last ten buckets.
#[derive(Debug)]
pub(super) struct Window {
    buckets: [Counts; BUCKETS as usize],
    sum: Counts,
    /// The bucket that counts now, and when its time is over.
    current: usize,
    ends: Instant,
    length: Duration,
}

impl Window {
    pub(super) fn new(window: Duration, now: Instant) -> Self {
        let length = (window / BUCKETS).max(Duration::from_millis(1));
        let ends = later(now, length);
        Self { buckets: Default::default(), sum: Counts::default(), current: 0, ends, length }
    }

    /// Adds what `add` adds to the bucket of this time, and says what the window holds now. A time
    /// that lies before that bucket (another thread's clock was read first) counts as now.
    pub(super) fn count(&mut self, now: Instant, add: impl Fn(&mut Counts)) -> Counts {
        self.move_to(now);
        add(&mut self.buckets[self.current]);
        add(&mut self.sum);
        self.sum
    }

    /// What the window holds at this time.
    pub(super) fn sum(&mut self, now: Instant) -> Counts {
        self.move_to(now);
        self.sum
    }

    fn move_to(&mut self, now: Instant) {
        if now < self.ends {
            return;
        }
        let passed = (now - self.ends).as_nanos() / self.length.as_nanos();
        if passed >= u128::from(BUCKETS) {
            *self = Self::new(self.length * BUCKETS, now);
            return;
        }
        for _ in 0..=passed {
            self.current = (self.current + 1) % self.buckets.len();
            let old = std::mem::take(&mut self.buckets[self.current]);
            self.sum.less(&old);
            self.ends = later(self.ends, self.length);
        }
    }
}

impl Counts {
    fn less(&mut self, old: &Self) {
        let Self { good, bad, timed, slow, ended, broke } = old;
        self.good -= good;
        self.bad -= bad;
        self.timed -= timed;
        self.slow -= slow;
        self.ended -= ended;
        self.broke -= broke;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn what_happened_counts_for_a_window_and_no_longer() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(30), start);
        window.count(at(start, 1.0), |counts| counts.bad += 1);
        window.count(at(start, 4.0), |counts| counts.bad += 1);
        for (seconds, bad) in [(29.9, 2), (30.1, 1), (32.9, 1), (33.1, 0), (1e6, 0)] {
            assert_eq!(window.sum(at(start, seconds)).bad, bad, "after {seconds} s");
        }
    }

    #[test]
    fn the_sum_is_that_of_the_buckets_at_all_times() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(10), start);
        let (mut now, mut random, mut log) = (start, 1_u64, Vec::new());
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += Duration::from_millis(random >> 55);
            log.push(now);
            let sum = window.count(now, |counts| counts.good += 1);
            // A bucket's time is over as a whole, so up to one bucket more than nine counts.
            let within = |limit: u64| {
                let limit = Duration::from_secs(limit);
                log.iter().rev().take_while(|then| now - **then <= limit).count() as u32
            };
            assert!((within(9)..=within(10)).contains(&sum.good), "{sum:?}");
        }
    }

    #[test]
    fn an_earlier_time_counts_as_now() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(30), start);
        window.count(at(start, 20.0), |counts| counts.good += 1);
        assert_eq!(window.count(at(start, 1.0), |counts| counts.good += 1).good, 2);
    }
}
