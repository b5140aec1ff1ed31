//! Serves one caller over HTTP/2, by hyper: as TLS has agreed, or without it by prior knowledge.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_wire::{Dialect, is_grpc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::call::{CallerBody, Http2Body, Reply, ReplyBody, RequestBody};
use crate::error::{Error, Source};
use crate::exchange::Exchange;
use crate::executor::LocalExecutor;
use crate::going_on::{self, Awaited};
use crate::head::{Fields, RequestHead, Target};
use crate::http1::hop::HopByHop;
use crate::http1::parse::{self, HeadError};
use crate::inbound::Way;
use crate::serve::{Request, Worker};

/// Calls that one connection carries at a time.
const MAX_STREAMS: u32 = 256;
/// How often, at most, it is looked for callers that take nothing.
const MIN_LOOK: Duration = Duration::from_millis(50);

/// Serves a connection until either side is done with it.
pub(crate) async fn serve<C>(connection: C, worker: Rc<Worker>, way: Way)
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let deliveries = Rc::new(Deliveries::default());
    let stall = worker.now().timeouts.idle.0;
    let (list, activity) = (deliveries.clone(), worker.activity.clone());
    let service = hyper::service::service_fn(move |request| {
        let (worker, deliveries, way) = (worker.clone(), list.clone(), way.clone());
        async move { serve_call(request, worker, &way, &deliveries).await }
    });
    let serving = hyper::server::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(parse::MAX_HEAD as u32)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(60))
        .serve_connection(TokioIo::new(connection), service);
    let mut serving = pin!(serving);
    let served = async {
        tokio::select! {
            served = serving.as_mut() => return served,
            () = activity.left() => {}
        }
        // Streams go on to their end; the next call finds another connection.
        serving.as_mut().graceful_shutdown();
        serving.await
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "caller's connection ended");
        },
        () = deliveries.watch(stall) => {}
    }
}

async fn serve_call(
    request: http::Request<Incoming>,
    worker: Rc<Worker>,
    way: &Way,
    deliveries: &Deliveries,
) -> Result<http::Response<Outgoing>, Error> {
    let (parts, incoming) = request.into_parts();
    let head = match read_head(&parts, way) {
        Ok(head) => head,
        Err(error) => {
            let error = Error::Head(error);
            let exchange = worker.open_refused(&error);
            let reply = match is_grpc(&parts.headers) {
                true => error.grpc_reply(exchange.notes()),
                false => error.reply(Dialect::Other),
            };
            return Ok(response(reply, exchange, false, deliveries));
        }
    };
    let exchange = worker.open(&head);
    let is_head = head.method == http::Method::HEAD;
    let body = match incoming.is_end_stream() {
        true => RequestBody::Empty,
        false => RequestBody::Http2(Http2Body { ahead: VecDeque::new(), incoming }),
    };
    let body = CallerBody::new(body, exchange.notes());
    let request = Request { head, body, expects_continue: false };
    let (reply, exchange) = reply(request, exchange, worker).await?;
    exchange.notes().status(reply.head.status);
    Ok(response(reply, exchange, is_head, deliveries))
}

/// The reply, and the exchange that it belongs to.
async fn reply(
    request: Request,
    exchange: Exchange,
    worker: Rc<Worker>,
) -> Result<(Reply, Exchange), Error> {
    if !worker.now().may_go_on {
        let reply = worker.reply(request, exchange.notes()).await?;
        return Ok((reply, exchange));
    }
    let notes = exchange.notes().clone();
    let work = Box::pin(async move { worker.reply(request, &notes).await });
    let (reply, exchange) = Awaited::new(exchange, work).reply().await;
    Ok((reply?, exchange))
}

/// The head of a request, held to the same rules as one by HTTP/1.1.
fn read_head(parts: &http::request::Parts, way: &Way) -> Result<RequestHead, HeadError> {
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
    if target == "*" && parts.method != http::Method::OPTIONS {
        return Err(HeadError::Target);
    }
    parse::check_path(target)?;
    let mut head = RequestHead {
        method: parts.method.clone(),
        target: Target::new(Bytes::copy_from_slice(target.as_bytes())),
        authority: Bytes::copy_from_slice(authority),
        version: http::Version::HTTP_2,
        // Streams share a connection: none of them can change it.
        upgrades: false,
        is_absolute: false,
        meant: None,
        shown: None,
        fields: Fields::from_map(&parts.headers),
    };
    way.lead(&mut head)?;
    Ok(head)
}

/// Over HTTP/1.1 each line of such a field would be read on its own.
fn once(headers: &http::HeaderMap, name: &str, error: HeadError) -> Result<(), HeadError> {
    if headers.get_all(name).iter().nth(1).is_some() { Err(error) } else { Ok(()) }
}

