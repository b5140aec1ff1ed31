//! What an upstream has seen, counted as it happens, and waited for without polling.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::PATIENCE;
use crate::request::Request;

/// Calls that are kept one by one; more are counted.
const KEPT_CALLS: usize = 16_384;
/// Bytes of an answer that are kept.
const KEPT_PAYLOAD: usize = 1 << 20;
/// Keys that are counted apart; the attempts of more go to the empty one.
const KEPT_KEYS: usize = 4_096;

/// One request, as far as it came, and what was said to it.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it was scripted by: its `x-fault-key`, else its `x-fault`, else nothing.
    pub key: String,
    /// What came.
    pub request: Request,
    /// What was said in its body, without framing, up to a megabyte: all that a caller may see.
    pub payload: Vec<u8>,
    /// How it ended, once it has.
    pub ended: Option<Ended>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was done as scripted.
    AsScripted,
    /// The peer left before, or while nothing more was to come.
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Tally {
    counts: Mutex<Counts>,
    changed: Condvar,
    start: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: usize,
    /// Connections that the peer has closed or reset.
    pub(crate) closed: usize,
    /// Requests whose head was read.
    pub(crate) attempts: usize,
    pub(crate) by_key: HashMap<String, usize>,
    /// Calls that the peer gave up.
    pub(crate) cancelled: usize,
    /// Calls that are over, one way or the other.
    pub(crate) ended: usize,
    /// Bytes that were given to sockets.
    pub(crate) bytes_sent: u64,
    pub(crate) calls: Vec<Call>,
    /// Holds that were opened and not used yet.
    go: usize,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { counts: Mutex::default(), changed: Condvar::new(), start: Instant::now() }
    }

    /// When the upstream has started.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Looks at the counts.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Counts) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the counts.
    pub(crate) fn note<R>(&self, change: impl FnOnce(&mut Counts) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until the counts are so.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut(&Counts) -> bool) {
        let counts = self.lock();
        let waited = self.changed.wait_timeout_while(counts, PATIENCE, |counts| !is_so(counts));
        let Ok((counts, late)) = waited else { panic!("a thread of the upstream has panicked") };
        let seen = (counts.connections, counts.closed, counts.attempts, counts.cancelled);
        drop(counts);
        assert!(!late.timed_out(), "waited in vain until {what}; seen: {seen:?}");
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole after each change, whoever panics.
        self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Counts {
    /// Counts a request by its key; how many came before it, and its place among the calls.
    pub(crate) fn admit(&mut self, key: &str, request: &Request) -> (usize, Option<usize>) {
        self.attempts += 1;
        let is_known = self.by_key.contains_key(key) || self.by_key.len() < KEPT_KEYS;
        let count = self.by_key.entry(if is_known { key } else { "" }.to_owned()).or_default();
        let before = *count;
        *count += 1;
        let place = (self.calls.len() < KEPT_CALLS).then_some(self.calls.len());
        if place.is_some() {
            let (key, request) = (key.to_owned(), request.clone());
            self.calls.push(Call { key, request, payload: Vec::new(), ended: None });
        }
        (before, place)
    }

    /// Keeps what is said to a call.
    pub(crate) fn say(&mut self, place: Option<usize>, payload: &[u8]) {
        if let Some(call) = place.and_then(|place| self.calls.get_mut(place)) {
            let room = KEPT_PAYLOAD.saturating_sub(call.payload.len());
            call.payload.extend_from_slice(&payload[..payload.len().min(room)]);
        }
    }

    /// A call is over.
    pub(crate) fn end(&mut self, place: Option<usize>, ended: Ended) {
        self.ended += 1;
        self.cancelled += usize::from(ended == Ended::Cancelled);
        if let Some(call) = place.and_then(|place| self.calls.get_mut(place)) {
            call.ended = Some(ended);
        }
    }

    /// Lets one through that is held.
    pub(crate) fn go(&mut self) {
        self.go += 1;
    }

    /// Goes through, if one may.
    pub(crate) fn pass(&mut self) -> bool {
        let may = self.go > 0;
        self.go -= usize::from(may);
        may
    }
}
