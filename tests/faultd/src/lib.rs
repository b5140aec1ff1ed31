//! An upstream that fails as told. It writes its own bytes, so that it can send what no library
//! would, and counts what it saw, so that a test can say what an upstream should have seen.
//!
//! ```no_run
//! use tidegate_faultd::{Dialect::OpenAi, Faultd, Script, good, status};
//!
//! let upstream = Faultd::start(Script::sequence([status(503), good(OpenAi)]));
//! // ... two calls to upstream.url() ...
//! assert_eq!(upstream.attempts(), 2);
//! ```
//!
//! What it does with a request stands in its [`Script`], or in the request's own `x-fault` field
//! (see [`grammar`]); what it does before it has read one is the script's [`Door`].

mod answer;
mod dialect;
mod event_stream;
pub mod grammar;
mod http1;
mod http2;
mod perform;
mod request;
mod script;
mod server;
mod step;
mod tally;

pub use answer::{
    Answer, Cut, Form, Hint, Reads, any, garbage, good, raw, silent, status, with_two_lengths,
};
pub use dialect::{Dialect, Trouble, token};
pub use event_stream::message as event_stream_message;
pub use http2::{Frame, frame};
pub use request::Request;
pub use script::{Door, Manners, Script};
pub use server::Faultd;
pub use tally::{Call, Ended};

use std::time::Duration;

/// Where waiting for something ends in a panic. Nothing that works comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
