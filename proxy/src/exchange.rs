//! One call, from the moment its head was read: exactly one record leaves, whatever happens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_wire::content::Content;
use tidegate_wire::{
    Dialect, Ending, ErrorOrigin, HeadView, Headers, Id, Moment, Observer, Progress, Record, Shape,
};
use tokio::time::Instant;

use crate::activity::Activity;
use crate::attempt::{Attempt, Watch};
use crate::error::Error;
use crate::export::metrics::InFlight;
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::recorder::Recorder;
use crate::route::Route;
use crate::trace;
use crate::upstream::Origin;
use crate::verdict::Verdict;

/// Bytes of a path that are recorded: a head may have 64 KiB of it, and many records wait at a time.
const MAX_PATH: usize = 1024;
/// Bytes of a protocol's name that are recorded.
const MAX_PROTOCOL: usize = 40;

/// Waits of one call that are remembered one by one.
const MAX_MOMENTS: usize = 32;

/// Owns the record of one call. Dropping it is the only way out.
#[derive(Debug)]
pub(crate) struct Exchange {
    notes: Rc<Notes>,
    activity: Arc<Activity>,
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
    stamps: Stamps,
    /// The last addresses of an upstream that it went to; 0 is none.
    tried: Cell<[u32; 3]>,
}

/// What is to be done once it is known what a call came to: a budget is charged, say.
pub(crate) type Settlement = Box<dyn FnOnce(&Record)>;

struct State {
    /// Taken when the record is closed.
    observer: Option<Observer>,
    record: Record,
    /// Payload bytes of the request that the observer has seen, and that have gone by.
    request_seen: u64,
    request_passed: u64,
    /// What goes by is not what its caller sent, and says nothing new.
    request_replaced: bool,
    response_bytes: u64,
    in_flight: Option<InFlight>,
    /// Whether it counts for a model, or for none yet.
    has_model: bool,
    /// The upstream's model, for calls that name none.
    default_model: Option<String>,
    /// What is said, where the user has switched on that it is kept.
    content: Option<Box<Content>>,
    /// The attempt at hand.
    attempt: Attempt,
    /// What the last one came to.
    settled: Option<Verdict>,
    /// Attempts of which something was sent.
    sent_attempts: u32,
    /// Who waits for the record.
    settlements: Vec<Settlement>,
}

/// Moments from which waits and our own share are reckoned.
#[derive(Debug, Default)]
struct Stamps {
    sent: Cell<Option<Instant>>,
    answered: Cell<Option<Instant>>,
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

// === impl Wait ===

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

// === impl Exchange ===

impl Exchange {
    /// Opens the exchange of a call whose head was read just now.
    pub(crate) fn open(
        head: &RequestHead,
        shape: Shape,
        recorder: Recorder,
        activity: Arc<Activity>,
    ) -> Self {
        let trace::Context { trace_id, parent_span_id, is_sampled } = trace::context(&head.fields);
        let record = Record {
            trace_id,
            parent_span_id,
            is_sampled,
            method: Some(method(&head.method)),
            path: Some(recorded(head.target.path()).to_owned()),
            ..Record::default()
        };
        let content = recorder.content();
        let content =
            content.and_then(|budget| Content::of(head.target.path(), &head.fields, budget));
        let exchange = Self::with(record, shape, recorder, activity);
        exchange.notes.state.borrow_mut().content = content.map(Box::new);
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

    fn with(mut record: Record, shape: Shape, recorder: Recorder, activity: Arc<Activity>) -> Self {
        // Next to each other: all offsets are reckoned from the one, and told from the other.
        let opened = Instant::now();
        record.time = jiff::Timestamp::now();
        record.span_id = Id(rand::random());
        let state = State {
            observer: Some(Observer::new(shape)),
            record,
            request_seen: 0,
            request_passed: 0,
            request_replaced: false,
            response_bytes: 0,
            in_flight: None,
            has_model: false,
            default_model: None,
            content: None,
            attempt: Attempt::default(),
            settled: None,
            sent_attempts: 0,
            settlements: Vec::new(),
        };
        activity.opened();
        let notes = Notes {
            opened,
            recorder,
            state: RefCell::new(state),
            // Whoever lets go of a call without a word did so because its caller had gone.
            ending: Cell::new(Ending::CallerLeft),
            request_read: Cell::new(false),
            awaits_request: RefCell::default(),
            stamps: Stamps::default(),
            tried: Cell::default(),
        };
        Self { notes: Rc::new(notes), activity }
    }

    /// What is known of the call so far.
    pub(crate) fn notes(&self) -> &Rc<Notes> {
        &self.notes
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
        self.activity.closed();
    }
}

// === impl Notes ===

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

    /// Writes into the record what only the carrier knows.
    pub(crate) fn record<R>(&self, write: impl FnOnce(&mut Record) -> R) -> R {
        write(&mut self.state.borrow_mut().record)
    }

