//! Carries a body from where it comes to an HTTP/1.1 connection.
//!
//! Each read is written at once, whole, from the thread's own buffer. Only what the sink does not
//! take is kept, and nothing more is read until it has gone: that is the backpressure.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use crate::http1::conn::{Conn, with_scratch};
use crate::http1::write::{self, BodyAs};

/// A body that gives its pieces one after the other.
pub(crate) trait Source {
    /// Why it may break off.
    type Error;

    /// The next piece, in `scratch` where it is raw.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Piece, Self::Error>>;
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// So many bytes of the scratch buffer, framed already.
    Raw(usize),
    /// Payload without framing.
    Data(Bytes),
    /// The trailers, and the end.
    Trailers(HeaderMap),
    /// The end.
    End,
}

/// Why a body did not arrive.
#[derive(Debug)]
pub(crate) enum PumpError<E> {
    Source(E),
    Sink(io::Error),
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Pump<S> {
    pub(crate) source: S,
    /// Starts with the message's head.
    out: Vec<u8>,
    at: usize,
    body_as: BodyAs,
    /// The head waits for one try to send it together with the beginning of the body.
    head_waits: bool,
    ended: bool,
    written: u64,
}

impl<S: Source> Pump<S> {
    /// A body behind this head.
    pub(crate) fn new(head: Vec<u8>, source: S, body_as: BodyAs) -> Self {
        Self { source, out: head, at: 0, body_as, head_waits: true, ended: false, written: 0 }
    }

    /// Bytes that the sink has taken.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Whether the sink, not the source, is waited for.
    pub(crate) fn waits_for_sink(&self) -> bool {
        self.at < self.out.len()
    }

    /// Moves on; ready when all has gone.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Conn,
    ) -> Poll<Result<(), PumpError<S::Error>>> {
        if std::mem::take(&mut self.head_waits) {
            // Head and first bytes leave in one write.
            if let Poll::Ready(result) = with_scratch(|scratch| self.pull(cx, scratch, None)) {
                result?;
            }
        }
        loop {
            ready!(self.flush(cx, sink)).map_err(PumpError::Sink)?;
            if self.ended {
                return sink.poll_flush(cx).map_err(PumpError::Sink);
            }
            ready!(with_scratch(|scratch| self.pull(cx, scratch, Some(sink))))?;
        }
    }

    /// Reads one piece. Raw bytes go to the sink at once, where one is given.
    fn pull(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        sink: Option<&Conn>,
    ) -> Poll<Result<(), PumpError<S::Error>>> {
        match ready!(self.source.poll_piece(cx, scratch)).map_err(PumpError::Source)? {
            Piece::Raw(n) => {
                let taken = match sink.map(|sink| sink.poll_write(cx, &scratch[..n])) {
                    Some(Poll::Ready(taken)) => taken.map_err(PumpError::Sink)?,
                    Some(Poll::Pending) | None => 0,
                };
                self.written += taken as u64;
                self.out.extend_from_slice(&scratch[taken..n]);
            }
            Piece::Data(payload) if self.body_as == BodyAs::Chunked => {
                write::chunk(&mut self.out, &payload);
            }
            Piece::Data(payload) => self.out.extend_from_slice(&payload),
            Piece::Trailers(trailers) => self.end(Some(&trailers)),
            Piece::End => self.end(None),
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if self.body_as == BodyAs::Chunked {
            write::last_chunk(&mut self.out, trailers);
        }
        self.ended = true;
    }

    fn flush(&mut self, cx: &mut Context<'_>, sink: &Conn) -> Poll<io::Result<()>> {
        while self.at < self.out.len() {
            let n = ready!(sink.poll_write(cx, &self.out[self.at..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += n;
            self.written += n as u64;
        }
        // A stream that waits holds no buffer.
        self.out = Vec::new();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}
