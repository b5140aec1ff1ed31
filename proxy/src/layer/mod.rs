//! The policies, one file each; `stack.rs` puts them in order.

pub(crate) mod alias;
pub(crate) mod breaker;
pub(crate) mod cache;
pub(crate) mod fallback;
pub(crate) mod include_usage;
pub(crate) mod limit;
pub(crate) mod quota;
pub(crate) mod repeatable;
pub(crate) mod retry;
pub(crate) mod shadow;

use std::rc::Rc;
use std::task::{Context, Poll};

use tower::layer::layer_fn;
use tower::{Layer, Service};

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply};
use crate::stack::LocalFuture;

/// Decides what becomes of a call before what lies below it. One that is not configured, or has
/// nothing to say, returns the future from below as it is.
pub(crate) trait Policy<S>: Clone {
    /// Takes the call.
    fn call(&self, below: &mut S, call: Call) -> LocalFuture;

    /// Looks on: judges and counts as ever, and lets the call go below as if nothing were configured.
    /// `bypass` is told where the policy would have acted.
    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture;
}

/// What a policy may lie before: a connection, or the next policy.
pub(crate) trait Below:
    Service<Call, Response = Reply, Error = Failure, Future = LocalFuture> + Clone + 'static
{
}

/// A policy before what lies below it.
#[derive(Clone, Debug)]
pub(crate) struct Before<P, S> {
    policy: P,
    below: S,
}

/// The layer of a policy.
pub(crate) fn before<P: Clone, S>(policy: P) -> impl Layer<S, Service = Before<P, S>> {
    layer_fn(move |below| Before { policy: policy.clone(), below })
}

impl<S> Below for S where
    S: Service<Call, Response = Reply, Error = Failure, Future = LocalFuture> + Clone + 'static
{
}

impl<P: Policy<S>, S: Below> Service<Call> for Before<P, S> {
    type Response = Reply;
    type Error = Failure;
    type Future = LocalFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> LocalFuture {
        match call.notes.bypass() {
            None => self.policy.call(&mut self.below, call),
            Some(bypass) => self.policy.look_on(&mut self.below, call, bypass),
        }
    }
}
