//! One call over an HTTP/2 connection to an upstream, which carries many at a time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::line::PATIENCE;
use super::pool::Pool;
use super::watched::Watched;
use super::{Connection, Limits};
use crate::call::{Call, CallerBody, Failure, Reply, ReplyBody, RequestBody};
use crate::error::{Error, IDLE_TIMEOUT, Source};
use crate::exchange::Notes;
use crate::executor::LocalExecutor;
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::http1::body::BodyError;
use crate::http1::conn::Stream;
use crate::http1::hop::HopByHop;
use crate::http1::write::is_ours;
use crate::timer::Timer;

/// Streams that one connection carries at a time, where its server allows as many.
pub(super) const MAX_STREAMS: usize = 100;
/// What hyper calls the server's limit until the server has said it: more than it could say.
const UNKNOWN: usize = usize::MAX - 1;
/// How often a call is sent, at most, where connections close before they have taken it.
const MAX_UNSENT: usize = 4;

/// How often a connection that carries calls, but no bytes, is looked at.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// gRPC's servers take more than two pings within five minutes of silence for abuse, and close the
/// connection with all that is on it (github.com/grpc/grpc, `doc/keepalive.md`).
const GRPC_KEEP_ALIVE: Duration = Duration::from_secs(310);

/// A connection that is shared by the calls of one worker.
pub(crate) struct Http2Connection {
    sender: SendRequest<Upload>,
    /// Asks hyper how many streams the server allows; nothing once the connection has ended.
    allowed: Box<dyn Fn() -> Option<usize>>,
    /// Whether the server has said so.
    is_known: Rc<Cell<bool>>,
    opened: Instant,
    streams: Cell<usize>,
    last_used: Cell<Instant>,
    /// Tells the line that there may be room.
    changed: Rc<Notify>,
    expected: Rc<Cell<usize>>,
}

/// One of the streams of a connection; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Seat(Rc<Http2Connection>);

/// The request body as hyper takes it, in a task that knows nothing of the call's end.
#[derive(Debug)]
pub(crate) struct Upload(Rc<Ascent>);

/// The call's own hold on its upload: letting go of it ends the upload, wherever that stands.
#[derive(Debug)]
struct Uploading(Rc<Ascent>);

/// A request body on its way.
#[derive(Debug)]
struct Ascent {
    /// Taken when the call is over: nothing is read from its caller any more.
    body: RefCell<Option<RequestBody>>,
    notes: Rc<Notes>,
    timer: RefCell<Timer>,
    idle: Duration,
    moved: Cell<Instant>,
    /// Whether something was read of it.
    is_begun: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// What the caller did wrong.
    broken: RefCell<Option<Error>>,
}

/// The body of an answer, on its stream.
#[derive(Debug)]
pub(crate) struct Http2Reply {
    incoming: hyper::body::Incoming,
    uploading: Uploading,
    timer: Timer,
    notes: Rc<Notes>,
    upstream: Arc<str>,
    limits: Limits,
    _seat: Seat,
}

/// A seat on one of the open connections, but not on the one to be avoided.
pub(super) fn seat(pool: &Pool, avoid: Option<&Rc<Http2Connection>>) -> Option<Seat> {
    let mut connections = pool.http2.borrow_mut();
    connections.retain(|connection| !connection.sender.is_closed());
    let avoided =
        |connection: &Rc<Http2Connection>| avoid.is_some_and(|avoid| Rc::ptr_eq(avoid, connection));
    connections.iter().filter(|connection| !avoided(connection)).find_map(Http2Connection::seat)
}

/// How many connections are open, and how many of them have yet to say what they can carry.
pub(super) fn connections(pool: &Pool) -> (usize, usize) {
    let connections = pool.http2.borrow();
    let is_unknown = |connection: &&Rc<Http2Connection>| connection.limit().is_none();
    (connections.len(), connections.iter().filter(is_unknown).count())
}

/// Makes a connection of a stream on which HTTP/2 was agreed, and takes its first seat.
pub(crate) async fn open(pool: &Pool, stream: Stream) -> Result<Seat, hyper::Error> {
    let connection = match stream {
        Stream::Tcp(tcp) => handshake(pool, TokioIo::new(tcp)).await?,
        Stream::Tls(tls) => handshake(pool, TokioIo::new(*tls)).await?,
    };
    let connection = Rc::new(connection);
    pool.http2.borrow_mut().push(connection.clone());
    Ok(connection.take_seat())
}

