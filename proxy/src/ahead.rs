//! Reads the body of a request ahead of its way to the upstream; every byte of it stays where the
//! upload will find it.

use std::task::{Context, Poll, ready};

use http_body::Body as _;

use crate::call::RequestBody;
use crate::error::Error;
use crate::http1::framing::Decoder;

/// How far a body was read ahead.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Follows the framing of HTTP/1.1.
    decoder: Option<Decoder>,
    /// Bytes on an HTTP/1.1 connection, or frames of an HTTP/2 stream, that were shown.
    looked_at: usize,
    /// Whether the caller holds the body back until it hears `100 Continue`.
    expects_continue: bool,
}

impl Ahead {
    /// At the front of the body, whether or not others have read ahead before.
    pub(crate) fn new(body: &RequestBody, expects_continue: bool) -> Self {
        let decoder = match body {
            RequestBody::Http1(framed) => Some(framed.decoder().clone()),
            RequestBody::Empty | RequestBody::Http2(_) | RequestBody::Full(_) => None,
        };
        Self { decoder, looked_at: 0, expects_continue }
    }

    /// Shows what has come already; how many bytes that is, framing included.
    pub(crate) fn look(
        &mut self,
        body: &RequestBody,
        mut show: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        match (body, &mut self.decoder) {
            (RequestBody::Http1(framed), Some(decoder)) => {
                let from = self.looked_at;
                let taken = framed.conn.peek(|ahead| decoder.advance(&ahead[from..], show));
                let taken = taken.map_err(|error| Error::Body(error.into()))?;
                self.looked_at += taken;
                Ok(taken)
            }
            (RequestBody::Http2(body), _) => {
                let fresh = body.ahead.iter().skip(self.looked_at);
                self.looked_at = body.ahead.len();
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
        match (body, &self.decoder) {
            (RequestBody::Http1(framed), Some(decoder)) if !decoder.is_done() => {
                if std::mem::take(&mut self.expects_continue) && self.looked_at == 0 {
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
        match (body, &self.decoder) {
            (RequestBody::Http1(_), Some(decoder)) => decoder.is_done(),
            (RequestBody::Http2(body), _) => body.incoming.is_end_stream(),
            _ => true,
        }
    }

    /// Whether a body that was read to its end has a trailer section.
    pub(crate) fn has_trailers(&self, body: &RequestBody) -> bool {
        match body {
            RequestBody::Http2(body) => body.ahead.iter().any(|frame| frame.is_trailers()),
            _ => self.decoder.as_ref().is_some_and(|decoder| !decoder.trailers().is_empty()),
        }
    }
}
