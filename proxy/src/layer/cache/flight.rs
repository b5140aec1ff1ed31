//! Equal calls that are on their way at a time: one of them asks, and all get its answer as it comes.
//!
//! The one that asks *leads*. What it is told is written down here as it goes by, for the cache and
//! for those who *follow*; who comes later begins at the beginning. All of an answer is here until it
//! is too large to be kept. From then on nobody joins, and whoever falls further behind than an
//! answer may be large has lost it: nobody who follows holds up the leader, or memory.
//!
//! Callers are on all workers, so all of this is behind locks that are held for some tens of
//! instructions, and never while anybody is woken. A flight ends with its leader: dropped without a
//! word it has failed, and those who follow ask for themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::admission::Reason;
use super::entry::kept;
use super::key::{Id, Key};
use super::sync::{Mutex, MutexGuard};
use crate::exchange::ToldBy;
use crate::going_on::Awaits;
use crate::head::ResponseHead;

/// Calls that one answer is shared by, at most.
const MAX_FOLLOWERS: usize = 4096;
/// `error.type` of an answer that breaks off because its leader has gone without a word.
pub(crate) const LEADER_ENDED: &str = "shared_leader_ended";
/// `error.type` of an answer whose caller took it too slowly to share it with others.
pub(crate) const TOO_SLOW: &str = "shared_too_slow";

/// The calls that are on their way.
#[derive(Debug)]
pub(crate) struct Flights {
    by_id: Mutex<FxHashMap<Id, Arc<Flight>>>,
    room: Arc<Room>,
}

/// Room for answers that are on their way, of all workers.
#[derive(Debug)]
struct Room {
    bytes: AtomicU64,
    most: u64,
}

/// What one who makes a call finds.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Nobody has made an equal one: this call asks.
    Lead(Lead),
    /// One is on its way already.
    Follow(Follower),
}

/// A call on its way, and its answer.
#[derive(Debug)]
struct Flight {
    began: Instant,
    /// Where others find it; absent where nobody may.
    place: Option<(Arc<Flights>, Key)>,
    /// Bytes that are kept of it.
    most: u64,
    room: Arc<Room>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    answer: Option<Arc<Answer>>,
    answered: Option<Instant>,
    /// Pieces, and how long after the head each came.
    pieces: VecDeque<(Bytes, Duration)>,
    /// Pieces that are gone from the front, for all who follow have read them.
    gone: usize,
    /// Bytes of those that are here.
    bytes: u64,
    /// Why not all of it is here; nobody joins then.
    lost: Option<Reason>,
    followers: BTreeMap<u64, Place>,
    next: u64,
    /// Who leads, once its caller has left: it goes on for those who follow.
    left_alone: bool,
    leader: Option<Waker>,
}

/// How far a flight has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Asked,
    Flowing,
    Ended,
    /// It broke off, for this reason.
    Broken(Arc<str>),
    /// There is no answer that others may have.
    Failed,
}

/// How far one who follows has come.
#[derive(Debug, Default)]
struct Place {
    /// The piece that it reads next.
    at: usize,
    has_lost: bool,
    waker: Option<Waker>,
}

/// The beginning of an answer that others may have.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) told_by: ToldBy,
}

/// Who asks, and writes down the answer.
#[derive(Debug)]
pub(crate) struct Lead(Arc<Flight>);

/// Who gets the answer of another.
#[derive(Debug)]
pub(crate) struct Follower {
    flight: Arc<Flight>,
    number: u64,
}

/// Those who follow, as the leader's own caller leaves.
#[derive(Debug)]
pub(crate) struct Others(Arc<Flight>);

/// An answer, for who keeps it.
#[derive(Debug)]
pub(crate) struct Kept(Arc<Flight>);

/// What one who follows reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    End,
    /// It breaks off, for this reason: an `error.type`.
    Broken(Arc<str>),
}

// === impl Flights ===

impl Flights {
    /// None yet; up to so many bytes of all answers are here at a time.
    pub(crate) fn new(most: u64) -> Self {
        Self { by_id: Mutex::default(), room: Arc::new(Room { bytes: AtomicU64::new(0), most }) }
    }

    /// Follows an equal call that has been on its way for no longer than this, else leads one. Up to
    /// so many bytes of its answer are kept.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: &Key,
        most: u64,
        is_taken: impl Fn(Duration) -> bool,
    ) -> Entry {
        let mut by_id = self.lock();
        let known = by_id.get(&key.id).filter(|flight| flight.is_of(key));
        let known = known.filter(|flight| is_taken(flight.began.elapsed()));
        if let Some(follower) = known.and_then(Flight::join) {
            return Entry::Follow(follower);
        }
        let flight = Arc::new(Flight::new(Some((self.clone(), *key)), most, &self.room));
        let before = by_id.insert(key.id, flight.clone());
        drop(by_id);
        // What ends with it ends without the lock.
        drop(before);
        Entry::Lead(Lead(flight))
    }

    /// Leads a call that nobody follows.
    pub(crate) fn alone(&self, most: u64) -> Lead {
        Lead(Arc::new(Flight::new(None, most, &self.room)))
    }

    /// Calls that wait for the answers to others, of those that others may join.
    pub(crate) fn followers(&self) -> usize {
        self.lock().values().map(|flight| flight.lock().followers.len()).sum()
    }

    /// Calls that others may join, and the bytes of all answers that are on their way.
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.lock().len(), self.room.bytes.load(Relaxed))
    }

    /// Nothing that panics is done under the lock.
    fn lock(&self) -> MutexGuard<'_, FxHashMap<Id, Arc<Flight>>> {
        self.by_id.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

