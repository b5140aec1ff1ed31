//! Lets an upstream have so many calls at a time, and the others wait.
//!
//! The limit and the queue before it belong to the upstream, or to each of its models; all workers
//! and all routes share them. A call keeps its place until its answer is over or its caller has
//! left. One that finds the queue full, or waits too long, is refused and told when to come again.

use std::collections::BTreeMap;
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::attempt::Watch;
use crate::bypass::{Bypass, Bypassed, Counts, Switch};
use crate::call::{Call, Failure};
use crate::error::Error;
use crate::exchange::Wait;
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::verdict::{Again, Health, Verdict};

mod adaptive;
mod config;
mod door;
mod map;
mod metrics;
mod queue;
mod sync;

pub use config::{AdaptiveConfig, LimitConfig};
pub(crate) use metrics::LimitMetrics;

use adaptive::Signal;
use door::{Door, DoorState, Entry, Permit, Reason, Shed, Waiter};
use map::Doors;
use queue::Priority;

/// The limits of one upstream, which all workers share.
#[derive(Debug)]
pub(crate) struct Limits {
    upstream: Arc<str>,
    config: LimitConfig,
    doors: Doors,
    queue_full: AtomicU64,
    queue_timeout: AtomicU64,
    /// Nobody waits while it is on.
    switch: Arc<Switch>,
    /// Those who would have.
    bypassed: Arc<Counts>,
}

/// Admits so many calls at a time; absent where there may be any number.
#[derive(Clone, Debug)]
pub(crate) struct LimitLayer {
    pub(crate) limits: Option<Arc<Limits>>,
    /// The model that is asked here; absent where the caller says.
    pub(crate) model: Option<Rc<str>>,
}

/// A place that an attempt holds, and what is told of it.
struct Holding {
    permit: Permit,
    request_bytes: u64,
}

impl<S: Below> Policy<S> for LimitLayer {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        let Some(limits) = &self.limits else {
            return below.call(call);
        };
        match limits.enter(&call, self.model.as_deref()) {
            Ok(Entry::Permit(permit)) => {
                hold(permit, &call);
                below.call(call)
            }
            Ok(Entry::Waiter(waiter)) => {
                let (limits, below) = (limits.clone(), below.clone());
                Box::pin(async move {
                    match limits.wait(waiter, &call).await? {
                        Ok(permit) => {
                            hold(permit, &call);
                            below.oneshot(call).await
                        }
                        Err(shed) => Err(limits.refuse(shed, call)),
                    }
                })
            }
            Err(shed) => Box::pin(ready(Err(limits.refuse(shed, call)))),
        }
    }

    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture {
        if let Some(limits) = &self.limits {
            let (permit, has_none) =
                limits.door(&call, self.model.as_deref()).look_on(Instant::now());
            if has_none {
                bypass.would(Bypassed::Limit);
            }
            hold(permit, &call);
        }
        below.call(call)
    }
}

// === impl Limits ===

impl Limits {
    pub(crate) fn new(
        upstream: Arc<str>,
        config: &LimitConfig,
        switch: Arc<Switch>,
        bypassed: Arc<Counts>,
    ) -> Self {
        Self {
            upstream,
            doors: Doors::new(config),
            config: config.clone(),
            queue_full: AtomicU64::default(),
            queue_timeout: AtomicU64::default(),
            switch,
            bypassed,
        }
    }

    /// What is going on at each model's door; `""` is the one that all others share.
    pub(crate) fn states(&self) -> BTreeMap<String, DoorState> {
        let states = self.doors.states().into_iter();
        states.map(|(model, state)| (model.map_or_else(String::new, String::from), state)).collect()
    }

    /// Whether it must be known which model a call is for.
    pub(crate) fn asks_for_model(&self) -> bool {
        self.config.per_model
    }

    fn enter(&self, call: &Call, model: Option<&str>) -> Result<Entry, Shed> {
        let said = call.head.fields.get(&self.config.priority_header);
        let priority = said.map_or(Priority::default(), Priority::read);
        self.door(call, model).enter(priority, Instant::now())
    }

    fn door(&self, call: &Call, model: Option<&str>) -> Arc<Door> {
        call.notes.model(|asked| self.doors.door(model.or(asked)))
    }

    /// Waits for a place, as long as one may and the caller is there.
    async fn wait(&self, waiter: Waiter, call: &Call) -> Result<Result<Permit, Shed>, Error> {
        let _waiting = call.notes.waiting(Wait::Queue);
        call.or_left(self.admitted(waiter)).await
    }

    async fn admitted(&self, mut waiter: Waiter) -> Result<Permit, Shed> {
        tokio::select! {
            biased;
            result = &mut waiter => return result,
            () = self.switch.turned_on() => {
                self.bypassed.add(Bypassed::Limit);
                return Ok(waiter.let_in(Instant::now()));
            }
            () = sleep(self.config.queue_timeout.0) => {}
        }
        waiter.give_up(Instant::now())
    }

    /// The call goes back as it came: another upstream may have it.
    fn refuse(&self, shed: Shed, call: Call) -> Failure {
        let (upstream, retry_after) = (self.upstream.clone(), shed.retry_after);
        let error = match shed.reason {
            Reason::QueueFull => {
                self.queue_full.fetch_add(1, Relaxed);
                Error::LimitQueueFull { upstream, retry_after }
            }
            Reason::QueueTimeout => {
                self.queue_timeout.fetch_add(1, Relaxed);
                let waited = self.config.queue_timeout.0;
                Error::LimitQueueTimeout { upstream, waited, retry_after }
            }
        };
        Failure { error, unsent: Some(call) }
    }
}

/// The attempt that begins now keeps the place until it is over.
fn hold(permit: Permit, call: &Call) {
    let request_bytes = call.head.fields.content_length().unwrap_or_default();
    call.notes.watch(Holding { permit, request_bytes });
}

// === impl Holding ===

impl Watch for Holding {
    fn judged(&mut self, verdict: &Verdict, now: Instant) {
        if let Some(signal) = signal(verdict, self.request_bytes) {
            self.permit.tell(signal, now);
        }
    }
}

/// What an attempt says of how busy its upstream is. One that could not even be reached says
/// nothing, nor does one whose caller left.
fn signal(verdict: &Verdict, request_bytes: u64) -> Option<Signal> {
    match (verdict.health, verdict.first_token) {
        (Health::Limited, _) => Some(Signal::Overloaded),
        (Health::Ill, _) if verdict.again == Again::Soon => Some(Signal::Overloaded),
        (Health::Good, Some(after)) => Some(Signal::FirstToken { after, request_bytes }),
        (Health::Good, None) => Some(Signal::Answered),
        (Health::Ill | Health::Unknown, _) => None,
    }
}
