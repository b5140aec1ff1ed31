//! The connections of one worker to one server. Nothing here is shared between threads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::http2::Http2Connection;
use super::spec::Origin;
use crate::http1::conn::Conn;
use crate::timer::Timer;

/// Connections to one server.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) origin: Origin,
    idle: RefCell<Vec<Idle>>,
    pub(crate) http2: RefCell<Vec<Rc<Http2Connection>>>,
    /// Held while a connection is opened that others may share.
    pub(crate) opening: tokio::sync::Semaphore,
    /// Whether this server is known to speak HTTP/2, so that opening is worth waiting for.
    pub(crate) speaks_http2: Cell<bool>,
    max_idle: usize,
    keep_alive: Duration,
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
    pub(crate) fn new(origin: Origin, max_idle: usize, keep_alive: Duration) -> Self {
        Self {
            speaks_http2: Cell::new(origin.http2),
            origin,
            idle: RefCell::default(),
            http2: RefCell::default(),
            opening: tokio::sync::Semaphore::new(1),
            max_idle,
            keep_alive,
        }
    }

    /// The connection that was used last, if it still lives.
    pub(crate) fn take(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        while let Some(found) = idle.pop() {
            let age = found.since.elapsed();
            if age < self.keep_alive && !found.conn.is_stale() {
                return Some(found);
            }
        }
        None
    }

    /// Keeps a connection whose last call has ended clean.
    pub(crate) fn put(&self, conn: Rc<Conn>, timer: Timer) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle {
            idle.push(Idle::fresh(conn, timer));
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        let limit = self.keep_alive;
        self.idle.borrow_mut().retain(|idle| idle.since.elapsed() < limit && !idle.conn.is_stale());
        self.http2.borrow_mut().retain(|connection| !connection.is_idle_for(limit));
    }
}
