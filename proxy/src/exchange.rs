//! One call, from the moment its head was read: exactly one record leaves, whatever happens.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use tidegate_wire::capture::Captured;
use tidegate_wire::content::Content;
use tidegate_wire::{
    Ending, ErrorOrigin, HeadView, Headers, Id, Observer, Outcome, Record, Shape, SpanId, TraceId,
};
use tokio::time::Instant;

use crate::activity::Activity;
use crate::attempt::Attempt;
use crate::bypass::Bypass;
use crate::call::RequestBody;
use crate::error::Error;
use crate::export::metrics::InFlight;
use crate::going_on::Left;
use crate::head::{Fields, RequestHead};
use crate::hold::Hold;
use crate::recorder::Recorder;
use crate::trace;
use crate::verdict::Verdict;

mod attempts;
mod given;
mod late_model;
mod notes;
mod overhear;
mod times;

pub(crate) use given::{Told, ToldBy};
pub(crate) use overhear::Overhear;
pub(crate) use times::Wait;

/// Bytes of a path that are recorded: a head may have 64 KiB of it, and many records wait at a time.
const MAX_PATH: usize = 1024;

/// The warning that a request was too large to be captured.
const NOT_CAPTURED: &str = "request_too_large_to_capture";

/// Owns the record of one call. Dropping it is the only way out.
#[derive(Debug)]
pub(crate) struct Exchange {
    notes: Rc<Notes>,
    activity: Arc<Activity>,
    /// Whether the sidecar's own end waits for it.
    is_waited_for: Cell<bool>,
}

/// What is known of a call so far; shared by all who carry it.
#[derive(Debug)]
pub(crate) struct Notes {
    opened: Instant,
    recorder: Recorder,
    state: RefCell<State>,
    ending: Cell<Ending>,
    request_read: Cell<bool>,
    /// Who looks for the caller once the request body was read, perhaps by another task.
    awaits_request: RefCell<Option<Waker>>,
    stamps: times::Stamps,
    /// What is held of the request body, until it is answered.
    hold: RefCell<Option<Hold>>,
    /// The last addresses of an upstream that it went to; 0 is none.
    tried: Cell<[u32; 3]>,
    /// Whether its caller should not try it again.
    is_tried_enough: Cell<bool>,
    /// What is left of a request body that was let go of before it named the model.
    unread: RefCell<Option<RequestBody>>,
    /// Who hears the request body go by.
    overhearing: overhear::Overhearing,
    /// By whom its worker is known to be busy.
    activity: Arc<Activity>,
    /// Who wants the call to go on without its caller.
    pub(crate) left: Left,
    /// Absent where policies act.
    bypass: OnceCell<Rc<Bypass>>,
}

/// What is known of a call that we make ourselves.
pub(crate) struct Ours {
    pub(crate) trace_id: TraceId,
    /// The call that it belongs to.
    pub(crate) parent_span_id: Option<SpanId>,
    pub(crate) is_sampled: Option<bool>,
    pub(crate) upstream: Arc<str>,
    /// The model that is served there.
    pub(crate) model: Option<String>,
}

/// What is to be done once it is known what a call came to: a budget is charged, say.
pub(crate) type Settlement = Box<dyn FnOnce(&mut Record)>;

struct State {
    /// Taken when the record is closed.
    observer: Option<Observer>,
    record: Record,
    /// Whether the caller has shown a key of its own.
    is_caller_proven: bool,
    /// Payload bytes of the request that the observer has seen, and that have gone by.
    request_seen: u64,
    request_passed: u64,
    /// What goes by is not what its caller sent, and says nothing new.
    request_replaced: bool,
    response_bytes: u64,
    in_flight: Option<InFlight>,
    /// Whether it is a call of our own, which no caller has in flight.
    is_ours: bool,
    /// Whether it counts for a model, or for none yet.
    has_model: bool,
    /// The upstream's model, for calls that name none.
    default_model: Option<String>,
    /// What is said, where the user has switched on that it is kept.
    content: Option<Box<Content>>,
    /// What is captured of the request, likewise.
    captured: Option<Box<Captured>>,
    /// The attempt at hand.
    attempt: Attempt,
    /// Its upstream does not accept our credential.
    is_credential_refused: bool,
    /// What the last one came to.
    settled: Option<Verdict>,
    /// Attempts of which something was sent.
    sent_attempts: u32,
    /// Who waits for the record.
    settlements: Vec<Settlement>,
}

// === impl Exchange ===

