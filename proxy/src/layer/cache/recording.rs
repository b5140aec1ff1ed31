//! An answer on its way to its caller, of which others and the cache get a copy as it goes by.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::flight::Lead;
use crate::call::ReplyBody;
use crate::error::Error;
use crate::exchange::Notes;

/// `error.type` of an answer whose carrier did not say why it broke off.
const BROKEN: &str = "upstream_closed";

/// The body of an answer that may be kept.
#[derive(Debug)]
pub(crate) struct Recording {
    body: ReplyBody,
    lead: Lead,
    notes: Rc<Notes>,
    /// What is to come of a body whose length was said.
    left: Option<u64>,
}

impl Recording {
    pub(crate) fn new(body: ReplyBody, lead: Lead, notes: Rc<Notes>, length: Option<u64>) -> Self {
        Self { body, lead, notes, left: length }
    }

    /// The next piece of payload, or the trailers; `None` is the clean end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.notes.left.goes_on() && self.lead.poll_forsaken(cx).is_ready() {
            return Poll::Ready(Some(Err(Error::CallerLeft)));
        }
        let frame = ready!(self.body.poll_frame(cx));
        match &frame {
            None => self.lead.end(false),
            Some(Err(_)) => self.break_off(),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(piece) => self.piece(piece),
                None => self.lead.end(true),
            },
        }
        Poll::Ready(frame)
    }

    /// Once a caller has all of an answer, nobody joins: its end may come later than that.
    fn piece(&mut self, piece: &Bytes) {
        self.lead.piece(piece);
        self.left = self.left.and_then(|left| left.checked_sub(piece.len() as u64));
        if self.left == Some(0) {
            self.lead.end(false);
        }
    }

    fn break_off(&self) {
        let reason = self.notes.record(|record| record.error_type.as_deref().map(Into::into));
        self.lead.break_off(reason.unwrap_or_else(|| BROKEN.into()));
    }
}
