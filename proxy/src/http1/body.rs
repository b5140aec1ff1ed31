//! The body of an HTTP/1.1 message as it comes from its connection.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::conn::{Conn, with_scratch};
use super::framing::{Decoder, Framing, FramingError};

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("connection broke")]
    Io(#[from] io::Error),
    #[error("connection closed before the end of the body")]
    Cut,
    #[error("illegal framing")]
    Framing(#[from] FramingError),
}

/// A body on its connection.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) conn: Rc<Conn>,
    decoder: Decoder,
}

impl Framed {
    pub(crate) fn new(conn: Rc<Conn>, framing: Framing) -> Self {
        Self { conn, decoder: Decoder::new(framing) }
    }

    /// How many bytes are to come, where the framing is nothing but that.
    pub(crate) fn length(&self) -> Option<usize> {
        usize::try_from(self.decoder.length()?).ok()
    }

    /// The payload of a body that its connection has read ahead to its end.
    pub(crate) fn taken(mut self) -> Bytes {
        if let Some(length) = self.length() {
            return self.conn.take(length);
        }
        let mut payload = BytesMut::new();
        let decode =
            |ahead: &[u8]| self.decoder.advance(ahead, |run| payload.extend_from_slice(run));
        // An error was seen when it was read ahead.
        let taken = self.conn.peek(decode).unwrap_or_default();
        self.conn.consume(taken);
        payload.freeze()
    }

    /// Passes over what its connection has read ahead of it.
    pub(crate) fn skip(&mut self) {
        let taken = self.conn.peek(|ahead| self.decoder.advance(ahead, |_| {}));
        self.conn.consume(taken.unwrap_or_default());
    }

    /// Whether all of it was read.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Where in its framing the body stands.
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The trailer section as it came.
    pub(crate) fn trailers(&self) -> &[u8] {
        self.decoder.trailers()
    }

    /// Reads bytes as they stand on the wire, framing included, and shows the payload among them;
    /// 0 is the clean end. What follows the body stays with the connection.
    pub(crate) fn poll_raw(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        payload: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, BodyError>> {
        if self.is_done() {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(self.conn.poll_read(cx, buf))?;
        if n == 0 {
            return Poll::Ready(if self.decoder.close() { Ok(0) } else { Err(BodyError::Cut) });
        }
        let taken = self.decoder.advance(&buf[..n], payload)?;
        if taken < n {
            self.conn.unread(&buf[taken..n]);
        }
        Poll::Ready(Ok(taken))
    }

    /// Reads the next piece of payload; `None` is the clean end.
    pub(crate) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            let mut payload = BytesMut::new();
            let n = with_scratch(|scratch| {
                self.poll_raw(cx, scratch, |run| payload.extend_from_slice(run))
            });
            if ready!(n)? == 0 {
                return Poll::Ready(Ok(None));
            }
            if !payload.is_empty() {
                return Poll::Ready(Ok(Some(payload.freeze())));
            }
        }
    }
}
