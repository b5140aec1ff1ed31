//! What always happens to a request, whichever way it came.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::{Instant, timeout};

use crate::activity::Activity;
use crate::ahead::Ahead;
use crate::bypass::{Bypass, Bypassed, Switch};
use crate::call::{Call, CallerBody, Reply, RequestBody};
use crate::callers::{Callers, Identity};
use crate::config::TimeoutsConfig;
use crate::deadline;
use crate::error::Error;
use crate::exchange::{Exchange, Notes, Wait};
use crate::generation::Generation;
use crate::head::RequestHead;
use crate::hold::Keeping;
use crate::layer::Below;
use crate::recorder::Recorder;
use crate::route::{self, Arm, Pick, Route, Routes};

/// The field by which an answer says how often an upstream was tried, where that was not once.
const ATTEMPTS: &str = "x-tidegate-attempts";
/// The field by which an answer says which arm of its route's split it is of.
const SPLIT: &str = "x-tidegate-split";
/// The field by which an answer tells the SDKs of OpenAI and Anthropic whether to try again.
const SHOULD_RETRY: &str = "x-should-retry";
/// The field by which an answer says which policy would have acted before it came, were it not
/// bypassed.
const BYPASS: &str = "x-tidegate-bypass";

/// What one worker needs to serve; shared by the tasks of that worker alone.
#[derive(Debug)]
pub(crate) struct Worker {
    snapshot: RefCell<Rc<Snapshot>>,
    pub(crate) activity: Arc<Activity>,
}

/// What the calls are served by that begin now; one that has begun keeps what it began with.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) routes: Routes,
    pub(crate) timeouts: TimeoutsConfig,
    /// Whether some calls go on though their callers have left.
    pub(crate) may_go_on: bool,
    recorder: Recorder,
    keeping: Keeping,
    switch: Arc<Switch>,
    callers: Option<Arc<Callers>>,
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    pub(crate) body: CallerBody,
    /// Whether the caller holds the body back until it hears `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// What was read ahead of a body is held until its upstream has answered, at the latest: until then
/// all of it may be sent again.
struct Holding<'a>(&'a Notes);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

// === impl Worker ===

impl Worker {
    /// Serves by this generation.
    pub(crate) fn new(
        generation: &Arc<Generation>,
        recorder: Recorder,
        activity: Arc<Activity>,
    ) -> Self {
        let routes = Routes::new(generation.clone());
        let snapshot = Snapshot::new(generation, routes, recorder);
        Self { snapshot: RefCell::new(Rc::new(snapshot)), activity }
    }

    /// Serves by this generation what begins from now on.
    pub(crate) fn take_up(&self, generation: &Arc<Generation>) {
        let old = self.now();
        let routes = old.routes.next(generation.clone());
        let snapshot = Snapshot::new(generation, routes, old.recorder.clone());
        self.snapshot.replace(Rc::new(snapshot));
    }

    /// What is served by now.
    pub(crate) fn now(&self) -> Rc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Has its upstreams warm, unless policies look on only; whether any is to be.
    pub(crate) fn warm_up(&self) -> bool {
        let now = self.now();
        if !now.switch.is_on() {
            now.routes.warm_up(&now.recorder, &self.activity);
        }
        now.routes.has_warm_up()
    }

    /// Opens the exchange of a request whose head was read just now.
    pub(crate) fn open(&self, head: &RequestHead) -> Exchange {
        let recorder = self.now().recorder.clone();
        Exchange::open(head, route::shape(head), recorder, self.activity.clone())
    }

    /// Opens the exchange of a request that is refused before it could be read.
    pub(crate) fn open_refused(&self, error: &Error) -> Exchange {
        Exchange::refused(error, self.now().recorder.clone(), self.activity.clone())
    }

    /// The reply to a request: an upstream's, or our own that says why there is none.
    pub(crate) async fn reply(&self, request: Request, notes: &Rc<Notes>) -> Result<Reply, Error> {
        let is_grpc = request.head.version == http::Version::HTTP_2 && notes.is_grpc();
        let holds_back = request.expects_continue;
        let through = |arm: &Arm| arm.stack.clone();
        let mut reply = match self.now().forward(request, notes, through).await {
            Ok(reply) => reply,
            Err(Error::CallerLeft) => return Err(Error::CallerLeft),
            Err(error) => {
                notes.failed(&error);
                // A caller that was not told to send its body keeps it.
                if !holds_back {
                    notes.read_late_model().await;
                }
                match is_grpc {
                    true => error.grpc_reply(notes),
                    false => error.reply(notes.dialect()),
                }
            }
        };
        let attempts = notes.attempts();
        if attempts > 1 {
            let attempts = attempts.to_string();
            reply.head.fields = reply.head.fields.with(ATTEMPTS, attempts.as_bytes());
        }
        if let Some(arm) = notes.record(|record| record.split.clone()) {
            reply.head.fields = reply.head.fields.with(SPLIT, arm.as_bytes());
        }
        if notes.is_tried_enough() && would_be_tried_again(reply.head.status) {
            reply.head.fields = reply.head.fields.with(SHOULD_RETRY, b"false");
        }
        if let Some(policy) = notes.bypass().and_then(|bypass| bypass.first()) {
            reply.head.fields = reply.head.fields.with(BYPASS, policy.word().as_bytes());
        }
        Ok(reply)
    }
}

/// Whether SDKs try a call again that is answered with this status, if they are not told.
fn would_be_tried_again(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..)
}