impl Exchange {
    /// Opens the exchange of a call whose head was read just now.
    pub(crate) fn open(
        head: &RequestHead,
        shape: Shape,
        recorder: Recorder,
        activity: Arc<Activity>,
    ) -> Self {
        let trace::Context { trace_id, parent_span_id, is_sampled, is_load_test } =
            trace::context(&head.fields);
        let record = Record {
            trace_id,
            parent_span_id,
            is_sampled,
            load_test: is_load_test.then_some(true),
            method: Some(method(&head.method)),
            path: Some(recorded(head.target.path()).to_owned()),
            ..Record::default()
        };
        let content = recorder.content();
        let content =
            content.and_then(|budget| Content::of(head.target.path(), &head.fields, budget));
        // What asks no model is no load.
        let asks = shape.operation.is_some();
        let captured = asks.then(|| recorder.capture(head, trace_id)).flatten();
        let exchange = Self::with(record, shape, recorder, activity);
        let mut state = exchange.notes.state.borrow_mut();
        state.content = content.map(Box::new);
        state.captured = captured.map(Box::new);
        drop(state);
        exchange
    }

    /// Opens the exchange of a request that is refused before it could be read.
    pub(crate) fn refused(error: &Error, recorder: Recorder, activity: Arc<Activity>) -> Self {
        let record = Record { trace_id: Id(rand::random()), ..Record::default() };
        let nothing: &dyn Headers = &Fields::default();
        let head = HeadView { method: "", host: None, path: "", query: None, headers: nothing };
        let exchange = Self::with(record, Shape::read(&head), recorder, activity);
        exchange.notes.failed(error);
        exchange
    }

    /// Opens the exchange of a call that we make ourselves. Nobody waits for its end.
    pub(crate) fn ours(
        head: &RequestHead,
        shape: Shape,
        ours: Ours,
        recorder: Recorder,
        activity: Arc<Activity>,
    ) -> Self {
        let Ours { trace_id, parent_span_id, is_sampled, upstream, model } = ours;
        let record = Record {
            trace_id,
            parent_span_id,
            is_sampled,
            method: Some(method(&head.method)),
            path: Some(recorded(head.target.path()).to_owned()),
            upstream: Some(upstream),
            ..Record::default()
        };
        let exchange = Self::beside(record, shape, recorder, activity);
        let mut state = exchange.notes.state.borrow_mut();
        (state.is_ours, state.default_model) = (true, model);
        drop(state);
        exchange
    }

    fn with(record: Record, shape: Shape, recorder: Recorder, activity: Arc<Activity>) -> Self {
        activity.opened();
        let exchange = Self::beside(record, shape, recorder, activity);
        exchange.is_waited_for.set(true);
        exchange
    }

    /// One that nobody waits for.
    fn beside(
        mut record: Record,
        shape: Shape,
        recorder: Recorder,
        activity: Arc<Activity>,
    ) -> Self {
        // Next to each other: all offsets are reckoned from the one, and told from the other.
        let opened = Instant::now();
        record.time = jiff::Timestamp::now();
        record.span_id = Id(rand::random());
        let state = State {
            observer: Some(Observer::new(shape)),
            record,
            is_caller_proven: false,
            request_seen: 0,
            request_passed: 0,
            request_replaced: false,
            response_bytes: 0,
            in_flight: None,
            is_ours: false,
            has_model: false,
            default_model: None,
            content: None,
            captured: None,
            attempt: Attempt::default(),
            is_credential_refused: false,
            settled: None,
            sent_attempts: 0,
            settlements: Vec::new(),
        };
        let notes = Notes {
            opened,
            recorder,
            state: RefCell::new(state),
            // Whoever lets go of a call without a word did so because its caller had gone.
            ending: Cell::new(Ending::CallerLeft),
            request_read: Cell::new(false),
            awaits_request: RefCell::default(),
            stamps: times::Stamps::default(),
            hold: RefCell::default(),
            tried: Cell::default(),
            unread: RefCell::default(),
            is_tried_enough: Cell::default(),
            overhearing: overhear::Overhearing::default(),
            activity: activity.clone(),
            left: Left::default(),
            bypass: OnceCell::new(),
        };
        Self { notes: Rc::new(notes), activity, is_waited_for: Cell::new(false) }
    }

    /// What is known of the call so far.
    pub(crate) fn notes(&self) -> &Rc<Notes> {
        &self.notes
    }

    /// Whether the worker lets go of its calls, this one among them.
    pub(crate) fn is_cut(&self) -> bool {
        std::thread::panicking() || self.activity.is_cut()
    }

    /// The call goes on without its caller; whether others wait for its answer, or nobody for its end.
    pub(crate) fn caller_left(&self, is_awaited: bool) {
        self.notes.observer(|observer| observer.caller_left(is_awaited));
        if !is_awaited {
            self.let_go();
        }
    }

    fn let_go(&self) {
        if self.is_waited_for.replace(false) {
            self.activity.closed();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.notes.cut("panic");
        } else if self.activity.is_cut() {
            self.notes.cut("drain_limit");
        }
        let record = self.notes.close();
        self.notes.recorder.close_after(record, |record| self.notes.settle_all(record));
        self.let_go();
    }
}

// === impl Notes ===

impl Notes {
    /// How the transport ended. The first word counts.
    pub(crate) fn ended(&self, ending: Ending) {
        if self.ending.get() == Ending::CallerLeft {
            self.ending.set(ending);
        }
    }

