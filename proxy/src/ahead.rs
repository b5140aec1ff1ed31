//! Reads a body ahead of its way, a request's to the upstream or an answer's to the caller; every
//! byte of it stays where it will be found then.

use std::task::{Context, Poll, ready};

use http_body::Body as _;

use crate::call::RequestBody;
use crate::error::Error;
use crate::http1::body::Framed;
use crate::http1::framing::{Decoder, FramingError};

/// How far the body of a request was read ahead.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Where it is on an HTTP/1.1 connection.
    framed: Option<FramedAhead>,
    /// Frames of an HTTP/2 stream that were shown.
    frames: usize,
    /// Whether the caller holds the body back until it hears `100 Continue`.
    expects_continue: bool,
}

/// How far a body on an HTTP/1.1 connection was read ahead.
#[derive(Debug)]
pub(crate) struct FramedAhead {
    decoder: Decoder,
    /// Bytes that were shown, framing included.
    looked_at: usize,
}

// === impl Ahead ===

impl Ahead {
    /// At the front of the body, whether or not others have read ahead before.
    pub(crate) fn new(body: &RequestBody, expects_continue: bool) -> Self {
        let framed = match body {
            RequestBody::Http1(framed) => Some(FramedAhead::new(framed)),
            RequestBody::Empty | RequestBody::Http2(_) | RequestBody::Full(_) => None,
        };
        Self { framed, frames: 0, expects_continue }
    }

    /// Shows what has come already; how many bytes that is, framing included.
    pub(crate) fn look(
        &mut self,
        body: &RequestBody,
        mut show: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        match (body, &mut self.framed) {
            (RequestBody::Http1(framed), Some(ahead)) => {
                ahead.look(framed, show).map_err(|error| Error::Body(error.into()))
            }
            (RequestBody::Http2(body), _) => {
                let fresh = body.ahead.iter().skip(self.frames);
                self.frames = body.ahead.len();
                let data = fresh.filter_map(|frame| frame.data_ref());
                Ok(data.inspect(|data| show(data)).map(|data| data.len()).sum())
            }
            _ => Ok(0),
        }
    }

    /// Reads a piece and shows it; 0 is the end.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
        mut show: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, Error>> {
        loop {
            let shown = self.look(body, &mut show)?;
            if shown > 0 || !ready!(self.poll_more(cx, body))? {
                return Poll::Ready(Ok(shown));
            }
        }
    }

    /// Waits for more; false at the end.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
    ) -> Poll<Result<bool, Error>> {
        match (body, &self.framed) {
            (RequestBody::Http1(framed), Some(ahead)) if !ahead.is_over() => {
                if std::mem::take(&mut self.expects_continue) && ahead.looked_at == 0 {
                    let _ = framed.conn.poll_write(cx, b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                match ready!(framed.conn.poll_fill(cx)) {
                    Ok(0) | Err(_) => Poll::Ready(Err(Error::CallerLeft)),
                    Ok(_) => Poll::Ready(Ok(true)),
                }
            }
            (RequestBody::Http2(body), _) => body.poll_ahead(cx).map_err(|_| Error::CallerLeft),
            _ => Poll::Ready(Ok(false)),
        }
    }

    /// Whether the end of the body was shown.
    pub(crate) fn is_over(&self, body: &RequestBody) -> bool {
        match (body, &self.framed) {
            (RequestBody::Http1(_), Some(ahead)) => ahead.is_over(),
            (RequestBody::Http2(body), _) => body.incoming.is_end_stream(),
            _ => true,
        }
    }

    /// Whether a body that was read to its end has a trailer section.
    pub(crate) fn has_trailers(&self, body: &RequestBody) -> bool {
        match body {
            RequestBody::Http2(body) => body.ahead.iter().any(|frame| frame.is_trailers()),
            _ => self.framed.as_ref().is_some_and(|ahead| !ahead.decoder.trailers().is_empty()),
        }
    }
}

// === impl FramedAhead ===

impl FramedAhead {
    /// At the front of what has not been passed on.
    pub(crate) fn new(framed: &Framed) -> Self {
        Self { decoder: framed.decoder().clone(), looked_at: 0 }
    }

    /// Shows the payload of what has come; how many bytes that is, framing included.
    pub(crate) fn look(
        &mut self,
        framed: &Framed,
        show: impl FnMut(&[u8]),
    ) -> Result<usize, FramingError> {
        let from = self.looked_at;
        let taken = framed.conn.peek(|ahead| self.decoder.advance(&ahead[from..], show))?;
        self.looked_at += taken;
        Ok(taken)
    }

    /// The same, no further than to the end of the next run.
    pub(crate) fn look_at_a_run(
        &mut self,
        framed: &Framed,
        show: impl FnMut(&[u8]),
    ) -> Result<usize, FramingError> {
        let from = self.looked_at;
        let taken = framed.conn.peek(|ahead| self.decoder.advance_a_run(&ahead[from..], show))?;
        self.looked_at += taken;
        Ok(taken)
    }

    /// Bytes that were shown, framing included.
    pub(crate) fn bytes(&self) -> usize {
        self.looked_at
    }

    /// Whether the end was shown.
    pub(crate) fn is_over(&self) -> bool {
        self.decoder.is_done()
    }

    /// No more comes; whether that is the end.
    pub(crate) fn close(&mut self) -> bool {
        self.decoder.close()
    }
}
