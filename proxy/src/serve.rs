//! What always happens to a request, whichever way it came.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;

use tokio::time::{Instant, timeout};
use tower::Service;

use crate::activity::Activity;
use crate::call::{Call, Reply, RequestBody};
use crate::config::{LimitsConfig, TimeoutsConfig};
use crate::error::Error;
use crate::exchange::{Exchange, Notes, Wait};
use crate::head::RequestHead;
use crate::http1::framing::{Decoder, Framing};
use crate::recorder::Recorder;
use crate::route::{self, Pick, Route, Routes};

/// What one worker needs to serve; shared by the tasks of that worker alone.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) routes: Routes,
    pub(crate) recorder: Recorder,
    pub(crate) activity: Arc<Activity>,
    pub(crate) timeouts: TimeoutsConfig,
    pub(crate) limits: LimitsConfig,
    /// Bytes of all held bodies, of all workers.
    pub(crate) held: Arc<AtomicU64>,
}

/// A request as it came: the framing is for bodies that can be read ahead of their way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    pub(crate) body: RequestBody,
    pub(crate) framing: Framing,
    /// Whether the caller holds the body back until it hears `100 Continue`.
    pub(crate) expects_continue: bool,
}

impl Worker {
    /// Opens the exchange of a request whose head was read just now.
    pub(crate) fn open(&self, head: &RequestHead) -> Exchange {
        Exchange::open(head, route::shape(head), self.recorder.clone(), self.activity.clone())
    }

    /// Opens the exchange of a request that is refused before it could be read.
    pub(crate) fn open_refused(&self, error: &Error) -> Exchange {
        Exchange::refused(error, self.recorder.clone(), self.activity.clone())
    }

    /// The reply to a request: an upstream's, or our own that says why there is none.
    pub(crate) async fn reply(
        &self,
        request: Request,
        exchange: &Exchange,
    ) -> Result<Reply, Error> {
        let notes = exchange.notes();
        match self.forward(request, notes).await {
            Ok(reply) => Ok(reply),
            Err(Error::CallerLeft) => Err(Error::CallerLeft),
            Err(error) => {
                notes.failed(&error);
                Ok(error.reply(notes.dialect()))
            }
        }
    }

    async fn forward(&self, mut request: Request, notes: &Rc<Notes>) -> Result<Reply, Error> {
        if matches!(request.body, RequestBody::Empty) {
            notes.request_ended();
        }
        let route = self.route(&mut request, notes).await?;
        notes.routed(route);
        let Request { mut head, body, .. } = request;
        if let Some(prefix) = &route.strip_prefix {
            head.target = head.target.without_prefix(prefix);
        }
        let call = Call { head, body, notes: notes.clone() };
        route.stack.clone().call(call).await.map_err(|failure| failure.error)
    }

    /// The route, for which the body is read as far as the model where a route asks for it.
    async fn route(&self, request: &mut Request, notes: &Notes) -> Result<&Route, Error> {
        let dialect = notes.dialect();
        let pick = |model: Option<Option<&str>>| self.routes.pick(&request.head, dialect, model);
        let model = notes.observer(|observer| observer.model().map(str::to_owned));
        let known = model.is_some() || !notes.observer(|observer| observer.awaits_model());
        match pick(known.then_some(model.as_deref())) {
            Pick::Route(route) => return Ok(route),
            Pick::Nowhere => return Err(Error::NoRoute),
            Pick::AsksForModel => {}
        }
        let start = Instant::now();
        self.read_model(request, notes).await?;
        notes.waited(Wait::Body, start.elapsed());
        let model = notes.observer(|observer| observer.model().map(str::to_owned));
        match self.routes.pick(&request.head, dialect, Some(model.as_deref())) {
            Pick::Route(route) => Ok(route),
            Pick::Nowhere | Pick::AsksForModel => Err(Error::NoRoute),
        }
    }

    /// Reads the body until the model is known, it ends, or too much of it would be held.
    async fn read_model(&self, request: &mut Request, notes: &Notes) -> Result<(), Error> {
        let mut hold = Hold { all: &self.held, mine: 0 };
        let mut ahead = Ahead::new(request);
        let limit = self.timeouts.request_body_idle.0;
        while notes.observer(|observer| observer.awaits_model()) && self.may_hold(&hold) {
            let read = timeout(limit, std::future::poll_fn(|cx| ahead.poll(cx, notes)));
            match read.await {
                Err(_) => return Err(Error::BodyTimeout { limit_s: limit.as_secs() }),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(0)) => break,
                Ok(Ok(n)) => hold.more(n as u64),
            }
        }
        Ok(())
    }

    fn may_hold(&self, hold: &Hold<'_>) -> bool {
        hold.mine < self.limits.held_body.as_u64()
            && self.held.load(Relaxed) < self.limits.held_bodies.as_u64()
    }
}

/// Counts what one call holds among what all hold.
struct Hold<'a> {
    all: &'a AtomicU64,
    mine: u64,
}

impl Hold<'_> {
    fn more(&mut self, bytes: u64) {
        self.mine += bytes;
        self.all.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Relaxed);
    }
}

/// Reads a body ahead of its way to the upstream; every byte stays where the upload will find it.
struct Ahead<'a> {
    request: &'a mut Request,
    decoder: Decoder,
    looked_at: usize,
}

impl<'a> Ahead<'a> {
    fn new(request: &'a mut Request) -> Self {
        let decoder = Decoder::new(request.framing);
        Self { request, decoder, looked_at: 0 }
    }

    /// Reads a piece and shows it; 0 is the end.
    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        notes: &Notes,
    ) -> Poll<Result<usize, Error>> {
        match &mut self.request.body {
            RequestBody::Empty => Poll::Ready(Ok(0)),
            RequestBody::Http2(body) => match std::task::ready!(body.poll_ahead(cx)) {
                Some(Ok(data)) => {
                    notes.request_ahead(&data);
                    Poll::Ready(Ok(data.len()))
                }
                Some(Err(_)) => Poll::Ready(Err(Error::CallerLeft)),
                None => Poll::Ready(Ok(0)),
            },
            RequestBody::Http1(framed) => {
                if self.decoder.is_done() {
                    return Poll::Ready(Ok(0));
                }
                let conn = framed.conn.clone();
                let fresh = conn.peek(|ahead| ahead.len() - self.looked_at);
                if fresh == 0 {
                    if std::mem::take(&mut self.request.expects_continue) {
                        let _ = conn.poll_write(cx, b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    match std::task::ready!(conn.poll_fill(cx)) {
                        Ok(0) | Err(_) => return Poll::Ready(Err(Error::CallerLeft)),
                        Ok(_) => {}
                    }
                }
                let looked_at = self.looked_at;
                let decoder = &mut self.decoder;
                let taken = conn.peek(|ahead| {
                    decoder.advance(&ahead[looked_at..], |payload| notes.request_ahead(payload))
                });
                let taken = taken.map_err(|error| Error::Body(error.into()))?;
                self.looked_at += taken;
                Poll::Ready(Ok(taken))
            }
        }
    }
}
