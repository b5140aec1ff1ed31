//! One call over an HTTP/1.1 connection to an upstream.
//!
//! The request body goes up while the answer is awaited and even while it comes, in the same task.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::connect::Speak;
use super::pool::{Idle, Pool};
use super::{Connection, Limits};
use crate::ahead::FramedAhead;
use crate::call::{Call, CallerBody, Failure, Reply, ReplyBody, RequestBody};
use crate::error::{Error, IDLE_TIMEOUT};
use crate::exchange::Notes;
use crate::head::{Fields, ResponseHead};
use crate::http1::body::{BodyError, Framed};
use crate::http1::conn::{Conn, with_scratch};
use crate::http1::parse::{self, HeadError, Parsed};
use crate::http1::upgrade;
use crate::http1::write::{self, BodyAs};
use crate::pump::{Piece, Pump, PumpError, Source};
use crate::timer::Timer;

/// Interim responses (1xx) that an upstream may send for one call.
const MAX_INTERIM: u32 = 16;
/// Bytes of a held body that are on their way at a time.
const FULL_PIECE: usize = 64 << 10;
/// The status that changes a connection to another protocol.
const SWITCHING: u16 = 101;

/// The body of an answer, on its connection.
#[derive(Debug)]
pub(crate) struct Http1Reply {
    pub(super) framed: Framed,
    /// Where the request is still going up.
    pub(super) upload: Option<Upload>,
    /// Taken when the connection goes back.
    pub(super) timer: Option<Timer>,
    pub(super) pool: Rc<Pool>,
    pub(super) reusable: bool,
    pub(super) notes: Rc<Notes>,
    pub(super) limits: Limits,
    pub(super) ahead: ReadAhead,
}

/// What was read of an answer ahead of its way.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Payload that was noted, and is yet to be passed on.
    noted: usize,
    /// Whether the end has come.
    is_over: bool,
    /// Why no more comes, to be told where it is missing.
    broken: Option<Error>,
}

pub(super) type Upload = Pump<CallerBody>;

/// A call that waits for its answer.
struct Awaiting {
    conn: Rc<Conn>,
    timer: Timer,
    upload: Upload,
    uploaded: bool,
    method: http::Method,
    /// The fields of a request that asks to change its connection to another protocol.
    asked: Option<Fields>,
    notes: Rc<Notes>,
    upstream: Arc<str>,
    limits: Limits,
    /// The caller's connection, for interim responses.
    caller: Option<Rc<Conn>>,
    interim: Vec<u8>,
    interims: u32,
    /// The final head, while interim ones are on their way in front of it.
    answer: Option<Parsed<ResponseHead>>,
}

/// Sends the call and waits for the final response head.
///
/// `reused` tells whether the connection has served before: if it then takes not a single byte, the
/// call is handed back as unsent.
pub(crate) async fn send(
    idle: Idle,
    reused: bool,
    pool: Rc<Pool>,
    call: Call,
    upstream: &Arc<str>,
    limits: Limits,
) -> Result<Reply, Failure> {
    let mut awaiting = Awaiting::new(idle, &pool, call, upstream, limits);
    let mut result = poll_fn(|cx| awaiting.poll(cx)).await;
    let closed = matches!(result, Err(Error::Closed { .. }));
    if reused && closed && awaiting.upload.written() == 0 {
        // The server had closed while the connection was idle. Nothing was sent: try another. A
        // caller that is at fault is not read again: what it said wrong would be missing.
        let fresh = super::open(&pool, Speak::Http1, upstream, limits, &awaiting.notes).await?;
        if let Connection::Http1 { idle: fresh, .. } = fresh {
            awaiting.conn = fresh.conn;
            awaiting.timer = fresh.timer;
            awaiting.uploaded = false;
            result = poll_fn(|cx| awaiting.poll(cx)).await;
        }
    }
    let parsed = result?;
    awaiting.notes.answered(&parsed.head);
    if parsed.head.status == SWITCHING {
        return Ok(Reply { head: parsed.head, body: ReplyBody::Upgraded(awaiting.conn) });
    }
    // From here on silence counts, not what is left of the time for the head.
    let due = Instant::now() + limits.idle;
    awaiting.timer.set(awaiting.notes.due(due, limits.first_token));
    let reply = Http1Reply {
        framed: Framed::new(awaiting.conn, parsed.framing),
        upload: (!awaiting.uploaded).then_some(awaiting.upload),
        timer: Some(awaiting.timer),
        pool,
        reusable: parsed.keep_alive,
        notes: awaiting.notes,
        limits,
        ahead: ReadAhead::default(),
    };
    Ok(Reply { head: parsed.head, body: ReplyBody::Http1(Box::new(reply)) })
}

