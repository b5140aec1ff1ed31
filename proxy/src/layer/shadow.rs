//! Makes copies of a share of calls elsewhere, beside the calls themselves: their answers are measured,
//! and nobody gets them.
//!
//! A call never waits for its copy, and never fails by it. The copy is sent once the call's own body
//! has been read, by the same worker, and is made once. There are so many at a time and no more, each
//! of so many bytes: what does not fit is not copied, and counted. A copy has a record of its own, which
//! counts among what callers asked for nowhere. A caller's credential goes to no other host with it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::{SpanId, TraceId};

use crate::activity::Activity;
use crate::bypass::Bypass;
use crate::call::{Call, RequestBody};
use crate::config::{Size, Span, TargetConfig};
use crate::exchange::Overhear;
use crate::head::RequestHead;
use crate::layer::repeatable::leaves_something;
use crate::layer::{Below, Policy};
use crate::recorder::Recorder;
use crate::stack::LocalFuture;
use crate::upstream::Upstream;

mod send;
mod shared;

pub(crate) use shared::Shadows;

use shared::{OfRoute, Place, Reason};

/// Copies of a share of calls.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowConfig {
    /// The name of the upstream that they go to.
    pub upstream: String,
    /// How many calls are copied, of those that ask a model.
    pub share: crate::config::Ratio,
    /// The model to ask, in place of the one that was asked for.
    #[serde(default)]
    pub model: Option<String>,
    /// The location to name in the path, for Vertex AI.
    #[serde(default)]
    pub location: Option<String>,
    /// The project to name in the path, for Vertex AI.
    #[serde(default)]
    pub project: Option<String>,
    /// Taken off the front of the path.
    #[serde(default)]
    pub strip_prefix: Option<String>,
    /// Copies at a time, of all workers; calls that find no place are not copied.
    #[serde(default = "at_a_time")]
    pub at_a_time: std::num::NonZeroU32,
    /// Bytes of a body, at most; calls with a longer one are not copied.
    #[serde(default = "body")]
    pub body: Size,
    /// How long a copy may take to the end of its answer.
    #[serde(default = "time")]
    pub time: Span,
}

fn at_a_time() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(8).expect("not zero")
}

fn body() -> Size {
    Size::mib(1)
}

fn time() -> Span {
    Span(Duration::from_secs(120))
}

/// Copies calls; absent where a route has no shadow.
#[derive(Debug)]
pub(crate) struct ShadowLayer<S>(pub(crate) Option<Rc<Shadow<S>>>);

/// The shadow of one route, as one worker knows it.
#[derive(Debug)]
pub(crate) struct Shadow<S> {
    pub(crate) config: ShadowConfig,
    pub(crate) route: Arc<str>,
    pub(crate) upstream: Rc<Upstream>,
    /// Whether the callers' own credentials may go there.
    pub(crate) trusts_caller: bool,
    /// What sends a copy there.
    pub(crate) end: S,
    pub(crate) shared: OfRoute,
}

/// A copy, before its body is there.
struct Copy<S> {
    shadow: Rc<Shadow<S>>,
    place: Place,
    head: RequestHead,
    recorder: Recorder,
    activity: Arc<Activity>,
    caller: Option<Arc<str>>,
    /// The call that it is a copy of.
    trace_id: TraceId,
    span_id: SpanId,
    is_sampled: Option<bool>,
}

/// A copy that hears its body go by.
struct Hearing<S> {
    /// Absent once too much has come.
    copy: Option<Copy<S>>,
    body: Vec<u8>,
}

impl<S> Clone for ShadowLayer<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Below, B: Below> Policy<B> for ShadowLayer<S> {
    fn call(&self, below: &mut B, call: Call) -> LocalFuture {
        if let Some(shadow) = &self.0 {
            shadow.copy(&call);
        }
        below.call(call)
    }

    /// Nothing is copied: the call itself is as it would be, and its upstreams are spared the rest.
    fn look_on(&self, below: &mut B, call: Call, _: Rc<Bypass>) -> LocalFuture {
        below.call(call)
    }
}

// === impl ShadowConfig ===

impl ShadowConfig {
    /// What a copy gets to go to its upstream.
    pub(crate) fn names(&self) -> TargetConfig {
        let Self { model, location, project, strip_prefix, .. } = self.clone();
        TargetConfig { upstream: None, model, location, project, strip_prefix }
    }
}

// === impl Shadow ===

impl<S: Below> Shadow<S> {
    /// Copies this call, if it is one of those that are drawn.
    fn copy(self: &Rc<Self>, call: &Call) {
        let is_due = call.asks_model() && rand::random::<f64>() < self.config.share.share();
        if !is_due {
            return;
        }
        match self.begin(call) {
            Err(reason) => self.shared.count(reason),
            Ok(copy) => match &*call.body {
                RequestBody::Empty => copy.send(Bytes::new()),
                RequestBody::Full(body) if self.fits(body.len()) => copy.send(body.clone()),
                RequestBody::Full(_) => self.shared.count(Reason::BodyTooLarge),
                RequestBody::Http1(_) | RequestBody::Http2(_) => {
                    call.notes.overheard_by(Hearing { copy: Some(copy), body: Vec::new() });
                }
            },
        }
    }

