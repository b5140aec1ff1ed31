//! A call that Tidegate makes itself: once, with its answer read to the end and let go.

use std::time::Duration;

use tidegate_wire::{DrainEnd, Ending};
use tokio::time::timeout;

use crate::call::{Call, RequestBody};
use crate::error::Error;
use crate::going_on::read;
use crate::layer::Below;

/// Makes the call, which may take so long to the end of its answer, and notes how it went.
pub(crate) async fn make<S: Below>(mut end: S, call: Call, limit: Duration) {
    let notes = call.notes.clone();
    if let RequestBody::Full(body) = &call.body {
        notes.request_known(body);
    }
    notes.request_ended();
    notes.must_be_over(Some(limit), None);
    let reply = match timeout(limit, end.call(call)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(failure)) => return notes.failed(&failure.error),
        Err(_) => return notes.failed(&Error::TotalTimeout { limit_s: limit.as_secs() }),
    };
    notes.status(reply.head.status);
    match timeout(notes.time_left(), read(reply.body, u64::MAX)).await {
        Ok(DrainEnd::Whole) => notes.ended(Ending::Clean),
        // What broke it has been noted where it did.
        Ok(_) => notes.ended(Ending::Broken),
        Err(_) => notes.broken("total_timeout"),
    }
}
