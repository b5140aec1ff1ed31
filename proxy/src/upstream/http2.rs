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
use tokio::time::Instant;

use super::Limits;
use super::pool::Pool;
use crate::call::{Call, Failure, Reply, ReplyBody, RequestBody};
use crate::error::{Error, Source};
use crate::exchange::Notes;
use crate::executor::LocalExecutor;
use crate::head::{Fields, ResponseHead};
use crate::http1::body::BodyError;
use crate::http1::conn::Stream;
use crate::http1::hop::HopByHop;
use crate::http1::write::is_ours;
use crate::timer::Timer;

/// Streams that one connection carries at a time.
const MAX_STREAMS: u32 = 100;

/// How often a connection that carries calls, but no bytes, is looked at.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// gRPC's servers take more than two pings within five minutes of silence for abuse, and close the
/// connection with all that is on it (github.com/grpc/grpc, `doc/keepalive.md`).
const GRPC_KEEP_ALIVE: Duration = Duration::from_secs(310);

/// A connection that is shared by the calls of one worker.
#[derive(Debug)]
pub(crate) struct Http2Connection {
    sender: SendRequest<Upload>,
    streams: Cell<u32>,
    last_used: Cell<Instant>,
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
    idle: Duration,
    _seat: Seat,
}

/// A seat on one of the open connections.
pub(crate) fn seat(pool: &Pool) -> Option<Seat> {
    let mut connections = pool.http2.borrow_mut();
    connections.retain(|connection| !connection.sender.is_closed());
    connections.iter().find_map(Http2Connection::seat)
}

/// Makes a connection of a stream on which HTTP/2 was agreed, and takes its first seat.
pub(crate) async fn open(pool: &Pool, stream: Stream) -> Result<Seat, hyper::Error> {
    let keep_alive = if pool.origin.needs_http2 { GRPC_KEEP_ALIVE } else { KEEP_ALIVE };
    let sender = match stream {
        Stream::Tcp(tcp) => handshake(TokioIo::new(tcp), keep_alive).await?,
        Stream::Tls(tls) => handshake(TokioIo::new(*tls), keep_alive).await?,
    };
    let connection = Rc::new(Http2Connection {
        sender,
        streams: Cell::new(0),
        last_used: Cell::new(Instant::now()),
    });
    pool.http2.borrow_mut().push(connection.clone());
    Ok(connection.seat().expect("a new connection has room"))
}

async fn handshake<T>(io: T, keep_alive: Duration) -> Result<SendRequest<Upload>, hyper::Error>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(keep_alive)
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(io)
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Sends the call and waits for the final response head.
pub(crate) async fn send(
    mut seat: Seat,
    pool: &Pool,
    call: Call,
    upstream: &Arc<str>,
    limits: Limits,
) -> Result<Reply, Failure> {
    let notes = call.notes.clone();
    let (request, uploading) = request(call, pool, upstream, limits)?;
    notes.sent();
    let mut answer = attempt(&seat, request, &uploading, upstream, limits).await;
    if let Err(Unanswered { unsent: Some(request), .. }) = answer {
        // The connection was closing, and nothing of the call went out on it: take another.
        if let Some(another) = super::open_http2(pool, upstream, limits, &notes).await? {
            seat = another;
        }
        answer = attempt(&seat, request, &uploading, upstream, limits).await;
    }
    let response = answer.map_err(|unanswered| unanswered.error)?;
    let (parts, incoming) = response.into_parts();
    let head = ResponseHead {
        status: parts.status.as_u16(),
        reason: parts.status.canonical_reason().unwrap_or_default().into(),
        fields: Fields::from_map(&parts.headers),
    };
    notes.answered(&head);
    let timer = Timer::at(Instant::now() + limits.idle);
    let idle = limits.idle;
    let reply = Http2Reply { incoming, uploading, timer, notes, idle, _seat: seat };
    Ok(Reply { head, body: ReplyBody::Http2(Box::new(reply)) })
}

/// Why there is no answer, and the request where nothing of it was sent.
struct Unanswered {
    error: Error,
    unsent: Option<http::Request<Upload>>,
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
    let mut timer = Timer::at(Instant::now() + limit);
    let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => loop {
            ready!(timer.poll(cx));
            // The time for the head begins when the request has gone.
            match uploading.0.moved.get() + limit {
                due if due > Instant::now() => timer.set(due),
                _ => break Poll::Ready(None),
            }
        },
    });
    match answer.await {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut error)) => {
            let unsent = error.take_message();
            let source = Some(error.into_error().into());
            let closed = || Error::Closed { upstream: upstream.clone(), source };
            Err(Unanswered { error: uploading.0.broken.take().unwrap_or_else(closed), unsent })
        }
        None => {
            let (upstream, limit_s) = (upstream.clone(), limit.as_secs());
            Err(Unanswered { error: Error::ResponseTimeout { upstream, limit_s }, unsent: None })
        }
    }
}

/// The call as an HTTP/2 request: the fields that came, less those of one connection.
fn request(
    call: Call,
    pool: &Pool,
    upstream: &Arc<str>,
    limits: Limits,
) -> Result<(http::Request<Upload>, Uploading), Error> {
    let Call { head, body, notes } = call;
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
    let ascent = Rc::new(Ascent::new(body, notes, limits.request_body_idle));
    let mut request = http::Request::new(Upload(ascent.clone()));
    *request.method_mut() = head.method;
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
    Ok((request, Uploading(ascent)))
}

// === impl Http2Connection ===

impl Http2Connection {
    fn seat(self: &Rc<Self>) -> Option<Seat> {
        let free = self.streams.get() < MAX_STREAMS && !self.sender.is_closed();
        free.then(|| {
            self.streams.set(self.streams.get() + 1);
            Seat(self.clone())
        })
    }

    /// Whether nobody has used it for so long, or it is closed.
    pub(crate) fn is_idle_for(&self, time: Duration) -> bool {
        let idle = self.streams.get() == 0 && self.last_used.get().elapsed() >= time;
        idle || self.sender.is_closed()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.last_used.set(Instant::now());
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
            waker: RefCell::default(),
            broken: RefCell::default(),
        }
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut body = self.body.borrow_mut();
        let polled = match &mut *body {
            None => return Poll::Ready(Some(Err(Error::CallerLeft))),
            Some(RequestBody::Empty) => Poll::Ready(None),
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
        drop(self.0.body.take());
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
            self.notes.broken("upstream_idle_timeout");
            return Poll::Ready(Some(Err(Error::Body(BodyError::Cut))));
        };
        match &frame {
            None => {}
            Some(Ok(frame)) => {
                let now = Instant::now();
                self.timer.set(now + self.idle);
                if let Some(data) = frame.data_ref() {
                    self.notes.response_chunk(data, now);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.notes.response_trailers(trailers);
                }
            }
            // A caller that breaks off its request has the stream reset, which is not the upstream's
            // doing.
            Some(Err(_)) if self.uploading.0.broken.borrow().is_some() => {}
            Some(Err(_)) => self.notes.broken("upstream_closed"),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Error::Body(BodyError::Cut))))
    }
}