async fn handshake<T>(pool: &Pool, io: T) -> Result<Http2Connection, hyper::Error>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let keep_alive = if pool.origin.needs_http2 { GRPC_KEEP_ALIVE } else { KEEP_ALIVE };
    let (changed, is_known) = (pool.line.changed.clone(), Rc::new(Cell::new(false)));
    let io = Watched { io, changed: changed.clone(), is_known: is_known.clone() };
    let (sender, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_max_send_streams(UNKNOWN)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(keep_alive)
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(io)
        .await?;
    // Only the connection itself, which has to be driven, can be asked for the limit.
    let driven = Rc::new(RefCell::new(Some(connection)));
    let asked = driven.clone();
    let allowed = move || asked.borrow().as_ref().map(|driven| driven.current_max_send_streams());
    let told = changed.clone();
    tokio::task::spawn_local(async move {
        let ended = poll_fn(|cx| match &mut *driven.borrow_mut() {
            Some(connection) => Pin::new(connection).poll(cx),
            None => Poll::Ready(Ok(())),
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "upstream connection ended");
        }
        driven.take();
        // There is room for another.
        told.notify_one();
    });
    let now = Instant::now();
    Ok(Http2Connection {
        sender,
        allowed: Box::new(allowed),
        is_known,
        opened: now,
        streams: Cell::new(0),
        last_used: Cell::new(now),
        changed,
        expected: pool.line.expected.clone(),
    })
}

/// Sends the call and waits for the final response head.
pub(crate) async fn send(
    mut seat: Seat,
    pool: &Rc<Pool>,
    call: Call,
    upstream: &Arc<str>,
    limits: Limits,
) -> Result<Reply, Failure> {
    let Call { head, mut body, notes } = call;
    let mut uploading = Uploading::new(body.take(), &notes, limits);
    let mut call = request(&head, pool, &uploading, upstream)?;
    notes.sent();
    let (mut unsent, mut refused) = (0, false);
    let response = loop {
        let Unanswered { error, again } =
            match attempt(&seat, call, &uploading, upstream, limits).await {
                Ok(response) => break response,
                Err(unanswered) => unanswered,
            };
        match again {
            // The connection was closing, and nothing of the call went out on it.
            Again::Unsent(request) if unsent < MAX_UNSENT && !notes.left.goes_on() => {
                unsent += 1;
                call = *request;
                seat.0.leave(pool);
            }
            // The server says that it has not looked at the call, of which all is still here.
            Again::Unprocessed { is_closing } if !refused && !notes.left.goes_on() => {
                let Some(body) = uploading.whole_body() else { return Err(error.into()) };
                refused = true;
                uploading = Uploading::new(body, &notes, limits);
                call = request(&head, pool, &uploading, upstream)?;
                notes.attempt(&pool.origin);
                if is_closing {
                    seat.0.leave(pool);
                }
            }
            _ => {
                // What it did not take of this call it may not take of the next: its own window
                // may be shut, and nothing else would tell.
                let is_stuck = matches!(error, Error::ResponseTimeout { .. });
                if is_stuck && !notes.request_is_read() {
                    seat.0.leave(pool);
                }
                return Err(error.into());
            }
        }
        // The stream is over: it may be the one that somebody waits for.
        let left = seat.0.clone();
        drop(seat);
        match super::connection(pool, upstream, limits, &notes, Some(&left)).await {
            Ok(Connection::Http2(another)) => seat = another,
            Ok(Connection::Http1 { .. }) => return Err(error.into()),
            // Another address may take what this one has not.
            Err(error) => {
                let body = uploading.whole_body().map(|body| CallerBody::new(body, &notes));
                let unsent = body.map(|body| Call { head, body, notes });
                return Err(Failure { error, unsent });
            }
        }
    };
    let (parts, incoming) = response.into_parts();
    let head = ResponseHead {
        status: parts.status.as_u16(),
        reason: parts.status.canonical_reason().unwrap_or_default().into(),
        fields: Fields::from_map(&parts.headers),
    };
    notes.answered(&head);
    let timer = Timer::at(notes.due(Instant::now() + limits.idle, limits.first_token));
    let reply = Http2Reply {
        incoming,
        uploading,
        timer,
        notes,
        upstream: upstream.clone(),
        limits,
        _seat: seat,
    };
    Ok(Reply { head, body: ReplyBody::Http2(Box::new(reply)) })
}

/// Why there is no answer, and whether the call may be sent again.
struct Unanswered {
    error: Error,
    again: Again,
}

/// Whether a call without an answer may be sent again.
enum Again {
    /// The request, of which nothing was sent.
    Unsent(Box<http::Request<Upload>>),
    /// It was sent, but the server has not processed it; the connection may be closing besides.
    Unprocessed { is_closing: bool },
    /// Nobody knows what became of it.
    No,
}