// === impl Awaiting ===

impl Awaiting {
    fn new(idle: Idle, pool: &Pool, call: Call, upstream: &Arc<str>, limits: Limits) -> Self {
        let Call { head, body, notes } = call;
        let caller = match &*body {
            // HTTP/1.0 knows no interim responses.
            RequestBody::Http1(framed) if head.version == http::Version::HTTP_11 => {
                Some(framed.conn.clone())
            }
            _ => None,
        };
        let has_length = head.fields.get("content-length").is_some();
        let body_as = match &*body {
            RequestBody::Http2(_) if !has_length => BodyAs::Chunked,
            _ => BodyAs::Framed,
        };
        let mut out = Vec::with_capacity(2048);
        write::request(&mut out, &head, &pool.origin.base, &pool.origin.authority, body_as);
        let mut timer = idle.timer;
        timer.set(Instant::now() + limits.request_body_idle);
        Self {
            conn: idle.conn,
            timer,
            upload: Pump::new(out, body, body_as),
            uploaded: false,
            method: head.method,
            asked: head.upgrades.then_some(head.fields),
            notes,
            upstream: upstream.clone(),
            limits,
            caller,
            interim: Vec::new(),
            interims: 0,
            answer: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parsed<ResponseHead>, Error>> {
        let mut broken = None;
        if !self.uploaded {
            match self.poll_upload(cx) {
                Ok(()) => {}
                // The upstream may have answered before it stopped to listen.
                Err(PumpError::Sink(error)) => broken = Some(error),
                Err(PumpError::Source(error)) => return Poll::Ready(Err(error)),
            }
        }
        while self.answer.is_none() {
            self.answer = self.parse()?;
            if self.answer.is_some() {
                break;
            }
            match self.conn.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.closed(None))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.closed(Some(error)))),
                Poll::Pending => break,
            }
        }
        if let (Some(error), None) = (broken, &self.answer) {
            return Poll::Ready(Err(self.closed(Some(error))));
        }
        if self.poll_interim(cx).is_ready()
            && let Some(answer) = self.answer.take()
        {
            return Poll::Ready(Ok(answer));
        }
        ready!(self.timer.poll(cx));
        Poll::Ready(Err(self.too_late()))
    }

    /// Moves the upload on, and with it the limit.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), PumpError<Error>> {
        let before = self.upload.written();
        let polled = self.upload.poll(cx, &self.conn);
        if self.upload.written() > before {
            self.notes.sent();
            self.timer.set(Instant::now() + self.limits.request_body_idle);
        }
        if let Poll::Ready(result) = polled {
            result?;
            self.uploaded = true;
            let due = Instant::now() + self.limits.response_head;
            self.timer.set(self.notes.due(due, self.limits.first_token));
        }
        Ok(())
    }

    /// The final head, if it has come whole; interim ones are handed on.
    fn parse(&mut self) -> Result<Option<Parsed<ResponseHead>>, Error> {
        loop {
            let Some(block) =
                self.conn.peek(parse::take_head).map_err(|error| self.protocol(error))?
            else {
                return Ok(None);
            };
            self.conn.consume(block.len());
            let parsed = parse::response(block.clone(), &self.method)
                .map_err(|error| self.protocol(error))?;
            match parsed.head.status {
                200.. => return Ok(Some(parsed)),
                SWITCHING => return self.switched(parsed).map(Some),
                _ if self.interims == MAX_INTERIM => return Err(self.protocol(HeadError::TooLarge)),
                _ => {
                    self.interims += 1;
                    self.interim.extend_from_slice(&block);
                }
            }
        }
    }

    /// The answer that ends HTTP on this connection, if the request was sent and asked for it.
    fn switched(&self, parsed: Parsed<ResponseHead>) -> Result<Parsed<ResponseHead>, Error> {
        let asked = self.asked.as_ref().filter(|_| self.uploaded);
        match asked.and_then(|asked| upgrade::agreed(asked, &parsed.head.fields)) {
            Some(protocol) => self.notes.upgraded(protocol),
            None => return Err(self.protocol(HeadError::Switching)),
        }
        Ok(parsed)
    }

    /// Hands interim responses on to a caller that speaks HTTP/1.1; ready when all have gone.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(caller) = &self.caller else {
            self.interim.clear();
            return Poll::Ready(());
        };
        while !self.interim.is_empty() {
            match ready!(caller.poll_write(cx, &self.interim)) {
                Ok(n) => drop(self.interim.drain(..n)),
                Err(_) => self.interim.clear(),
            }
        }
        Poll::Ready(())
    }

    fn protocol(&self, error: HeadError) -> Error {
        Error::Protocol { upstream: self.upstream.clone(), source: error.into() }
    }

    fn closed(&self, error: Option<std::io::Error>) -> Error {
        let source = error.map(Into::into);
        Error::Closed { upstream: self.upstream.clone(), source }
    }

    fn too_late(&self) -> Error {
        if let Some(late) = self.notes.late(&self.upstream, self.limits.first_token) {
            late
        } else if self.uploaded || self.upload.waits_for_sink() {
            let limit_s = self.limits.response_head.as_secs();
            Error::ResponseTimeout { upstream: self.upstream.clone(), limit_s }
        } else {
            Error::BodyTimeout { limit_s: self.limits.request_body_idle.as_secs() }
        }
    }
}

