//! Takes a call elsewhere where its upstream will not do: another model, location or project,
//! another upstream, in the order that the route says.
//!
//! What the caller sent stays as it is but for the names that the target puts in their place.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply};
use crate::exchange::Notes;
use crate::layer::{Below, Policy};
use crate::rewrite::{Changes, Names};
use crate::stack::LocalFuture;
use crate::verdict::Verdict;

/// The field by which an answer says who gave it, where that is not whom the caller asked.
const FIELD: &str = "x-tidegate-fallback";

/// Where a call goes that its upstream cannot take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// The name of an upstream; the route's own where absent.
    pub upstream: Option<String>,
    /// The model to ask, in place of the one that was asked for.
    pub model: Option<String>,
    /// The location to name in the path, for Vertex AI.
    pub location: Option<String>,
    /// The project to name in the path, for Vertex AI.
    pub project: Option<String>,
    /// Taken off the front of the path.
    pub strip_prefix: Option<String>,
}

impl TargetConfig {
    /// What it puts into a call.
    pub(crate) fn names(&self) -> Names<'_> {
        let Self { upstream: _, model, location, project, strip_prefix } = self;
        Names {
            model: model.as_deref(),
            location: location.as_deref(),
            project: project.as_deref(),
            strip_prefix: strip_prefix.as_deref(),
        }
    }
}

/// The targets of one route beside its own upstream.
#[derive(Clone, Debug)]
pub(crate) struct FallbackLayer<S> {
    pub(crate) targets: Rc<[Target<S>]>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Target<S> {
    pub(crate) config: TargetConfig,
    pub(crate) upstream: Arc<str>,
    /// Whether the caller's own credential may go there.
    pub(crate) trusts_caller: bool,
    pub(crate) stack: S,
    /// Calls that went there.
    pub(crate) taken: Arc<AtomicU64>,
}

impl<S: Below> Policy<S> for FallbackLayer<S> {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        match self.targets.is_empty() {
            true => below.call(call),
            false => Box::pin(fall_back(self.clone(), below.clone(), call)),
        }
    }

    /// Whether the call would have gone there is for the retries to say: each target has its own.
    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture {
        if self.targets.iter().any(|target| target.may_have(&call)) {
            bypass.set_may_fall_back();
        }
        below.call(call)
    }
}

/// Tries one target after the other, until an answer will do.
async fn fall_back<S: Below>(
    targets: FallbackLayer<S>,
    mut below: S,
    call: Call,
) -> Result<Reply, Failure> {
    let notes = call.notes.clone();
    let mut spare = call.spare();
    let mut result = below.call(call).await;
    for (at, target) in targets.targets.iter().enumerate() {
        let verdict = verdict(&result, &notes);
        let is_late = notes.deadline().is_some_and(|due| Instant::now() >= due);
        let is_over = is_late || notes.left.goes_on();
        if !verdict.leads_on() || is_over {
            break;
        }
        // What came back unsent is the call itself; else it must be at hand, and one to repeat.
        let (was_sent, back) = match &mut result {
            Err(Failure { unsent: unsent @ Some(_), .. }) => (false, unsent.take()),
            _ => (true, spare.take()),
        };
        let Some(call) = back else { break };
        if was_sent && !call.may_repeat() {
            break;
        }
        let Some(changes) = target.takes(&call) else {
            // The next one may have it, as it was.
            match &mut result {
                Err(failure) if !was_sent => failure.unsent = Some(call),
                _ => spare = Some(call),
            }
            continue;
        };
        spare = call.spare();
        drop(result);
        notes.again(verdict);
        notes.moved(&target.upstream, at as u64 + 1, target.config.model.as_deref());
        target.taken.fetch_add(1, Relaxed);
        let answer = target.stack.clone().call(changes.made(call)).await;
        result = answer.map(|reply| target.named(reply));
    }
    result
}

/// What the last attempt came to.
fn verdict(result: &Result<Reply, Failure>, notes: &Notes) -> Verdict {
    match result {
        Err(Failure { error, unsent }) => Verdict::of_error(error, unsent.is_some()),
        Ok(_) => notes.settled().unwrap_or_else(|| Verdict::good(None)),
    }
}

impl<S> Target<S> {
    /// What the call gets to go there; nothing where it may not: nobody else sees its caller's
    /// credential, and a name that is to be put into it must be there.
    fn takes(&self, call: &Call) -> Option<Changes> {
        self.may_have(call).then(|| Changes::of(call, &self.config.names())).flatten()
    }

    fn may_have(&self, call: &Call) -> bool {
        self.trusts_caller || !call.has_credential()
    }

    /// The answer, with a field that says who gave it.
    fn named(&self, mut reply: Reply) -> Reply {
        let model = self.config.model.as_deref();
        let name = model.map_or_else(
            || self.upstream.to_string(),
            |model| format!("{}; model={model}", self.upstream),
        );
        reply.head.fields = reply.head.fields.with(FIELD, name.as_bytes());
        reply
    }
}

impl Call {
    /// Whether the caller sent a credential of its own.
    pub(crate) fn has_credential(&self) -> bool {
        let target = std::str::from_utf8(self.head.target.as_bytes()).unwrap_or("/");
        let is_credential = |(name, _): (&[u8], &[u8])| tidegate_credential::is_credential(name);
        self.head.fields.iter().any(is_credential)
            || tidegate_credential::without_credentials(target).len() != target.len()
    }
}
