//! Counts the bytes of bodies that are held, of one call and of all.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::{Config, LimitsConfig};

// The standard library's, or that by which a test tries all the ways in which threads can meet.
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::atomic::AtomicU64;
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::atomic::AtomicU64;

/// The bytes that all calls hold, of all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// For policies that must see a body first.
    pub(crate) policies: Arc<AtomicU64>,
    /// To be signed.
    pub(crate) signed: Arc<AtomicU64>,
}

/// How much may be held of bodies for policies, and how long one may stand still meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    /// Of one body, and of all.
    limits: (u64, u64),
    pub(crate) body_idle: Duration,
    held: Arc<AtomicU64>,
}

/// What one call holds, counted among what all hold for as long as this lives.
#[derive(Debug)]
pub(crate) struct Hold {
    all: Arc<AtomicU64>,
    mine: u64,
}

// === impl Keeping ===

impl Keeping {
    pub(crate) fn new(config: &Config, held: &Held) -> Self {
        let LimitsConfig { held_body, held_bodies, .. } = &config.limits;
        Self {
            limits: (held_body.as_u64(), held_bodies.as_u64()),
            body_idle: config.timeouts.request_body_idle.0,
            held: held.policies.clone(),
        }
    }

    /// Nothing yet.
    pub(crate) fn hold(&self) -> Hold {
        Hold::new(&self.held)
    }

    /// Whether a body of this length may be held, as far as that alone goes.
    pub(crate) fn may_hold(&self, bytes: u64) -> bool {
        bytes <= self.limits.0
    }

    /// Whether a call holds more than it may.
    pub(crate) fn is_too_much(&self, hold: &Hold) -> bool {
        let (mine, all) = hold.bytes();
        mine > self.limits.0 || all > self.limits.1
    }

    /// Whether a call may hold more.
    pub(crate) fn has_room(&self, hold: &Hold) -> bool {
        let (mine, all) = hold.bytes();
        mine < self.limits.0 && all < self.limits.1
    }
}

// === impl Hold ===

impl Hold {
    /// Nothing yet.
    pub(crate) fn new(all: &Arc<AtomicU64>) -> Self {
        Self { all: all.clone(), mine: 0 }
    }

    /// So many bytes more.
    pub(crate) fn more(&mut self, bytes: u64) {
        self.mine += bytes;
        self.all.fetch_add(bytes, Relaxed);
    }

    /// So many bytes from the front of the body: others may hold the same.
    pub(crate) fn reach(&mut self, bytes: u64) {
        self.more(bytes.saturating_sub(self.mine));
    }

    /// What this call holds, and what all do.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.mine, self.all.load(Relaxed))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Relaxed);
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings {
    use shuttle::thread;

    use super::*;

    const ORDERS: usize = 5_000;
    const LIMIT: u64 = 10;

    /// Reads a body piece by piece, as long as it may be held.
    fn read(keeping: &Keeping, kept: &AtomicU64, pieces: &[u64]) {
        let mut hold = keeping.hold();
        let mut bytes = 0;
        for piece in pieces {
            bytes += piece;
            hold.reach(bytes);
            if keeping.is_too_much(&hold) {
                return;
            }
        }
        assert!(kept.fetch_add(bytes, Relaxed) + bytes <= LIMIT, "more is kept than may be");
        thread::yield_now();
        kept.fetch_sub(bytes, Relaxed);
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_nothing_is_left_of_it() {
        let meeting = || {
            let held = Arc::new(AtomicU64::new(0));
            let keeping =
                Keeping { limits: (6, LIMIT), body_idle: Duration::MAX, held: held.clone() };
            let kept = Arc::new(AtomicU64::new(0));
            let bodies: [&[u64]; 4] = [&[3, 3], &[4], &[2, 2, 2], &[5, 5]];
            let threads = bodies.map(|pieces| {
                let (keeping, kept) = (keeping.clone(), kept.clone());
                thread::spawn(move || read(&keeping, &kept, pieces))
            });
            threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
            assert_eq!(held.load(Relaxed), 0);
        };
        shuttle::check_random(meeting, ORDERS);
    }
}