// === impl CallerBody ===

/// Noted as it goes by.
impl Source for CallerBody {
    type Error = Error;

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Piece, Error>> {
        let (body, notes) = self.parts();
        let piece = match body {
            RequestBody::Empty => Piece::End,
            RequestBody::Full(bytes) if bytes.is_empty() => Piece::End,
            RequestBody::Full(bytes) => {
                // Cut, so that no more of it is copied than the connection takes.
                let piece = bytes.split_to(bytes.len().min(FULL_PIECE));
                notes.request_chunk(&piece);
                Piece::Data(piece)
            }
            RequestBody::Http1(framed) => {
                match ready!(framed.poll_raw(cx, scratch, |payload| notes.request_chunk(payload))) {
                    Ok(0) => Piece::End,
                    Ok(n) => Piece::Raw(n),
                    Err(error) => return Poll::Ready(Err(Error::of_caller(error))),
                }
            }
            RequestBody::Http2(body) => match ready!(body.poll_frame(cx)) {
                None => Piece::End,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        notes.request_chunk(&data);
                        Piece::Data(data)
                    }
                    Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
                },
                Some(Err(_)) => return Poll::Ready(Err(Error::CallerLeft)),
            },
        };
        if matches!(piece, Piece::End | Piece::Trailers(_)) {
            notes.request_ended();
        }
        Poll::Ready(Ok(piece))
    }
}

// === impl Http1Reply ===

