//! The sidecar from outside: a process, real sockets, and peers that do not always behave.

mod attacks;
mod corpus;
#[cfg(feature = "loadgen")]
mod demo;
mod endings;
mod failures;
mod messages;
mod refusals;
mod support;
