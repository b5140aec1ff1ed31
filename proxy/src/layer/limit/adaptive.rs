//! Finds out how many calls at a time an upstream serves without queueing them.
//!
//! A model server runs so many sequences at once, and queues the rest unseen: what shows is that
//! first tokens come late. By Little's law the share of a call's time that it waits beyond what it
//! waits at low load is the share of the calls at a time that are too many. So the limit is taken
//! down by just this share, and a little more for the server's queue to empty, and grows again in
//! small steps while it is used to the full and first tokens come as they do at low load. At the
//! start it doubles, until it sees a first queue.
//!
//! What first tokens take at low load is learned for each size of request: the least of medians
//! over some minutes, so that neither a cached prompt nor a slow one decides. One late token
//! decides nothing either: medians of many do. After each change only calls that began after it
//! count. A call that its caller cut says nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::config::AdaptiveConfig;

/// What a call tells of its upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Signal {
    /// The first token of a stream, so long after the request of so many bytes was sent.
    FirstToken { after: Duration, request_bytes: u64 },
    /// An answer without a stream, and without fault.
    Answered,
    /// It has too much to do: 429, 503, 529, or no answer in time.
    Overloaded,
}

/// The search for one limit.
#[derive(Debug)]
pub(super) struct Adaptive {
    min: f64,
    max: f64,
    tolerance: f64,
    limit: f64,
    /// Below it the limit doubles, above it grows in small steps.
    threshold: f64,
    /// Counts the changes of the limit.
    epoch: u32,
    was_full: bool,
    window: Window,
    /// From first token to end, in seconds.
    decode: Mean,
    baselines: [Baseline; SIZES],
    /// When the baselines began to be learned anew.
    since: Option<Instant>,
    /// Windows in a row in which even the least limit was too much.
    bottomed: u32,
}

/// What calls told since the last decision.
#[derive(Debug, Default)]
struct Window {
    /// Shares of calls' times that they waited too long, in thousandths.
    waits: Vec<u16>,
    answered: usize,
    overloaded: usize,
}

/// What first tokens take at low load, in seconds, for requests of one size.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline {
    known: Option<f64>,
    /// The least median of these minutes.
    least: Option<f64>,
    block: [f64; BLOCK],
    filled: usize,
}

/// A mean of the last few.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    value: f64,
    count: u32,
}

/// Sizes of requests that are told apart: up to 1 KiB, 4 KiB, 16 KiB, and so on.
const SIZES: usize = 8;
/// First tokens of which a median is taken.
const BLOCK: usize = 5;
/// How long a baseline holds without being seen again.
const GENERATION: Duration = Duration::from_secs(300);
/// How much a baseline may rise from one generation to the next.
const RISE: f64 = 1.25;
/// A limit grows while less than this share of calls' time is lost to a queue, ...
const QUIET: f64 = 0.05;
/// ... and is taken down when more than this is.
const QUEUEING: f64 = 0.10;
/// The most that it is taken down at once.
const MAX_CUT: f64 = 0.5;
/// Taken down by this beyond the queue itself, for it to empty.
const MARGIN: f64 = 0.95;
/// What a limit grows by.
const STEP: f64 = 0.05;
/// Answers of one kind below which their share says nothing.
const FEW: usize = 3;
/// How many answers without a first token stand for one with it.
const ANSWERS: usize = 4;
/// Windows at the bottom after which its times to first token are the new baseline.
const BOTTOMED: u32 = 3;
/// Calls of which a mean is taken.
const MEAN: u32 = 16;

// === impl Adaptive ===

impl Adaptive {
    pub(super) fn new(config: &AdaptiveConfig) -> Self {
        let min = f64::from(config.min.get());
        Self {
            min,
            max: f64::from(config.max.get()),
            tolerance: config.tolerance,
            limit: min,
            threshold: f64::INFINITY,
            epoch: 0,
            was_full: false,
            window: Window::default(),
            decode: Mean::default(),
            baselines: Default::default(),
            since: None,
            bottomed: 0,
        }
    }

    /// The limit as it is now.
    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// How often the limit has changed; a call keeps the number from when it began.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The limit was reached.
    pub(super) fn reached(&mut self) {
        self.was_full = true;
    }

    /// A stream took so long from its first token to its end.
    pub(super) fn streamed(&mut self, decode: Duration) {
        self.decode.add(decode.as_secs_f64());
    }

    /// What a call tells that began in this epoch.
    pub(super) fn tell(&mut self, signal: Signal, epoch: u32, now: Instant) {
        let is_fresh = epoch == self.epoch;
        match signal {
            Signal::FirstToken { after, request_bytes } => {
                self.age(now);
                let wait = self.waited(after.as_secs_f64(), request_bytes);
                if is_fresh {
                    self.window.waits.push((wait * 1000.0) as u16);
                }
            }
            Signal::Answered if is_fresh => self.window.answered += 1,
            Signal::Overloaded if is_fresh => self.window.overloaded += 1,
            Signal::Answered | Signal::Overloaded => {}
        }
        if self.window.is_full(self.wanted()) {
            self.decide();
        }
    }