    /// Whether it ended so.
    pub(crate) fn has_ended(&self, ending: Ending) -> bool {
        self.ending.get() == ending
    }

    /// The answer was handed over whole.
    pub(crate) fn handed_over(&self) {
        self.delivered();
        self.ended(Ending::Clean);
    }

    /// Notes why there is no answer from an upstream, or why it broke off.
    pub(crate) fn failed(&self, error: &Error) {
        if matches!(error, Error::CallerLeft) {
            return;
        }
        // Where a name leads is known only when it is tried: what is no upstream was not called.
        let was_called = !matches!(error, Error::LocalAddress { .. });
        let was_tried = was_called && self.record(|record| record.attempts.is_some());
        self.ended(if was_tried { Ending::NoAnswer } else { Ending::Refused });
        if self.left.goes_on() {
            return;
        }
        self.record(|record| {
            record.status = Some(error.status());
            record.error_type = Some(error.kind().to_owned());
            record.error_origin = Some(error.origin());
            record.block_reason = error.block_reason().map(str::to_owned);
        });
    }

    /// Notes why an answer that had begun was broken off.
    pub(crate) fn broken(&self, kind: &str) {
        self.ended(Ending::Broken);
        if !self.left.goes_on() {
            self.record(|record| record.error_type = Some(kind.to_owned()));
        }
    }

    /// Nothing passed for so long that neither side is believed to be there.
    pub(crate) fn tunnel_idle(&self) {
        self.broken("upgraded_idle_timeout");
        self.record(|record| record.error_origin = Some(ErrorOrigin::Sidecar));
    }

    /// Has this see the record when the call is over, with what it cost, before it is exported.
    /// It is called once, however the call ends, may add to the record what is its own to tell, and
    /// must not look at these notes.
    pub(crate) fn when_closed(&self, settlement: Settlement) {
        self.state.borrow_mut().settlements.push(settlement);
    }

    fn settle_all(&self, record: &mut Record) {
        let settlements = std::mem::take(&mut self.state.borrow_mut().settlements);
        settlements.into_iter().for_each(|settlement| settlement(record));
    }

    /// Tidegate itself let go of a call that was still open.
    fn cut(&self, kind: &'static str) {
        if self.ending.get() != Ending::CallerLeft || self.left.goes_on() {
            return;
        }
        let is_answered = self.stamps.answered.get().is_some();
        self.ended(if is_answered { Ending::Broken } else { Ending::NoAnswer });
        self.record(|record| {
            record.error_type = Some(kind.to_owned());
            record.error_origin = Some(ErrorOrigin::Sidecar);
        });
    }

    fn close(&self) -> Record {
        self.overhearing.end();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.in_flight = None;
        self.end_attempt(state);
        let mut record = std::mem::take(&mut state.record);
        record.content = state.content.take().map(|content| Arc::new(*content));
        record.captured = state.captured.take().map(|captured| Arc::new(*captured));
        if record.captured.as_ref().is_some_and(|captured| captured.is_left_out()) {
            record.warnings.push(NOT_CAPTURED.into());
        }
        record.request_bytes = Some(state.request_passed);
        record.response_bytes = Some(state.response_bytes);
        record.sent_s = self.stamps.sent.get().map(|at| (at - self.opened).as_secs_f64());
        record.overhead_s = self.overhead().map(|time| time.as_secs_f64());
        if let Some(observer) = state.observer.take() {
            observer.finish(self.ending.get(), self.opened.elapsed(), &mut record);
        }
        if state.is_credential_refused && record.outcome == Some(Outcome::Failed) {
            record.error_origin = Some(ErrorOrigin::Sidecar);
        }
        if record.request_model.is_none() && record.operation.is_some() {
            record.request_model = state.default_model.take();
        }
        record
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("record", &self.record).finish_non_exhaustive()
    }
}

/// As much of a path (which is ASCII) as a record holds. A client that escapes the mark of its query
/// has put its key into the path.
fn recorded(path: &str) -> &str {
    let path = path.get(..MAX_PATH).unwrap_or(path);
    let query = path.find("%3F").or_else(|| path.find("%3f"));
    &path[..query.unwrap_or(path.len())]
}

fn method(method: &http::Method) -> Arc<str> {
    thread_local! {
        static POST: Arc<str> = Arc::from("POST");
    }
    if *method == http::Method::POST {
        POST.with(Arc::clone)
    } else {
        Arc::from(recorded(method.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_behind_an_escaped_mark_of_a_query_is_not_recorded() {
        for (path, kept) in [
            ("/v1beta/models/m:generateContent%3Fkey=secret", "/v1beta/models/m:generateContent"),
            ("/v1/models%3fkey=secret", "/v1/models"),
            ("/v1/a%20b", "/v1/a%20b"),
        ] {
            assert_eq!(recorded(path), kept);
        }
        assert_eq!(recorded(&"a".repeat(MAX_PATH + 1)).len(), MAX_PATH);
    }
}
