//! Calls that go on though their caller has left: their answer is paid for in any case, or others
//! wait for it.
//!
//! Who wants that tells the call's notes ([`Left`]). When the caller has gone, whoever carried the
//! answer hands over what is left of it ([`Staying`]), and it is read on, as far as is allowed, by
//! the same worker. The exchange stays open until then: one record tells all of the call. When the
//! sidecar ends, nobody waits for such a call.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tidegate_wire::{DrainEnd, Ending};
use tokio::time::{Instant, timeout};

use crate::call::{Reply, ReplyBody};
use crate::error::Error;
use crate::exchange::Exchange;

/// Wants a call to go on though its caller has left.
pub(crate) trait Stay: fmt::Debug {
    /// The caller has left: how far the call goes on; nothing where it may end here. Asked once.
    fn terms(&self) -> Option<Terms>;

    /// Calls that may go on so at a time.
    fn places(&self) -> &Places;
}

/// Waits for the answer to a call of another.
pub(crate) trait Awaits: fmt::Debug {
    /// The caller has left, and the call goes on in any case or not: whether somebody waits. Asked
    /// once.
    fn wait(&self, goes_on: bool) -> bool;
}

/// How far a call goes on without its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// For how long.
    pub(crate) time: Duration,
    /// How much of its answer is read.
    pub(crate) bytes: u64,
}

/// Who wants a call to go on, and whether it does.
#[derive(Debug, Default)]
pub(crate) struct Left {
    by_attempt: RefCell<Option<Arc<dyn Stay>>>,
    by_others: RefCell<Option<Box<dyn Awaits>>>,
    /// Something of the attempt at hand was sent.
    is_sent: Cell<bool>,
    goes_on: Cell<bool>,
}

/// A call that goes on without its caller; it ends with this.
#[derive(Debug)]
pub(crate) struct Staying {
    /// Free before the record tells that the call is over.
    _place: Option<Place>,
    exchange: Exchange,
    terms: Terms,
    since: Instant,
    end: DrainEnd,
}

/// What a call goes on by.
#[derive(Debug)]
struct Going {
    terms: Terms,
    /// Absent where others wait for it.
    place: Option<Place>,
    is_awaited: bool,
}

/// An answer that is waited for. Dropped before it is there, its caller has left.
pub(crate) struct Awaited {
    exchange: Option<Exchange>,
    reply: Option<AwaitedReply>,
}

pub(crate) type AwaitedReply = Pin<Box<dyn Future<Output = Result<Reply, Error>>>>;

/// Calls that go on at a time: those of one kind, among all.
#[derive(Debug, Default)]
pub(crate) struct Places {
    open: Arc<AtomicUsize>,
    all: AllPlaces,
}

/// Calls of all kinds and workers that go on at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllPlaces {
    open: Arc<AtomicUsize>,
    limit: Arc<AtomicUsize>,
}

/// The place of one of them.
#[derive(Debug)]
struct Place {
    mine: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

/// The caller has left before its answer was there: the call goes on in a task of its own, where
/// somebody wants it to.
fn reply_is_left(exchange: Exchange, reply: AwaitedReply) {
    match Staying::of(exchange) {
        Ok(staying) => drop(tokio::task::spawn_local(staying.reply(reply))),
        // Who carries a call may look at it to the last.
        Err(exchange) => drop((reply, exchange)),
    }
}

/// The same for a caller that leaves amid its answer.
pub(crate) fn body_is_left(exchange: Exchange, body: ReplyBody) {
    match Staying::of(exchange) {
        Ok(staying) => drop(tokio::task::spawn_local(staying.body(body))),
        Err(exchange) => drop((body, exchange)),
    }
}

// === impl Left ===

impl Left {
    /// Has this asked when the caller leaves during the attempt that begins now; nobody where absent.
    pub(crate) fn stay_for_attempt(&self, stay: Option<Arc<dyn Stay>>) {
        self.is_sent.set(false);
        self.by_attempt.replace(stay);
    }

    /// Has these asked when the caller leaves: as long as they wait, the call goes on.
    pub(crate) fn stay_for_others(&self, others: Box<dyn Awaits>) {
        self.by_others.replace(Some(others));
    }

    /// Something of the attempt at hand was sent: from here on it costs something.
    pub(crate) fn sent(&self) {
        self.is_sent.set(true);
    }

    /// Whether the call goes on without its caller: nobody is left for whom it would be made again.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on.get()
    }

    /// What the call goes on by; or why it does not, where it should.
    fn leave(&self) -> Option<Result<Going, DrainEnd>> {
        let going = self.leave_attempt();
        let goes_on = matches!(going, Some(Ok(_)));
        let others = self.by_others.borrow();
        let is_awaited = others.as_ref().is_some_and(|others| others.wait(goes_on));
        self.goes_on.set(goes_on || is_awaited);
        match is_awaited {
            // Who waits bounds it: each is a caller with limits of its own.
            true => Some(Ok(Going { terms: Terms::MAX, place: None, is_awaited })),
            false => going,
        }
    }

