//! What of the policies `tests/bench` may measure: calls through the stack of a route, to upstreams
//! whose answer is at hand. No part of the sidecar.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use crate::bypass::Switch;
use crate::call::{CallerBody, ReplyBody, RequestBody};
use crate::config::Config;
use crate::error::Error;
use crate::generation::{Generation, Means};
use crate::going_on::AllPlaces;
use crate::http1::body::Framed;
use crate::http1::conn::{Conn, Stream, with_scratch};
use crate::http1::framing::Framing;
use crate::http1::parse::{self, Parsed};
use crate::layer::quota::Clock;
use crate::recorder::{Options, Recorders};
use crate::serve::{Request, Worker};
use crate::stack::Stack;
use crate::upstream::System;
use crate::upstream::at_hand::AtHand;

/// One route whose calls are answered at once.
pub struct Measured {
    worker: Worker,
    stack: Stack<AtHand>,
    caller: Rc<Conn>,
    _recorders: Recorders,
}

impl Measured {
    /// The first route of this configuration, whose upstreams give this answer, head and body.
    pub async fn new(config: Config, answer: &[u8]) -> io::Result<Self> {
        let recorders = Recorders::start(Options::default())?;
        let background = recorders.background().clone();
        let (resolver, switch) = (Arc::new(System), Switch::new(config.bypass));
        let (places, clock) = (AllPlaces::default(), Clock::system());
        let registry = recorders.registry().clone();
        let means =
            Means { background, resolver, switch, places, clock, registry, intercept: None };
        let generation = Generation::first(config, means).map_err(io::Error::other)?;
        let worker = Worker::new(&Arc::new(generation), recorders.worker(), Arc::default());
        let (conn, caller) = (connection().await?, connection().await?);
        let answer = Bytes::copy_from_slice(answer);
        let end = |upstream| AtHand { upstream, conn: conn.clone(), answer: answer.clone() };
        let stack = worker.now().routes.first_stack(end);
        Ok(Self { worker, stack, caller, _recorders: recorders })
    }

    /// Makes a call, head and body as they stand on the wire, and takes its answer: the status, and
    /// how many bytes of a body that was.
    pub async fn call(&self, request: &[u8]) -> (u16, usize) {
        self.caller.unread(request);
        let block = self.caller.peek(parse::take_head).expect("it is legal").expect("it is whole");
        self.caller.consume(block.len());
        let Parsed { head, framing, .. } = parse::request(block).expect("it is legal");
        let exchange = self.worker.open(&head);
        let body = match framing {
            Framing::Empty => RequestBody::Empty,
            framing => RequestBody::Http1(Framed::new(self.caller.clone(), framing)),
        };
        let body = CallerBody::new(body, exchange.notes());
        let request = Request { head, body, expects_continue: false };
        let notes = exchange.notes();
        let through = |_: &_| self.stack.clone();
        match self.worker.now().forward(request, notes, through).await {
            Ok(reply) => {
                let status = reply.head.status;
                notes.status(status);
                notes.delivered();
                let bytes = read(reply.body).await.unwrap_or_default();
                notes.handed_over();
                (status, bytes)
            }
            Err(error) => (error.status(), 0),
        }
    }
}

/// A connection over which nothing ever goes: what is read from it was put there.
async fn connection() -> io::Result<Rc<Conn>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TcpStream::connect(listener.local_addr()?).await?;
    Ok(Rc::new(Conn::new(Stream::Tcp(stream))))
}

/// Reads a body as a caller's connection does; how many bytes that was.
async fn read(mut body: ReplyBody) -> Result<usize, Error> {
    let mut bytes = 0;
    loop {
        let read = match &mut body {
            ReplyBody::Http1(body) => {
                poll_fn(|cx| with_scratch(|scratch| body.poll_raw(cx, scratch))).await?
            }
            body => {
                let frame = poll_fn(|cx| body.poll_frame(cx)).await.transpose()?;
                frame.map_or(0, |frame| frame.data_ref().map_or(0, Bytes::len))
            }
        };
        if read == 0 {
            return Ok(bytes);
        }
        bytes += read;
    }
}
