//! The body of a request as a whole, where a policy needs it so.

use std::future::poll_fn;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::ahead::Ahead;
use crate::call::{Call, RequestBody};
use crate::error::Error;
use crate::exchange::Wait;
use crate::hold::Keeping;

/// Reads the body to its end, ahead of its way; false where that is too much to hold, or where
/// fields follow it. Every byte of it stays where the upload will find it.
pub(crate) async fn read_ahead(call: &mut Call, keeping: &Keeping) -> Result<bool, Error> {
    let start = Instant::now();
    let mut ahead = start_of(call);
    let mut bytes = 0;
    let is_held = loop {
        let read = poll_fn(|cx| ahead.poll(cx, &mut call.body, |_| {}));
        let Ok(read) = timeout(keeping.body_idle, read).await else {
            return Err(Error::BodyTimeout { limit_s: keeping.body_idle.as_secs() });
        };
        match read? {
            0 => break true,
            read => bytes += read as u64,
        }
        if !holds(call, keeping, bytes) {
            break false;
        }
    };
    call.notes.waited(Wait::Body, start.elapsed());
    Ok(is_held && !ahead.has_trailers(&call.body))
}

/// Whether [`read_ahead`] would find all of it there already, as it does with most: so it is true
/// without a wait.
pub(crate) fn has_come(call: &Call, keeping: &Keeping) -> bool {
    let mut ahead = start_of(call);
    let Ok(bytes) = ahead.look(&call.body, |_| {}) else { return false };
    ahead.is_over(&call.body)
        && holds(call, keeping, bytes as u64)
        && !ahead.has_trailers(&call.body)
}

/// Looks at a body that was read ahead whole.
pub(crate) fn look<R>(call: &Call, look: impl FnOnce(&[u8]) -> R) -> R {
    match &*call.body {
        RequestBody::Full(bytes) => look(bytes),
        RequestBody::Http1(framed) if let Some(length) = framed.length() => {
            framed.conn.peek(|ahead| look(&ahead[..length]))
        }
        body => {
            let mut whole = Vec::new();
            // What is wrong with it was found when it was read ahead.
            let _ = Ahead::new(body, false).look(body, |run| whole.extend_from_slice(run));
            look(&whole)
        }
    }
}

/// Takes a body that was read ahead whole off its connection: it can then be sent more than once.
pub(crate) fn take(call: &mut Call) {
    let body = taken(call);
    call.notes.request_replaced(&body);
    put(call, body);
}

/// The same, with another body in its place.
pub(crate) fn replace(call: &mut Call, by: Vec<u8>) {
    let body = taken(call);
    call.notes.request_replaced(&body);
    put(call, by.into());
}

fn start_of(call: &Call) -> Ahead {
    let is_http11 = call.head.version == http::Version::HTTP_11;
    let expects_continue = is_http11 && call.head.fields.get("expect").is_some();
    Ahead::new(&call.body, expects_continue)
}

/// Counts what is held; whether that is no more than may be.
fn holds(call: &Call, keeping: &Keeping, bytes: u64) -> bool {
    call.notes.hold(keeping, |hold| {
        hold.reach(bytes);
        !keeping.is_too_much(hold)
    })
}

fn taken(call: &mut Call) -> Bytes {
    match call.body.take() {
        RequestBody::Empty => Bytes::new(),
        RequestBody::Full(bytes) => bytes,
        RequestBody::Http1(framed) => framed.taken(),
        RequestBody::Http2(body) => {
            let pieces = body.ahead.iter().filter_map(|frame| frame.data_ref());
            pieces.map(|piece| &piece[..]).collect::<Vec<_>>().concat().into()
        }
    }
}

/// Gives the call this body, and a head that says how long it is.
pub(crate) fn put(call: &mut Call, body: Bytes) {
    let fields = &call.head.fields;
    let is_plain = fields.get("transfer-encoding").or(fields.get("expect")).is_none();
    if !is_plain || fields.content_length() != Some(body.len() as u64) {
        let fields = fields.without("transfer-encoding").without("expect");
        call.head.fields = fields.with("content-length", body.len().to_string().as_bytes());
    }
    *call.body = RequestBody::Full(body);
}
