//! What the simulated engine counts of itself: tokens that it holds and has made, and how long
//! requests took, from their coming to their end.
//!
//! `GET /metrics` shows it. `POST /-/reset` leaves it alone, as counters only grow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Upper bounds of times to a first token, in seconds, as vLLM has them.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// Upper bounds of times of whole requests, likewise.
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// How a sequence can end: by itself, at the caller's limit, or unfinished.
pub(super) const REASONS: [&str; 3] = ["stop", "length", "abort"];

/// What the engine has counted since it was started.
#[derive(Debug, Default)]
pub(super) struct Engine {
    /// Tokens of the sequences that run: their prompts, and what they have said so far.
    held: AtomicU64,
    counts: Mutex<Counts>,
}

/// What only grows.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) prompt_tokens: u64,
    pub(super) generation_tokens: u64,
    /// Sequences that have ended, in the order of [`REASONS`].
    pub(super) ended: [u64; REASONS.len()],
    /// From the coming of a request to its start.
    pub(super) queue: Histogram,
    /// From the coming of a request to its first token.
    pub(super) first_token: Histogram,
    /// From the coming of a request to its end, if that was a good one.
    pub(super) latency: Histogram,
}

/// How often which time occurred.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub(super) bounds: &'static [f64],
    /// One count a bound and one beyond them.
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
}

/// One request on its way through the engine. Its drop is its end.
#[derive(Debug)]
pub(super) struct Progress {
    engine: Arc<Engine>,
    came: Instant,
    has_begun: bool,
    has_spoken: bool,
    /// Tokens that it holds.
    held: u64,
    /// Its place in [`REASONS`].
    reason: usize,
}

// === impl Engine ===

impl Engine {
    /// A request comes now.
    pub(super) fn receive(self: &Arc<Self>) -> Progress {
        Progress {
            engine: self.clone(),
            came: Instant::now(),
            has_begun: false,
            has_spoken: false,
            held: 0,
            reason: REASONS.len() - 1,
        }
    }

    /// Tokens of the sequences that run.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Counts stay right if a thread panics between two of them, so poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Progress ===

impl Progress {
    /// It has its slot, and takes in its prompt.
    pub(super) fn begin(&mut self, prompt_tokens: u64) {
        self.has_begun = true;
        self.hold(prompt_tokens);
        let mut counts = self.engine.lock();
        counts.prompt_tokens += prompt_tokens;
        counts.queue.observe(self.came.elapsed().as_secs_f64());
    }

    /// It had its first token at this moment.
    pub(super) fn first_token(&mut self, at: Instant) {
        if !std::mem::replace(&mut self.has_spoken, true) {
            let time = at.saturating_duration_since(self.came);
            self.engine.lock().first_token.observe(time.as_secs_f64());
        }
    }

    /// It has so many tokens more by now.
    pub(super) fn speak(&mut self, tokens: u64) {
        self.first_token(Instant::now());
        self.hold(tokens);
        self.engine.lock().generation_tokens += tokens;
    }

    /// It ends as it should, for one of the [`REASONS`].
    pub(super) fn finish(&mut self, reason: &str) {
        let last = REASONS.len() - 1;
        self.reason = REASONS.iter().position(|known| *known == reason).unwrap_or(last);
        self.engine.lock().latency.observe(self.came.elapsed().as_secs_f64());
    }

    fn hold(&mut self, tokens: u64) {
        self.held += tokens;
        self.engine.held.fetch_add(tokens, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.engine.held.fetch_sub(self.held, Ordering::Relaxed);
        if self.has_begun {
            self.engine.lock().ended[self.reason] += 1;
        }
    }
}

// === impl Counts ===

impl Default for Counts {
    fn default() -> Self {
        Self {
            prompt_tokens: 0,
            generation_tokens: 0,
            ended: [0; REASONS.len()],
            queue: Histogram::new(REQUEST),
            first_token: Histogram::new(FIRST_TOKEN),
            latency: Histogram::new(REQUEST),
        }
    }
}

// === impl Histogram ===

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, seconds: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_timed_from_its_coming_to_its_end() {
        let engine = Arc::new(Engine::default());
        let mut progress = engine.receive();
        tokio::time::advance(Duration::from_secs(1)).await;
        progress.begin(7);
        tokio::time::advance(Duration::from_secs(2)).await;
        progress.speak(1);
        tokio::time::advance(Duration::from_secs(4)).await;
        progress.speak(1);
        progress.finish("length");
        assert_eq!(engine.held(), 9);
        drop(progress);

        let counts = engine.counts();
        assert_eq!((counts.queue.sum, counts.first_token.sum, counts.latency.sum), (1.0, 3.0, 7.0));
        assert_eq!(counts.first_token.counts.iter().sum::<u64>(), 1);
        assert_eq!((counts.prompt_tokens, counts.generation_tokens), (7, 2));
        assert_eq!((counts.ended, engine.held()), ([0, 1, 0], 0));
    }

    #[test]
    fn a_caller_who_leaves_while_it_runs_aborts_it_and_one_who_waits_was_never_there() {
        let engine = Arc::new(Engine::default());
        drop(engine.receive());
        let mut progress = engine.receive();
        progress.begin(7);
        drop(progress);
        assert_eq!((engine.counts().ended, engine.held()), ([0, 0, 1], 0));
        assert_eq!(engine.counts().latency.counts.iter().sum::<u64>(), 0);
    }
}
