//! One call over an HTTP/2 connection to an upstream, which carries many at a time.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};

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

/// The request body as hyper takes it.
#[derive(Debug)]
pub(crate) struct Upload {
    body: RequestBody,
    notes: Rc<Notes>,
    broken: Broken,
}

/// Why the request body broke off: hyper tells that to the upstream, but not to us.
type Broken = Rc<RefCell<Option<Error>>>;

/// The body of an answer, on its stream.
#[derive(Debug)]
pub(crate) struct Http2Reply {
    incoming: hyper::body::Incoming,
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
    let sender = match stream {
        Stream::Tcp(tcp) => handshake(TokioIo::new(tcp)).await?,
        Stream::Tls(tls) => handshake(TokioIo::new(*tls)).await?,
    };
    let connection = Rc::new(Http2Connection {
        sender,
        streams: Cell::new(0),
        last_used: Cell::new(Instant::now()),
    });
    pool.http2.borrow_mut().push(connection.clone());
    Ok(connection.seat().expect("a new connection has room"))
}

async fn handshake<T>(io: T) -> Result<SendRequest<Upload>, hyper::Error>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(30))
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
    seat: Seat,
    pool: &Pool,
    call: Call,
    upstream: &Arc<str>,
    limits: Limits,
) -> Result<Reply, Failure> {
    let notes = call.notes.clone();
    let broken = Broken::default();
    let request = request(call, pool, upstream, &broken)?;
    let mut sender = seat.0.sender.clone();
    notes.sent();
    let limit = limits.response_head;
    let response = match timeout(limit, sender.send_request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let closed =
                || Error::Closed { upstream: upstream.clone(), source: Some(error.into()) };
            return Err(broken.take().unwrap_or_else(closed).into());
        }
        Err(_) => {
            let limit_s = limit.as_secs();
            return Err(Error::ResponseTimeout { upstream: upstream.clone(), limit_s }.into());
        }
    };
    let (parts, incoming) = response.into_parts();
    let head = ResponseHead {
        status: parts.status.as_u16(),
        reason: parts.status.canonical_reason().unwrap_or_default().into(),
        fields: Fields::from_map(&parts.headers),
    };
    notes.answered(&head);
    let timer = Timer::at(Instant::now() + limits.idle);
    let reply = Http2Reply { incoming, timer, notes, idle: limits.idle, _seat: seat };
    Ok(Reply { head, body: ReplyBody::Http2(Box::new(reply)) })
}

/// The call as an HTTP/2 request: the fields that came, less those of one connection.
fn request(
    call: Call,
    pool: &Pool,
    upstream: &Arc<str>,
    broken: &Broken,
) -> Result<http::Request<Upload>, Error> {
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
    let mut request = http::Request::new(Upload { body, notes, broken: broken.clone() });
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
    Ok(request)
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

// === impl Upload ===

impl Body for Upload {
    type Data = Bytes;
    type Error = Source;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Source>>> {
        let this = self.get_mut();
        let notes = &this.notes;
        let frame = match &mut this.body {
            RequestBody::Empty => None,
            RequestBody::Http1(framed) => match ready!(framed.poll_payload(cx)) {
                Ok(payload) => payload.map(Frame::data),
                Err(error) => {
                    let said = error.to_string();
                    *this.broken.borrow_mut() = Some(match error {
                        BodyError::Framing(_) => Error::Body(error),
                        BodyError::Cut | BodyError::Io(_) => Error::CallerLeft,
                    });
                    return Poll::Ready(Some(Err(said.into())));
                }
            },
            RequestBody::Http2(body) => match ready!(body.poll_frame(cx)).transpose() {
                Ok(frame) => frame,
                Err(error) => {
                    *this.broken.borrow_mut() = Some(Error::CallerLeft);
                    return Poll::Ready(Some(Err(error.into())));
                }
            },
        };
        match &frame {
            Some(frame) => frame.data_ref().into_iter().for_each(|data| notes.request_chunk(data)),
            None => notes.request_ended(),
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let ended = match &self.body {
            RequestBody::Empty => true,
            RequestBody::Http1(framed) => framed.is_done(),
            RequestBody::Http2(body) => body.ahead.is_empty() && body.incoming.is_end_stream(),
        };
        if ended {
            self.notes.request_ended();
        }
        ended
    }
}

// === impl Http2Reply ===

impl Http2Reply {
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
                }
            }
            Some(Err(_)) => self.notes.broken("upstream_closed"),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Error::Body(BodyError::Cut))))
    }
}
