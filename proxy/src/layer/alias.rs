//! Asks for a model by the name that its upstream has for it.
//!
//! Only the name changes, in the path or in the body; a call whose name cannot be changed goes on as it
//! came, and its record says so. What is put here is this upstream's: whoever takes the call back to
//! send it elsewhere gets it as it was. This is how a model is called and no policy, so to bypass
//! policies changes nothing.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tower::ServiceExt;

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply, RequestBody};
use crate::head::Target;
use crate::hold::Keeping;
use crate::layer::{Below, Policy};
use crate::rewrite::{Changes, Names, names_model};
use crate::stack::LocalFuture;
use crate::whole;

/// The warning that a call went on by the name that it came with.
const NOT_APPLIED: &str = "alias_not_applied";

/// Puts an upstream's own names in the place of others; absent where it has none.
#[derive(Clone, Debug)]
pub(crate) struct AliasLayer(pub(crate) Option<Rc<Aliases>>);

/// What one upstream calls models, on one route.
#[derive(Debug)]
pub(crate) struct Aliases {
    /// Its own names, by those that callers use.
    pub(crate) names: Arc<BTreeMap<String, Arc<str>>>,
    /// The model that is asked here; absent where the caller says.
    pub(crate) model: Option<Rc<str>>,
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
        let renaming =
            self.0.as_ref().and_then(|aliases| Some((aliases, aliases.own_name(&call)?)));
        match renaming {
            None => below.call(call),
            Some((aliases, name)) => {
                Box::pin(ask_by(aliases.clone(), name.clone(), below.clone(), call))
            }
        }
    }

    fn look_on(&self, below: &mut S, call: Call, _: Rc<Bypass>) -> LocalFuture {
        self.call(below, call)
    }
}

/// Makes the call by this name.
async fn ask_by<S: Below>(
    aliases: Rc<Aliases>,
    name: Arc<str>,
    below: S,
    mut call: Call,
) -> Result<Reply, Failure> {
    aliases.hold(&mut call).await?;
    let names = Names { model: Some(&name), ..Names::default() };
    let may_change = aliases.signs || !call.is_signed();
    let Some(changes) = Changes::of(&call, &names).filter(|_| may_change) else {
        call.notes.record(|record| record.warnings.push(NOT_APPLIED.into()));
        return below.oneshot(call).await;
    };
    let original = Original::of(&call, &changes);
    call.notes.called(Some(name));
    let result = below.oneshot(changes.made(call)).await;
    result.map_err(|failure| original.put_back(failure))
}

// === impl Aliases ===

impl Aliases {
    /// The name that the upstream has for the model of this call, where that is another.
    fn own_name(&self, call: &Call) -> Option<&Arc<str>> {
        match &self.model {
            Some(model) => self.names.get(&**model),
            None => call.notes.observer(|observer| self.names.get(observer.model()?)),
        }
    }

    /// Holds the body, where it is there that the model is named.
    async fn hold(&self, call: &mut Call) -> Result<(), Failure> {
        let is_streamed = matches!(call.body, RequestBody::Http1(_) | RequestBody::Http2(_));
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
        let body = match &call.body {
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
