//! The right of one call to be under way, and the duty to say what became of it.
//!
//! Whoever forgets the duty has fulfilled it: a lease that is dropped gives back what it held.

use std::sync::Arc;

use tokio::time::Instant;

use super::circuit::{Pass, Signal};
use super::map::{Entry, Unknown};

/// A call that was let through.
#[derive(Debug)]
#[must_use = "a lease that is dropped says that nothing is known of its call"]
pub(crate) struct Lease {
    entry: Arc<Entry>,
    pass: Pass,
    stage: Stage,
    unknown: Option<Box<Unknown>>,
}

/// What was said of the call so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// A stream that was judged good at its first token, and may break off still.
    Streaming,
    Over,
}

impl Lease {
    pub(super) fn new(entry: Arc<Entry>, pass: Pass, unknown: Option<Unknown>) -> Self {
        Self { entry, pass, stage: Stage::Waiting, unknown: unknown.map(Box::new) }
    }

    /// The call is judged, at its first token or at its end: once, the first word counts.
    pub(crate) fn judged(&mut self, signal: Signal, now: Instant) {
        if self.stage != Stage::Waiting {
            return;
        }
        let is_good = matches!(signal, Signal::Good { .. });
        let is_stream = matches!(signal, Signal::Good { first_token: Some(_) });
        self.stage = if is_stream { Stage::Streaming } else { Stage::Over };
        self.entry.judge(&self.pass, signal, now);
        if let Some(unknown) = self.unknown.take().filter(|_| is_good) {
            unknown.learn(now);
        }
    }

    /// The upstream broke off, whether the call was judged before or not.
    pub(crate) fn broke(&mut self, now: Instant) {
        self.judged(Signal::Bad, now);
        self.ended(true, now);
    }

    /// The answer came to its end. Whoever leaves before says nothing, and drops the lease.
    pub(crate) fn ended_well(&mut self, now: Instant) {
        self.judged(Signal::Good { first_token: None }, now);
        self.ended(false, now);
    }

    fn ended(&mut self, is_broken: bool, now: Instant) {
        if self.stage == Stage::Streaming {
            self.stage = Stage::Over;
            self.entry.end(&self.pass, is_broken, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // No verdict asks what time it is, but for those that are good or bad.
        self.judged(Signal::Neutral, Instant::now());
    }
}