/// Sends the request on one connection.
async fn attempt(
    seat: &Seat,
    request: http::Request<Upload>,
    uploading: &Uploading,
    upstream: &Arc<str>,
    limits: Limits,
) -> Result<http::Response<hyper::body::Incoming>, Unanswered> {
    let mut sender = seat.0.sender.clone();
    let limit = limits.response_head;
    let mut answer = pin!(sender.try_send_request(request));
    let notes = &uploading.0.notes;
    let first = limits.first_token.map_or(limit, |first_token| first_token.min(limit));
    let mut timer = Timer::at(Instant::now() + first);
    let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => loop {
            ready!(timer.poll(cx));
            // The time for the head begins when the request has gone.
            match notes.due(uploading.0.moved.get() + limit, limits.first_token) {
                due if due > Instant::now() => timer.set(due),
                _ => break Poll::Ready(None),
            }
        },
    });
    match answer.await {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut error)) => {
            let unsent = error.take_message().map(|request| Again::Unsent(Box::new(request)));
            let error = error.into_error();
            let again = unsent.unwrap_or_else(|| again(&error));
            let source = Some(error.into());
            let closed = || Error::Closed { upstream: upstream.clone(), source };
            Err(Unanswered { error: uploading.0.broken.take().unwrap_or_else(closed), again })
        }
        None => {
            let slow =
                || Error::ResponseTimeout { upstream: upstream.clone(), limit_s: limit.as_secs() };
            let error = notes.late(upstream, limits.first_token).unwrap_or_else(slow);
            Err(Unanswered { error, again: Again::No })
        }
    }
}

/// What the server says of a call that it does not answer (RFC 9113, section 8.7).
fn again(error: &hyper::Error) -> Again {
    let Some(said) = std::error::Error::source(error).and_then(|said| said.downcast_ref()) else {
        return Again::No;
    };
    let said: &h2::Error = said;
    let is_refused = said.is_reset() && said.reason() == Some(h2::Reason::REFUSED_STREAM);
    match said.is_remote() {
        // Streams up to the last one that GOAWAY names go on; only the others hear of it so.
        true if said.is_go_away() => Again::Unprocessed { is_closing: true },
        true if is_refused => Again::Unprocessed { is_closing: false },
        _ => Again::No,
    }
}

/// The call as an HTTP/2 request: the fields that came, less those of one connection.
fn request(
    head: &RequestHead,
    pool: &Pool,
    uploading: &Uploading,
    upstream: &Arc<str>,
) -> Result<http::Request<Upload>, Error> {
    let uri = http::Uri::builder()
        .scheme(if pool.origin.tls { "https" } else { "http" })
        .authority(&pool.origin.authority[..])
        .path_and_query([&pool.origin.base[..], head.target.as_bytes()].concat())
        .build();
    let uri =
        uri.map_err(|error| Error::Protocol { upstream: upstream.clone(), source: error.into() })?;
    let hop = HopByHop::of(&head.fields);
    let asks_for_trailers =
        head.fields.get("te").is_some_and(|te| te.eq_ignore_ascii_case(b"trailers"));
    let mut request = http::Request::new(Upload(uploading.0.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = head.fields.to_map(|name| {
        let of_http1 = name.eq_ignore_ascii_case(b"host")
            || name.eq_ignore_ascii_case(b"transfer-encoding")
            || name.eq_ignore_ascii_case(b"expect");
        !of_http1 && !hop.holds(name) && !is_ours(name)
    });
    if asks_for_trailers {
        request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
    }
    Ok(request)
}

// === impl Http2Connection ===

impl Http2Connection {
    /// How many streams it carries, once the server has said so, or has not for too long.
    fn limit(&self) -> Option<usize> {
        match (self.allowed)() {
            Some(UNKNOWN) if self.opened.elapsed() < PATIENCE => None,
            Some(allowed) => {
                let limit = allowed.min(MAX_STREAMS);
                if !self.is_known.replace(true) {
                    self.expected.set(limit);
                }
                Some(limit)
            }
            None => Some(0),
        }
    }

    fn seat(self: &Rc<Self>) -> Option<Seat> {
        // Who opened it has the first stream; the next must wait until it is known to be one.
        let free = self.streams.get() < self.limit().unwrap_or(1) && !self.sender.is_closed();
        free.then(|| self.take_seat())
    }

    fn take_seat(self: &Rc<Self>) -> Seat {
        self.streams.set(self.streams.get() + 1);
        Seat(self.clone())
    }

    /// It takes no more calls; those on it go on.
    fn leave(self: &Rc<Self>, pool: &Pool) {
        pool.http2.borrow_mut().retain(|connection| !Rc::ptr_eq(connection, self));
    }

    /// Whether nobody has used it for so long, or it is closed.
    pub(crate) fn is_idle_for(&self, time: Duration) -> bool {
        let idle = self.streams.get() == 0 && self.last_used.get().elapsed() >= time;
        idle || self.sender.is_closed()
    }
}

impl std::fmt::Debug for Http2Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Connection").field("streams", &self.streams).finish_non_exhaustive()
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.last_used.set(Instant::now());
        self.0.changed.notify_one();
    }
}

