//! The attempts of a call at upstreams: how the one at hand goes, and what the last one came to.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{Attempt, Ending, ErrorOrigin, Progress};
use tokio::time::Instant;

use super::{Notes, State};
use crate::attempt::Watch;
use crate::error::Error;
use crate::upstream::Origin;
use crate::verdict::Verdict;

/// Attempts of one call that spans tell of.
const MAX_ATTEMPTS: usize = 16;

impl Notes {
    /// An upstream is tried.
    pub(crate) fn attempt(&self, origin: &Origin) {
        self.state.borrow_mut().attempt.begin(Instant::now());
        self.record(|record| {
            record.attempts = Some(record.attempts.unwrap_or_default() + 1);
            record.server_address = Some(origin.host.clone());
            record.server_port = Some(origin.port);
            record.provider = origin.provider.clone();
            record.region = origin.region.clone();
        });
    }

    /// Holds this until the attempt at hand is over, and tells it how that goes.
    pub(crate) fn watch(&self, watcher: impl Watch + 'static) {
        self.state.borrow_mut().attempt.watch(watcher);
    }

    /// Something of the attempt at hand was sent.
    pub(crate) fn was_sent(&self) {
        let mut state = self.state.borrow_mut();
        state.sent_attempts += 1;
    }

    /// What was sent was sent again, as its route says, or so much was that this must not be: another
    /// try by the caller would come on top of that.
    pub(crate) fn tried_enough(&self, is_so: bool) {
        self.is_tried_enough.set(is_so || self.is_tried_enough.get());
    }

    /// Whether that is so.
    pub(crate) fn is_tried_enough(&self) -> bool {
        self.is_tried_enough.get()
    }

