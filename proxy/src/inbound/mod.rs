//! Callers' connections, by protocol.

pub(crate) mod http1;
pub(crate) mod http2;
