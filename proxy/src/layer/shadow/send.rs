//! A copy on its way, and what is noted of it.

use bytes::Bytes;
use tidegate_wire::Ending;
use tokio::time::timeout;

use super::Copy;
use crate::call::{Call, RequestBody};
use crate::error::Error;
use crate::exchange::{Exchange, Notes, Ours};
use crate::going_on::read;
use crate::layer::Below;
use crate::route;
use crate::whole;

/// Fields by which a server knows a call again: a copy is another one.
const OF_CALL: [&str; 2] = ["idempotency-key", "x-idempotency-key"];

impl<S: Below> Copy<S> {
    /// Makes the call, and reads its answer to the end.
    pub(super) async fn made(self, body: Bytes) {
        let Self { shadow, place, head, recorder, activity, .. } = self;
        let shape = route::shape(&head);
        let ours = Ours {
            trace_id: self.trace_id,
            parent_span_id: Some(self.span_id),
            is_sampled: self.is_sampled,
            upstream: shadow.upstream.spec.name.clone(),
            model: shadow.upstream.spec.model.clone(),
        };
        let exchange = Exchange::ours(&head, shape, ours, recorder, activity);
        let notes = exchange.notes().clone();
        notes.record(|record| {
            record.shadow = Some(true);
            record.route = Some(shadow.route.clone());
            record.caller = self.caller;
        });
        let mut call = Call { head, body: RequestBody::Empty, notes: notes.clone() };
        for name in OF_CALL {
            call.head.fields = call.head.fields.without(name);
        }
        if !body.is_empty() {
            notes.request_known(&body);
            whole::put(&mut call, body);
        }
        notes.request_ended();
        shadow.shared.sent();
        let limit = shadow.config.time.0;
        notes.must_be_over(Some(limit), None);
        answer(shadow.end.clone(), call, limit, &notes).await;
        drop(exchange);
        // Free once its record has left: who sees that may send the next one.
        drop(place);
    }
}

async fn answer<S: Below>(mut end: S, call: Call, limit: std::time::Duration, notes: &Notes) {
    let reply = match timeout(limit, end.call(call)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(failure)) => return notes.failed(&failure.error),
        Err(_) => return notes.failed(&Error::TotalTimeout { limit_s: limit.as_secs() }),
    };
    notes.status(reply.head.status);
    match timeout(notes.time_left(), read(reply.body, u64::MAX)).await {
        Ok(tidegate_wire::DrainEnd::Whole) => notes.ended(Ending::Clean),
        // What broke it has been noted where it did.
        Ok(_) => notes.ended(Ending::Broken),
        Err(_) => notes.broken("total_timeout"),
    }
}
