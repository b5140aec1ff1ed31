//! Two connections that have changed to another protocol: bytes pass both ways as they come.
//!
//! Nothing is read of them but how many there are. What one side does not take is kept, and no more
//! is read from the other until it has gone. A side that has said its last word is heard by the
//! other, which may go on.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::Notes;
use crate::http1::conn::{Conn, with_scratch};
use crate::timer::Timer;

/// How long nothing may pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// While both sides may speak.
    pub(crate) open: Duration,
    /// Once one of them has closed.
    pub(crate) half_closed: Duration,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A side closed, and what it had said before was handed over.
    Closed,
    /// The caller broke off.
    CallerBroke,
    /// The upstream broke off.
    UpstreamBroke,
    /// Nothing passed for too long.
    Idle,
}

/// One direction.
struct Flow<'a> {
    from: &'a Conn,
    to: &'a Conn,
    /// What the sink has not taken yet.
    kept: Vec<u8>,
    at: usize,
    /// The source has closed.
    ended: bool,
    /// The sink was told so.
    done: bool,
}

/// Which end of a direction broke.
enum Broke {
    Source,
    Sink,
}

/// Carries bytes until either side is done; `head` is what the caller hears first.
pub(crate) async fn run(
    caller: &Conn,
    upstream: &Conn,
    head: Vec<u8>,
    timer: &mut Timer,
    limits: Limits,
    notes: &Notes,
) {
    // Whatever ends the tunnel before a side has closed must not look as if one had.
    caller.reset_on_close(true);
    let mut up = Flow::new(caller, upstream, Vec::new());
    let mut down = Flow::new(upstream, caller, head);
    timer.set(Instant::now() + limits.open);
    match poll_fn(|cx| poll(cx, &mut up, &mut down, timer, limits, notes)).await {
        End::Closed => {
            caller.reset_on_close(false);
            notes.handed_over();
        }
        End::CallerBroke => upstream.reset_on_close(true),
        End::UpstreamBroke => notes.broken("upstream_closed"),
        End::Idle => notes.tunnel_idle(),
    }
}

fn poll(
    cx: &mut Context<'_>,
    up: &mut Flow<'_>,
    down: &mut Flow<'_>,
    timer: &mut Timer,
    limits: Limits,
    notes: &Notes,
) -> Poll<End> {
    let mut passed = false;
    let upward = up.poll(cx, &mut |n| {
        passed = true;
        notes.tunnelled_up(n);
    });
    let downward = down.poll(cx, &mut |n| {
        passed = true;
        notes.tunnelled_down(n);
    });
    if down.kept.is_empty() {
        notes.delivered();
    }
    let has_closed = up.ended || down.ended;
    match (upward, downward) {
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
        (_, Poll::Ready(Err(Broke::Source))) | (Poll::Ready(Err(Broke::Sink)), _) => {
            return Poll::Ready(broken(down, up, End::UpstreamBroke));
        }
        (_, Poll::Ready(Err(Broke::Sink))) | (Poll::Ready(Err(Broke::Source)), _) => {
            return Poll::Ready(broken(up, down, End::CallerBroke));
        }
        _ => {}
    }
    if passed {
        timer.set(Instant::now() + if has_closed { limits.half_closed } else { limits.open });
    }
    ready!(timer.poll(cx));
    Poll::Ready(if has_closed { End::Closed } else { End::Idle })
}

/// What a break means of the side that sends in `mine` and is sent to in `other`.
fn broken(mine: &Flow<'_>, other: &Flow<'_>, end: End) -> End {
    // How a side lets go that has closed, or has been told all there was before the other closed,
    // does not matter.
    let is_over = mine.ended || other.ended && other.kept.is_empty();
    if is_over { End::Closed } else { end }
}

// === impl Flow ===

impl<'a> Flow<'a> {
    fn new(from: &'a Conn, to: &'a Conn, kept: Vec<u8>) -> Self {
        Self { from, to, kept, at: 0, ended: false, done: false }
    }

    /// Moves on and says how many bytes came, 0 for the end; ready when that was passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        came: &mut impl FnMut(u64),
    ) -> Poll<Result<(), Broke>> {
        while !self.done {
            ready!(self.flush(cx))?;
            if self.ended {
                // A sink that is gone already needs not be told.
                let _ = ready!(self.to.poll_shutdown(cx));
                self.done = true;
            } else {
                came(ready!(with_scratch(|scratch| self.pull(cx, scratch)))? as u64);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        while self.at < self.kept.len() {
            match ready!(self.to.poll_write(cx, &self.kept[self.at..])) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Broke::Sink)),
                Ok(n) => self.at += n,
            }
        }
        // A tunnel that waits holds no buffer.
        self.kept = Vec::new();
        self.at = 0;
        self.to.poll_flush(cx).map_err(|_| Broke::Sink)
    }

    /// Reads once, and writes that at once as far as the sink takes it.
    fn pull(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<usize, Broke>> {
        let n = match ready!(self.from.poll_read(cx, scratch)) {
            Ok(n) => n,
            // TLS without its own last word; the connection itself was closed in order.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Err(_) => return Poll::Ready(Err(Broke::Source)),
        };
        if n == 0 {
            self.ended = true;
            return Poll::Ready(Ok(0));
        }
        let taken = match self.to.poll_write(cx, &scratch[..n]) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(_)) => {
                self.kept.extend_from_slice(&scratch[..n]);
                return Poll::Ready(Err(Broke::Sink));
            }
            Poll::Pending => 0,
        };
        self.kept.extend_from_slice(&scratch[taken..n]);
        Poll::Ready(Ok(n))
    }
}
