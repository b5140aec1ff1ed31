//! The connections of one worker to one server. Nothing here is shared between threads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::http2::Http2Connection;
use super::line::Line;
use super::spec::Origin;
use crate::http1::conn::Conn;
use crate::timer::Timer;

/// Connections to one server.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) origin: Origin,
    idle: RefCell<Vec<Idle>>,
    pub(crate) http2: RefCell<Vec<Rc<Http2Connection>>>,
    /// The calls that wait for one of these.
    pub(super) line: Line,
    /// Whether this server speaks HTTP/2, once that is known: a connection then serves many.
    pub(crate) speaks_http2: Cell<Option<bool>>,
    keep: Keep,
    /// The server is none of its upstream's any more.
    is_retired: Cell<bool>,
}

/// How many connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(super) max_idle: usize,
    pub(super) max_http2: usize,
    pub(super) keep_alive: Duration,
}

/// An HTTP/1.1 connection between two calls.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) conn: Rc<Conn>,
    /// Goes with the connection, so that a call makes none.
    pub(crate) timer: Timer,
    since: Instant,
}

impl Idle {
    /// A connection that has carried no call yet.
    pub(crate) fn fresh(conn: Rc<Conn>, timer: Timer) -> Self {
        Self { conn, timer, since: Instant::now() }
    }
}

impl Pool {
    pub(crate) fn new(origin: Origin, keep: Keep) -> Self {
        // With TLS only a handshake tells.
        let known = !origin.tls || origin.http2;
        Self {
            speaks_http2: Cell::new(known.then_some(origin.http2)),
            origin,
            idle: RefCell::default(),
            http2: RefCell::default(),
            line: Line::new(keep.max_http2),
            keep,
            is_retired: Cell::new(false),
        }
    }

    /// The connection that was used last, if it still lives.
    pub(crate) fn take(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        while let Some(found) = idle.pop() {
            let age = found.since.elapsed();
            if age < self.keep.keep_alive && !found.conn.is_stale() {
                return Some(found);
            }
        }
        None
    }

    /// Connections of HTTP/1.1 that carry no call.
    pub(crate) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Keeps a connection whose last call has ended clean.
    pub(crate) fn put(&self, conn: Rc<Conn>, timer: Timer) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.keep.max_idle && !self.is_retired.get() {
            idle.push(Idle::fresh(conn, timer));
        }
    }

    /// Closes what is idle, now and later: calls in flight go on, and hold on to this.
    pub(crate) fn retire(&self) {
        self.is_retired.set(true);
        self.idle.take();
        self.http2.take();
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        let limit = self.keep.keep_alive;
        self.idle.borrow_mut().retain(|idle| idle.since.elapsed() < limit && !idle.conn.is_stale());
        self.http2.borrow_mut().retain(|connection| !connection.is_idle_for(limit));
    }
}
