//! The door to an upstream: so many inside at a time, the others in a queue before it.
//!
//! All workers share it, by one lock that is held for some tens of instructions and never while
//! anyone is woken. A place that comes free goes at once to the next in the queue, so nobody who
//! comes later takes it; if that one has left meanwhile, its place goes on to the one behind it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::{Adaptive, Mean, Signal};
use super::config::LimitConfig;
use super::queue::{Fate, Full, Priority, Queue, Ticket};
use super::sync::{Mutex, MutexGuard};

/// The calls to one upstream, or to one of its models.
#[derive(Debug)]
pub(crate) struct Door {
    state: Mutex<State>,
    /// Whether the limit looks for itself.
    is_adaptive: bool,
}

#[derive(Debug)]
struct State {
    limit: u32,
    in_use: u32,
    queue: Queue,
    adaptive: Option<Adaptive>,
    /// How long a place is held, in seconds.
    held: Mean,
    /// When somebody last came in or left.
    moved: Option<Instant>,
}

/// A way in.
#[derive(Debug)]
pub(crate) enum Entry {
    /// At once.
    Permit(Permit),
    /// After a wait.
    Waiter(Waiter),
}

/// A place inside, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    door: Arc<Door>,
    since: Instant,
    epoch: u32,
    /// When a stream's first token came.
    first_token: Option<Instant>,
}

/// A place in the queue, left when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    door: Arc<Door>,
    ticket: Ticket,
    priority: Priority,
    /// Whether it has heard what became of it.
    is_decided: bool,
}

/// A call that was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) reason: Reason,
    /// After how long it may find a place.
    pub(crate) retry_after: Duration,
}

/// Why a call was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    QueueFull,
    QueueTimeout,
}

/// What is going on at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct DoorState {
    /// Calls that may be inside.
    pub(crate) limit: u32,
    /// Calls that are.
    pub(crate) in_use: u32,
    /// Calls that wait.
    pub(crate) queue: u32,
}

/// What a caller is told to wait, at least and at most: seconds are all that the header has, and
/// its readers do not believe in more than a minute.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

// === impl Door ===

impl Door {
    pub(crate) fn new(config: &LimitConfig) -> Self {
        let adaptive = config.adaptive.as_ref().map(Adaptive::new);
        let state = State {
            limit: adaptive.as_ref().map_or(config.fixed(), Adaptive::limit),
            in_use: 0,
            queue: Queue::new(config.queue as usize, config.priority_ageing.0),
            adaptive,
            held: Mean::default(),
            moved: None,
        };
        Self { is_adaptive: state.adaptive.is_some(), state: Mutex::new(state) }
    }

    /// A place inside, or in the queue.
    pub(crate) fn enter(self: &Arc<Self>, priority: Priority, now: Instant) -> Result<Entry, Shed> {
        let mut state = self.lock();
        if state.in_use < state.limit && state.queue.is_empty() {
            state.in_use += 1;
            state.moved = Some(now);
            let epoch = state.came_in();
            drop(state);
            return Ok(Entry::Permit(Permit::new(self.clone(), now, epoch)));
        }
        state.reached();
        match state.queue.enter(priority, now) {
            Ok((ticket, displaced)) => {
                drop(state);
                wake(displaced);
                let door = self.clone();
                Ok(Entry::Waiter(Waiter { door, ticket, priority, is_decided: false }))
            }
            Err(Full) => Err(state.shed(Reason::QueueFull, now)),
        }
    }

    /// A place inside, whatever the limit; and whether there would have been none.
    pub(crate) fn look_on(self: &Arc<Self>, now: Instant) -> (Permit, bool) {
        let mut state = self.lock();
        let has_none = state.in_use >= state.limit || !state.queue.is_empty();
        state.in_use += 1;
        state.moved = Some(now);
        let epoch = state.came_in();
        drop(state);
        (Permit::new(self.clone(), now, epoch), has_none)
    }

    /// Whether anybody ever came this way.
    pub(crate) fn is_used(&self) -> bool {
        self.lock().moved.is_some()
    }

    /// What is going on.
    pub(crate) fn state(&self) -> DoorState {
        let state = self.lock();
        let queue = state.queue.len() as u32;
        DoorState { limit: state.limit, in_use: state.in_use, queue }
    }

    /// Nothing that panics is done under the lock; and a count that is off by one is better than a
    /// sidecar that answers nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A place has come free.
    fn leave<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        state.in_use -= 1;
        self.admit(state);
    }

    /// Whoever finds a place goes in.
    fn admit<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while let Some(waker) = state.admit() {
            drop(state);
            wake(waker);
            state = self.lock();
        }
    }
}

