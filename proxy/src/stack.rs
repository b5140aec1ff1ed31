//! The policies that a call passes, in order, top to bottom.

use std::pin::Pin;
use std::rc::Rc;

use tower::ServiceBuilder;

use crate::call::{Failure, Reply};
use crate::layer::include_usage::{IncludeUsageLayer, WithUsage};
use crate::layer::retry::{Retry, RetryLayer};
use crate::policies::UpstreamPolicies;
use crate::upstream::{Forward, Upstream};

/// A call on its way, on the worker that owns its caller.
pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = Result<Reply, Failure>>>>;

/// What stands between a route and its upstream.
pub(crate) type Stack = WithUsage<Retry<Forward>>;

/// Addresses that one call is tried at, at most.
const MAX_ATTEMPTS: usize = 3;

/// The stack of one route.
pub(crate) fn stack(
    upstream: Rc<Upstream>,
    policies: &UpstreamPolicies,
    include_usage: IncludeUsageLayer,
) -> Stack {
    ServiceBuilder::new()
        // Above the retries, so that a body is read and changed once, whoever gets it.
        .layer(include_usage)
        // Above the connection, so that every attempt may take another address.
        .layer(RetryLayer { attempts: upstream.choices().min(MAX_ATTEMPTS) })
        .service(Forward { upstream })
}