    fn leave_attempt(&self) -> Option<Result<Going, DrainEnd>> {
        let stay = self.by_attempt.borrow().clone().filter(|_| self.is_sent.get())?;
        let terms = stay.terms()?;
        let place = stay.places().take().ok_or(DrainEnd::Full);
        Some(place.map(|place| Going { terms, place: Some(place), is_awaited: false }))
    }
}

// === impl Staying ===

impl Staying {
    /// The call, whose caller has left; or its exchange, where it ends with that.
    pub(crate) fn of(exchange: Exchange) -> Result<Self, Exchange> {
        let notes = exchange.notes();
        // What was not read of the request cannot be sent any more; and what is over is over.
        let is_open = !exchange.is_cut() && notes.has_ended(Ending::CallerLeft);
        let may_stay = is_open && notes.request_is_read();
        match may_stay.then(|| notes.left.leave()).flatten() {
            None => Err(exchange),
            Some(Err(end)) => {
                notes.record(|record| record.drain.get_or_insert_default().end = Some(end));
                Err(exchange)
            }
            Some(Ok(Going { terms, place, is_awaited })) => {
                exchange.caller_left(is_awaited);
                let (since, end) = (Instant::now(), DrainEnd::Shutdown);
                Ok(Self { _place: place, exchange, terms, since, end })
            }
        }
    }

    /// Waits for the answer, and reads it.
    pub(crate) async fn reply(self, reply: impl Future<Output = Result<Reply, Error>>) {
        let bytes = self.terms.bytes;
        self.within_time(async move {
            match reply.await {
                Ok(reply) => read(reply.body, bytes, |_| ()).await,
                Err(error) => end_of(&error),
            }
        })
        .await;
    }

    /// Reads what is left of the answer.
    pub(crate) async fn body(self, body: ReplyBody) {
        let bytes = self.terms.bytes;
        self.within_time(read(body, bytes, |_| ())).await;
    }

    async fn within_time(mut self, work: impl Future<Output = DrainEnd>) {
        let end = timeout(self.terms.time, work).await.unwrap_or(DrainEnd::Time);
        let notes = self.exchange.notes();
        if end == DrainEnd::Whole {
            notes.ended(Ending::Clean);
        }
        // An error of ours is read whole, too.
        let is_whole = end != DrainEnd::Whole || notes.has_ended(Ending::Clean);
        self.end = if is_whole { end } else { DrainEnd::Broken };
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let duration_s = self.since.elapsed().as_secs_f64();
        self.exchange.notes().record(|record| {
            let drain = record.drain.get_or_insert_default();
            (drain.end, drain.duration_s) = (Some(self.end), Some(duration_s));
        });
    }
}

/// Reads a body to its end, if it is no larger than this, and shows each piece.
pub(crate) async fn read(mut body: ReplyBody, bytes: u64, mut see: impl FnMut(&[u8])) -> DrainEnd {
    let mut left = bytes;
    loop {
        match poll_fn(|cx| body.poll_frame(cx)).await {
            None => return DrainEnd::Whole,
            Some(Err(error)) => return end_of(&error),
            Some(Ok(frame)) if frame.is_trailers() => return DrainEnd::Whole,
            Some(Ok(frame)) => {
                let piece = frame.data_ref().map_or(&[][..], Bytes::as_ref);
                match left.checked_sub(piece.len() as u64) {
                    Some(rest) => left = rest,
                    None => return DrainEnd::Bytes,
                }
                see(piece);
            }
        }
    }
}

fn end_of(error: &Error) -> DrainEnd {
    match error {
        Error::CallerLeft => DrainEnd::Left,
        _ => DrainEnd::Broken,
    }
}

// === impl Terms ===

impl Terms {
    /// To the end.
    const MAX: Self = Self { time: Duration::MAX, bytes: u64::MAX };
}

// === impl Awaited ===

impl Awaited {
    pub(crate) fn new(exchange: Exchange, reply: AwaitedReply) -> Self {
        Self { exchange: Some(exchange), reply: Some(reply) }
    }

    /// The answer, and the exchange that it belongs to.
    pub(crate) async fn reply(mut self) -> (Result<Reply, Error>, Exchange) {
        let reply = self.reply.as_mut().expect("it is taken when this is dropped").await;
        self.reply = None;
        (reply, self.exchange.take().expect("likewise"))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let (Some(exchange), Some(reply)) = (self.exchange.take(), self.reply.take()) {
            reply_is_left(exchange, reply);
        }
    }
}

// === impl Places ===

impl Places {
    /// Those of another kind.
    pub(crate) fn among(all: &AllPlaces) -> Self {
        Self { open: Arc::default(), all: all.clone() }
    }

    /// Calls of this kind that go on now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn take(&self) -> Option<Place> {
        let AllPlaces { open: all, limit } = &self.all;
        let another = |open| (open < limit.load(Relaxed)).then_some(open + 1);
        all.fetch_update(Relaxed, Relaxed, another).ok()?;
        self.open.fetch_add(1, Relaxed);
        Some(Place { mine: self.open.clone(), all: all.clone() })
    }
}

impl AllPlaces {
    /// From now on there may be so many.
    pub(crate) fn allow(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.mine.fetch_sub(1, Relaxed);
        self.all.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