fn response(
    reply: Reply,
    exchange: Exchange,
    bodiless: bool,
    deliveries: &Deliveries,
) -> http::Response<Outgoing> {
    let hop = HopByHop::of(&reply.head.fields);
    let fields = reply
        .head
        .fields
        .to_map(|name| !hop.holds(name) && !name.eq_ignore_ascii_case(b"transfer-encoding"));
    let ended = is_over(&reply.body, bodiless);
    if ended {
        exchange.notes().handed_over();
    }
    let left = reply.head.fields.content_length().filter(|_| !bodiless);
    let answer = Answer { body: reply.body, exchange, bodiless, ended, left };
    let mut response = http::Response::new(deliveries.outgoing(answer));
    *response.status_mut() = http::StatusCode::from_u16(reply.head.status)
        .expect("a status of three digits was read or chosen");
    *response.headers_mut() = fields;
    response
}

/// Whether an answer ends with its head. It must end there on the caller's side too: a gRPC status
/// in a head is one only if nothing follows.
fn is_over(body: &ReplyBody, bodiless: bool) -> bool {
    match body {
        ReplyBody::Full(bytes) => bytes.is_empty() || bodiless,
        ReplyBody::Http2(body) => body.is_bodiless(),
        _ => false,
    }
}

/// The body of a reply as hyper takes it.
struct Outgoing(Rc<Delivery>);

/// A reply on its way. hyper asks for no more of it while its caller takes nothing, so it cannot
/// see for itself how long that lasts.
struct Delivery {
    /// Taken where the caller took nothing for too long.
    answer: RefCell<Option<Answer>>,
    waits_for_caller: Cell<Option<Instant>>,
}

/// The replies of one connection, so far as they are still on their way.
#[derive(Default)]
struct Deliveries(RefCell<Vec<Weak<Delivery>>>);

/// What is left of a reply; it owns the exchange, which ends with it.
struct Answer {
    body: ReplyBody,
    exchange: Exchange,
    bodiless: bool,
    ended: bool,
    /// Bytes that are still to come, where the head has stated a length.
    left: Option<u64>,
}

// === impl Deliveries ===

impl Deliveries {
    fn outgoing(&self, answer: Answer) -> Outgoing {
        let delivery = Rc::new(Delivery {
            answer: RefCell::new(Some(answer)),
            waits_for_caller: Cell::new(Some(Instant::now())),
        });
        let mut list = self.0.borrow_mut();
        if list.len() >= 2 * MAX_STREAMS as usize {
            list.retain(|delivery| delivery.strong_count() > 0);
        }
        list.push(Rc::downgrade(&delivery));
        Outgoing(delivery)
    }

    /// Lets go of replies of which the caller has taken nothing for so long; never ends.
    async fn watch(&self, limit: Duration) {
        loop {
            tokio::time::sleep((limit / 4).max(MIN_LOOK)).await;
            let list: Vec<_> = self.0.borrow().iter().filter_map(Weak::upgrade).collect();
            for delivery in list {
                let since = delivery.waits_for_caller.get();
                if since.is_some_and(|since| since.elapsed() >= limit) {
                    delivery.leave();
                }
            }
        }
    }
}

// === impl Delivery ===

impl Delivery {
    /// The caller is gone, or has its answer.
    fn leave(&self) {
        match self.answer.take() {
            // It has all that the head announced, and need not wait for the mark behind it.
            Some(Answer { exchange, ended: false, left: Some(0), .. }) => {
                exchange.notes().handed_over();
            }
            Some(Answer { body, exchange, ended: false, .. }) => {
                going_on::body_is_left(exchange, body);
            }
            _ => {}
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.leave();
    }
}

// === impl Outgoing ===

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Source;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Source>>> {
        let mut answer = self.0.answer.borrow_mut();
        let Some(answer) = &mut *answer else {
            return Poll::Ready(Some(Err(Error::CallerLeft.into())));
        };
        let polled = answer.next(cx);
        self.0.waits_for_caller.set(polled.is_ready().then(Instant::now));
        let frame = ready!(polled)?;
        answer.exchange.notes().delivered();
        let length = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        answer.left = answer.left.map(|left| left.saturating_sub(length));
        // Nobody asks for more behind trailers.
        if frame.as_ref().is_none_or(Frame::is_trailers) {
            answer.ended = true;
            answer.exchange.notes().handed_over();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        // Only after the end was seen: it is what tells a whole answer from a part.
        self.0.answer.borrow().as_ref().is_some_and(|answer| answer.ended)
    }
}

// === impl Answer ===

impl Answer {
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
            // Nobody asks for it over HTTP/2.
            ReplyBody::Upgraded(_) => None,
            body => {
                let frame = ready!(body.poll_frame(cx)).transpose()?;
                // Nobody asks for what comes after the trailers.
                if frame.as_ref().is_some_and(Frame::is_trailers) {
                    self.ended = true;
                    self.exchange.notes().handed_over();
                }
                frame
            }
        };
        Poll::Ready(Ok(frame))
    }
}
