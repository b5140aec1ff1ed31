//! Serves one caller over HTTP/1.1, call after call, in one task.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidegate_wire::Dialect;
use tokio::time::{Instant, timeout};

use crate::call::{CallerBody, Reply, ReplyBody, RequestBody};
use crate::config::TimeoutsConfig;
use crate::error::Error;
use crate::exchange::{Exchange, Notes};
use crate::going_on::Staying;
use crate::head::{RequestHead, ResponseHead};
use crate::http1::body::Framed;
use crate::http1::conn::Conn;
use crate::http1::framing::Framing;
use crate::http1::parse::{self, Parsed};
use crate::http1::write::{self, BodyAs, KeepAlive};
use crate::inbound::Way;
use crate::pump::{Piece, Pump, PumpError, Source};
use crate::serve::{Request, Worker};
use crate::timer::Timer;
use crate::tunnel::{self, Limits};

/// How long, and how much, a caller may go on sending after it was told that we will not read it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Serves a connection until either side is done with it.
pub(crate) async fn serve(conn: Rc<Conn>, worker: Rc<Worker>, way: Way) {
    let mut timer = Timer::at(Instant::now() + worker.now().timeouts.keep_alive.0);
    loop {
        let parsed = read_head(&conn, &mut timer, &worker).await;
        match parsed.and_then(|parsed| led(parsed, &way)) {
            Ok(Some(parsed)) => {
                if serve_call(&conn, parsed, &mut timer, &worker).await != Next::Call {
                    return say_goodbye(&conn).await;
                }
            }
            Ok(None) => return say_goodbye(&conn).await,
            Err(error) => return refuse(&conn, &worker, &error).await,
        }
    }
}

/// The same request, with the server that it is meant for by the way that it came.
fn led(
    parsed: Option<Parsed<RequestHead>>,
    way: &Way,
) -> Result<Option<Parsed<RequestHead>>, Error> {
    let Some(mut parsed) = parsed else { return Ok(None) };
    way.lead(&mut parsed.head)?;
    Ok(Some(parsed))
}

/// Tells a caller by TLS that this end is meant.
async fn say_goodbye(conn: &Conn) {
    if conn.says_goodbye() {
        let _ = timeout(LINGER, poll_fn(|cx| conn.poll_shutdown(cx))).await;
    }
}

/// What becomes of the connection after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Call,
    Close,
    /// Closes, once the caller has had time to read what it was told while it still sends.
    Linger,
}

/// The next request head; `None` where the caller is done.
async fn read_head(
    conn: &Conn,
    timer: &mut Timer,
    worker: &Worker,
) -> Result<Option<Parsed<RequestHead>>, Error> {
    let mut begun = false;
    timer.set(Instant::now() + worker.now().timeouts.keep_alive.0);
    poll_fn(|cx| {
        loop {
            conn.consume(conn.peek(parse::empty_lines));
            if let Some(block) = conn.peek(parse::take_head)? {
                conn.consume(block.len());
                return Poll::Ready(parse::request(block).map(Some).map_err(Error::Head));
            }
            if !begun && conn.peek(|ahead| !ahead.is_empty()) {
                begun = true;
                timer.set(Instant::now() + worker.now().timeouts.request_head.0);
            }
            match conn.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        ready!(timer.poll(cx));
        let limit_s = worker.now().timeouts.request_head.0.as_secs();
        Poll::Ready(if begun { Err(Error::HeadTimeout { limit_s }) } else { Ok(None) })
    })
    .await
}

async fn serve_call(
    conn: &Rc<Conn>,
    parsed: Parsed<RequestHead>,
    timer: &mut Timer,
    worker: &Worker,
) -> Next {
    let Parsed { head, framing, keep_alive, expects_continue } = parsed;
    let exchange = worker.open(&head);
    let version = head.version;
    let is_head = head.method == http::Method::HEAD;
    let body = match framing {
        Framing::Empty => RequestBody::Empty,
        framing => RequestBody::Http1(Framed::new(conn.clone(), framing)),
    };
    let body = CallerBody::new(body, exchange.notes());
    let request = Request { head, body, expects_continue };
    let Some((reply, exchange)) = reply(conn, request, exchange, worker).await else {
        return Next::Close;
    };
    let terms = Terms { version, is_head, keep_alive };
    if let ReplyBody::Upgraded(upstream) = &reply.body {
        change(conn, upstream, &reply.head, &exchange, timer, worker).await;
        return Next::Close;
    }
    let (next, left) = deliver(conn, reply, &exchange, terms, timer, worker).await;
    match left {
        // The call is over; what its caller still sends is no part of it.
        None => drop(exchange),
        Some(body) => match Staying::of(exchange) {
            Ok(staying) => {
                conn.close();
                Box::pin(staying.body(body)).await;
            }
            Err(exchange) => drop((body, exchange)),
        },
    }
    if next == Next::Linger {
        linger(conn).await;
    }
    next
}

/// The reply, and the exchange that it belongs to; nothing where the caller went away before it came.
async fn reply(
    conn: &Conn,
    request: Request,
    exchange: Exchange,
    worker: &Worker,
) -> Option<(Reply, Exchange)> {
    let notes = exchange.notes().clone();
    // Dropped after the work: who carries a call may look at it to the last.
    let _over;
    let mut work = pin!(worker.reply(request, &notes));
    match or_gone(conn, &notes, work.as_mut()).await {
        Some(Ok(reply)) => return Some((reply, exchange)),
        Some(Err(_)) => {}
        None => match Staying::of(exchange) {
            Ok(staying) => {
                conn.close();
                Box::pin(staying.reply(work)).await;
            }
            Err(exchange) => _over = exchange,
        },
    }
    None
}

/// What a request says of how its answer is to come.
struct Terms {
    version: http::Version,
    is_head: bool,
    keep_alive: bool,
}

/// The work's result, unless the caller goes away first.
async fn or_gone<T>(
    conn: &Conn,
    notes: &Notes,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        // While the body comes, those who read it see the caller go.
        Poll::Pending => {
            ready!(notes.poll_request_read(cx));
            ready!(conn.poll_gone(cx));
            Poll::Ready(None)
        }
    })
    .await
}

