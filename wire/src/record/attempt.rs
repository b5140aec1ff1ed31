//! One of several attempts of a call.

use std::sync::Arc;

/// An attempt of a call that took more than one. They stand in spans; a record's keys tell of the
/// last one and of their number.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The upstream that was tried.
    pub upstream: Option<Arc<str>>,
    /// Its host.
    pub server_address: Option<Arc<str>>,
    /// Its port.
    pub server_port: Option<u16>,
    /// The provider's region.
    pub region: Option<Arc<str>>,
    /// When it began: seconds from the start of the call.
    pub began_s: f64,
    /// When it was over, likewise.
    pub ended_s: f64,
    /// The status of its answer, where one came.
    pub status: Option<u16>,
    /// What went wrong, as a record's `error.type` says it.
    pub error_type: Option<String>,
}