    /// The call has a route, and is in flight from here on.
    pub(crate) fn routed(&self, route: &Route) {
        let mut state = self.state.borrow_mut();
        state.record.route = Some(route.name.clone());
        state.record.upstream = Some(route.upstream.clone());
        state.default_model = route.model.clone();
        state.count_in_flight(&self.recorder);
    }

    /// Has this see the record when the call is over, with what it cost, before it is exported.
    /// It is called once, however the call ends, and must not look at these notes.
    #[expect(dead_code, reason = "for the policies to come that settle by the record")]
    pub(crate) fn when_closed(&self, settlement: Settlement) {
        self.state.borrow_mut().settlements.push(settlement);
    }

    fn settle_all(&self, record: &Record) {
        let settlements = std::mem::take(&mut self.state.borrow_mut().settlements);
        settlements.into_iter().for_each(|settlement| settlement(record));
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

    /// The whole request body, which goes to the upstream in another form.
    pub(crate) fn request_replaced(&self, whole: &[u8]) {
        let mut state = self.state.borrow_mut();
        let fresh = whole.get(state.request_seen as usize..).unwrap_or_default();
        state.observer().request(fresh);
        state.see_request(fresh);
        state.request_replaced = true;
        drop(state);
        self.request_ended();
    }

    /// The first byte of the request went to the upstream.
    pub(crate) fn sent(&self) {
        if self.stamps.sent.get().is_none() {
            self.stamps.sent.set(Some(Instant::now()));
        }
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

    /// Nothing passed for so long that neither side is believed to be there.
    pub(crate) fn tunnel_idle(&self) {
        self.broken("upgraded_idle_timeout");
        self.record(|record| record.error_origin = Some(ErrorOrigin::Sidecar));
    }

    /// The fields behind the response payload.
    pub(crate) fn response_trailers(&self, trailers: &http::HeaderMap) {
        self.state.borrow_mut().observer().trailers(trailers);
    }

    /// The first byte of the response went to the caller.
    pub(crate) fn delivered(&self) {
        if self.stamps.delivered.get().is_none() {
            self.stamps.delivered.set(Some(Instant::now()));
        }
    }

    /// The request body was read whole.
    pub(crate) fn request_ended(&self) {
        self.request_read.set(true);
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

    /// The answer was handed over whole.
    pub(crate) fn handed_over(&self) {
        self.delivered();
        self.ended(Ending::Clean);
    }

    /// The beginning of the answer was held back for so long.
    pub(crate) fn held_back(&self, time: Duration) {
        self.stamps.held_back.set(time);
    }

    /// When the call must be over, as its route and its caller say.
    pub(crate) fn must_be_over(&self, total: Option<Duration>, of_caller: Option<Duration>) {
        let at = |limit: Duration| self.opened.checked_add(limit);
        self.stamps.total.set(total.and_then(at));
        self.stamps.deadline.set(total.into_iter().chain(of_caller).min().and_then(at));
    }

    /// When another attempt comes too late; absent where nobody minds.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stamps.deadline.get()
    }

    /// Whether anything of the call went to an upstream.
    pub(crate) fn has_left(&self) -> bool {
        self.stamps.sent.get().is_some()
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

    /// What the last attempt at an upstream came to.
    pub(crate) fn settle(&self, verdict: Verdict) {
        self.state.borrow_mut().settled = Some(verdict);
    }

    /// What the last attempt at an upstream came to, where somebody waited to see.
    pub(crate) fn settled(&self) -> Option<Verdict> {
        self.state.borrow().settled.clone()
    }

    /// The call goes to another upstream than its route's own: the target at this place of the list.
    pub(crate) fn moved(&self, upstream: &Arc<str>, place: u64) {
        let mut state = self.state.borrow_mut();
        state.record.upstream = Some(upstream.clone());
        state.record.fallback = Some(place);
        state.count_in_flight(&self.recorder);
    }

    /// Something of the attempt at hand was sent.
    pub(crate) fn was_sent(&self) {
        let mut state = self.state.borrow_mut();
        state.sent_attempts += 1;
    }

    /// Attempts of which something was sent, at all upstreams.
    pub(crate) fn sent_attempts(&self) -> u32 {
        self.state.borrow().sent_attempts
    }

    /// Attempts at upstreams so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.record(|record| record.attempts.unwrap_or_default())
    }

    /// How often the caller has tried this call itself before.
    pub(crate) fn client_retries(&self) -> u32 {
        self.observer(|observer| observer.shape().client_retries.unwrap_or_default())
    }

    /// Holds this until the attempt at hand is over, and tells it how that goes.
    pub(crate) fn watch(&self, watcher: Box<dyn Watch>) {
        self.state.borrow_mut().attempt.watch(watcher);
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

    /// The attempt at hand got no answer.
    pub(crate) fn judge_error(&self, error: &Error, is_unsent: bool) {
        let mut state = self.state.borrow_mut();
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
    fn judge_stream(&self, state: &mut State, now: Instant) {
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

    /// The attempt at hand came to this and is given up, and the call will be made again: what its
    /// answer said counts for nothing any more.
    pub(crate) fn again(&self, verdict: Verdict) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let now = Instant::now();
        state.attempt.judge(verdict, now);
        state.attempt.end(false, now);
        state.observer().again();
        state.request_passed = 0;
        state.response_bytes = 0;
        state.record.error_type = None;
        state.record.error_origin = None;
        state.record.status = None;
        self.ending.set(Ending::CallerLeft);
        self.stamps.answered.set(None);
    }

    /// The attempt at hand ended as the call does.
    fn end_attempt(&self, state: &mut State) {
        let now = Instant::now();
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

    /// How the transport ended. The first word counts.
    pub(crate) fn ended(&self, ending: Ending) {
        if self.ending.get() == Ending::CallerLeft {
            self.ending.set(ending);
        }
    }

    /// Notes why there is no answer from an upstream, or why it broke off.
    pub(crate) fn failed(&self, error: &Error) {
        if matches!(error, Error::CallerLeft) {
            return;
        }
        let was_tried = self.record(|record| record.attempts.is_some());
        self.ended(if was_tried { Ending::NoAnswer } else { Ending::Refused });
        self.record(|record| {
            record.status = Some(error.status());
            record.error_type = Some(error.kind().to_owned());
            record.error_origin = Some(error.origin());
            record.block_reason = error.block_reason().map(str::to_owned);
        });
    }

    /// Notes why an answer that had begun was broken off.
    pub(crate) fn broken(&self, kind: &'static str) {
        self.ended(Ending::Broken);
        self.record(|record| record.error_type = Some(kind.to_owned()));
    }

    /// Tidegate itself let go of a call that was still open.
    fn cut(&self, kind: &'static str) {
        if self.ending.get() != Ending::CallerLeft {
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
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.in_flight = None;
        self.end_attempt(state);
        let mut record = std::mem::take(&mut state.record);
        record.content = state.content.take().map(|content| Arc::new(*content));
        record.request_bytes = Some(state.request_passed);
        record.response_bytes = Some(state.response_bytes);
        record.sent_s = self.stamps.sent.get().map(|at| (at - self.opened).as_secs_f64());
        record.overhead_s = self.overhead().map(|time| time.as_secs_f64());
        if let Some(observer) = state.observer.take() {
            observer.finish(self.ending.get(), self.opened.elapsed(), &mut record);
        }
        if record.request_model.is_none() && record.operation.is_some() {
            record.request_model = state.default_model.take();
        }
        record
    }

    /// Head read → first byte sent, less waits, and first response byte read → handed over.
    fn overhead(&self) -> Option<Duration> {
        let before =
            (self.stamps.sent.get()? - self.opened).saturating_sub(self.stamps.waited.get());
        let after = self.stamps.delivered.get()? - self.stamps.answered.get()?;
        Some(before + after.saturating_sub(self.stamps.held_back.get()))
    }
}

impl State {
    /// Counts the call in flight, for its model as soon as that is known.
    fn count_in_flight(&mut self, recorder: &Recorder) {
        let observer = self.observer.as_ref().expect("the exchange is open");
        let model = observer.model().or(self.default_model.as_deref());
        if let Some(upstream) = &self.record.upstream
            && (self.in_flight.is_none() || model.is_some())
        {
            self.has_model = model.is_some();
            self.in_flight = Some(recorder.in_flight(model, upstream));
        }
    }

    /// What the answer says so far; absent while it says nothing.
    fn verdict(&self, opened: Instant) -> Option<Verdict> {
        let observer = self.observer.as_ref().expect("the exchange is open");
        match observer.progress() {
            Progress::Failed => observer.fault().as_ref().map(Verdict::of_fault),
            Progress::Token | Progress::Over | Progress::Unread => {
                let began = self.attempt.began().map_or(Duration::ZERO, |began| began - opened);
                let first_token = observer.first_token().filter(|_| observer.is_stream());
                Some(Verdict::good(first_token.map(|at| at.saturating_sub(began))))
            }
            Progress::None | Progress::Begun => None,
        }
    }

    /// Counts and keeps what the caller sends, each byte once.
    fn see_request(&mut self, payload: &[u8]) {
        self.request_seen += payload.len() as u64;
        if let Some(content) = &mut self.content {
            content.request(payload);
        }
    }

    fn observer(&mut self) -> &mut Observer {
        self.observer.as_mut().expect("notes are taken only while the exchange is open")
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
