//! Reads the body of a request whole, where a policy needs it so.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::ahead::Ahead;
use crate::call::{Call, RequestBody};
use crate::config::LimitsConfig;
use crate::error::Error;
use crate::exchange::Wait;
use crate::hold::Hold;

/// The whole body, read ahead of its way; `None` where that is too much to hold, or where fields
/// follow it. Every byte of it stays where the upload will find it.
pub(crate) async fn read_ahead(
    call: &mut Call,
    hold: &mut Hold<'_>,
    limits: &LimitsConfig,
    body_idle: Duration,
) -> Result<Option<Vec<u8>>, Error> {
    let start = Instant::now();
    let Call { head, body, notes } = call;
    let is_http11 = head.version == http::Version::HTTP_11;
    let expects_continue = is_http11 && head.fields.get("expect").is_some();
    let mut ahead = Ahead::new(body, expects_continue);
    let mut whole = Vec::new();
    loop {
        let read = poll_fn(|cx| ahead.poll(cx, body, |run| whole.extend_from_slice(run)));
        let Ok(read) = timeout(body_idle, read).await else {
            return Err(Error::BodyTimeout { limit_s: body_idle.as_secs() });
        };
        match read? {
            0 => break,
            n => hold.more(n as u64),
        }
        if hold.is_too_much(limits) {
            notes.waited(Wait::Body, start.elapsed());
            return Ok(None);
        }
    }
    notes.waited(Wait::Body, start.elapsed());
    Ok((!ahead.has_trailers(body)).then_some(whole))
}

/// Takes a body that was read ahead whole off its connection.
pub(crate) async fn take(call: &mut Call) -> Result<(), Error> {
    match &mut call.body {
        RequestBody::Http1(framed) => {
            while poll_fn(|cx| framed.poll_payload(cx)).await.map_err(Error::of_caller)?.is_some() {
            }
        }
        RequestBody::Http2(body) => body.ahead.clear(),
        RequestBody::Empty | RequestBody::Full(_) => {}
    }
    Ok(())
}

/// The same, and puts this one in its place.
pub(crate) async fn replace(call: &mut Call, whole: &[u8], by: Vec<u8>) -> Result<(), Error> {
    take(call).await?;
    call.notes.request_replaced(whole);
    let fields = call.head.fields.without("transfer-encoding").without("expect");
    call.head.fields = fields.with("content-length", by.len().to_string().as_bytes());
    call.body = RequestBody::Full(by.into());
    Ok(())
}