// === impl Snapshot ===

impl Snapshot {
    fn new(generation: &Generation, routes: Routes, recorder: Recorder) -> Self {
        Self {
            routes,
            timeouts: generation.config.timeouts.clone(),
            may_go_on: generation.policies.may_go_on() || generation.caches.is_some(),
            recorder: recorder.with_prices(generation.prices.clone()),
            keeping: Keeping::new(&generation.config, &generation.held),
            switch: generation.switch().clone(),
            callers: generation.callers.clone(),
        }
    }

    /// An upstream's answer, through the stack of the call's route.
    pub(crate) async fn forward<S: Below>(
        &self,
        mut request: Request,
        notes: &Rc<Notes>,
        through: impl FnOnce(&Arm) -> S,
    ) -> Result<Reply, Error> {
        if matches!(*request.body, RequestBody::Empty) {
            notes.request_ended();
        }
        if notes.observer(|observer| observer.shape().has_lost_path) {
            return Err(Error::SdkLostPath);
        }
        let _until_answered = Holding(notes);
        let caller = self.callers.as_ref().map(|callers| callers.identify(&request.head));
        let caller = caller.transpose()?.flatten();
        if let Some(caller) = &caller {
            notes.called_by(caller);
        }
        let route = self.route(&mut request, caller.as_ref(), notes).await?;
        let arm = route.arm(&request.head, notes);
        notes.routed(route, arm);
        if self.switch.is_on() {
            go_by_policies(route, arm, notes);
        }
        let Request { mut head, body, .. } = request;
        if let Some(prefix) = &route.strip_prefix {
            head.target = head.target.without_prefix(prefix);
        }
        notes.must_be_over(route.timeout, deadline::of_caller(&head.fields));
        let mut call = Call { head, body, notes: notes.clone() };
        if let Some(caller) = &caller {
            caller.permit(&mut call, arm.model.as_deref(), &self.keeping).await?;
        }
        let reply = through(arm).call(call);
        let reply = match route.timeout.filter(|_| notes.bypass().is_none()) {
            None => reply.await,
            Some(limit) => match timeout(limit, reply).await {
                Ok(reply) => reply,
                Err(_) => {
                    let error = Error::TotalTimeout { limit_s: limit.as_secs() };
                    if notes.has_left() {
                        notes.judge_error(&error, false);
                    }
                    return Err(error);
                }
            },
        };
        reply.map_err(|failure| failure.error)
    }

    /// The route, for which the body is read as far as the model where a route asks for it.
    async fn route(
        &self,
        request: &mut Request,
        caller: Option<&Identity>,
        notes: &Notes,
    ) -> Result<&Route, Error> {
        let mut ahead = Ahead::new(&request.body, request.expects_continue);
        // What came with the head is looked at now: it may say the model of a call that gets no
        // further, and costs no wait.
        ahead.look(&request.body, |payload| notes.request_ahead(payload))?;
        let dialect = notes.dialect();
        let name = caller.map(|caller| &*caller.name);
        let pick =
            |model: Option<Option<&str>>| self.routes.pick(&request.head, dialect, name, model);
        let model = notes.observer(|observer| observer.model().map(str::to_owned));
        let known = model.is_some() || !notes.observer(|observer| observer.awaits_model());
        match pick(known.then_some(model.as_deref())) {
            Pick::Route(route) if known || !route.asks_for_model => return Ok(route),
            Pick::Nowhere => return Err(Error::NoRoute),
            Pick::Route(_) | Pick::AsksForModel => {}
        }
        let start = Instant::now();
        self.read_model(ahead, &mut request.body, notes).await?;
        notes.waited(Wait::Body, start.elapsed());
        let model = notes.observer(|observer| observer.model().map(str::to_owned));
        match self.routes.pick(&request.head, dialect, name, Some(model.as_deref())) {
            Pick::Route(route) => Ok(route),
            Pick::Nowhere | Pick::AsksForModel => Err(Error::NoRoute),
        }
    }

    /// Reads the body until the model is known, it ends, or too much of it would be held.
    async fn read_model(
        &self,
        mut ahead: Ahead,
        body: &mut RequestBody,
        notes: &Notes,
    ) -> Result<(), Error> {
        let limit = self.keeping.body_idle;
        let has_room = || notes.hold(&self.keeping, |hold| self.keeping.has_room(hold));
        while notes.observer(|observer| observer.awaits_model()) && has_room() {
            let read = poll_fn(|cx| ahead.poll(cx, body, |payload| notes.request_ahead(payload)));
            match timeout(limit, read).await {
                Err(_) => return Err(Error::BodyTimeout { limit_s: limit.as_secs() }),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(0)) => break,
                Ok(Ok(n)) => notes.hold(&self.keeping, |hold| hold.more(n as u64)),
            }
        }
        Ok(())
    }
}

/// Has policies look on only, and counts a call that takes longer than its route allows.
fn go_by_policies(route: &Route, arm: &Arm, notes: &Notes) {
    notes.goes_by_policies(Bypass::new(arm.bypassed.clone()));
    if let (Some(limit), Some(bypass)) = (route.timeout, notes.bypass()) {
        notes.when_closed(Box::new(move |record| {
            let is_late = record.duration_s.is_some_and(|seconds| seconds >= limit.as_secs_f64());
            if is_late && record.upgrade.is_none() {
                bypass.would(Bypassed::Timeout);
            }
        }));
    }
}
