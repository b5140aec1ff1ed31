//! The beginning of an answer, held back until it means something: until then nobody has seen
//! anything of it, and the call may be made again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tidegate_wire::Progress;
use tokio::time::{Instant, timeout_at};

use crate::call::{Reply, ReplyBody};
use crate::error::Error;
use crate::exchange::Notes;
use crate::upstream::Http1Reply;
use crate::verdict::Verdict;

/// Bytes of an answer that are held, at most.
const MAX_HELD: usize = 64 << 10;
/// How long the body of an answer that is an error by its status is waited for.
const ERROR_BODY: Duration = Duration::from_secs(2);

/// The body of an answer that is read off no connection of its own, with what was read of it already.
#[derive(Debug)]
pub(crate) struct HeldReply {
    ahead: VecDeque<Frame<Bytes>>,
    rest: Rest,
}

/// What follows what was read.
#[derive(Debug)]
enum Rest {
    Body(ReplyBody),
    Error(Error),
    End,
}

/// Reads an answer until it is known what it says, for as long as `limit`, and says what that is.
pub(crate) async fn hold(reply: Reply, notes: &Notes, limit: Duration) -> (Reply, Verdict) {
    let is_error = reply.head.status >= 400;
    let is_stream = || notes.observer(|observer| observer.is_stream());
    let is_made_here = matches!(reply.body, ReplyBody::Full(_) | ReplyBody::Upgraded(_));
    let is_over = matches!(&reply.body, ReplyBody::Http2(body) if body.is_bodiless());
    if is_made_here || is_over || !is_error && !is_stream() {
        let verdict = notes.verdict().unwrap_or_else(|| Verdict::good(None));
        return (reply, verdict);
    }
    let start = Instant::now();
    let due = start + if is_error { ERROR_BODY.min(limit) } else { limit };
    let Reply { head, body } = reply;
    // Too late: what has come must do.
    let (body, broken) = match body {
        ReplyBody::Http1(mut body) => {
            let _ = timeout_at(due, read_ahead(&mut body, notes, is_error)).await;
            let broken = body.broken().map(Verdict::of_broken);
            (ReplyBody::Http1(body), broken)
        }
        body => {
            let mut held = HeldReply { ahead: VecDeque::new(), rest: Rest::Body(body) };
            let _ = timeout_at(due, held.read_ahead(notes, is_error)).await;
            let broken = match &held.rest {
                Rest::Error(error) => Some(Verdict::of_broken(error)),
                Rest::Body(_) | Rest::End => None,
            };
            (ReplyBody::Held(Box::new(held)), broken)
        }
    };
    notes.held_back(start.elapsed());
    let said = || notes.verdict().unwrap_or_else(|| Verdict::good(None));
    let verdict = broken.filter(|_| !is_error).unwrap_or_else(said);
    (Reply { head, body }, verdict)
}

/// Reads on until it is known what the answer says; it stays on its connection, as it stands there.
async fn read_ahead(body: &mut Http1Reply, notes: &Notes, is_error: bool) {
    let mut ahead = body.start();
    while poll_fn(|cx| body.poll_ahead(cx, &mut ahead)).await {
        if is_enough(notes, is_error, ahead.bytes()) {
            return;
        }
    }
}

/// Whether an answer of which so much has come need not be held any longer.
fn is_enough(notes: &Notes, is_error: bool, bytes: usize) -> bool {
    let progress = notes.observer(|observer| observer.progress());
    let is_known = !matches!(progress, Progress::None | Progress::Begun);
    is_known && !is_error || bytes >= MAX_HELD
}

impl HeldReply {
    async fn read_ahead(&mut self, notes: &Notes, is_error: bool) {
        let mut held = 0;
        while let Rest::Body(body) = &mut self.rest {
            match poll_fn(|cx| body.poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    held += frame.data_ref().map_or(0, Bytes::len);
                    let is_last = frame.is_trailers();
                    self.ahead.push_back(frame);
                    if is_last {
                        self.rest = Rest::End;
                    }
                }
                Some(Err(error)) => self.rest = Rest::Error(error),
                None => self.rest = Rest::End,
            }
            if is_enough(notes, is_error, held) {
                return;
            }
        }
    }

    /// The next piece of payload, or the trailers; `None` is the clean end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Rest::Body(body) => {
                let frame = ready!(body.poll_frame(cx));
                let is_last = frame
                    .as_ref()
                    .is_none_or(|frame| frame.as_ref().map_or(true, |frame| frame.is_trailers()));
                if is_last {
                    self.rest = Rest::End;
                }
                Poll::Ready(frame)
            }
            Rest::Error(_) => match std::mem::replace(&mut self.rest, Rest::End) {
                Rest::Error(error) => Poll::Ready(Some(Err(error))),
                _ => Poll::Ready(None),
            },
            Rest::End => Poll::Ready(None),
        }
    }
}
