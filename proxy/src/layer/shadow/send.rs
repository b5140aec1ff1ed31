//! A copy on its way, and what is noted of it.

use bytes::Bytes;

use super::Copy;
use crate::call::Call;
use crate::exchange::{Exchange, Ours};
use crate::layer::Below;
use crate::own_call;
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
        let mut call = Call::of_ours(head, &notes);
        for name in OF_CALL {
            call.head.fields = call.head.fields.without(name);
        }
        if !body.is_empty() {
            whole::put(&mut call, body);
        }
        shadow.shared.sent();
        own_call::make(shadow.end.clone(), call, shadow.config.time.0).await;
        drop((notes, exchange));
        // Free once its record has left: who sees that may send the next one.
        drop(place);
    }
}