// === impl Uploading ===

impl Uploading {
    fn new(body: RequestBody, notes: &Rc<Notes>, limits: Limits) -> Self {
        Self(Rc::new(Ascent::new(body, notes.clone(), limits.request_body_idle)))
    }

    /// The body, if nothing was read of it: whoever still holds the upload reads nothing any more.
    fn whole_body(&self) -> Option<RequestBody> {
        let is_whole = !self.0.is_begun.get();
        is_whole.then(|| self.0.body.take()).flatten()
    }
}

// === impl Ascent ===

impl Ascent {
    fn new(body: RequestBody, notes: Rc<Notes>, idle: Duration) -> Self {
        let now = Instant::now();
        Self {
            body: RefCell::new(Some(body)),
            notes,
            timer: RefCell::new(Timer::at(now + idle)),
            idle,
            moved: Cell::new(now),
            is_begun: Cell::new(false),
            waker: RefCell::default(),
            broken: RefCell::default(),
        }
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut body = self.body.borrow_mut();
        let polled = match &mut *body {
            None => return Poll::Ready(Some(Err(Error::CallerLeft))),
            Some(RequestBody::Empty) => Poll::Ready(None),
            Some(RequestBody::Full(bytes)) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Some(RequestBody::Http1(framed)) => framed
                .poll_payload(cx)
                .map(|payload| payload.transpose())
                .map_ok(Frame::data)
                .map_err(Error::of_caller),
            Some(RequestBody::Http2(body)) => body.poll_frame(cx).map_err(|_| Error::CallerLeft),
        };
        let mut timer = self.timer.borrow_mut();
        let now = Instant::now();
        match polled {
            Poll::Ready(frame) => {
                self.is_begun.set(self.is_begun.get() || frame.is_some());
                self.moved.set(now);
                timer.set(now + self.idle);
                Poll::Ready(frame)
            }
            Poll::Pending => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                ready!(timer.poll(cx));
                let limit_s = self.idle.as_secs();
                Poll::Ready(Some(Err(Error::BodyTimeout { limit_s })))
            }
        }
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(body) = self.0.body.take() {
            self.0.notes.left_unread(body);
        }
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

// === impl Upload ===

impl Body for Upload {
    type Data = Bytes;
    type Error = Source;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Source>>> {
        let Ascent { notes, broken, .. } = &*self.0;
        let frame = match ready!(self.0.poll_frame(cx)).transpose() {
            Ok(frame) => frame,
            Err(error) => {
                let message = error.to_string();
                *broken.borrow_mut() = Some(error);
                return Poll::Ready(Some(Err(message.into())));
            }
        };
        match &frame {
            Some(frame) => frame.data_ref().into_iter().for_each(|data| notes.request_chunk(data)),
            None => notes.request_ended(),
        }
        if frame.as_ref().is_some_and(Frame::is_trailers) {
            notes.request_ended();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let ended = match &*self.0.body.borrow() {
            // Let go of, not ended.
            None => return false,
            Some(RequestBody::Empty) => true,
            Some(RequestBody::Full(bytes)) => bytes.is_empty(),
            Some(RequestBody::Http1(framed)) => framed.is_done(),
            Some(RequestBody::Http2(body)) => {
                body.ahead.is_empty() && body.incoming.is_end_stream()
            }
        };
        if ended {
            self.0.notes.request_ended();
        }
        ended
    }
}

// === impl Http2Reply ===

impl Http2Reply {
    /// Whether the head was all there is.
    pub(crate) fn is_bodiless(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// The next piece of payload, or the trailers; `None` is the clean end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.timer.poll(cx));
            let late = self.notes.late(&self.upstream, self.limits.first_token);
            self.notes.broken(late.map_or(IDLE_TIMEOUT, |late| late.kind()));
            return Poll::Ready(Some(Err(Error::Body(BodyError::Cut))));
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            None if self.incoming.is_end_stream() => return Poll::Ready(None),
            // hyper takes a stream that was reset without an error for one that has ended.
            None | Some(Err(_)) => {
                // A caller that breaks off its request has the stream reset, which is not the
                // upstream's doing.
                if self.uploading.0.broken.borrow().is_none() {
                    self.notes.broken("upstream_closed");
                }
                return Poll::Ready(Some(Err(Error::Body(BodyError::Cut))));
            }
        };
        let now = Instant::now();
        if let Some(data) = frame.data_ref() {
            self.notes.response_chunk(data, now);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.notes.response_trailers(trailers);
        }
        self.timer.set(self.notes.due(now + self.limits.idle, self.limits.first_token));
        Poll::Ready(Some(Ok(frame)))
    }
}