    /// The share of its time that a call waits beyond what it would at low load.
    fn waited(&mut self, first_token: f64, request_bytes: u64) -> f64 {
        let baseline = &mut self.baselines[size(request_bytes)];
        let normal = baseline.known.map(|known| known * self.tolerance);
        baseline.add(first_token);
        let late = normal.map_or(0.0, |normal| (first_token - normal).max(0.0));
        if late > 0.0 { late / (first_token + self.decode.value) } else { 0.0 }
    }

    /// First tokens that a decision takes.
    fn wanted(&self) -> usize {
        let limit = self.limit();
        let wanted = if self.seeks() { (limit / 4).clamp(3, 32) } else { (limit / 2).clamp(8, 64) };
        wanted as usize
    }

    /// Whether it has still to find out where about the limit is.
    fn seeks(&self) -> bool {
        self.limit < self.threshold
    }

    fn decide(&mut self) {
        let window = std::mem::take(&mut self.window);
        let was_full = std::mem::take(&mut self.was_full);
        let (overloaded, wait) = (window.overloaded_share(), window.median());
        match wait {
            _ if overloaded > QUEUEING && window.overloaded >= FEW => {
                // An outage says nothing of how much there is room for when it is over.
                if overloaded < MAX_CUT || self.threshold.is_infinite() {
                    self.threshold = self.limit * (1.0 - overloaded.min(MAX_CUT));
                }
                self.set(self.limit * (1.0 - overloaded.min(MAX_CUT)));
            }
            Some(wait) if wait > QUEUEING => {
                self.bottom();
                self.set(self.limit * (1.0 - wait.min(MAX_CUT)) * MARGIN);
                self.threshold = self.limit;
            }
            // Where nothing streams, only answers that say so keep it from growing.
            wait if was_full && wait.unwrap_or(0.0) < QUIET && overloaded < QUIET => self.grow(),
            _ => self.bottomed = 0,
        }
    }

    fn grow(&mut self) {
        self.bottomed = 0;
        let grown = match self.seeks() {
            true => (self.limit * 2.0).min(self.threshold.max(self.limit + 1.0)),
            false => self.limit + (self.limit * STEP).max(1.0),
        };
        self.set(grown);
    }

    fn set(&mut self, limit: f64) {
        let limit = limit.clamp(self.min, self.max);
        if limit != self.limit {
            self.limit = limit;
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    /// At the least limit there is no queue of ours: what looks like one is how the upstream is now.
    fn bottom(&mut self) {
        if self.limit > self.min {
            return;
        }
        self.bottomed += 1;
        if self.bottomed >= BOTTOMED {
            self.bottomed = 0;
            self.baselines = Default::default();
        }
    }

    /// Baselines that were not seen again for long may rise.
    fn age(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= GENERATION {
            self.since = Some(now);
            self.baselines.iter_mut().for_each(Baseline::age);
        }
    }
}

// === impl Window ===

impl Window {
    fn all(&self) -> usize {
        self.waits.len() + self.answered + self.overloaded
    }

    fn is_full(&self, wanted: usize) -> bool {
        self.waits.len() >= wanted
            || self.waits.len() < FEW && self.all() >= wanted * ANSWERS
            || self.overloaded >= FEW && self.overloaded_share() > QUEUEING
    }

    fn overloaded_share(&self) -> f64 {
        self.overloaded as f64 / self.all().max(1) as f64
    }

    fn median(&self) -> Option<f64> {
        let mut waits = self.waits.clone();
        if waits.len() < FEW {
            return None;
        }
        let middle = waits.len() / 2;
        let (_, median, _) = waits.select_nth_unstable(middle);
        Some(f64::from(*median) / 1000.0)
    }
}

// === impl Baseline ===

impl Baseline {
    fn add(&mut self, first_token: f64) {
        self.block[self.filled] = first_token;
        self.filled += 1;
        if self.filled < BLOCK {
            return;
        }
        self.filled = 0;
        self.block.sort_unstable_by(f64::total_cmp);
        let median = self.block[BLOCK / 2];
        let least = |known: Option<f64>| Some(known.map_or(median, |known| known.min(median)));
        self.least = least(self.least);
        self.known = least(self.known);
    }

    fn age(&mut self) {
        if let (Some(known), Some(least)) = (self.known, self.least.take()) {
            self.known = Some(least.min(known * RISE));
        }
    }
}

// === impl Mean ===

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.count = (self.count + 1).min(MEAN);
        self.value += (value - self.value) / f64::from(self.count);
    }

    /// Absent before the first.
    pub(super) fn value(&self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }
}

/// Which of the sizes a request has.
fn size(request_bytes: u64) -> usize {
    let doublings = (request_bytes >> 10).checked_ilog2().map_or(0, |log| log + 1);
    (doublings as usize).div_ceil(2).min(SIZES - 1)
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