impl State {
    /// One more is inside; the epoch in which that was.
    fn came_in(&mut self) -> u32 {
        if self.in_use >= self.limit {
            self.reached();
        }
        self.adaptive.as_ref().map_or(0, Adaptive::epoch)
    }

    /// All places are taken.
    fn reached(&mut self) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.reached();
        }
    }

    /// The next in the queue goes in, where there is a place.
    fn admit(&mut self) -> Option<Option<Waker>> {
        if self.in_use >= self.limit {
            return None;
        }
        let waker = self.queue.admit()?;
        self.in_use += 1;
        Some(waker)
    }

    /// By the rate at which places come free, how long until all who wait and one more are inside.
    fn shed(&self, reason: Reason, now: Instant) -> Shed {
        let usual = self.held.value().unwrap_or_default() / f64::from(self.limit.max(1));
        let stalled = self.moved.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let each = usual.max(stalled.as_secs_f64());
        let ahead = self.queue.len() as f64 + 1.0;
        let (least, most) = RETRY_AFTER;
        let seconds = (each * ahead).clamp(least.as_secs_f64(), most.as_secs_f64());
        Shed { reason, retry_after: Duration::from_secs_f64(seconds.ceil()) }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

// === impl Permit ===

impl Permit {
    fn new(door: Arc<Door>, since: Instant, epoch: u32) -> Self {
        Self { door, since, epoch, first_token: None }
    }

    /// What the call tells of its upstream. Costs nothing where the limit is fixed.
    pub(crate) fn tell(&mut self, signal: Signal, now: Instant) {
        if !self.door.is_adaptive {
            return;
        }
        if let Signal::FirstToken { .. } = signal {
            self.first_token = Some(now);
        }
        let mut state = self.door.lock();
        if let Some(adaptive) = &mut state.adaptive {
            adaptive.tell(signal, self.epoch, now);
            state.limit = adaptive.limit();
        }
        self.door.admit(state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.door.lock();
        state.moved = Some(now);
        state.held.add(now.saturating_duration_since(self.since).as_secs_f64());
        if let (Some(at), Some(adaptive)) = (self.first_token, &mut state.adaptive) {
            adaptive.streamed(now.saturating_duration_since(at));
        }
        self.door.leave(state);
    }
}

// === impl Waiter ===

impl Waiter {
    /// Its time is up; it may have been let in at the last moment.
    pub(crate) fn give_up(mut self, now: Instant) -> Result<Permit, Shed> {
        self.is_decided = true;
        let mut state = self.door.lock();
        let (fate, waker) = state.queue.leave(self.ticket, self.priority);
        let result = match fate {
            Some(Fate::Admitted) => Ok(state.came_in()),
            Some(Fate::Displaced) => Err(state.shed(Reason::QueueFull, now)),
            None => Err(state.shed(Reason::QueueTimeout, now)),
        };
        drop(state);
        // A waker's owner may do anything when it goes, so it goes without the lock.
        drop(waker);
        result.map(|epoch| Permit::new(self.door.clone(), now, epoch))
    }

    /// It waits no longer, and goes in.
    pub(crate) fn let_in(mut self, now: Instant) -> Permit {
        self.is_decided = true;
        let mut state = self.door.lock();
        let (fate, waker) = state.queue.leave(self.ticket, self.priority);
        if fate != Some(Fate::Admitted) {
            state.in_use += 1;
            state.moved = Some(now);
        }
        let epoch = state.came_in();
        drop(state);
        drop(waker);
        Permit::new(self.door.clone(), now, epoch)
    }
}

impl Future for Waiter {
    type Output = Result<Permit, Shed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.door.lock();
        let result = match state.queue.poll(self.ticket, self.priority, cx.waker()) {
            Ok(Fate::Admitted) => Ok(state.came_in()),
            Ok(Fate::Displaced) => Err(state.shed(Reason::QueueFull, Instant::now())),
            Err(before) => {
                drop(state);
                drop(before);
                return Poll::Pending;
            }
        };
        drop(state);
        self.is_decided = true;
        let permit = |epoch| Permit::new(self.door.clone(), Instant::now(), epoch);
        Poll::Ready(result.map(permit))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.is_decided {
            return;
        }
        let mut state = self.door.lock();
        let (fate, waker) = state.queue.leave(self.ticket, self.priority);
        match fate {
            Some(Fate::Admitted) => self.door.leave(state),
            Some(Fate::Displaced) | None => drop(state),
        }
        drop(waker);
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
