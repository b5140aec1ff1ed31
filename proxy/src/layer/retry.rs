//! Tries a call again that never left.
//!
//! An address that cannot be reached has seen nothing of the call, so the next one of the same
//! upstream may have it. What was sent, if only in part, is not sent again.

use std::task::{Context, Poll};

use tower::{Layer, Service, ServiceExt};

use crate::call::{Call, Failure, Reply};
use crate::stack::LocalFuture;

mod budget;

pub(crate) use budget::Budget;

/// Tries a call at so many addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryLayer {
    pub(crate) attempts: usize,
}

/// See [`RetryLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Retry<S> {
    inner: S,
    attempts: usize,
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, attempts: self.attempts }
    }
}

impl<S> Service<Call> for Retry<S>
where
    S: Service<Call, Response = Reply, Error = Failure, Future = LocalFuture> + Clone + 'static,
{
    type Response = Reply;
    type Error = Failure;
    type Future = LocalFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> LocalFuture {
        if self.attempts == 1 {
            return self.inner.call(call);
        }
        let (inner, attempts) = (self.inner.clone(), self.attempts);
        Box::pin(async move {
            let mut result = inner.clone().oneshot(call).await;
            for _ in 1..attempts {
                match result {
                    Err(Failure { unsent: Some(call), .. }) => {
                        call.notes.again();
                        result = inner.clone().oneshot(call).await;
                    }
                    _ => break,
                }
            }
            result
        })
    }
}