    /// Attempts at upstreams so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.record(|record| record.attempts.unwrap_or_default())
    }

    /// Attempts of which something was sent, at all upstreams.
    pub(crate) fn sent_attempts(&self) -> u32 {
        self.state.borrow().sent_attempts
    }

    /// How often the caller has tried this call itself before.
    pub(crate) fn client_retries(&self) -> u32 {
        self.observer(|observer| observer.shape().client_retries.unwrap_or_default())
    }

    /// The last addresses that a balancer has chosen for this call; 0 is none.
    pub(crate) fn tried(&self) -> [u32; 3] {
        self.tried.get()
    }

    /// A balancer has chosen this address.
    pub(crate) fn tries(&self, address: u32) {
        let [last, before, _] = self.tried.get();
        self.tried.set([address, last, before]);
    }

    /// The call goes to another upstream than its route's own: the target at this place of the list.
    /// It asks for this model there, where that is another than before.
    pub(crate) fn moved(&self, upstream: &Arc<str>, place: u64, model: Option<&str>) {
        let mut state = self.state.borrow_mut();
        state.record.upstream = Some(upstream.clone());
        state.record.fallback = Some(place);
        state.record.called_model = model.map(Arc::from);
        state.count_in_flight(&self.recorder);
    }

    /// The upstream is asked for its model by this name, or again by the one that the caller has for it.
    pub(crate) fn called(&self, model: Option<Arc<str>>) {
        self.record(|record| record.called_model = model);
    }

    /// The attempt at hand got no answer.
    pub(crate) fn judge_error(&self, error: &Error, is_unsent: bool) {
        let mut state = self.state.borrow_mut();
        state.attempt.failed(error.kind());
        if state.attempt.awaits_verdict() {
            state.attempt.judge(Verdict::of_error(error, is_unsent), Instant::now());
        }
    }

    /// What the answer says so far; absent while it says nothing.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.state.borrow().verdict(self.opened)
    }

    /// A stream is judged at its first token, or at an error before one. An answer that is an error
    /// by its status is judged when it has been read: its body says more.
    pub(super) fn judge_stream(&self, state: &mut State, now: Instant) {
        let observer = state.observer();
        let is_due = match observer.progress() {
            Progress::Token => observer.is_stream(),
            Progress::Failed => observer.fault().is_some_and(|fault| fault.status < 400),
            _ => false,
        };
        if is_due && let Some(verdict) = state.verdict(self.opened) {
            state.attempt.judge(verdict, now);
        }
    }

    /// What the last attempt at an upstream came to.
    pub(crate) fn settle(&self, verdict: Verdict) {
        self.state.borrow_mut().settled = Some(verdict);
    }

    /// What the last attempt at an upstream came to, where somebody waited to see.
    pub(crate) fn settled(&self) -> Option<Verdict> {
        self.state.borrow().settled.clone()
    }

    /// The attempt at hand came to this and is given up, and the call will be made again: what its
    /// answer said counts for nothing any more.
    pub(crate) fn again(&self, verdict: Verdict) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let now = Instant::now();
        self.note_attempt(state, now);
        state.attempt.judge(verdict, now);
        state.attempt.end(false, now);
        self.forget_answer(state);
    }

    /// The upstream does not accept our credential: no fault of the caller's, and no sign of ill health.
    pub(crate) fn credential_refused(&self) {
        self.state.borrow_mut().is_credential_refused = true;
    }

    /// The attempt at hand goes on with another signature: what the answer to the first one said counts
    /// for nothing any more. Whoever holds something for the attempt goes on holding it.
    pub(crate) fn signed_anew(&self) {
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        self.note_attempt(&mut state, now);
        state.attempt.restart(now);
        self.forget_answer(&mut state);
    }

    fn forget_answer(&self, state: &mut State) {
        state.observer().again();
        state.request_passed = 0;
        state.response_bytes = 0;
        state.is_credential_refused = false;
        state.record.error_type = None;
        state.record.error_origin = None;
        state.record.status = None;
        self.ending.set(Ending::CallerLeft);
        self.stamps.answered.set(None);
    }

    /// Keeps what the attempt at hand came to, where anything was tried.
    fn note_attempt(&self, state: &mut State, now: Instant) {
        let Some(began) = state.attempt.began() else { return };
        let fault = state.observer().fault();
        let error_type = fault.as_ref().map(|fault| fault.kind.clone());
        let failure = state.attempt.failure().map(str::to_owned);
        let record = &mut state.record;
        if record.attempts_made.len() == MAX_ATTEMPTS {
            return;
        }
        record.attempts_made.push(Attempt {
            upstream: record.upstream.clone(),
            server_address: record.server_address.clone(),
            server_port: record.server_port,
            region: record.region.clone(),
            began_s: (began - self.opened).as_secs_f64(),
            ended_s: (now - self.opened).as_secs_f64(),
            status: record.status.or(fault.map(|fault| fault.status)),
            error_type: record.error_type.clone().or(error_type).or(failure),
        });
    }

    /// The attempt at hand ended as the call does.
    pub(super) fn end_attempt(&self, state: &mut State) {
        let now = Instant::now();
        // Of a call that took one attempt, the call itself says all there is.
        if !state.record.attempts_made.is_empty() {
            self.note_attempt(state, now);
        }
        let ending = self.ending.get();
        let was_judged = !state.attempt.awaits_verdict();
        let has_failed = state.observer().fault().is_some();
        let is_ours = state.record.error_origin == Some(ErrorOrigin::Sidecar);
        let verdict = match ending {
            _ if has_failed => state.verdict(self.opened),
            Ending::Clean => Some(Verdict::good(None)),
            Ending::Broken if !is_ours => Some(Verdict::broken()),
            _ => None,
        };
        state.attempt.judge(verdict.unwrap_or_else(Verdict::unknown), now);
        let broke = was_judged && !is_ours && (has_failed || ending == Ending::Broken);
        match broke || ending == Ending::Clean {
            true => state.attempt.end(broke, now),
            false => state.attempt.leave(now),
        }
    }
}

impl State {
    /// What the answer says so far; absent while it says nothing.
    fn verdict(&self, opened: Instant) -> Option<Verdict> {
        let observer = self.observer.as_ref().expect("the exchange is open");
        match observer.progress() {
            Progress::Failed if self.is_credential_refused => Some(Verdict::refused_credential()),
            Progress::Failed => observer.fault().as_ref().map(Verdict::of_fault),
            Progress::Token | Progress::Over | Progress::Unread => {
                let began = self.attempt.began().map_or(Duration::ZERO, |began| began - opened);
                let first_token = observer.first_token().filter(|_| observer.is_stream());
                Some(Verdict::good(first_token.map(|at| at.saturating_sub(began))))
            }
            Progress::None | Progress::Begun => None,
        }
    }
}
