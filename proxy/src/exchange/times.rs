//! When a call came how far, what it waited for, and by when it must be where.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{Moment, Progress};
use tokio::time::Instant;

use super::Notes;
use crate::error::Error;

/// Waits of one call that are remembered one by one.
const MAX_MOMENTS: usize = 32;

/// Moments from which waits and our own share are reckoned.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    pub(super) sent: Cell<Option<Instant>>,
    pub(super) answered: Cell<Option<Instant>>,
    delivered: Cell<Option<Instant>>,
    /// Waits for pool, DNS, connect, TLS and the caller's own body, before the request was sent.
    waited: Cell<Duration>,
    /// While the beginning of the answer was held back.
    held_back: Cell<Duration>,
    /// When the call must be over, as its route says.
    total: Cell<Option<Instant>>,
    /// The same, or as its caller says, where that is sooner.
    deadline: Cell<Option<Instant>>,
}

/// What a call waited for on its way to an upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Pool,
    Dns,
    Connect,
    Tls,
    /// A place among the calls that the upstream may have at a time.
    Queue,
    /// The caller's own body, where the route depends on it.
    Body,
    /// Another attempt, as the one before asked for.
    Retry,
}

/// A wait that is under way; it is noted when this is dropped, be it that the caller has left.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    notes: &'a Notes,
    wait: Wait,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.notes.waited(self.wait, self.since.elapsed());
    }
}

impl Notes {
    /// The first byte of the request went to the upstream.
    pub(crate) fn sent(&self) {
        self.left.sent();
        if self.stamps.sent.get().is_none() {
            self.stamps.sent.set(Some(Instant::now()));
        }
    }

    /// Whether anything of the call went to an upstream.
    pub(crate) fn has_left(&self) -> bool {
        self.stamps.sent.get().is_some()
    }

    /// The first byte of the response went to the caller.
    pub(crate) fn delivered(&self) {
        if self.stamps.delivered.get().is_none() {
            self.stamps.delivered.set(Some(Instant::now()));
        }
    }

    /// The beginning of the answer was held back for so long.
    pub(crate) fn held_back(&self, time: Duration) {
        self.stamps.held_back.set(time);
    }

    /// From now on the call waits for something else.
    pub(crate) fn waiting(&self, wait: Wait) -> Waiting<'_> {
        Waiting { notes: self, wait, since: Instant::now() }
    }

    /// Time that the call spent waiting for something else.
    pub(crate) fn waited(&self, wait: Wait, time: Duration) {
        if self.stamps.sent.get().is_none() {
            self.stamps.waited.set(self.stamps.waited.get() + time);
        }
        let mut state = self.state.borrow_mut();
        let record = &mut state.record;
        let slot = match wait {
            Wait::Pool => &mut record.wait_pool_s,
            Wait::Dns => &mut record.wait_dns_s,
            Wait::Connect => &mut record.wait_connect_s,
            Wait::Tls => &mut record.wait_tls_s,
            Wait::Queue => &mut record.wait_queue_s,
            Wait::Retry => &mut record.wait_retry_s,
            Wait::Body => return,
        };
        let lasted_s = time.as_secs_f64();
        *slot = Some(slot.unwrap_or_default() + lasted_s);
        if record.moments.len() < MAX_MOMENTS {
            let at_s = self.opened.elapsed().as_secs_f64();
            record.moments.push(Moment { name: wait.name(), at_s, lasted_s });
        }
    }

    /// When the call must be over, as its route and its caller say.
    pub(crate) fn must_be_over(&self, total: Option<Duration>, of_caller: Option<Duration>) {
        let at = |limit: Duration| self.opened.checked_add(limit);
        let is_enforced = self.bypass.get().is_none();
        self.stamps.total.set(total.filter(|_| is_enforced).and_then(at));
        self.stamps.deadline.set(total.into_iter().chain(of_caller).min().and_then(at));
    }

    /// When another attempt comes too late; absent where nobody minds.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stamps.deadline.get()
    }

    /// How long it is until then; for ever where nobody minds.
    pub(crate) fn time_left(&self) -> Duration {
        let left = |due: Instant| due.saturating_duration_since(Instant::now());
        self.deadline().map_or(Duration::MAX, left)
    }

    /// Until when to wait, and at the most: for a stream's first token, for the end of all.
    pub(crate) fn due(&self, due: Instant, first_token: Option<Duration>) -> Instant {
        let (total, token) = (self.stamps.total.get(), self.token_due(first_token));
        [total, token].into_iter().flatten().fold(due, Instant::min)
    }

    /// Why there is no answer, where one of these limits was passed.
    pub(crate) fn late(&self, upstream: &Arc<str>, first_token: Option<Duration>) -> Option<Error> {
        let now = Instant::now();
        if let Some(total) = self.stamps.total.get().filter(|total| now >= *total) {
            return Some(Error::TotalTimeout { limit_s: (total - self.opened).as_secs() });
        }
        let limit_s = first_token?.as_secs();
        let is_past = self.token_due(first_token).is_some_and(|due| now >= due);
        is_past.then(|| Error::FirstTokenTimeout { upstream: upstream.clone(), limit_s })
    }

    /// When the first token of a stream must have come, until it has.
    fn token_due(&self, limit: Option<Duration>) -> Option<Instant> {
        let limit = limit?;
        let mut state = self.state.borrow_mut();
        let began = state.attempt.began()?;
        let observer = state.observer();
        let is_awaited =
            observer.is_stream() && matches!(observer.progress(), Progress::None | Progress::Begun);
        is_awaited.then(|| began.checked_add(limit)).flatten()
    }

    /// Head read → first byte sent, less waits, and first response byte read → handed over.
    pub(super) fn overhead(&self) -> Option<Duration> {
        let before =
            (self.stamps.sent.get()? - self.opened).saturating_sub(self.stamps.waited.get());
        let after = self.stamps.delivered.get()? - self.stamps.answered.get()?;
        Some(before + after.saturating_sub(self.stamps.held_back.get()))
    }
}

impl Wait {
    fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Queue => "queue",
            Self::Body => "body",
            Self::Retry => "retry",
        }
    }
}
