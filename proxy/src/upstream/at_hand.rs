//! An upstream whose answer is at hand: what is measured before it is the policies alone. No part
//! of the sidecar.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tower::Service;

use super::Upstream;
use super::http1::{Http1Reply, ReadAhead};
use crate::call::{Call, CallerBody, Failure, Reply, ReplyBody};
use crate::error::Error;
use crate::http1::body::Framed;
use crate::http1::conn::{Conn, with_scratch};
use crate::http1::parse;
use crate::pump::{Piece, Source as _};
use crate::stack::LocalFuture;

/// The end of a stack: takes a call in, and answers it at once.
#[derive(Clone, Debug)]
pub(crate) struct AtHand {
    pub(crate) upstream: Rc<Upstream>,
    /// The connection that the answer is read from; nothing ever goes over it.
    pub(crate) conn: Rc<Conn>,
    /// The whole answer as it stands on the wire.
    pub(crate) answer: Bytes,
}

impl AtHand {
    async fn send(&self, call: Call) -> Result<Reply, Failure> {
        let (pool, serving) = self.upstream.server(&call)?;
        if let Some(serving) = serving {
            call.notes.watch(serving);
        }
        self.upstream.begin(&call, &pool.origin);
        let Call { head, mut body, notes } = call;
        notes.sent();
        while !take_in(&mut body).await? {}
        self.conn.unread(&self.answer);
        let block = self.conn.peek(parse::take_head).expect("it is legal").expect("it is whole");
        self.conn.consume(block.len());
        let parsed = parse::response(block, &head.method).expect("it is legal");
        notes.answered(&parsed.head);
        let reply = Http1Reply {
            framed: Framed::new(self.conn.clone(), parsed.framing),
            upload: None,
            timer: None,
            pool,
            reusable: false,
            notes,
            limits: self.upstream.limits,
            ahead: ReadAhead::default(),
        };
        Ok(Reply { head: parsed.head, body: ReplyBody::Http1(Box::new(reply)) })
    }
}

impl Service<Call> for AtHand {
    type Response = Reply;
    type Error = Failure;
    type Future = LocalFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> LocalFuture {
        let end = self.clone();
        Box::pin(async move { end.send(call).await })
    }
}

/// Takes a piece of a body; true at its end.
async fn take_in(body: &mut CallerBody) -> Result<bool, Error> {
    let piece = poll_fn(|cx| with_scratch(|scratch| body.poll_piece(cx, scratch))).await?;
    Ok(matches!(piece, Piece::End))
}
