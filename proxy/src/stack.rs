//! The policies that a call passes, in order, top to bottom.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tower::ServiceBuilder;

use crate::call::{Failure, Reply};
use crate::config::{RouteConfig, TargetConfig};
use crate::hold::Keeping;
use crate::layer::alias::{AliasLayer, Aliases};
use crate::layer::breaker::BreakerLayer;
use crate::layer::cache::CacheLayer;
use crate::layer::fallback::FallbackLayer;
use crate::layer::include_usage::IncludeUsageLayer;
use crate::layer::limit::LimitLayer;
use crate::layer::quota::QuotaLayer;
use crate::layer::repeatable::RepeatableLayer;
use crate::layer::retry::{RetryConfig, RetryLayer, Terms};
use crate::layer::shadow::ShadowLayer;
use crate::layer::{Before, Below, before};
use crate::policies::UpstreamPolicies;
use crate::split::Way;
use crate::upstream::{Forward, Upstream};

/// A call on its way, on the worker that owns its caller.
pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = Result<Reply, Failure>>>>;

/// What stands between a route and its upstreams.
pub(crate) type Stack<S = Forward> = Before<CacheLayer, Before<QuotaLayer, BesideShadow<S>>>;

/// What may copy a call.
type BesideShadow<S> = Before<ShadowLayer<Shadowed<S>>, BeforeAttempts<S>>;

/// What stands before the upstream that copies go to: nothing that would judge it by them.
pub(crate) type Shadowed<S> = Before<AliasLayer, S>;

/// What makes a call ready for its attempts.
type BeforeAttempts<S> = Before<IncludeUsageLayer, Before<RepeatableLayer, BeforeTargets<S>>>;

/// What chooses among the targets.
type BeforeTargets<S> = Before<FallbackLayer<Target<S>>, Target<S>>;

/// What stands before one upstream.
pub(crate) type Target<S = Forward> =
    Before<AliasLayer, Before<RetryLayer, Before<BreakerLayer, Before<LimitLayer, S>>>>;

/// Addresses that one call is tried at, at most, where nothing was sent.
const MAX_ADDRESSES: u32 = 3;

/// The stack of one route.
pub(crate) fn stack<S: Below>(
    target: Target<S>,
    cache: CacheLayer,
    quota: QuotaLayer,
    shadow: ShadowLayer<Shadowed<S>>,
    include_usage: IncludeUsageLayer,
    repeatable: RepeatableLayer,
    fallback: FallbackLayer<Target<S>>,
) -> Stack<S> {
    ServiceBuilder::new()
        // Above all else: what has an answer already costs nothing, and what is kept is what callers
        // get.
        .layer(before(cache))
        // Above all that costs anything, so that a call which may not be made has cost nothing.
        .layer(before(quota))
        // Below what lets a call in, and above all that changes it: the copy is of what was sent.
        .layer(before(shadow))
        // Above the attempts, so that a body is read and changed once, whoever gets it.
        .layer(before(include_usage))
        // Likewise; and below what changes it, so that the changed one is at hand.
        .layer(before(repeatable))
        // Above the retries: each target has those that it is worth.
        .layer(before(fallback))
        .service(target)
}

/// The stack before one upstream, for one way of a route, at this place among its targets: its own is
/// at 0.
/// `end` sends a call there.
pub(crate) fn target<S: Below>(
    upstream: &Upstream,
    end: S,
    policies: &UpstreamPolicies,
    way: &Way,
    place: usize,
    keeping: &Arc<Keeping>,
) -> Target<S> {
    // What a target is to get beside, it has got when it was fallen back to.
    let (config, own) = match place.checked_sub(1) {
        Some(place) => (&way.route.fallback[place], TargetConfig::default()),
        None => (&way.names, way.names.clone()),
    };
    let model = config.model.as_deref();
    let addresses = u32::try_from(upstream.choices()).unwrap_or(u32::MAX);
    let retry = RetryLayer {
        addresses: addresses.min(MAX_ADDRESSES),
        terms: terms(&way.route, policies, place).map(Arc::new),
    };
    let breaker = BreakerLayer::new(upstream, policies.breakers.clone(), model);
    let limit = LimitLayer { limits: policies.limits.clone(), model: model.map(Rc::from) };
    ServiceBuilder::new()
        // Above the retries, so that a call is renamed once; below the fallback, so that each upstream
        // is asked by its own name.
        .layer(before(alias(upstream, own, model, keeping)))
        // Above the connection, so that every attempt may take another address.
        .layer(before(retry))
        // Below the retries, so that each attempt is judged, and above the limit, so that nobody queues
        // for what is shut.
        .layer(before(breaker))
        // Every attempt takes a place of its own, and none while it waits for another.
        .layer(before(limit))
        .service(end)
}

/// The stack before an upstream that copies go to, which get these names.
pub(crate) fn shadowed<S: Below>(
    upstream: &Upstream,
    end: S,
    names: TargetConfig,
    keeping: &Arc<Keeping>,
) -> Shadowed<S> {
    let model = names.model.clone();
    let alias = alias(upstream, names, model.as_deref(), keeping);
    ServiceBuilder::new().layer(before(alias)).service(end)
}

/// The names that an arm puts into its calls, and those that this upstream has for models.
fn alias(
    upstream: &Upstream,
    arm: TargetConfig,
    model: Option<&str>,
    keeping: &Arc<Keeping>,
) -> AliasLayer {
    let names = &upstream.spec.aliases;
    let is_needed = !names.is_empty() || arm != TargetConfig::default();
    let aliases = || Aliases {
        names: names.clone(),
        model: model.map(Arc::from),
        arm,
        signs: upstream.has_credential(),
        keeping: keeping.clone(),
    };
    AliasLayer(is_needed.then(aliases).map(Rc::new))
}

/// When calls of this route are made again; absent where answers need not even be looked at.
fn terms(route: &RouteConfig, policies: &UpstreamPolicies, place: usize) -> Option<Terms> {
    let is_needed = route.retry.is_some() || !route.fallback.is_empty();
    is_needed.then(|| Terms {
        config: route.retry.clone(),
        following: u32::try_from(route.fallback.len() - place).unwrap_or(u32::MAX),
        hold: hold(route),
        budget: policies.budget.clone(),
        tally: policies.tally.clone(),
    })
}

/// How long the head of a stream is held.
fn hold(route: &RouteConfig) -> Duration {
    route.retry.as_ref().map_or(RetryConfig::default().hold.0, |retry| retry.hold.0)
}
