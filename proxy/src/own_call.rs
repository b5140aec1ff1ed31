//! A call that Tidegate makes itself: once, with its answer read to the end and let go.

use std::time::Duration;

use bytes::Bytes;
use tidegate_wire::{DrainEnd, Ending};
use tokio::time::timeout;

use crate::call::{Call, RequestBody};
use crate::error::Error;
use crate::going_on::read;
use crate::layer::Below;

/// Makes the call, which may take so long to the end of its answer, and notes how it went.
pub(crate) async fn make<S: Below>(end: S, call: Call, limit: Duration) {
    carry(end, call, limit, u64::MAX, |_| ()).await;
}

/// The same; its status and its answer, where that came whole and is no longer than so many bytes.
pub(crate) async fn ask<S: Below>(
    end: S,
    call: Call,
    limit: Duration,
    most: u64,
) -> Option<(u16, Bytes)> {
    let mut answer = Vec::new();
    let status = carry(end, call, limit, most, |piece| answer.extend_from_slice(piece)).await?;
    Some((status, answer.into()))
}

/// Its status, where its answer came whole.
async fn carry<S: Below>(
    mut end: S,
    call: Call,
    limit: Duration,
    most: u64,
    see: impl FnMut(&[u8]),
) -> Option<u16> {
    let notes = call.notes.clone();
    if let RequestBody::Full(body) = &*call.body {
        notes.request_known(body);
    }
    notes.request_ended();
    notes.must_be_over(Some(limit), None);
    let reply = match timeout(limit, end.call(call)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(failure)) => {
            notes.failed(&failure.error);
            return None;
        }
        Err(_) => {
            notes.failed(&Error::TotalTimeout { limit_s: limit.as_secs() });
            return None;
        }
    };
    notes.status(reply.head.status);
    let status = reply.head.status;
    match timeout(notes.time_left(), read(reply.body, most, see)).await {
        Ok(DrainEnd::Whole) => {
            notes.ended(Ending::Clean);
            return Some(status);
        }
        // What broke it has been noted where it did.
        Ok(_) => notes.ended(Ending::Broken),
        Err(_) => notes.broken("total_timeout"),
    }
    None
}