/// Hands the reply over; what is left of it where the caller went away.
async fn deliver(
    conn: &Rc<Conn>,
    reply: Reply,
    exchange: &Exchange,
    terms: Terms,
    timer: &mut Timer,
    worker: &Worker,
) -> (Next, Option<ReplyBody>) {
    let notes = exchange.notes();
    let Reply { head, body } = reply;
    let body_as = body_as(&head, &body, &terms);
    let keep_alive = terms.keep_alive && !worker.activity.is_leaving();
    // A body that nobody will read cannot be told from the next request.
    let next = match keep_alive && body_as != BodyAs::UntilClose {
        _ if !notes.request_is_read() => Next::Linger,
        true => Next::Call,
        false => Next::Close,
    };
    let said = match (next, terms.version) {
        (Next::Close | Next::Linger, _) => KeepAlive::Close,
        (Next::Call, http::Version::HTTP_10) => KeepAlive::Said,
        (Next::Call, _) => KeepAlive::Usual,
    };
    notes.status(head.status);
    // Where closing is what ends the body, it must mean that the body has come to its end.
    let ends_by_closing = body_as == BodyAs::UntilClose;
    if ends_by_closing {
        conn.reset_on_close(true);
    }
    let mut out = Vec::with_capacity(4096);
    write::response(&mut out, &head, body_as, said);
    let raw = body_as == BodyAs::Framed;
    let source =
        UpstreamBody { body, raw, bodiless: terms.is_head, left: head.fields.content_length() };
    let mut pump = Pump::new(out, source, body_as);
    let stall = worker.now().timeouts.idle.0;
    let mut stalled_since: Option<u64> = None;
    let handed_over = poll_fn(|cx| {
        let polled = pump.poll(cx, conn);
        if pump.written() > 0 {
            notes.delivered();
        }
        if polled.is_ready() {
            return polled;
        }
        if pump.waits_for_sink() {
            // A caller that takes nothing for so long has gone without a word.
            if stalled_since.replace(pump.written()) != Some(pump.written()) {
                timer.set(Instant::now() + stall);
            }
            ready!(timer.poll(cx));
            return Poll::Ready(Err(PumpError::Sink(std::io::ErrorKind::TimedOut.into())));
        }
        stalled_since = None;
        ready!(notes.poll_request_read(cx));
        ready!(conn.poll_gone(cx));
        Poll::Ready(Err(PumpError::Sink(std::io::ErrorKind::BrokenPipe.into())))
    })
    .await;
    match handed_over {
        Ok(()) => {
            notes.handed_over();
            if ends_by_closing {
                conn.reset_on_close(false);
            }
            (next, None)
        }
        // The caller needs no more; only the upstream has yet to say that this was all.
        Err(PumpError::Sink(_)) if pump.source.left == Some(0) && !pump.waits_for_sink() => {
            notes.handed_over();
            (Next::Close, None)
        }
        // The framing is left open: nobody takes what came so far for the whole.
        Err(PumpError::Sink(_)) => (Next::Close, Some(pump.source.body)),
        Err(PumpError::Source(_)) => (Next::Close, None),
    }
}

