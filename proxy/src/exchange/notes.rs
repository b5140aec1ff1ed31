//! What goes by while a call runs: to the observer, to what is kept, and into the record.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tidegate_wire::{Dialect, Observer, Record};
use tokio::time::Instant;

use super::{Notes, State};
use crate::bypass::Bypass;
use crate::callers::Identity;
use crate::head::ResponseHead;
use crate::hold::{Hold, Keeping};
use crate::recorder::Recorder;
use crate::route::{Arm, Route};

/// Bytes of a protocol's name that are recorded.
const MAX_PROTOCOL: usize = 40;

impl Notes {
    /// Looks at what head and body say.
    pub(crate) fn observer<R>(&self, look: impl FnOnce(&mut Observer) -> R) -> R {
        look(self.state.borrow_mut().observer())
    }

    /// Whose interface the caller speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        self.state.borrow_mut().observer().shape().dialect
    }

    /// Whether the caller speaks gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.state.borrow_mut().observer().shape().is_grpc()
    }

    /// The model that is asked for, as far as it is known, else the one that is served there.
    pub(crate) fn model<R>(&self, look: impl FnOnce(Option<&str>) -> R) -> R {
        let state = self.state.borrow();
        let observer = state.observer.as_ref();
        look(observer.and_then(Observer::model).or(state.default_model.as_deref()))
    }

    /// Whose call it is.
    pub(crate) fn called_by(&self, caller: &Identity) {
        let mut state = self.state.borrow_mut();
        state.record.caller = Some(caller.name.clone());
        state.is_caller_proven = caller.is_proven;
    }

    /// The caller's name, where nobody else could have called by it.
    pub(crate) fn proven_caller(&self) -> Option<Arc<str>> {
        let state = self.state.borrow();
        state.record.caller.clone().filter(|_| state.is_caller_proven)
    }

    /// Writes into the record what only the carrier knows.
    pub(crate) fn record<R>(&self, write: impl FnOnce(&mut Record) -> R) -> R {
        write(&mut self.state.borrow_mut().record)
    }

    /// The call has a route and its way there, and is in flight from here on.
    pub(crate) fn routed(&self, route: &Route, arm: &Arm) {
        let mut state = self.state.borrow_mut();
        state.record.route = Some(route.name.clone());
        state.record.split = arm.name.clone();
        state.record.upstream = Some(arm.upstream.clone());
        state.default_model = arm.model.clone();
        state.count_in_flight(&self.recorder);
    }

    /// All policies look on only, from here to the end of the call.
    pub(crate) fn goes_by_policies(&self, bypass: Bypass) {
        self.bypass.set(Rc::new(bypass)).expect("a call begins once");
    }

    /// Who hears what the policies would have done; absent where they act.
    pub(crate) fn bypass(&self) -> Option<Rc<Bypass>> {
        self.bypass.get().cloned()
    }

    /// The status that the caller gets.
    pub(crate) fn status(&self, status: u16) {
        self.record(|record| record.status = Some(status));
    }

    /// Request payload that was read ahead of its way to the upstream.
    pub(crate) fn request_ahead(&self, payload: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.observer().request(payload);
        state.see_request(payload);
    }

    /// Request payload on its way to the upstream; what was seen ahead is not observed twice.
    pub(crate) fn request_chunk(&self, payload: &[u8]) {
        let mut state = self.state.borrow_mut();
        if state.request_replaced {
            state.request_passed += payload.len() as u64;
            return;
        }
        self.overhearing.piece(payload);
        let already = (state.request_seen - state.request_passed).min(payload.len() as u64);
        state.request_passed += payload.len() as u64;
        let fresh = &payload[already as usize..];
        if !fresh.is_empty() {
            state.see_request(fresh);
            if state.observer().reads_request() {
                state.observer().request(fresh);
                if !state.has_model {
                    state.count_in_flight(&self.recorder);
                }
            }
        }
    }

    /// The whole request body, read ahead of its way to the upstream.
    pub(crate) fn request_known(&self, whole: &[u8]) {
        self.overhearing.whole(whole);
        let mut state = self.state.borrow_mut();
        let fresh = whole.get(state.request_seen as usize..).unwrap_or_default();
        state.observer().request(fresh);
        state.see_request(fresh);
        if !state.has_model {
            state.count_in_flight(&self.recorder);
        }
    }

    /// The whole request body, which goes to the upstream in another form.
    pub(crate) fn request_replaced(&self, whole: &[u8]) {
        self.request_known(whole);
        self.state.borrow_mut().request_replaced = true;
        self.request_ended();
    }

    /// Counts what is held of the request body, whoever holds it.
    pub(crate) fn hold<R>(&self, keeping: &Keeping, count: impl FnOnce(&mut Hold) -> R) -> R {
        count(self.hold.borrow_mut().get_or_insert_with(|| keeping.hold()))
    }

    /// Nothing of the request body is needed any more.
    pub(crate) fn let_go(&self) {
        self.hold.take();
    }

    /// The request body was read whole.
    pub(crate) fn request_ended(&self) {
        self.request_read.set(true);
        self.overhearing.is_over();
        if let Some(waker) = self.awaits_request.take() {
            waker.wake();
        }
    }

    /// Resolves when the request body was read whole: hyper does so in a task of its own.
    pub(crate) fn poll_request_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.request_is_read() {
            return Poll::Ready(());
        }
        *self.awaits_request.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the request body was read whole.
    pub(crate) fn request_is_read(&self) -> bool {
        self.request_read.get()
    }

    /// The final response head was read from the upstream.
    pub(crate) fn answered(&self, head: &ResponseHead) {
        let now = Instant::now();
        self.stamps.answered.set(Some(now));
        let mut state = self.state.borrow_mut();
        state.observer().head(head.status, &head.fields, now - self.opened);
        if let Some(content) = &mut state.content {
            content.head(&head.fields);
        }
    }

    /// Response payload, and when it was read.
    pub(crate) fn response_chunk(&self, payload: &[u8], at: Instant) {
        let mut state = self.state.borrow_mut();
        state.response_bytes += payload.len() as u64;
        state.observer().chunk(payload, at - self.opened);
        if state.attempt.awaits_verdict() {
            self.judge_stream(&mut state, at);
        }
        if let Some(content) = &mut state.content {
            content.response(payload);
        }
    }

    /// The fields behind the response payload.
    pub(crate) fn response_trailers(&self, trailers: &http::HeaderMap) {
        self.state.borrow_mut().observer().trailers(trailers);
    }

    /// The upstream has changed its connection to this protocol.
    pub(crate) fn upgraded(&self, protocol: &[u8]) {
        let legal = protocol.iter().filter(|byte| byte.is_ascii_graphic()).take(MAX_PROTOCOL);
        let word: String = legal.map(|byte| byte.to_ascii_lowercase() as char).collect();
        self.record(|record| record.upgrade = Some(word.into()));
    }

    /// Bytes that the caller sent after that.
    pub(crate) fn tunnelled_up(&self, bytes: u64) {
        self.state.borrow_mut().request_passed += bytes;
    }

    /// Bytes that the upstream sent after that.
    pub(crate) fn tunnelled_down(&self, bytes: u64) {
        self.state.borrow_mut().response_bytes += bytes;
    }
}

impl State {
    pub(super) fn observer(&mut self) -> &mut Observer {
        self.observer.as_mut().expect("notes are taken only while the exchange is open")
    }

    /// Counts and keeps what the caller sends, each byte once.
    fn see_request(&mut self, payload: &[u8]) {
        self.request_seen += payload.len() as u64;
        if let Some(content) = &mut self.content {
            content.request(payload);
        }
        if let Some(captured) = &mut self.captured {
            captured.body(payload);
        }
    }

    /// Counts the call in flight, for its model as soon as that is known.
    pub(super) fn count_in_flight(&mut self, recorder: &Recorder) {
        let observer = self.observer.as_ref().expect("the exchange is open");
        let model = observer.model().or(self.default_model.as_deref());
        if let Some(upstream) = &self.record.upstream
            && !self.is_ours
            && (self.in_flight.is_none() || model.is_some())
        {
            self.has_model = model.is_some();
            self.in_flight = Some(recorder.in_flight(model, upstream));
        }
    }
}
