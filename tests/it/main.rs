//! The sidecar from outside: a process, real sockets, and peers that do not always behave.

mod attacks;
mod corpus;
#[cfg(feature = "loadgen")]
mod demo;
mod drain;
mod endings;
mod failures;
mod http2;
mod messages;
mod pressure;
mod protocols;
mod refusals;
mod routing;
mod sdks;
mod support;