    fn begin(self: &Rc<Self>, call: &Call) -> Result<Copy<S>, Reason> {
        let renames = self.config.names() != TargetConfig::default();
        let is_encoded = call.head.fields.get("content-encoding").is_some();
        let signs = self.upstream.has_credential();
        if call.is_grpc() {
            return Err(Reason::Grpc);
        }
        if !self.trusts_caller && call.has_credential() {
            return Err(Reason::Credential);
        }
        if renames && (is_encoded || (call.head.is_signed() && !signs)) {
            return Err(Reason::Names);
        }
        if call.head.fields.content_length().is_some_and(|length| !self.fits(length as usize)) {
            return Err(Reason::BodyTooLarge);
        }
        let place = self.shared.take(self.config.at_a_time.get()).ok_or(Reason::Busy)?;
        let (recorder, activity) = call.notes.carriers();
        let record = |record: &mut tidegate_wire::Record| {
            (record.caller.clone(), record.trace_id, record.span_id, record.is_sampled)
        };
        let (caller, trace_id, span_id, is_sampled) = call.notes.record(record);
        let (shadow, head) = (self.clone(), call.head.clone());
        Ok(Copy { shadow, place, head, recorder, activity, caller, trace_id, span_id, is_sampled })
    }

    fn fits(&self, bytes: usize) -> bool {
        bytes as u64 <= self.config.body.as_u64()
    }
}

impl Call {
    /// Whether it asks a model for something, and leaves nothing behind that would go on by itself.
    fn asks_model(&self) -> bool {
        let has_operation = || self.notes.observer(|observer| observer.shape().operation.is_some());
        self.head.method == http::Method::POST
            && !self.head.upgrades
            && has_operation()
            && self.is_of_a_kind_to_repeat()
    }
}

// === impl Copy ===

impl<S: Below> Copy<S> {
    /// Sends it in a task of its own, which ends with the worker at the latest.
    fn send(self, body: Bytes) {
        if leaves_something(&body) {
            return self.shadow.shared.count(Reason::NotRepeatable);
        }
        tokio::task::spawn_local(self.made(body));
    }
}

// === impl Hearing ===

impl<S: Below> Overhear for Hearing<S> {
    fn piece(&mut self, payload: &[u8]) {
        let Some(copy) = &self.copy else { return };
        if copy.shadow.fits(self.body.len() + payload.len()) {
            self.body.extend_from_slice(payload);
        } else {
            copy.shadow.shared.count(Reason::BodyTooLarge);
            // Its place and its memory are free at once.
            (self.copy, self.body) = (None, Vec::new());
        }
    }

    fn whole(&mut self, body: &[u8]) {
        self.body.clear();
        self.piece(body);
    }

    fn is_over(mut self: Box<Self>) {
        if let Some(copy) = self.copy.take() {
            copy.send(std::mem::take(&mut self.body).into());
        }
    }
}

impl<S> Drop for Hearing<S> {
    fn drop(&mut self) {
        if let Some(copy) = &self.copy {
            copy.shadow.shared.count(Reason::BodyNotRead);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const UPSTREAMS: &str = "upstreams: { a: { url: 'http://a' }, b: { url: 'http://b' }, c: { url: 'http://c', credential: { bearer: { env: PATH } } }, v: { url: 'https://us-central1-aiplatform.googleapis.com' }, r: { url: 'https://bedrock-runtime.us-east-1.amazonaws.com' } }";

    #[test]
    fn what_cannot_be_meant_is_told_with_its_key() {
        for (route, part) in [
            (
                "upstream: a, shadow: { upstream: x, share: 5% }",
                "routes[0].shadow.upstream: there is",
            ),
            ("upstream: a, shadow: { upstream: b }", "missing field `share`"),
            ("upstream: a, shadow: { upstream: b, share: 5 }", "`5` is not a ratio"),
            ("upstream: a, shadow: { upstream: b, share: 5%, at_a_time: 0 }", "at_a_time"),
            (
                "upstream: v, shadow: { upstream: r, share: 5% }",
                "routes[0].shadow: `r` speaks Bedrock",
            ),
        ] {
            let text = format!("{UPSTREAMS}\nroutes: [{{ {route} }}]");
            let error = Config::parse(&text).expect_err(route).to_string();
            assert!(error.contains(part), "{route}: {error}");
        }
    }

    #[test]
    fn a_shadow_that_callers_credentials_never_reach_is_told() {
        for (shadow, is_told) in [("b", true), ("c", false), ("a", false)] {
            let text = format!(
                "{UPSTREAMS}\nroutes: [{{ upstream: a, shadow: {{ upstream: {shadow}, share: 5% }} }}]"
            );
            let warnings = Config::parse(&text).expect("a good configuration").warnings();
            let about: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            let is_there = about.iter().any(|told| told.contains("copies no call that brings"));
            assert_eq!(is_there, is_told, "{about:?}");
        }
    }
}