// === impl Room ===

impl Room {
    fn take(&self, bytes: u64) -> bool {
        let is_there = self.bytes.fetch_add(bytes, Relaxed) + bytes <= self.most;
        if !is_there {
            self.give(bytes);
        }
        is_there
    }

    fn give(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

// === impl Flight ===

impl Flight {
    fn new(place: Option<(Arc<Flights>, Key)>, most: u64, room: &Arc<Room>) -> Self {
        let state = Mutex::new(State::default());
        // A place in an entry has 32 bits.
        let most = most.min(u32::MAX.into());
        Self { began: Instant::now(), place, most, room: room.clone(), state }
    }

    /// Whether it is that of a call of this key, of which it was found by one half.
    fn is_of(&self, key: &Key) -> bool {
        self.place.as_ref().is_some_and(|(_, own)| own == key)
    }

    /// Follows it from its beginning, if that is there still.
    fn join(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.lock();
        state.is_open().then(|| {
            let number = state.next;
            state.next += 1;
            state.followers.insert(number, Place::default());
            Follower { flight: self.clone(), number }
        })
    }

    /// From now on equal calls find another flight, or what was kept of this one.
    fn leave_its_place(self: &Arc<Self>) {
        let Some((flights, key)) = &self.place else { return };
        let mut by_id = flights.lock();
        if by_id.get(&key.id).is_some_and(|known| Arc::ptr_eq(known, self)) {
            let own = by_id.remove(&key.id);
            drop(by_id);
            drop(own);
        }
    }

    /// Goes on to another state, and tells all who follow.
    fn turn(&self, turn: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        turn(&mut state);
        let wakers = state.wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing that panics is done under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.room.give(bytes);
    }
}

// === impl State ===

impl State {
    /// Whether others may join.
    fn is_open(&self) -> bool {
        let is_under_way = matches!(self.phase, Phase::Asked | Phase::Flowing);
        let is_full = self.followers.len() >= MAX_FOLLOWERS;
        is_under_way && self.lost.is_none() && !is_full && !self.is_forsaken()
    }

    /// Whether nobody is left who waits for it.
    fn is_forsaken(&self) -> bool {
        self.left_alone && self.followers.is_empty()
    }

    fn wakers(&mut self) -> Vec<Waker> {
        self.followers.values_mut().filter_map(|place| place.waker.take()).collect()
    }

    /// Makes room for a piece of so many bytes, once not all are here; whether there is any.
    fn make_room(&mut self, bytes: u64, most: u64, room: &Room) -> bool {
        loop {
            room.give(self.let_go());
            match () {
                () if self.reading().next().is_none() => return false,
                () if self.bytes + bytes <= most && room.take(bytes) => return true,
                () => self.cut_slowest(),
            }
        }
    }

    fn reading(&self) -> impl Iterator<Item = &Place> {
        self.followers.values().filter(|place| !place.has_lost)
    }

    /// Lets go of what all have read, and says how many bytes that were.
    fn let_go(&mut self) -> u64 {
        let before = self.bytes;
        let end = self.gone + self.pieces.len();
        let first = self.reading().map(|place| place.at).min().unwrap_or(end);
        for (piece, _) in self.pieces.drain(..first - self.gone) {
            self.bytes -= piece.len() as u64;
        }
        self.gone = first;
        before - self.bytes
    }

    fn cut_slowest(&mut self) {
        let reading = self.followers.values_mut().filter(|place| !place.has_lost);
        if let Some(place) = reading.min_by_key(|place| place.at) {
            place.has_lost = true;
        }
    }
}

// === impl Answer ===

impl Answer {
    /// What others are told of a head.
    pub(crate) fn new(head: &ResponseHead, told_by: ToldBy) -> Self {
        let mut shared = kept(head);
        if let Some(length) = head.fields.get("content-length") {
            shared.fields = shared.fields.with("content-length", length);
        }
        Self { head: shared, told_by }
    }
}

// === impl Lead ===

impl Lead {
    /// The answer has begun, and others may have it.
    pub(crate) fn answer(&self, answer: Answer) {
        self.0.turn(|state| {
            state.answer = Some(Arc::new(answer));
            state.answered = Some(Instant::now());
            state.phase = Phase::Flowing;
        });
    }

    /// The next piece of it.
    pub(crate) fn piece(&self, piece: &Bytes) {
        let Flight { most, room, .. } = &*self.0;
        let bytes = piece.len() as u64;
        let mut is_lost_now = false;
        self.0.turn(|state| {
            if state.lost.is_none() {
                state.lost = match () {
                    () if state.bytes + bytes > *most => Some(Reason::AnswerTooLarge),
                    () if !room.take(bytes) => Some(Reason::Busy),
                    () => None,
                };
                is_lost_now = state.lost.is_some();
            }
            if state.lost.is_none() || state.make_room(bytes, *most, room) {
                let at = state.answered.map(|at| at.elapsed()).unwrap_or_default();
                state.bytes += bytes;
                state.pieces.push_back((piece.clone(), at));
            }
        });
        if is_lost_now {
            self.0.leave_its_place();
        }
    }

    /// That was all of it: whether it is as good as to be given again is for the cache to say. Nothing
    /// that is kept has room for trailers.
    pub(crate) fn end(&self, has_trailers: bool) {
        self.0.leave_its_place();
        self.0.turn(|state| {
            state.phase = Phase::Ended;
            if has_trailers {
                state.lost.get_or_insert(Reason::Incomplete);
            }
        });
    }

    /// It breaks off, for this reason.
    pub(crate) fn break_off(&self, reason: Arc<str>) {
        self.0.leave_its_place();
        self.0.turn(|state| state.phase = Phase::Broken(reason));
    }

    /// Resolves when its caller has left, and nobody follows.
    pub(crate) fn poll_forsaken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_forsaken() {
            return Poll::Ready(());
        }
        let before = state.leader.replace(cx.waker().clone());
        drop(state);
        // Whose waker that was may do anything as it goes.
        drop(before);
        Poll::Pending
    }

    /// Those who follow.
    pub(crate) fn others(&self) -> Others {
        Others(self.0.clone())
    }

    /// What is needed to keep the answer later.
    pub(crate) fn kept(&self) -> Kept {
        Kept(self.0.clone())
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.leave_its_place();
        self.0.turn(|state| match state.phase {
            Phase::Asked => state.phase = Phase::Failed,
            Phase::Flowing => state.phase = Phase::Broken(LEADER_ENDED.into()),
            Phase::Ended | Phase::Broken(_) | Phase::Failed => {}
        });
    }
}

// === impl Others ===

impl Awaits for Others {
    /// The leader's caller has left: whether others wait. If nobody does, nobody joins any more,
    /// unless the call goes on in any case.
    fn wait(&self, goes_on: bool) -> bool {
        let mut state = self.0.lock();
        state.left_alone = !goes_on;
        !state.followers.is_empty()
    }
}

// === impl Kept ===

impl Kept {
    /// Its pieces, each with the time from the head to it, if it came to its end.
    pub(crate) fn pieces(&self) -> Result<Vec<(Bytes, Duration)>, Reason> {
        let state = self.0.lock();
        match (&state.phase, state.lost) {
            (_, Some(reason)) => Err(reason),
            (Phase::Ended, None) => Ok(state.pieces.iter().cloned().collect()),
            _ => Err(Reason::Incomplete),
        }
    }
}

// === impl Follower ===

impl Follower {
    /// The beginning of the answer, once it is there; nothing where others may not have it.
    pub(crate) fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Option<Arc<Answer>>> {
        let state = self.flight.lock();
        match (&state.answer, &state.phase) {
            (None, Phase::Asked) => self.wait(state, cx),
            (Some(answer), Phase::Flowing | Phase::Ended) => Poll::Ready(Some(answer.clone())),
            // What broke off before anybody saw it here may be asked for again.
            _ => Poll::Ready(None),
        }
    }

