//! An answer on its way to its caller, of which a copy is kept as it goes by.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::Instant;

use super::admission::Reason;
use crate::call::ReplyBody;
use crate::error::Error;

/// The body of an answer that may be kept.
#[derive(Debug)]
pub(crate) struct Recording {
    body: ReplyBody,
    kept: Rc<RefCell<Kept>>,
}

/// What has gone by of an answer.
#[derive(Debug)]
pub(crate) struct Kept {
    since: Instant,
    pieces: Vec<(Bytes, Duration)>,
    bytes: u64,
    most: u64,
    state: State,
    /// Bytes of all answers that are on their way to be kept, and how many there may be.
    all: Arc<AtomicU64>,
    most_of_all: u64,
}

/// Whether it is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There may be more.
    Open,
    /// It came to its end.
    Whole,
    /// No more.
    GivenUp(Reason),
}

impl Recording {
    pub(crate) fn new(body: ReplyBody, kept: Rc<RefCell<Kept>>) -> Self {
        Self { body, kept }
    }

    /// The next piece of payload, or the trailers; `None` is the clean end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.body.poll_frame(cx));
        let mut kept = self.kept.borrow_mut();
        match &frame {
            None => kept.end(),
            Some(Err(_)) => kept.give_up(Reason::Incomplete),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(piece) => kept.piece(piece),
                // Nothing that is kept has room for them.
                None => kept.give_up(Reason::Incomplete),
            },
        }
        Poll::Ready(frame)
    }
}

impl Kept {
    /// Nothing yet; up to so many bytes of it, and of all.
    pub(crate) fn new(most: u64, (all, most_of_all): (&Arc<AtomicU64>, u64)) -> Self {
        Self {
            since: Instant::now(),
            pieces: Vec::new(),
            bytes: 0,
            // A place in an entry has 32 bits.
            most: most.min(u64::from(u32::MAX)),
            state: State::Open,
            all: all.clone(),
            most_of_all,
        }
    }

    /// Its pieces, each with the time from the head to it, if it came to its end.
    pub(crate) fn pieces(&self) -> Result<&[(Bytes, Duration)], Reason> {
        match self.state {
            State::Whole => Ok(&self.pieces),
            State::Open => Err(Reason::Incomplete),
            State::GivenUp(reason) => Err(reason),
        }
    }

    fn piece(&mut self, piece: &Bytes) {
        if self.state != State::Open {
            return;
        }
        let bytes = piece.len() as u64;
        if self.bytes + bytes > self.most {
            return self.give_up(Reason::AnswerTooLarge);
        }
        if self.all.fetch_add(bytes, Relaxed) + bytes > self.most_of_all {
            self.all.fetch_sub(bytes, Relaxed);
            return self.give_up(Reason::Busy);
        }
        self.bytes += bytes;
        self.pieces.push((piece.clone(), self.since.elapsed()));
    }

    fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Whole;
        }
    }

    fn give_up(&mut self, reason: Reason) {
        self.state = State::GivenUp(reason);
        self.pieces = Vec::new();
        self.all.fetch_sub(std::mem::take(&mut self.bytes), Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}
