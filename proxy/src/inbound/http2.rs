//! Serves one caller over HTTP/2 without TLS (prior knowledge), by hyper.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_wire::Dialect;
use tokio::net::TcpStream;

use crate::call::{Http2Body, Reply, ReplyBody, RequestBody};
use crate::error::{Error, Source};
use crate::exchange::Exchange;
use crate::executor::LocalExecutor;
use crate::head::{Fields, RequestHead, Target};
use crate::http1::framing::Framing;
use crate::http1::hop::HopByHop;
use crate::http1::parse::{self, HeadError};
use crate::serve::{Request, Worker};

/// Calls that one connection carries at a time.
const MAX_STREAMS: u32 = 256;

/// Serves a connection until either side is done with it.
pub(crate) async fn serve(tcp: TcpStream, worker: Rc<Worker>) {
    let service = hyper::service::service_fn(move |request| {
        let worker = worker.clone();
        async move { serve_call(request, &worker).await }
    });
    let served = hyper::server::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(parse::MAX_HEAD as u32)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(60))
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "caller's connection ended");
    }
}

async fn serve_call(
    request: http::Request<Incoming>,
    worker: &Worker,
) -> Result<http::Response<Outgoing>, Error> {
    let (parts, incoming) = request.into_parts();
    let head = match read_head(&parts) {
        Ok(head) => head,
        Err(error) => {
            let error = Error::Head(error);
            let exchange = worker.open_refused(&error);
            return Ok(response(error.reply(Dialect::Other), exchange, false));
        }
    };
    let exchange = worker.open(&head);
    let is_head = head.method == http::Method::HEAD;
    let body = match incoming.is_end_stream() {
        true => RequestBody::Empty,
        false => RequestBody::Http2(Http2Body { ahead: VecDeque::new(), incoming }),
    };
    let request = Request { head, body, framing: Framing::Empty, expects_continue: false };
    let reply = worker.reply(request, &exchange).await?;
    exchange.notes().status(reply.head.status);
    Ok(response(reply, exchange, is_head))
}

/// The head of a request, held to the same rules as one by HTTP/1.1.
fn read_head(parts: &http::request::Parts) -> Result<RequestHead, HeadError> {
    if parts.method == http::Method::CONNECT {
        return Err(HeadError::Connect);
    }
    if parts.headers.len() > parse::MAX_FIELDS {
        return Err(HeadError::TooLarge);
    }
    once(&parts.headers, "host", HeadError::Host)?;
    once(&parts.headers, "content-length", HeadError::AmbiguousLength)?;
    let named = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = parts.headers.get("host").map(http::HeaderValue::as_bytes);
    let authority = match (named, host) {
        (Some(named), Some(host)) if !named.eq_ignore_ascii_case(host) => {
            return Err(HeadError::Host);
        }
        (named, host) => named.or(host).ok_or(HeadError::Host)?,
    };
    parse::check_authority(authority)?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    parse::check_path(target)?;
    Ok(RequestHead {
        method: parts.method.clone(),
        target: Target::new(Bytes::copy_from_slice(target.as_bytes())),
        authority: Bytes::copy_from_slice(authority),
        version: http::Version::HTTP_2,
        fields: Fields::from_map(&parts.headers),
    })
}

/// Over HTTP/1.1 each line of such a field would be read on its own.
fn once(headers: &http::HeaderMap, name: &str, error: HeadError) -> Result<(), HeadError> {
    if headers.get_all(name).iter().nth(1).is_some() { Err(error) } else { Ok(()) }
}

fn response(reply: Reply, exchange: Exchange, bodiless: bool) -> http::Response<Outgoing> {
    let hop = HopByHop::of(&reply.head.fields);
    let fields = reply
        .head
        .fields
        .to_map(|name| !hop.holds(name) && !name.eq_ignore_ascii_case(b"transfer-encoding"));
    let mut response =
        http::Response::new(Outgoing { body: reply.body, exchange, bodiless, ended: false });
    *response.status_mut() = http::StatusCode::from_u16(reply.head.status)
        .expect("a status of three digits was read or chosen");
    *response.headers_mut() = fields;
    response
}

/// The body of a reply as hyper takes it; it owns the exchange, which ends with it.
struct Outgoing {
    body: ReplyBody,
    exchange: Exchange,
    bodiless: bool,
    ended: bool,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Source;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Source>>> {
        let this = self.get_mut();
        let frame = ready!(this.next(cx))?;
        this.exchange.notes().delivered();
        if frame.is_none() {
            this.ended = true;
            this.exchange.notes().handed_over();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        // Only after `None` was seen: the end is what tells a whole answer from a part.
        self.ended
    }
}

impl Outgoing {
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let frame = match &mut self.body {
            ReplyBody::Full(bytes) if bytes.is_empty() || self.bodiless => None,
            ReplyBody::Full(bytes) => Some(Frame::data(std::mem::take(bytes))),
            ReplyBody::Http1(body) => match ready!(body.poll_payload(cx))? {
                Some(payload) => Some(Frame::data(payload)),
                None => {
                    self.ended = true;
                    self.exchange.notes().handed_over();
                    body.trailers().map(Frame::trailers)
                }
            },
            ReplyBody::Http2(body) => ready!(body.poll_frame(cx)).transpose()?,
        };
        Poll::Ready(Ok(frame))
    }
}