    /// The next piece, once it is there.
    pub(crate) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Piece> {
        let mut guard = self.flight.lock();
        let state = &mut *guard;
        let place = state.followers.get_mut(&self.number).expect("it follows to its end");
        if place.has_lost {
            return Poll::Ready(Piece::Broken(TOO_SLOW.into()));
        }
        if let Some((piece, _)) = state.pieces.get(place.at - state.gone) {
            place.at += 1;
            let piece = piece.clone();
            if state.lost.is_some() {
                self.flight.room.give(state.let_go());
            }
            return Poll::Ready(Piece::Data(piece));
        }
        match &state.phase {
            Phase::Asked | Phase::Flowing => self.wait(guard, cx),
            Phase::Ended => Poll::Ready(Piece::End),
            Phase::Broken(reason) => Poll::Ready(Piece::Broken(reason.clone())),
            Phase::Failed => Poll::Ready(Piece::Broken(LEADER_ENDED.into())),
        }
    }

    fn wait<T>(&self, mut state: MutexGuard<'_, State>, cx: &Context<'_>) -> Poll<T> {
        let place = state.followers.get_mut(&self.number);
        let before = place.and_then(|place| place.waker.replace(cx.waker().clone()));
        drop(state);
        // Whose waker that was may do anything as it goes.
        drop(before);
        Poll::Pending
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        let place = state.followers.remove(&self.number);
        let freed = if state.lost.is_some() { state.let_go() } else { 0 };
        let leader = if state.is_forsaken() { state.leader.take() } else { None };
        drop(state);
        drop(place);
        self.flight.room.give(freed);
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
