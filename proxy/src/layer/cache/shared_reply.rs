//! The answer to an equal call, on its way to another caller as it comes.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tidegate_wire::ErrorOrigin;
use tokio::time::Instant;

use super::flight::{Follower, LEADER_ENDED, Piece, TOO_SLOW};
use crate::error::Error;
use crate::exchange::Notes;
use crate::http1::body::BodyError;

/// The body of an answer that another has asked for.
#[derive(Debug)]
pub(crate) struct SharedReply {
    follower: Follower,
    notes: Rc<Notes>,
}

impl SharedReply {
    pub(crate) fn new(follower: Follower, notes: Rc<Notes>) -> Self {
        Self { follower, notes }
    }

    /// The next piece of payload; `None` is the clean end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(match ready!(self.follower.poll_piece(cx)) {
            Piece::End => None,
            Piece::Data(piece) => {
                self.notes.response_chunk(&piece, Instant::now());
                Some(Ok(Frame::data(piece)))
            }
            Piece::Broken(reason) => {
                self.break_off(&reason);
                Some(Err(Error::Body(BodyError::Cut)))
            }
        })
    }

    fn break_off(&self, reason: &str) {
        self.notes.broken(reason);
        let origin = match reason {
            TOO_SLOW => ErrorOrigin::Client,
            LEADER_ENDED => ErrorOrigin::Sidecar,
            _ => ErrorOrigin::Upstream,
        };
        self.notes.record(|record| record.error_origin = Some(origin));
    }
}
