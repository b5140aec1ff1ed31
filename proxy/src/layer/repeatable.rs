//! Keeps the body of a call at hand, on routes that may make it again.
//!
//! It is read whole before anything of it is sent. One that is too large goes on as it comes, and
//! is sent once.

use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use tower::ServiceExt;

use crate::bypass::Bypass;
use crate::call::{Call, CallerBody, RequestBody};
use crate::hold::Keeping;
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::whole;

/// Keeps bodies at hand; absent where no call of the route is made again.
#[derive(Clone, Debug)]
pub(crate) struct RepeatableLayer(pub(crate) Option<Arc<Keeping>>);

impl<S: Below> Policy<S> for RepeatableLayer {
    fn call(&self, below: &mut S, mut call: Call) -> LocalFuture {
        let is_streamed = matches!(*call.body, RequestBody::Http1(_) | RequestBody::Http2(_));
        let may_keep = is_streamed && call.is_of_a_kind_to_repeat();
        let Some(keeping) = self.0.as_ref().filter(|_| may_keep) else {
            return below.call(call);
        };
        if whole::has_come(&call, keeping) {
            whole::take(&mut call);
            return below.call(call);
        }
        let (keeping, below) = (keeping.clone(), below.clone());
        Box::pin(async move {
            if whole::read_ahead(&mut call, &keeping).await? {
                whole::take(&mut call);
            }
            below.oneshot(call).await
        })
    }

    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture {
        let length = call.head.fields.content_length().unwrap_or_default();
        if self.0.as_ref().is_some_and(|keeping| !keeping.may_hold(length)) {
            bypass.set_too_large();
        }
        below.call(call)
    }
}

/// What a request says of traces that it leaves.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Leaves {
    store: Option<bool>,
    background: Option<bool>,
}

impl Call {
    /// The same call once more, where all of it is at hand.
    pub(crate) fn spare(&self) -> Option<Self> {
        let body = CallerBody::new(self.body.at_hand()?, &self.notes);
        Some(Self { head: self.head.clone(), body, notes: self.notes.clone() })
    }

    /// Whether to do this twice does no more than to do it once: it reads, or it asks a model.
    pub(crate) fn is_of_a_kind_to_repeat(&self) -> bool {
        /// These begin something that goes on by itself.
        const LASTING: [&str; 4] =
            ["generate_video", "predict_long_running", "realtime", "invoke_async"];
        let is_lasting = || {
            self.notes.observer(|observer| {
                let operation = observer.shape().operation.as_deref();
                operation.is_none_or(|operation| LASTING.contains(&operation))
            })
        };
        match self.head.method {
            http::Method::GET | http::Method::HEAD | http::Method::OPTIONS => true,
            http::Method::POST => !is_lasting(),
            _ => false,
        }
    }

    /// Whether the call may be made again after it was sent.
    pub(crate) fn may_repeat(&self) -> bool {
        let leaves = matches!(&*self.body, RequestBody::Full(body) if leaves_something(body));
        self.is_of_a_kind_to_repeat() && !leaves
    }
}

/// Whether this request leaves something behind at its server, as it says itself.
pub(crate) fn leaves_something(body: &[u8]) -> bool {
    let leaves: Leaves = serde_json::from_slice(body).unwrap_or_default();
    leaves.store == Some(true) || leaves.background == Some(true)
}
