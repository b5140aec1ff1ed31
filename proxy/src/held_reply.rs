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
use crate::verdict::Verdict;

/// Bytes of an answer that are held, at most.
const MAX_HELD: usize = 64 << 10;
/// How long the body of an answer that is an error by its status is waited for.
const ERROR_BODY: Duration = Duration::from_secs(2);

/// The body of an answer, with what was read of it already.
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
    let Reply { head, body } = reply;
    let mut held = HeldReply { ahead: VecDeque::new(), rest: Rest::Body(body) };
    let due = start + if is_error { ERROR_BODY.min(limit) } else { limit };
    // Too late: what has come must do.
    let _ = timeout_at(due, held.read_ahead(notes, is_error)).await;
    notes.held_back(start.elapsed());
    let verdict = match &held.rest {
        Rest::Error(error) if !is_error => Verdict::of_broken(error),
        _ => notes.verdict().unwrap_or_else(|| Verdict::good(None)),
    };
    (Reply { head, body: ReplyBody::Held(Box::new(held)) }, verdict)
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
            let progress = notes.observer(|observer| observer.progress());
            let is_known = !matches!(progress, Progress::None | Progress::Begun);
            if is_known && !is_error || held >= MAX_HELD {
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
