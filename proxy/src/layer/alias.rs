//! Puts into a call the names that it has where it goes: those of its arm, where its route has a split,
//! and for its model the one that its upstream has.
//!
//! Only names change, in the path or in the body; a call whose names cannot be changed goes on as it
//! came, and its record says so: it is then of no arm. What is put here is this upstream's: whoever takes the call back to
//! send it elsewhere gets it as it was. This is how a model is called and no policy, so to bypass
//! policies changes nothing.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tower::ServiceExt;

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply, RequestBody};
use crate::config::TargetConfig;
use crate::head::Target;
use crate::hold::Keeping;
use crate::layer::{Below, Policy};
use crate::rewrite::{Changes, Names, names_model};
use crate::stack::LocalFuture;
use crate::whole;

/// The warnings that a call went on by the names that it came with: without those of its upstream, or
/// of its arm.
const ALIAS_NOT_APPLIED: &str = "alias_not_applied";
const SPLIT_NOT_APPLIED: &str = "split_not_applied";

/// Puts names in the place of others; absent where there are none to put.
#[derive(Clone, Debug)]
pub(crate) struct AliasLayer(pub(crate) Option<Rc<Aliases>>);

/// What calls are called at one upstream, on one way of a route.
#[derive(Debug)]
pub(crate) struct Aliases {
    /// The upstream's own names of models, by those that callers use.
    pub(crate) names: Arc<BTreeMap<String, Arc<str>>>,
    /// The model that is asked here; absent where the caller says.
    pub(crate) model: Option<Arc<str>>,
    /// What all calls get here; nothing where they have it already.
    pub(crate) arm: TargetConfig,
    /// Whether calls are signed here, after their names were changed.
    pub(crate) signs: bool,
    pub(crate) keeping: Arc<Keeping>,
}

/// A call's name as it was.
struct Original {
    target: Target,
    /// Absent where the body stayed as it is.
    body: Option<Bytes>,
}

impl<S: Below> Policy<S> for AliasLayer {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        let Some(aliases) = &self.0 else { return below.call(call) };
        match aliases.name(&call) {
            None if !aliases.is_arm() => below.call(call),
            name => Box::pin(ask_by(aliases.clone(), name, below.clone(), call)),
        }
    }

    fn look_on(&self, below: &mut S, call: Call, _: Rc<Bypass>) -> LocalFuture {
        self.call(below, call)
    }
}

/// Makes the call for a model of this name, where one is given.
async fn ask_by<S: Below>(
    aliases: Rc<Aliases>,
    name: Option<Arc<str>>,
    below: S,
    mut call: Call,
) -> Result<Reply, Failure> {
    if name.is_some() {
        aliases.hold(&mut call).await?;
    }
    let names = Names { model: name.as_deref(), ..aliases.arm.names() };
    let may_change = aliases.signs || !call.head.is_signed();
    let Some(changes) = Changes::of(&call, &names).filter(|_| may_change) else {
        aliases.note_not_applied(&call);
        return below.oneshot(call).await;
    };
    let original = Original::of(&call, &changes);
    call.notes.called(name);
    let result = below.oneshot(changes.made(call)).await;
    result.map_err(|failure| original.put_back(failure))
}

// === impl Aliases ===

impl Aliases {
    /// Whether all calls get something here.
    fn is_arm(&self) -> bool {
        self.arm != TargetConfig::default()
    }

    /// What the model of this call is called here, where that is not as it is called already.
    fn name(&self, call: &Call) -> Option<Arc<str>> {
        let own = match &self.model {
            Some(model) => self.names.get(&**model),
            None => call.notes.observer(|observer| self.names.get(observer.model()?)),
        };
        own.or(self.model.as_ref().filter(|_| self.is_arm())).cloned()
    }

    /// The call goes on by the names that it came with.
    fn note_not_applied(&self, call: &Call) {
        call.notes.record(|record| match self.is_arm() {
            true => {
                record.warnings.push(SPLIT_NOT_APPLIED.into());
                record.split = None;
            }
            false => record.warnings.push(ALIAS_NOT_APPLIED.into()),
        });
    }

    /// Holds the body, where it is there that the model is named.
    async fn hold(&self, call: &mut Call) -> Result<(), Failure> {
        let is_streamed = matches!(*call.body, RequestBody::Http1(_) | RequestBody::Http2(_));
        let is_needed = is_streamed && !names_model(&call.head.target) && !call.is_grpc();
        if is_needed && whole::read_ahead(call, &self.keeping).await? {
            whole::take(call);
        }
        Ok(())
    }
}

// === impl Original ===

impl Original {
    fn of(call: &Call, changes: &Changes) -> Self {
        let body = match &*call.body {
            RequestBody::Full(body) if changes.has_body() => Some(body.clone()),
            _ => None,
        };
        Self { target: call.head.target.clone(), body }
    }

    /// The call goes to somebody else, perhaps, by the name that it came with.
    fn put_back(self, mut failure: Failure) -> Failure {
        if let Some(call) = &mut failure.unsent {
            call.head.target = self.target;
            call.notes.called(None);
            if let Some(body) = self.body {
                call.set_body(body);
            }
        }
        failure
    }
}
