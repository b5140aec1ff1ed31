//! A call on its way down the stack, and the reply on its way up.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::error::Error;
use crate::exchange::Notes;
use crate::head::{RequestHead, ResponseHead};
use crate::held_reply::HeldReply;
use crate::http1::body::{BodyError, Framed};
use crate::http1::conn::Conn;
use crate::layer::cache::{Recording, Replay, SharedReply};
use crate::layer::include_usage::Filtered;
use crate::upstream::{Http1Reply, Http2Reply};

/// A call that has a route.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) head: RequestHead,
    pub(crate) body: CallerBody,
    /// Where every layer writes down what it learned.
    pub(crate) notes: Rc<Notes>,
}

/// The body of a request, still with its caller.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    /// On an HTTP/1.1 connection.
    Http1(Framed),
    /// On an HTTP/2 stream.
    Http2(Http2Body),
    /// Taken off its connection, to be sent in another form.
    Full(Bytes),
}

/// The body of a request, which its call may find again: whoever lets go of it before it was read
/// leaves the rest there.
#[derive(Debug)]
pub(crate) struct CallerBody {
    body: RequestBody,
    notes: Rc<Notes>,
}

/// A request body by HTTP/2, with what was read ahead of it.
#[derive(Debug)]
pub(crate) struct Http2Body {
    pub(crate) ahead: VecDeque<Frame<Bytes>>,
    pub(crate) incoming: hyper::body::Incoming,
}

/// What an upstream, or Tidegate itself, answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: ResponseHead,
    pub(crate) body: ReplyBody,
}

/// The body of a reply, still with its upstream.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// Made by Tidegate.
    Full(Bytes),
    /// On an HTTP/1.1 connection.
    Http1(Box<Http1Reply>),
    /// On an HTTP/2 stream.
    Http2(Box<Http2Reply>),
    /// None: the connection to the upstream has changed to another protocol.
    Upgraded(Rc<Conn>),
    /// With what was read of it before anybody else saw it.
    Held(Box<HeldReply>),
    /// On its way through a policy that takes something out.
    Filtered(Box<Filtered>),
    /// On its way past a cache that may keep it.
    Recording(Box<Recording>),
    /// From a cache, piece by piece.
    Replay(Box<Replay>),
    /// As it comes for an equal call.
    Shared(Box<SharedReply>),
}

/// A call that failed, with the call itself where nothing of it was sent.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) unsent: Option<Call>,
}

// === impl Call ===

impl Call {
    /// One that we make ourselves, without a body.
    pub(crate) fn of_ours(head: RequestHead, notes: &Rc<Notes>) -> Self {
        let body = CallerBody::new(RequestBody::Empty, notes);
        Self { head, body, notes: notes.clone() }
    }

    /// Whether it only looks: at lists of models, at jobs. A session begins with a look, and is none.
    pub(crate) fn only_looks(&self) -> bool {
        let is_a_look = matches!(
            self.head.method,
            http::Method::GET | http::Method::HEAD | http::Method::OPTIONS
        );
        is_a_look && self.head.fields.get("upgrade").is_none()
    }

    /// The work's result, unless the caller goes away first: for a policy that waits while nobody reads
    /// the body as yet, so that nobody else would see its caller go.
    pub(crate) async fn or_left<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = pin!(work);
        poll_fn(|cx| match (work.as_mut().poll(cx), &*self.body) {
            (Poll::Ready(result), _) => Poll::Ready(Ok(result)),
            (Poll::Pending, RequestBody::Http1(body)) => {
                body.conn.poll_gone(cx).map(|()| Err(Error::CallerLeft))
            }
            (Poll::Pending, _) => Poll::Pending,
        })
        .await
    }

    /// Whether this is a gRPC call, which only HTTP/2 carries.
    pub(crate) fn is_grpc(&self) -> bool {
        self.head.version == http::Version::HTTP_2 && self.notes.is_grpc()
    }
}

// === impl CallerBody ===

impl CallerBody {
    pub(crate) fn new(body: RequestBody, notes: &Rc<Notes>) -> Self {
        Self { body, notes: notes.clone() }
    }

    /// The body, and who notes what goes by of it.
    pub(crate) fn parts(&mut self) -> (&mut RequestBody, &Notes) {
        (&mut self.body, &self.notes)
    }

    /// Takes the body over.
    pub(crate) fn take(&mut self) -> RequestBody {
        std::mem::replace(&mut self.body, RequestBody::Empty)
    }
}

impl Deref for CallerBody {
    type Target = RequestBody;

    fn deref(&self) -> &RequestBody {
        &self.body
    }
}

impl DerefMut for CallerBody {
    fn deref_mut(&mut self) -> &mut RequestBody {
        &mut self.body
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        let body = self.take();
        self.notes.left_unread(body);
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// The same once more, where all of it is here.
    pub(crate) fn at_hand(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Http1(_) | Self::Http2(_) => None,
        }
    }
}

// === impl Http2Body ===

impl Http2Body {
    /// The next piece of the body, or its trailers.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_incoming(cx),
        }
    }

    /// Reads a piece ahead of its way, and keeps it; false at the end.
    pub(crate) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        let frame = ready!(self.poll_incoming(cx)).transpose()?;
        // Trailers end a body.
        let is_data = frame.as_ref().is_some_and(Frame::is_data);
        self.ahead.extend(frame);
        Poll::Ready(Ok(is_data))
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            // hyper takes a stream that was reset without an error for one that has ended.
            None if !self.incoming.is_end_stream() => Some(Err(BodyError::Cut)),
            frame => frame.map(|frame| frame.map_err(|_| BodyError::Cut)),
        })
    }
}

// === impl ReplyBody ===

impl ReplyBody {
    /// Whether it comes in frames that have to be framed anew, whatever carried them before.
    pub(crate) fn is_in_frames(&self) -> bool {
        match self {
            Self::Http2(_)
            | Self::Held(_)
            | Self::Filtered(_)
            | Self::Recording(_)
            | Self::Replay(_)
            | Self::Shared(_) => true,
            Self::Full(_) | Self::Http1(_) | Self::Upgraded(_) => false,
        }
    }

    /// The next piece of payload, or the trailers; `None` is the clean end, and comes once.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Http1(body) => match ready!(body.poll_payload(cx)) {
                Ok(Some(payload)) => Poll::Ready(Some(Ok(Frame::data(payload)))),
                Ok(None) => Poll::Ready(body.trailers().map(|map| Ok(Frame::trailers(map)))),
                Err(error) => Poll::Ready(Some(Err(error))),
            },
            Self::Http2(body) => body.poll_frame(cx),
            Self::Held(body) => body.poll_frame(cx),
            Self::Filtered(body) => body.poll_frame(cx),
            Self::Recording(body) => body.poll_frame(cx),
            Self::Shared(body) => body.poll_frame(cx),
            Self::Replay(body) => {
                Poll::Ready(ready!(body.poll_piece(cx)).map(|piece| Ok(Frame::data(piece))))
            }
            // What follows is no body.
            Self::Upgraded(_) => Poll::Ready(None),
        }
    }
}

// === impl Failure ===

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, unsent: None }
    }
}
