//! How the bytes of a model call read, and what is kept of it.
//!
//! No socket, no clock, no task: the caller says what came and when, and gets a [`Record`].
//! Sidecar and load generator stand at both ends of a call with the same [`Observer`].

pub mod capture;
pub mod content;
pub mod exposition;
pub mod frame;
pub mod json;
pub mod proto;

mod client;
mod coding;
mod dialect;
mod facts;
mod glob;
mod grpc;
mod hints;
mod host;
mod http_body;
mod job;
mod kept;
mod left;
mod nested;
mod observer;
mod outcome;
mod price;
mod record;
mod reply;
mod request;
mod shape;
mod size;
mod times;
mod words;

pub use glob::glob;
pub use grpc::is_grpc;
pub use host::Host;
pub use observer::{Fault, Observer, Progress};
pub use outcome::{Ending, ErrorOrigin, Outcome};
pub use price::{Cost, DEFAULT_PRICES, Prices};
pub use record::{
    Asked, Attempt, CacheSource, Cached, Drain, DrainEnd, Id, Job, JobOutcome, Media, Moment,
    Quota, RateLimit, RateLimits, Record, SpanId, TraceId, UsageSource,
};
pub use shape::{Dialect, HeadView, Headers, Shape};
pub use size::{OUTPUT_CLASSES, SIZE_CLASSES, output_class};