impl Http1Reply {
    /// Bytes as they stand on the wire, framing included; 0 is the clean end.
    pub(crate) fn poll_raw(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, Error>> {
        self.poll_read(cx, buf, |_| {})
    }

    /// The next piece of payload; `None` is the clean end.
    pub(crate) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            let mut payload = BytesMut::new();
            let n = with_scratch(|scratch| {
                self.poll_read(cx, scratch, |run| payload.extend_from_slice(run))
            });
            if ready!(n)? == 0 {
                return Poll::Ready(Ok(None));
            }
            if !payload.is_empty() {
                return Poll::Ready(Ok(Some(payload.freeze())));
            }
        }
    }

    /// The trailers of a body that has ended.
    pub(crate) fn trailers(&self) -> Option<http::HeaderMap> {
        let block = self.framed.trailers();
        if block.is_empty() {
            return None;
        }
        let block = Bytes::from([block, b"\r\n"].concat());
        let mut lines = [httparse::EMPTY_HEADER; 32];
        let httparse::Status::Complete((_, lines)) =
            httparse::parse_headers(&block, &mut lines).ok()?
        else {
            return None;
        };
        let fields = lines.iter().map(|line| (line.name.as_bytes(), line.value));
        Some(Fields::within(block.clone(), fields).to_map(|_| true))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, Error>> {
        self.poll_upload(cx)?;
        if self.ahead.broken.is_some() && self.framed.conn.peek(<[u8]>::is_empty) {
            let broken = self.ahead.broken.take();
            return Poll::Ready(Err(broken.unwrap_or(Error::Body(BodyError::Cut))));
        }
        let (notes, noted) = (&self.notes, &mut self.ahead.noted);
        let mut now = None;
        let polled = self.framed.poll_raw(cx, buf, |run| {
            let fresh = &run[run.len().min(*noted)..];
            *noted -= run.len() - fresh.len();
            if !fresh.is_empty() {
                notes.response_chunk(fresh, *now.get_or_insert_with(Instant::now));
            }
            payload(run);
        });
        match polled {
            Poll::Ready(Ok(n)) => {
                if self.framed.is_done() {
                    self.release();
                } else {
                    self.came(now.unwrap_or_else(Instant::now));
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.broke(error))),
            Poll::Pending => self.poll_late(cx).map(Err),
        }
    }

    /// Reads on ahead of its way: what comes is noted, and stays where it will be found; false where
    /// no more comes.
    pub(crate) fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        ahead: &mut FramedAhead,
    ) -> Poll<bool> {
        let read = ready!(self.poll_more(cx, ahead));
        self.ahead.is_over = ahead.is_over();
        match read {
            Ok(n) => Poll::Ready(n > 0),
            Err(error) => {
                self.ahead.broken = Some(error);
                Poll::Ready(false)
            }
        }
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        ahead: &mut FramedAhead,
    ) -> Poll<Result<usize, Error>> {
        self.poll_upload(cx)?;
        loop {
            let (notes, noted) = (&self.notes, &mut self.ahead.noted);
            let now = Instant::now();
            // A stream says near its front what it is, and what is looked at here is followed once more
            // on its way.
            let shown = ahead.look_at_a_run(&self.framed, |run| {
                notes.response_chunk(run, now);
                *noted += run.len();
            });
            match shown {
                Ok(0) if !ahead.is_over() => {}
                Ok(n) => {
                    self.came(now);
                    return Poll::Ready(Ok(n));
                }
                Err(error) => return Poll::Ready(Err(self.broke(error.into()))),
            }
            match self.framed.conn.poll_fill(cx) {
                Poll::Ready(Ok(0)) if ahead.close() => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.broke(BodyError::Cut))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broke(error.into()))),
                Poll::Pending => return self.poll_late(cx).map(Err),
            }
        }
    }

    /// How far it is read ahead: nothing yet.
    pub(crate) fn start(&self) -> FramedAhead {
        FramedAhead::new(&self.framed)
    }

    /// Why no more of it comes, where it broke off while it was read ahead.
    pub(crate) fn broken(&self) -> Option<&Error> {
        self.ahead.broken.as_ref()
    }

    /// Something came: from now on silence counts anew.
    fn came(&mut self, now: Instant) {
        if let Some(timer) = &mut self.timer {
            timer.set(self.notes.due(now + self.limits.idle, self.limits.first_token));
        }
    }

    fn broke(&self, error: BodyError) -> Error {
        self.notes.broken(match error {
            BodyError::Framing(_) => "upstream_protocol",
            BodyError::Cut | BodyError::Io(_) => "upstream_closed",
        });
        Error::Body(error)
    }

    /// Resolves when nothing has come for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Some(timer) = &mut self.timer {
            ready!(timer.poll(cx));
            let late = self.notes.late(&self.pool.origin.host, self.limits.first_token);
            self.notes.broken(late.map_or(IDLE_TIMEOUT, |late| late.kind()));
        }
        Poll::Ready(Error::Body(BodyError::Cut))
    }

    /// Moves on a request that is still going up.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll(cx, &self.framed.conn) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {}
            // The upstream has heard enough; its answer counts.
            Poll::Ready(Err(PumpError::Sink(_))) => self.reusable = false,
            Poll::Ready(Err(PumpError::Source(error))) => return Err(error),
        }
        self.upload = None;
        Ok(())
    }

    /// The body has ended: the connection goes back, unless a request is still going up on it.
    fn release(&mut self) {
        if let Some(timer) = self.timer.take()
            && self.reusable
            && self.upload.is_none()
        {
            self.pool.put(self.framed.conn.clone(), timer);
        }
    }
}

/// An answer that is given up, and whose end has come, leaves a connection that others can use.
impl Drop for Http1Reply {
    fn drop(&mut self) {
        if self.framed.is_done() || !self.ahead.is_over && self.ahead.noted == 0 {
            return;
        }
        self.framed.skip();
        if self.framed.is_done() {
            self.release();
        }
    }
}
