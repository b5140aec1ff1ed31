//! The line of calls that wait for a stream on an HTTP/2 connection.
//!
//! A stream is given only where the server allows one, so no call waits unseen within a connection.
//! As many connections are opened as the calls in line need, up to a limit; who comes first is
//! served first.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::http2::{self, Http2Connection, Seat};
use super::pool::Pool;

/// How long a server may take to say how many streams it allows, before none is said to be it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Who waits at one server, and for what.
#[derive(Debug)]
pub(super) struct Line {
    /// Held by the call whose turn it is.
    turn: Semaphore,
    /// Told when a stream may have become free, or a connection have been opened or failed.
    pub(super) changed: Rc<Notify>,
    waiting: Cell<usize>,
    opening: Cell<usize>,
    /// Streams that a connection is expected to carry: as many as the last one.
    pub(super) expected: Rc<Cell<usize>>,
    max_connections: usize,
}

/// What a call finds at the end of the line.
#[derive(Debug)]
pub(super) enum Place {
    /// A stream.
    Seat(Seat),
    /// The right to open a connection.
    Open(Opening),
    /// A server that does not speak HTTP/2, and so needs no line.
    Http1,
}

/// A connection that is being opened.
#[derive(Debug)]
pub(super) struct Opening(Rc<Pool>);

/// A call in line.
struct Waiting<'a>(&'a Line);

impl Line {
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            turn: Semaphore::new(1),
            changed: Rc::default(),
            waiting: Cell::new(0),
            opening: Cell::new(0),
            expected: Rc::new(Cell::new(http2::MAX_STREAMS)),
            max_connections,
        }
    }

    /// Whether nobody waits, so that a call that comes now takes nobody's place.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.get() == 0
    }
}

/// Waits for a place. A call that was refused on one connection avoids that while it can.
pub(super) async fn place(pool: &Rc<Pool>, avoid: Option<&Rc<Http2Connection>>) -> Place {
    let line = &pool.line;
    line.waiting.set(line.waiting.get() + 1);
    let _waiting = Waiting(line);
    let _turn = line.turn.acquire().await.expect("the semaphore is never closed");
    loop {
        if pool.speaks_http2.get() == Some(false) {
            return Place::Http1;
        }
        if let Some(place) = next(pool, avoid) {
            return place;
        }
        // A connection that has not said how many streams it allows is looked at again in any case.
        let _ = timeout(PATIENCE, line.changed.notified()).await;
    }
}

fn next(pool: &Rc<Pool>, avoid: Option<&Rc<Http2Connection>>) -> Option<Place> {
    if let Some(seat) = http2::seat(pool, avoid) {
        return Some(Place::Seat(seat));
    }
    let line = &pool.line;
    let (connections, unknown) = http2::connections(pool);
    let opening = line.opening.get();
    if connections + opening < line.max_connections {
        // Each connection to come has a stream for who opens it, and the others for those in line.
        let promised = (opening + unknown) * (line.expected.get().max(1) - 1);
        return (line.waiting.get() > promised).then(|| {
            line.opening.set(opening + 1);
            Place::Open(Opening(pool.clone()))
        });
    }
    avoid.and_then(|_| http2::seat(pool, None)).map(Place::Seat)
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let line = &self.0.line;
        line.opening.set(line.opening.get() - 1);
        line.changed.notify_one();
    }
}
