//! How the bytes of a model call read, and what is kept of it.
//!
//! No socket, no clock, no task: the caller says what came and when, and gets a [`Record`].
//! Sidecar and load generator stand at both ends of a call with the same [`Observer`].

pub mod frame;
pub mod json;

mod client;
mod dialect;
mod facts;
mod host;
mod nested;
mod observer;
mod outcome;
mod record;
mod reply;
mod request;
mod shape;
mod words;

pub use host::Host;
pub use observer::Observer;
pub use outcome::{Ending, ErrorOrigin, Outcome};
pub use record::{Id, Record, SpanId, TraceId, UsageSource};
pub use shape::{Dialect, HeadView, Headers, Shape};