/// Changes to the protocol on which caller and upstream have agreed, to the end of both connections.
async fn change(
    conn: &Conn,
    upstream: &Conn,
    head: &ResponseHead,
    exchange: &Exchange,
    timer: &mut Timer,
    worker: &Worker,
) {
    let notes = exchange.notes();
    notes.status(head.status);
    let mut out = Vec::with_capacity(512);
    write::response(&mut out, head, BodyAs::Framed, KeepAlive::Upgrade);
    let TimeoutsConfig { upgraded_idle, idle, .. } = worker.now().timeouts;
    let limits = Limits { open: upgraded_idle.0, half_closed: idle.0.min(upgraded_idle.0) };
    tunnel::run(conn, upstream, out, timer, limits, notes).await;
}

/// How the caller gets the body.
fn body_as(head: &ResponseHead, body: &ReplyBody, terms: &Terms) -> BodyAs {
    let chunked = head.fields.get("transfer-encoding").is_some();
    let sized = head.fields.get("content-length").is_some();
    let bodiless = terms.is_head || matches!(head.status, 204 | 304);
    match body {
        _ if bodiless => BodyAs::Framed,
        ReplyBody::Http1(_) if chunked && terms.version == http::Version::HTTP_10 => {
            BodyAs::UntilClose
        }
        ReplyBody::Http1(_) if !chunked && !sized => BodyAs::UntilClose,
        body if body.is_in_frames() && !sized => match terms.version {
            http::Version::HTTP_10 => BodyAs::UntilClose,
            _ => BodyAs::Chunked,
        },
        _ => BodyAs::Framed,
    }
}

/// Says why a request was not read, and closes.
async fn refuse(conn: &Rc<Conn>, worker: &Worker, error: &Error) {
    let exchange = worker.open_refused(error);
    let reply = error.reply(Dialect::Other);
    let mut out = Vec::new();
    write::response(&mut out, &reply.head, BodyAs::Framed, KeepAlive::Close);
    let source = UpstreamBody { body: reply.body, raw: true, bodiless: false, left: None };
    let mut pump = Pump::new(out, source, BodyAs::Framed);
    let _ = timeout(LINGER, poll_fn(|cx| pump.poll(cx, conn))).await;
    drop(exchange);
    linger(conn).await;
}

/// Closes our side and reads on for a moment: bytes left unread would take back what we just said.
async fn linger(conn: &Conn) {
    let unread = async {
        let _ = poll_fn(|cx| conn.poll_shutdown(cx)).await;
        let mut left = LINGER_BYTES;
        while left > 0 {
            match poll_fn(|cx| conn.poll_fill(cx)).await {
                Ok(n) if n > 0 => {
                    left = left.saturating_sub(n);
                    conn.consume(conn.peek(<[u8]>::len));
                }
                _ => return,
            }
        }
    };
    let _ = timeout(LINGER, unread).await;
}

/// The body of a reply as a source of pieces.
struct UpstreamBody {
    body: ReplyBody,
    /// Whether it goes on as it is framed.
    raw: bool,
    /// The answer to HEAD has the fields of a body, but none.
    bodiless: bool,
    /// What is to come of a body that comes in frames and whose length was said.
    left: Option<u64>,
}

impl Source for UpstreamBody {
    type Error = Error;

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Piece, Error>> {
        let piece = match &mut self.body {
            ReplyBody::Full(bytes) if bytes.is_empty() || self.bodiless => Piece::End,
            ReplyBody::Full(bytes) => Piece::Data(std::mem::take(bytes)),
            ReplyBody::Http1(body) if self.raw => match ready!(body.poll_raw(cx, scratch))? {
                0 => Piece::End,
                n => Piece::Raw(n),
            },
            ReplyBody::Http1(body) => match ready!(body.poll_payload(cx))? {
                Some(payload) => Piece::Data(payload),
                None => body.trailers().map_or(Piece::End, Piece::Trailers),
            },
            // It is no body; see `change`.
            ReplyBody::Upgraded(_) => Piece::End,
            body => match ready!(body.poll_frame(cx)).transpose()? {
                None => Piece::End,
                Some(frame) => match frame.into_data() {
                    Ok(data) => {
                        self.left = self.left.and_then(|left| left.checked_sub(data.len() as u64));
                        Piece::Data(data)
                    }
                    Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
                },
            },
        };
        Poll::Ready(Ok(piece))
    }
}
