//! What was served, and when each token left.
//!
//! A call is counted when it is accepted. Its tokens and times are settled once, by the drop of its
//! [`Entry`], before the caller can see the end of the answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;

use super::engine::{Engine, Progress};

/// Calls whose times are kept.
const KEPT_CALLS: usize = 20_000;

/// Times that are kept in all: 32 MiB.
const KEPT_STAMPS: usize = 4 << 20;

/// What `/-/served` says.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Served {
    /// Requests that came to a model endpoint.
    pub calls: u64,
    /// Calls that were answered by a stream.
    pub streams: u64,
    /// Calls that were answered by an error, or broken by a fault.
    pub errors: u64,
    /// Tokens of the prompts that the model took in.
    pub input_tokens: u64,
    /// Tokens that were handed to the connections.
    pub output_tokens: u64,
    /// Calls, by the dialect they came in.
    pub by_dialect: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    served: Mutex<Served>,
    stamps: Mutex<Stamps>,
    engine: Arc<Engine>,
}

#[derive(Debug, Default)]
struct Stamps {
    calls: VecDeque<(String, Vec<u64>)>,
    held: usize,
}

/// One call's line in the tally.
#[derive(Debug)]
pub(super) struct Entry {
    tally: Arc<Tally>,
    trace_id: Option<String>,
    stamps: Vec<u64>,
    input_tokens: u64,
    output_tokens: u64,
    progress: Progress,
}

impl Tally {
    /// Counts a call. Its times are kept if it belongs to a trace.
    pub(super) fn open(self: &Arc<Self>, dialect: &'static str, trace_id: Option<String>) -> Entry {
        let mut served = lock(&self.served);
        served.calls += 1;
        *served.by_dialect.entry(dialect).or_default() += 1;
        Entry {
            tally: self.clone(),
            trace_id,
            stamps: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
            progress: self.engine.receive(),
        }
    }

    /// What the engine says of itself.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Counts an answer that is an error.
    pub(super) fn fail(&self) {
        lock(&self.served).errors += 1;
    }

    pub(super) fn served(&self) -> Served {
        lock(&self.served).clone()
    }

    /// The times of the tokens of each trace, in nanoseconds since 1970.
    pub(super) fn stamps(&self, trace_id: Option<&str>) -> BTreeMap<String, Vec<u64>> {
        let mut by_trace = BTreeMap::<String, Vec<u64>>::new();
        for (trace, stamps) in &lock(&self.stamps).calls {
            if trace_id.is_none_or(|wanted| wanted == trace) {
                by_trace.entry(trace.clone()).or_default().extend(stamps);
            }
        }
        by_trace
    }

    pub(super) fn reset(&self) {
        *lock(&self.served) = Served::default();
        *lock(&self.stamps) = Stamps::default();
    }
}

// === impl Stamps ===

impl Stamps {
    fn keep(&mut self, trace_id: String, stamps: Vec<u64>) {
        self.held += stamps.len();
        self.calls.push_back((trace_id, stamps));
        while self.calls.len() > KEPT_CALLS || self.held > KEPT_STAMPS {
            let Some((_, oldest)) = self.calls.pop_front() else { break };
            self.held -= oldest.len();
        }
    }
}

// === impl Entry ===

impl Entry {
    /// The answer is a stream.
    pub(super) fn stream(&self) {
        lock(&self.tally.served).streams += 1;
    }

    /// The answer breaks off.
    pub(super) fn fail(&self) {
        self.tally.fail();
    }

    /// The call has its slot, and its prompt so many tokens.
    pub(super) fn take_in(&mut self, tokens: u64) {
        self.input_tokens += tokens;
        self.progress.begin(tokens);
    }

    /// The first token of an answer that leaves later, in one piece.
    pub(super) fn first_token(&mut self, at: Instant) {
        self.progress.first_token(at);
    }

    /// The answer is whole, and ends for this reason: `stop` or `length`.
    pub(super) fn finish(&mut self, reason: &str) {
        self.progress.finish(reason);
    }

    /// So many tokens leave now, in one chunk.
    pub(super) fn give_out(&mut self, tokens: u64) {
        self.output_tokens += tokens;
        self.progress.speak(tokens);
        if self.trace_id.is_some() {
            self.stamps.push(nanoseconds_since_1970());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        {
            let mut served = lock(&self.tally.served);
            served.input_tokens += self.input_tokens;
            served.output_tokens += self.output_tokens;
        }
        if let Some(trace_id) = self.trace_id.take() {
            lock(&self.tally.stamps).keep(trace_id, std::mem::take(&mut self.stamps));
        }
    }
}

fn nanoseconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Counts stay right if a thread panics between two of them, so poison means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_times_make_room_for_the_newest() {
        let mut stamps = Stamps::default();
        for call in 0..KEPT_CALLS + 1 {
            stamps.keep(call.to_string(), vec![1, 2]);
        }
        assert_eq!(stamps.calls.len(), KEPT_CALLS);
        assert_eq!(stamps.calls[0].0, "1");
        assert_eq!(stamps.held, 2 * KEPT_CALLS);
    }

    #[test]
    fn calls_of_one_trace_are_listed_together() {
        let tally = Arc::new(Tally::default());
        for _ in 0..2 {
            tally.open("openai", Some("abc".into())).give_out(1);
        }
        assert_eq!(tally.stamps(None)["abc"].len(), 2);
        assert!(tally.stamps(Some("other")).is_empty());
    }
}
