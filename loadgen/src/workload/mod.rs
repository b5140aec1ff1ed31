//! What to ask: requests, ready to be sent.

mod mix;
mod synthetic;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tidegate_wire::Dialect;

pub use mix::{Entry, Mix, Operation};
pub use synthetic::Synthetic;

/// One call to be made, but for the address that it goes to.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST`, mostly.
    pub method: Method,
    /// Path and query, percent-encoded as they go onto the wire.
    pub path: String,
    /// The headers beside those that the transport itself sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whose interface it speaks.
    pub dialect: Dialect,
    /// The name under which the call is counted: its model, even where the wire names none.
    pub label: Arc<str>,
    /// The route under which the call is counted.
    pub route: Arc<str>,
    /// Whether the answer is asked for as a stream.
    pub stream: bool,
}
