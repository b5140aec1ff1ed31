//! The model of a call that failed before its body had said it.
//!
//! Who counts errors by model needs it most when nothing else works. So whoever lets go of a body that
//! was not read leaves the rest here, and before a call is answered with an error of ours, that is read
//! on as far as the model: for a moment, and no further than a bound. Nothing is held of it.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::timeout;

use super::Notes;
use crate::call::RequestBody;
use crate::http1::conn::with_scratch;

/// How long an error waits for the model: most bodies are there, or are a round trip behind the head.
const MOMENT: Duration = Duration::from_millis(100);
/// Bytes that are read for it: long conversations name it last.
const MAX_BYTES: usize = 4 << 20;

impl Notes {
    /// Keeps what is left of a body, if it may yet name the model of a call that has no answer.
    pub(crate) fn left_unread(&self, body: RequestBody) {
        let is_unread = matches!(body, RequestBody::Http1(_) | RequestBody::Http2(_))
            && !self.request_is_read()
            && self.stamps.answered.get().is_none();
        if is_unread && self.awaits_model() {
            *self.unread.borrow_mut() = Some(body);
        }
    }

    /// Reads on as far as the model, if what is left of the body names it.
    pub(crate) async fn read_late_model(&self) {
        let Some(mut rest) = self.unread.take() else { return };
        // What was read ahead stands in front of the rest, and was shown.
        let mut shown = {
            let state = self.state.borrow();
            (state.request_seen - state.request_passed) as usize
        };
        let mut left = MAX_BYTES;
        let read = async {
            while self.awaits_model() && left > 0 {
                let mut see = |payload: &[u8]| {
                    let again = shown.min(payload.len());
                    shown -= again;
                    self.request_ahead(&payload[again..]);
                };
                match poll_fn(|cx| poll_piece(cx, &mut rest, &mut see)).await {
                    Some(bytes) => left = left.saturating_sub(bytes),
                    None => return,
                }
            }
        };
        // A caller that takes its time gets its answer, and its call no model.
        let _ = timeout(MOMENT, read).await;
    }

    fn awaits_model(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.observer.as_mut().is_some_and(|observer| observer.awaits_model())
    }
}

/// Reads a piece of a body, of which nothing is kept; nothing where no more comes.
fn poll_piece(
    cx: &mut Context<'_>,
    body: &mut RequestBody,
    see: &mut impl FnMut(&[u8]),
) -> Poll<Option<usize>> {
    Poll::Ready(match body {
        RequestBody::Http1(framed) => {
            let read = with_scratch(|scratch| framed.poll_raw(cx, scratch, see));
            ready!(read).ok().filter(|bytes| *bytes > 0)
        }
        RequestBody::Http2(body) => match ready!(body.poll_frame(cx)) {
            Some(Ok(frame)) => frame.data_ref().map(|data| {
                see(data);
                data.len()
            }),
            Some(Err(_)) | None => None,
        },
        RequestBody::Empty | RequestBody::Full(_) => None,
    })
}
