//! The sidecar from outside: a process, real sockets, and peers that do not always behave.

mod attacks;
mod corpus;
mod credentials;
#[cfg(feature = "loadgen")]
mod demo;
mod drain;
mod endings;
mod failures;
mod grpc;
mod http2;
mod include_usage;
mod jobs;
mod messages;
mod pressure;
mod prices;
mod protocols;
mod refusals;
mod reload;
mod routing;
mod sdks;
mod spans;
mod streams;
mod support;
mod upgrade;
